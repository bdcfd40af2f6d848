"""How a pipeline is found by name, and the recipe from which a worker builds it."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from lsbatch.config.sources import nearest
from lsbatch.errors import ConfigError, RefusedError
from lsbatch.label_config import LabelConfig
from lsbatch.ports import MediaReader, Pipeline, PipelineContext
from lsbatch.predictor import Predictor, printing_aside, raised
from lsbatch.shipping import located, pack
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient
from lsbatch_connectors.media import MediaOptions, UriMedia

__all__ = ["MediaSpec", "PipelineSpec", "choose_pipeline", "load_pipeline", "pipelines"]

GROUP = "lsbatch.pipelines"
CONTRACT = "The contract is lsbatch.ports.Pipeline; lsbatch.testing.check_pipeline checks it."


def pipelines() -> dict[str, EntryPoint]:
    """The installed pipelines by name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def choose_pipeline(label_config: LabelConfig) -> str:
    """The name of the first installed pipeline that can serve the label config.

    Raises:
        RefusedError: none can; says why for each.
    """
    reasons = []
    for name in sorted(pipelines()):
        try:
            why = _why_not(name, _class(name, _installed(name)), label_config)
        except ConfigError as error:  # a broken one must not stand in the way of the others
            why = str(error)
        if why is None:
            return name
        reasons.append(f"  {name}: {why}")
    raise RefusedError(
        "\n".join(["no installed pipeline can serve the project's label config", *reasons]),
        hint="Write your own and name it in pipeline.name as my_module:MyPipeline; README, Your own pipeline.",
    )


def load_pipeline(name: str, folder: Path, label_config: LabelConfig) -> type[Pipeline]:
    """The pipeline of this name: an installed one, or ``my_module:MyPipeline``, looked up in ``folder`` too.

    Raises:
        ConfigError: there is none, or its module cannot be imported.
        RefusedError: it cannot serve the label config.
    """
    pipeline = _class(name, _import(name, folder) if ":" in name else _installed(name))
    if why := _why_not(name, pipeline, label_config):
        raise RefusedError(
            f"pipeline {name} cannot serve the project's label config: {why}",
            hint="Choose another pipeline (pipeline.name), or change the label config.",
        )
    return pipeline


def _class(name: str, found: object) -> type[Pipeline]:
    lacking = [method for method in ("why_not", "build", "predict") if not callable(getattr(found, method, None))]
    if not isinstance(found, type) or lacking:
        what = f"it lacks {', '.join(lacking)}" if isinstance(found, type) else "it is no class"
        raise ConfigError(f"pipeline.name: {name} is not a pipeline: {what}", hint=CONTRACT)
    return cast("type[Pipeline]", found)


def _why_not(name: str, pipeline: type[Pipeline], label_config: LabelConfig) -> str | None:
    try:
        with printing_aside():
            return pipeline.why_not(label_config)
    except (Exception, SystemExit) as error:  # somebody else's code
        raise ConfigError(f"pipeline.name: {name}: why_not() raised {raised(error)}", hint=CONTRACT) from error


def _installed(name: str) -> object:
    known = pipelines()
    if name not in known:
        raise ConfigError(
            f"pipeline.name: {name} is not installed{nearest(name, known)}",
            hint=f"There are {', '.join(sorted(known))}. Your own pipeline is named my_module:MyPipeline.",
        )
    try:
        with printing_aside():
            return known[name].load()
    except (Exception, SystemExit) as error:  # somebody else's package
        raise ConfigError(f"pipeline.name: {name}: cannot be imported: {raised(error)}") from error


def _import(name: str, folder: Path) -> object:
    module_name, _, path = name.partition(":")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        with printing_aside(), _without_bytecode():
            found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # somebody else's module: anything may come
        raise ConfigError(
            f"pipeline.name: {name}: the module cannot be imported: {raised(error)}",
            hint=f"It is looked for in {folder} and among the installed packages.",
        ) from error
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise ConfigError(f"pipeline.name: {name}: there is no {attribute!r}{nearest(attribute, dir(found))}")
        found = getattr(found, attribute)
    return found


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """On a full disk Python leaves half a file of it, and cannot import the module again."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@dataclass(frozen=True)
class MediaSpec:
    """How to read media; picklable. The connection's repr hides the token."""

    options: MediaOptions
    connection: ConnectionOptions

    def reader(self) -> MediaReader:
        """A reader with connections of its own."""
        return UriMedia(self.options, _Authorization(self.connection))


class _Authorization:
    """The header's value; connects when it is first needed, since most projects of text never need it."""

    def __init__(self, connection: ConnectionOptions) -> None:
        self._connection = connection

    @cached_property
    def _client(self) -> LabelStudioClient:
        return LabelStudioClient(self._connection)

    def __call__(self) -> str:
        return self._client.authorization()


@dataclass(frozen=True)
class PipelineSpec:
    """The recipe of a predictor: small, picklable, without open connections.

    Attributes:
        pipeline: the pipeline's name.
        folder: where ``my_module`` is looked for.
        params: ``pipeline.params`` of the configuration.
        label_config: its text.
        model_version: what predictions carry.
        model_dir: folder of the model's files; None for a pipeline without a model.
        media: how to read what tasks point at.
        score: what the predictions' scores should be, as ``PipelineContext.score``.
    """

    pipeline: str
    folder: str
    params: Mapping[str, Any]
    label_config: str
    model_version: str
    model_dir: str | None
    media: MediaSpec = field(repr=False)
    score: str = "confidence"

    @property
    def key(self) -> str:
        """See ``PredictorFactory.key``."""
        parts = [self.pipeline, self.folder, self.params, self.label_config, self.model_version, self.model_dir]
        parts.append(self.score)
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def parcels(self) -> dict[str, bytes]:
        """See ``PredictorFactory.parcels``: the model's files, and the user's own module if it lies in ``folder``.

        Modules beside the user's own go with it, since it may import them.
        """
        found = {}
        if self.model_dir is not None:
            folder = Path(self.model_dir)
            found[self.model_dir] = pack(folder, _files(folder))
        top = self.pipeline.partition(":")[0].partition(".")[0] if ":" in self.pipeline else ""
        here = Path(self.folder)
        package = _files(here / top) if top and (here / top).is_dir() else []
        if package or (top and (here / f"{top}.py").is_file()):
            found[self.folder] = pack(here, [*package, *here.glob("*.py")])
        return found

    def __call__(self) -> Predictor:
        """See ``PredictorFactory``."""
        pipeline, context = self.loaded()
        return Predictor.build(pipeline, context, name=self.pipeline)

    def loaded(self) -> tuple[type[Pipeline], PipelineContext]:
        """The pipeline, found in this process, and what it is built or trained from.

        Raises:
            ConfigError, RefusedError: as ``load_pipeline``.
        """
        label_config = LabelConfig(self.label_config)
        context = PipelineContext(
            label_config=label_config,
            params=self.params,
            media=self.media.reader(),
            model_version=self.model_version,
            model_dir=None if self.model_dir is None else located(self.model_dir),
            score=self.score,
        )
        return load_pipeline(self.pipeline, located(self.folder), label_config), context


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
