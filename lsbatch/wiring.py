"""The composition root: turns configured names into objects. Nothing else picks a class by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from lsbatch.budget import ErrorBudget
from lsbatch.config import Loaded
from lsbatch.config.chosen import chosen
from lsbatch.entities import check_model_version
from lsbatch.errors import ConfigError
from lsbatch.label_config import LabelConfig
from lsbatch.operations.importing import ImportOptions
from lsbatch.operations.models import promoted, trained
from lsbatch.operations.run_setup import RunOptions
from lsbatch.operations.selecting import Resolved, resolve, selection_json
from lsbatch.operations.sending import SendOptions
from lsbatch.pipeline_spec import MediaSpec, PipelineSpec, choose_pipeline, load_pipeline
from lsbatch.ports import ModelStore, Pipeline, PipelineContext, ProjectInfo, Selection, Trainable
from lsbatch.promotions import Lineage
from lsbatch.server_key import server_key
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient, LabelStudioProject
from lsbatch_connectors.media import MediaOptions
from lsbatch_connectors.model_store import FsspecModelStore

__all__ = ["Bench"]

logger = logging.getLogger(__name__)

#: Single creates side by side, on a server that is not seen to take one at a time.
WRITERS = 3
#: Ranges of ids read side by side, likewise.
READERS = 2


class Bench:
    """Everything that one command needs, made when it is first asked for.

    Args:
        loaded: the effective configuration.
        retry_seconds: instead of the configured time, for commands that should answer at once.
    """

    def __init__(self, loaded: Loaded, *, retry_seconds: float | None = None) -> None:
        self.loaded = loaded
        self.config = loaded.config
        self._retry_seconds = retry_seconds

    # -------------------------------------------------------------------------------------------- Label Studio

    @cached_property
    def connection(self) -> ConnectionOptions:
        """Where Label Studio is, and with which token.

        Raises:
            ConfigError: the address or the token is missing.
        """
        options = self.config.label_studio
        missing = []
        if not options.url:
            missing.append("label_studio.url: not set; set LABEL_STUDIO_URL")
        if options.api_key is None:
            missing.append("label_studio.api_key: not set; set LABEL_STUDIO_API_KEY")
        if missing:
            raise ConfigError(
                "\n".join(["Label Studio is not configured", *(f"  {line}" for line in missing)]),
                hint="The token is in Label Studio under Account & Settings > Access Token.",
            )
        assert options.url is not None
        assert options.api_key is not None
        return ConnectionOptions(
            url=options.url,
            token=options.api_key.get_secret_value(),
            connect_seconds=options.connect_seconds,
            read_seconds=options.read_seconds,
            write_seconds=options.write_seconds,
            retry_seconds=options.retry_seconds if self._retry_seconds is None else self._retry_seconds,
            verify_tls=options.verify_tls,
            max_requests_per_second=options.max_requests_per_second,
        )

    @cached_property
    def client(self) -> LabelStudioClient:
        """The connection."""
        return LabelStudioClient(self.connection)

    @property
    def project_id(self) -> int:
        """The configured project.

        Raises:
            ConfigError: none is.
        """
        if self.config.project is None:
            raise ConfigError("project: not set", hint="Give --project ID; the id is in the project's address.")
        return self.config.project

    @cached_property
    def project(self) -> LabelStudioProject:
        """The project's tasks, annotations and predictions."""
        project_id = self.project_id
        return LabelStudioProject(self.client, project_id)

    @cached_property
    def info(self) -> ProjectInfo:
        """What Label Studio says of the project."""
        return self.project.project()

    @cached_property
    def label_config(self) -> LabelConfig:
        """The project's label config.

        Raises:
            RefusedError: there is none, or it cannot be read.
        """
        return LabelConfig(self.info.label_config)

    # -------------------------------------------------------------------------------------------- the disk

    @cached_property
    def folder(self) -> Path:
        """State of this project of this server: two servers never mix."""
        return self.loaded.state_dir / server_key(self.connection.url) / f"project-{self.project_id}"

    @cached_property
    def runs(self) -> Path:
        """The folder of the project's runs."""
        return self.folder / "runs"

    @cached_property
    def models_url(self) -> str:
        """Where the model versions are."""
        return self.config.models.url or str(self.folder / "models")

    @cached_property
    def store(self) -> ModelStore:
        """The model versions of the project."""
        return FsspecModelStore(self.models_url, cache_dir=self.loaded.state_dir / "cache" / "models")

    # -------------------------------------------------------------------------------------------- the pipeline

    @cached_property
    def pipeline_name(self) -> str:
        """The configured pipeline, else the built-in one that can serve the label config."""
        return self.config.pipeline.name or choose_pipeline(self.label_config)

    @cached_property
    def pipeline_class(self) -> type[Pipeline]:
        """The pipeline, found to fit the label config.

        Raises:
            ConfigError: no such pipeline.
            RefusedError: it cannot serve the label config.
        """
        return load_pipeline(self.pipeline_name, self.loaded.folder, self.label_config)

    @cached_property
    def trainable(self) -> type[Trainable]:
        """The pipeline as one that learns.

        Raises:
            ConfigError: it does not.
        """
        if not hasattr(self.pipeline_class, "fit"):
            raise ConfigError(
                f"pipeline.name: {self.pipeline_name} cannot be trained",
                hint="Give it a fit() as lsbatch.ports.Trainable says, or just run lsbatch predict.",
            )
        return cast("type[Trainable]", self.pipeline_class)

    @cached_property
    def model_version(self) -> str:
        """The version that predictions carry: the configured one, the one promoted last, or the pipeline's own.

        Raises:
            ConfigError: there is none.
        """
        wanted = self.config.pipeline.model_version
        if not hasattr(self.pipeline_class, "fit"):
            version = wanted or str(getattr(self.pipeline_class, "model_version", ""))
            if not version:
                raise ConfigError(
                    f"pipeline.model_version: not set, and {self.pipeline_name} has none of its own",
                    hint="Give --model-version, or set model_version in the pipeline's class.",
                )
            return check_model_version(version, setting="pipeline.model_version")
        if wanted:
            return self.store.get(wanted).name
        if in_use := promoted(self.store, self.lineage):
            return in_use[-1]
        if there := trained(self.store, self.lineage):
            raise ConfigError(
                f"no model version of project {self.project_id} is promoted; {there[-1].name} is stored",
                hint=f"Take one into use: lsbatch models promote {there[-1].name} --project {self.project_id}",
            )
        raise ConfigError(
            f"no model of {self.pipeline_name} is trained for project {self.project_id} yet (in {self.store.url})",
            hint=f"Train one from the project's annotations: lsbatch retrain --project {self.project_id}",
        )

    @cached_property
    def lineage(self) -> Lineage:
        """What the models are for: a store that models.url names may hold those of other projects and servers too."""
        return Lineage(self.pipeline_name, server_key(self.connection.url), self.project_id)

    @cached_property
    def spec(self) -> PipelineSpec:
        """The recipe that workers build the predictor from."""
        trained = hasattr(self.pipeline_class, "fit")
        folder = str(self.store.fetch(self.model_version)) if trained else None
        return replace(self.untrained, model_version=self.model_version, model_dir=folder)

    @cached_property
    def untrained(self) -> PipelineSpec:
        """The same without a model, for workers that train."""
        return PipelineSpec(
            pipeline=self.pipeline_name,
            folder=str(self.loaded.folder),
            params=dict(self.config.pipeline.params),
            label_config=self.label_config.text,
            model_version="",
            model_dir=None,
            media=self.media,
            score=self.config.inference.score,
        )

    @cached_property
    def media(self) -> MediaSpec:
        """How workers read what tasks point at."""
        options = self.config.media
        return MediaSpec(
            MediaOptions(
                base_url=self.connection.url.rstrip("/"),
                connect_seconds=options.connect_seconds,
                read_seconds=options.read_seconds,
                max_bytes=int(options.max_mb * 1_000_000),
                verify_tls=self.connection.verify_tls,
            ),
            self.connection,
        )

    @property
    def training_context(self) -> PipelineContext:
        """What a pipeline is trained with."""
        return PipelineContext(self.label_config, dict(self.config.pipeline.params), self.media.reader())

    # -------------------------------------------------------------------------------------------- options of the verbs

    @cached_property
    def selection(self) -> Selection:
        """The configured selection, whatever predictions there are.

        Raises:
            ConfigError: a file that it names cannot be read, or holds something else.
        """
        return chosen(self.config.selection, now=datetime.now(UTC))

    @property
    def readers(self) -> int:
        """Ranges of task ids that are read side by side."""
        return self.config.export.readers or (1 if self.info.one_writer else READERS)

    def resolved_selection(self, model_version: str) -> Resolved:
        """Which tasks a run of this version takes.

        Raises:
            ConfigError: as ``selection``, and as ``lsbatch.operations.selecting.resolve``.
        """
        return resolve(
            self.config.selection.select,
            self.selection,
            version=model_version,
            runs_folder=self.runs,
            source=self.project,
            label_config_hash=self.label_config.hash,
            data_keys=self.data_keys,
        )

    @property
    def data_keys(self) -> tuple[str, ...]:
        """Keys of the tasks' data that the pipeline reads: as it says, else those of the label config's controls.

        Raises:
            ConfigError: the pipeline's own method fails.
        """
        own = getattr(self.pipeline_class, "data_keys", None)
        if own is None:
            return tuple(control.data_key for control in self.label_config.controls if control.data_key)
        try:
            return tuple(str(key) for key in own(self.label_config))
        except Exception as error:  # somebody else's code
            raise ConfigError(
                f"pipeline {self.pipeline_name}: data_keys() failed: {type(error).__name__}: {error}"
            ) from error

    @property
    def selection_settings(self) -> dict[str, Any]:
        """The selection as it decides whether a run can be continued: an age such as 7d stays what it is."""
        choice = self.config.selection
        times = {"created_since": choice.since, "created_until": choice.until}
        return {"select": choice.select, **selection_json(self.selection), **times}

    @property
    def import_options(self) -> ImportOptions:
        """How predictions are sent."""
        options = self.config.import_
        return ImportOptions(
            batch_rows=options.batch_rows,
            request_seconds=options.request_seconds,
            sending=SendOptions(
                max_body_bytes=options.max_body_bytes,
                write_seconds=self.connection.write_seconds,
                settle_seconds=options.settle_seconds,
                retry_seconds=self.connection.retry_seconds,
                writers=options.writers or (1 if self.info.one_writer else WRITERS),
            ),
        )

    def run_options(self, selection: Selection, *, replace: bool, dry_run: bool) -> RunOptions:
        """What a run does.

        Args:
            selection: which tasks.
            replace: delete what they carry of the version in favour of the new prediction.
            dry_run: write nothing to Label Studio.
        """
        return RunOptions(
            selection=selection,
            replace=replace,
            chunk_size=self.config.inference.chunk_size,
            readers=self.readers,
            dry_run=dry_run,
            activate=self.config.import_.activate,
            repair_counters=self.config.import_.repair_counters == "auto",
            budget=ErrorBudget.parse(self.config.run.max_failures),
            importing=self.import_options,
        )

    def manifest(self, operation: str, model_version: str, *, origin: str, dry_run: bool) -> dict[str, Any]:
        """What a run is asked to do, for its directory. Holds no secret.

        Args:
            operation: the verb.
            model_version: of the predictions.
            origin: where the predictions come from: a pipeline's name, or a file.
            dry_run: nothing is written to Label Studio.
        """
        return {
            **self._asked(operation),
            "model_version": model_version,
            "origin": origin,
            "params": dict(self.config.pipeline.params),
            "score": self.config.inference.score,
            "label_config_hash": self.label_config.hash,
            "dry_run": dry_run,
        }

    def action_manifest(
        self, operation: str, model_versions: Iterable[str], *, origin: Mapping[str, Any]
    ) -> dict[str, Any]:
        """As ``manifest``, of a run that acts on stored predictions and needs neither pipeline nor label config.

        Args:
            operation: the verb.
            model_versions: of the predictions.
            origin: what it is asked to do with them, besides the selection.
        """
        origin_text = json.dumps(origin, sort_keys=True)
        return {**self._asked(operation), "model_versions": sorted(model_versions), "origin": origin_text}

    def _asked(self, operation: str) -> dict[str, Any]:
        """What every manifest says."""
        return {
            "operation": operation,
            "lsbatch": metadata.version("lsbatch"),
            "server": self.connection.url.rstrip("/"),
            "project": self.project_id,
            "selection": self.selection_settings,
        }
