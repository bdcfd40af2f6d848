"""What can be set: names, types, limits, defaults, and a description of each for the example file."""

from __future__ import annotations

from typing import Literal

from lsbatch.config.serve import Serve
from lsbatch.config.setting import Section, section, setting
from lsbatch.config.values import (
    Dashboard,
    Duration,
    Filters,
    Float,
    Folder,
    HttpUrl,
    Int,
    MaxFailures,
    MemoryLimit,
    Params,
    PipelineName,
    Scheduler,
    Time,
    Token,
    Version,
    duration_seconds,
)

__all__ = ["Config"]

MB = 1_000_000


class LabelStudio(Section):
    """``label_studio``."""

    url: HttpUrl | None = setting(
        None,
        "Address of Label Studio.",
        example="http://localhost:8080",
        env=("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"),
    )
    api_key: Token | None = setting(
        None,
        "Token of a user who may read the project and write predictions. Better left empty here: whoever reads this"
        " file reads the token too.",
        env=("LABEL_STUDIO_API_KEY",),
        secret=True,
    )
    connect_seconds: Float = setting(5.0, "Longest wait for a connection, in seconds.", gt=0)
    read_seconds: Float = setting(60.0, "Longest silence of the server while it is read from, in seconds.", gt=0)
    write_seconds: Float = setting(
        120.0, "Longest time that the server may work on a request that writes, in seconds.", gt=0
    )
    retry_seconds: Float = setting(
        120.0,
        "How long a request that the server surely did not take is tried again, in seconds; 0 = not at all.",
        ge=0,
    )
    max_requests_per_second: Float | None = setting(
        None, "Most requests a second, so that annotators keep a quick server. Empty = no limit.", example="5", gt=0
    )
    verify_tls: bool = setting(True, "Check the server's certificate. Without it anyone between can read the token.")


class PipelineSection(Section):
    """``pipeline``."""

    name: PipelineName | None = setting(
        None,
        "What predicts: a built-in pipeline, or your own class as module:Class. Empty = chosen from the project's label"
        " config.",
        example="text-classification, or my_module:MyPipeline",
    )
    params: Params = setting({}, "Settings of the pipeline itself; which there are is up to the pipeline.")
    model_version: Version | None = setting(
        None,
        "Model version that the predictions carry. Empty = the newest one trained for the project.",
        example="digits-2026-01-31",
    )


class Selection(Section):
    """``selection``."""

    select: Literal["missing", "all", "stale", "failed"] = setting(
        "missing",
        "missing: tasks without a prediction of the model version. all: predict every task again. stale: those whose"
        " data, as far as the pipeline reads it, or label config changed since an earlier run. failed: those that the"
        " newest finished run quarantined. Of all and stale, the predictions of that version are replaced.",
    )
    view: Int | None = setting(
        None, "Id of a data manager's tab (tab=... in its address) whose filters count too.", example="12", ge=1
    )
    filter: Filters | None = setting(
        None,
        "Filters of the data manager, with conjunction and items: a mapping, JSON text, or a JSON file (relative as"
        " state.dir is).",
        example="""'{"conjunction": "and", "items": [...]}'""",
    )
    task_ids: Folder | None = setting(
        None,
        "Only these tasks: a file with one id a line, a JSON list, or Parquet with a column id or task_id (relative as"
        " state.dir is); - reads stdin.",
        example="ids.txt",
    )
    since: Time | None = setting(
        None,
        "Only tasks created at this time or later: a date, a time (UTC where it names no zone), or an age such as 7d or"
        " 12h.",
        example="2026-01-31",
    )
    until: Time | None = setting(None, "Only tasks created before this time, given as since is.", example="12h")
    untouched_only: bool = setting(False, "Leave out tasks that have annotations (cancelled ones too) or drafts.")
    limit: Int | None = setting(None, "Most tasks of a run, lowest ids first. Empty = all.", example="1000", ge=1)


class Export(Section):
    """``export``."""

    readers: Int | None = setting(
        None,
        "Ranges of task ids that are read side by side. Empty = 2, or 1 where label-studio start is seen to serve.",
        example="3",
        ge=1,
        le=16,
    )


class Inference(Section):
    """``inference``."""

    chunk_size: Int | None = setting(
        None,
        "Tasks in a chunk, the unit of prediction and of resume. Empty = found by measuring.",
        example="500",
        ge=1,
    )
    cluster_above_seconds: Float = setting(
        20.0,
        "Start the local cluster once what is left would take longer in one process, in seconds; 0 = at once.",
        ge=0,
    )
    score: Literal["confidence", "least-confidence", "margin", "entropy"] = setting(
        "confidence",
        "What a prediction's score is, in [0, 1] and low where the model is unsure: confidence (the probability of the"
        " answer), least-confidence (the same, 0 for a mere guess), margin (to the second best), or entropy (1 minus"
        " it).",
    )
    chunk_seconds: Float = setting(
        600.0, "A worker that finishes no chunk for so long is taken to hang and is restarted, in seconds.", gt=0
    )


class Dask(Section):
    """``dask``."""

    workers: Int | None = setting(
        None,
        "Processes of the local cluster. Empty = one for each core, started when it pays; 0 = no cluster, predict in"
        " this process.",
        example="4",
        ge=0,
    )
    scheduler: Scheduler | None = setting(
        None, "Address of an existing cluster, used instead of a local one.", example="tcp://host:8786"
    )
    memory_limit: MemoryLimit = setting(
        "auto", "Memory of each local worker: auto, a size such as 4GB, or a share of the machine's memory such as 0.5."
    )
    dashboard_address: Dashboard | None = setting(
        None, "Where the local cluster shows its dashboard. Empty = nowhere.", example="localhost:8787"
    )
    worker_seconds: Float = setting(60.0, "Longest wait while the cluster has no worker, in seconds.", gt=0)


class Import(Section):
    """``import``."""

    batch_rows: Int = setting(50_000, "Most predictions in one request.", ge=1)
    request_seconds: Float = setting(
        45.0,
        "How long a request that imports should take at most, in seconds; less than any proxy before the server waits.",
        gt=0,
    )
    writers: Int | None = setting(
        None,
        "Requests that write side by side, where predictions are created one by one. Empty = 3, or 1 where the server"
        " is seen to take one at a time (SQLite).",
        example="4",
        ge=1,
    )
    max_body_mb: Float = setting(100.0, "Largest request, in MB (millions of bytes).", gt=0)
    settle_seconds: Float = setting(
        30.0,
        "After an answer that may hide a commit: how long what the server holds must stay the same before it is"
        " believed, in seconds.",
        ge=0,
    )
    repair_counters: Literal["auto", "never"] = setting(
        "auto",
        "After an answer that was lost, Label Studio may show a wrong number of predictions. auto: have it count them"
        " again where that fits import.request_seconds. never: only say so.",
    )
    activate: bool = setting(False, "Show the model version to annotators once the audit has passed.")

    @property
    def max_body_bytes(self) -> int:
        """Largest request, in bytes."""
        return max(1, int(self.max_body_mb * MB))


class Run(Section):
    """``run``."""

    max_failures: MaxFailures = setting(
        "1%",
        "Most tasks that may fail before the run stops and sends nothing more: a number, or a share of the selected"
        " tasks.",
    )
    max_runtime: Duration | None = setting(
        None, "Stop in order after so long; the same command continues. Empty = never.", example="6h"
    )
    wait: Duration = setting("0s", "How long to wait for another run that works on the same version.")

    @property
    def max_runtime_seconds(self) -> float | None:
        """The same in seconds."""
        return None if self.max_runtime is None else duration_seconds(self.max_runtime)

    @property
    def wait_seconds(self) -> float:
        """The same in seconds."""
        return duration_seconds(self.wait)


class Media(Section):
    """``media``."""

    connect_seconds: Float = setting(5.0, "Longest wait for a connection, in seconds.", gt=0)
    read_seconds: Float = setting(30.0, "Longest silence while a file is read, in seconds.", gt=0)
    max_mb: Float = setting(50.0, "Largest file, in MB (millions of bytes); a task with a larger one fails.", gt=0)

    @property
    def max_bytes(self) -> int:
        """Largest file, in bytes."""
        return max(1, int(self.max_mb * MB))


class State(Section):
    """``state``."""

    dir: Folder | None = setting(
        None,
        "Folder of runs and their ledgers, relative to this file (to the working directory if given by flag or"
        " environment). Empty = .lsbatch beside this file.",
        example="/var/lib/lsbatch",
    )


class Models(Section):
    """``models``."""

    url: Folder | None = setting(
        None,
        "Where models are stored: a folder (relative as state.dir is) or an fsspec URL. Empty = in the state folder.",
        example="s3://bucket/models",
    )


class Retrain(Section):
    """``retrain``."""

    holdout: Float = setting(
        0.2, "Share of the annotated tasks that the model is measured on and not trained on.", gt=0, le=0.5
    )
    consensus: Literal["latest", "first", "majority", "ground-truth"] = setting(
        "latest", "Which of several annotations of a task counts: latest, first, majority, or ground-truth."
    )
    view: Int | None = setting(None, "Learn only from tasks of this tab's filters, by its id.", example="12", ge=1)
    filter: Filters | None = setting(
        None,
        "Learn only from tasks that match these filters of the data manager, as selection.filter.",
        example="filters.json",
    )
    min_annotations: Int = setting(0, "Fewer annotated tasks are refused.", ge=0)
    max_regression: Float = setting(
        0.01,
        "How much worse than the version in use a new one may be on the same held-out tasks, as a share; one that is"
        " worse is stored and not used.",
        ge=0,
        le=1,
    )
    cluster: Literal["auto", "always", "never"] = setting(
        "auto",
        "Train on the Dask cluster, whose workers then share the memory: auto (where dask.scheduler names one and the"
        " training set is large), always, or never.",
    )
    search: Int = setting(
        0,
        "Sets of pipeline.params to try on the Dask cluster before training, the configured one included; 0 = none.",
        ge=0,
        le=1000,
    )


class Config(Section):
    """All settings. ``import`` is ``import_`` in Python."""

    label_studio: LabelStudio = section(LabelStudio, "The server.")
    project: Int | None = setting(None, "Id of the project.", example="1", ge=1)
    pipeline: PipelineSection = section(PipelineSection, "What predicts.")
    selection: Selection = section(Selection, "Which tasks.")
    export: Export = section(Export, "How tasks are read.")
    inference: Inference = section(Inference, "How tasks are predicted.")
    dask: Dask = section(Dask, "The cluster.")
    import_: Import = section(Import, "How predictions are sent.", alias="import")
    run: Run = section(Run, "How far a run may go.")
    media: Media = section(Media, "How files that tasks point at are fetched.")
    state: State = section(State, "Where runs are kept.")
    models: Models = section(Models, "Where models are kept.")
    retrain: Retrain = section(Retrain, "How a model learns from annotations.")
    serve: Serve = section(Serve, "The live backend.")
