"""Which model a configured project is served with: the version that ``lsbatch predict`` would import."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from lsbatch.config import Loaded, settings
from lsbatch.config.sources import CONFIG_VARIABLE
from lsbatch.entities import Task
from lsbatch.errors import LsbatchError, TransientError
from lsbatch.label_config import LabelConfig
from lsbatch.operations.models import promoted, trained
from lsbatch.pipeline_spec import PipelineSpec, load_pipeline
from lsbatch.ports import Selection
from lsbatch.serving.model import Served
from lsbatch.wiring import Bench

__all__ = ["ProjectSource", "training_command", "training_environment"]

logger = logging.getLogger(__name__)


class ProjectSource:
    """See ``Models``. Called from one thread at a time.

    Args:
        loaded: the configuration.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._bench: Bench | None = None
        self._sample: Sequence[Task] | None = None

    def __call__(self, *, fresh: bool) -> Served | None:
        """See ``ModelSource.__call__``."""
        bench = self._renewed(fresh=fresh)
        # First, since a pipeline that does not fit is an error whether it is trained or not.
        trains = hasattr(bench.pipeline_class, "fit")
        if trains and not bench.config.pipeline.model_version and not promoted(bench.store, bench.lineage):
            version = str(getattr(bench.pipeline_class, "untrained_version", ""))
            return self._served(bench, replace(bench.untrained, model_version=version)) if version else None
        return self._served(bench, bench.spec)

    def _served(self, bench: Bench, recipe: PipelineSpec) -> Served:
        if self._sample is None:
            self._sample = self._some(bench)
        return Served(
            recipe=recipe,
            pipeline=bench.pipeline_name,
            model_version=recipe.model_version,
            label_config=bench.label_config.text,
            data_keys=bench.data_keys,
            sample=self._sample,
        )

    def versions(self) -> list[str]:
        """See ``Models.versions``."""
        bench = self._bench or self._renewed(fresh=True)
        if not hasattr(bench.pipeline_class, "fit"):
            return [bench.model_version]
        return [version.name for version in trained(bench.store, bench.lineage)]

    def why_not(self, label_config: str) -> str | None:
        """See ``Models.why_not``."""
        bench = self._bench or self._renewed(fresh=True)
        try:
            load_pipeline(bench.pipeline_name, self._loaded.folder, LabelConfig(label_config))
        except LsbatchError as error:
            return str(error)
        return None

    def _renewed(self, *, fresh: bool) -> Bench:
        """A bench that looks at the store again, and at Label Studio only if asked to."""
        before = self._bench
        # Whoever waits for an answer asks again soon; nothing is gained by trying on and on meanwhile.
        bench = Bench(self._loaded, retry_seconds=0.0)
        if before is not None:
            bench.client, bench.project = before.client, before.project
        if before is not None and not fresh:
            bench.info, bench.pipeline_name = before.info, before.pipeline_name
        self._bench = bench
        return bench

    def _some(self, bench: Bench) -> Sequence[Task]:
        """One task to warm up with, where there is one."""
        try:
            page = next(iter(bench.project.pages(Selection(limit=1))), None)
        except TransientError as error:
            logger.warning("the model is warmed up without a task: %s", error)
            return ()
        return () if page is None else tuple(page.tasks[:1])


def training_command() -> list[str]:
    """The command that trains with the same configuration, given ``training_environment``."""
    return [sys.executable, "-m", "lsbatch.cli.tether", "retrain", "--json", "--wait", "600s"]


def training_environment(loaded: Loaded, environ: dict[str, str] | None = None) -> dict[str, str]:
    """The environment in which ``lsbatch retrain`` finds the configuration that this process has.

    Args:
        loaded: the configuration; what flags gave it goes into variables.
        environ: the environment of this process by default.
    """
    found = dict(os.environ if environ is None else environ)
    if loaded.file is not None:
        found[CONFIG_VARIABLE] = str(loaded.file)
    for path, value, origin in loaded.rows():
        if origin.startswith("flag") and (names := settings()[path].env):
            found[names[0]] = value
    return found
