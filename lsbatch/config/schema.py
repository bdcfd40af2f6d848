"""What can be set: names, types, limits, defaults, and a description of each for the example file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    Secret,
    Text,
    Time,
    Token,
    Version,
    duration_seconds,
)

__all__ = ["Config"]

MB = 1_000_000


def _setting(
    default: Any, description: str, *, example: str = "", env: tuple[str, ...] = (), secret: bool = False, **limits: Any
) -> Any:
    """A field. A default of None means that the setting may be left open.

    Args:
        default: its default.
        description: what it means, with the unit of a number.
        example: a value, for settings without a default.
        env: environment variables that are read beside ``LSBATCH_<SECTION>_<KEY>``, strongest first.
        secret: its value is never shown.
        limits: constraints of pydantic.
    """
    extra: dict[str, Any] = {"example": example, "env": list(env), "secret": secret}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def _section(kind: Callable[[], BaseModel], description: str, alias: str | None = None) -> Any:
    return Field(default_factory=kind, description=description, alias=alias)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())


class LabelStudio(_Section):
    """``label_studio``."""

    url: HttpUrl | None = _setting(
        None,
        "Address of Label Studio.",
        example="http://localhost:8080",
        env=("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"),
    )
    api_key: Token | None = _setting(
        None,
        "Token of a user who may read the project and write predictions. Better left empty here: whoever reads this"
        " file reads the token too.",
        env=("LABEL_STUDIO_API_KEY",),
        secret=True,
    )
    connect_seconds: Float = _setting(5.0, "Longest wait for a connection, in seconds.", gt=0)
    read_seconds: Float = _setting(60.0, "Longest silence of the server while it is read from, in seconds.", gt=0)
    write_seconds: Float = _setting(
        120.0, "Longest time that the server may work on a request that writes, in seconds.", gt=0
    )
    retry_seconds: Float = _setting(
        120.0,
        "How long a request that the server surely did not take is tried again, in seconds; 0 = not at all.",
        ge=0,
    )
    max_requests_per_second: Float | None = _setting(
        None, "Most requests a second, so that annotators keep a quick server. Empty = no limit.", example="5", gt=0
    )
    verify_tls: bool = _setting(True, "Check the server's certificate. Without it anyone between can read the token.")


class PipelineSection(_Section):
    """``pipeline``."""

    name: PipelineName | None = _setting(
        None,
        "What predicts: a built-in pipeline, or your own class as module:Class. Empty = chosen from the project's label"
        " config.",
        example="text-classification, or my_module:MyPipeline",
    )
    params: Params = _setting({}, "Settings of the pipeline itself; which there are is up to the pipeline.")
    model_version: Version | None = _setting(
        None,
        "Model version that the predictions carry. Empty = the newest one trained for the project.",
        example="digits-2026-01-31",
    )


class Selection(_Section):
    """``selection``."""

    select: Literal["missing", "all", "stale", "failed"] = _setting(
        "missing",
        "missing: tasks without a prediction of the model version. all: predict every task again. stale: those whose"
        " data, as far as the pipeline reads it, or label config changed since an earlier run. failed: those that the"
        " newest finished run quarantined. Of all and stale, the predictions of that version are replaced.",
    )
    view: Int | None = _setting(
        None, "Id of a data manager's tab (tab=... in its address) whose filters count too.", example="12", ge=1
    )
    filter: Filters | None = _setting(
        None,
        "Filters of the data manager, with conjunction and items: a mapping, JSON text, or a JSON file (relative as"
        " state.dir is).",
        example="""'{"conjunction": "and", "items": [...]}'""",
    )
    task_ids: Folder | None = _setting(
        None,
        "Only these tasks: a file with one id a line, a JSON list, or Parquet with a column id or task_id (relative as"
        " state.dir is); - reads stdin.",
        example="ids.txt",
    )
    since: Time | None = _setting(
        None,
        "Only tasks created at this time or later: a date, a time (UTC where it names no zone), or an age such as 7d or"
        " 12h.",
        example="2026-01-31",
    )
    until: Time | None = _setting(None, "Only tasks created before this time, given as since is.", example="12h")
    untouched_only: bool = _setting(False, "Leave out tasks that have annotations (cancelled ones too) or drafts.")
    limit: Int | None = _setting(None, "Most tasks of a run, lowest ids first. Empty = all.", example="1000", ge=1)


class Export(_Section):
    """``export``."""

    readers: Int | None = _setting(
        None,
        "Ranges of task ids that are read side by side. Empty = 2, or 1 where label-studio start is seen to serve.",
        example="3",
        ge=1,
        le=16,
    )


class Inference(_Section):
    """``inference``."""

    chunk_size: Int | None = _setting(
        None,
        "Tasks in a chunk, the unit of prediction and of resume. Empty = found by measuring.",
        example="500",
        ge=1,
    )
    cluster_above_seconds: Float = _setting(
        20.0,
        "Start the local cluster once what is left would take longer in one process, in seconds; 0 = at once.",
        ge=0,
    )
    score: Literal["confidence", "least-confidence", "margin", "entropy"] = _setting(
        "confidence",
        "What a prediction's score is, in [0, 1] and low where the model is unsure: confidence (the probability of the"
        " answer), least-confidence (the same, 0 for a mere guess), margin (to the second best), or entropy (1 minus"
        " it).",
    )
    chunk_seconds: Float = _setting(
        600.0, "A worker that finishes no chunk for so long is taken to hang and is restarted, in seconds.", gt=0
    )


class Dask(_Section):
    """``dask``."""

    workers: Int | None = _setting(
        None,
        "Processes of the local cluster. Empty = one for each core, started when it pays; 0 = no cluster, predict in"
        " this process.",
        example="4",
        ge=0,
    )
    scheduler: Scheduler | None = _setting(
        None, "Address of an existing cluster, used instead of a local one.", example="tcp://host:8786"
    )
    memory_limit: MemoryLimit = _setting(
        "auto", "Memory of each local worker: auto, a size such as 4GB, or a share of the machine's memory such as 0.5."
    )
    dashboard_address: Dashboard | None = _setting(
        None, "Where the local cluster shows its dashboard. Empty = nowhere.", example="localhost:8787"
    )
    worker_seconds: Float = _setting(60.0, "Longest wait while the cluster has no worker, in seconds.", gt=0)


class Import(_Section):
    """``import``."""

    batch_rows: Int = _setting(50_000, "Most predictions in one request.", ge=1)
    request_seconds: Float = _setting(
        45.0,
        "How long a request that imports should take at most, in seconds; less than any proxy before the server waits.",
        gt=0,
    )
    writers: Int | None = _setting(
        None,
        "Requests that write side by side, where predictions are created one by one. Empty = 3, or 1 where the server"
        " is seen to take one at a time (SQLite).",
        example="4",
        ge=1,
    )
    max_body_mb: Float = _setting(100.0, "Largest request, in MB (millions of bytes).", gt=0)
    settle_seconds: Float = _setting(
        30.0,
        "After an answer that may hide a commit: how long what the server holds must stay the same before it is"
        " believed, in seconds.",
        ge=0,
    )
    repair_counters: Literal["auto", "never"] = _setting(
        "auto",
        "After an answer that was lost, Label Studio may show a wrong number of predictions. auto: have it count them"
        " again where that fits import.request_seconds. never: only say so.",
    )
    activate: bool = _setting(False, "Show the model version to annotators once the audit has passed.")

    @property
    def max_body_bytes(self) -> int:
        """Largest request, in bytes."""
        return max(1, int(self.max_body_mb * MB))


class Run(_Section):
    """``run``."""

    max_failures: MaxFailures = _setting(
        "1%",
        "Most tasks that may fail before the run stops and sends nothing more: a number, or a share of the selected"
        " tasks.",
    )
    max_runtime: Duration | None = _setting(
        None, "Stop in order after so long; the same command continues. Empty = never.", example="6h"
    )
    wait: Duration = _setting("0s", "How long to wait for another run that works on the same version.")

    @property
    def max_runtime_seconds(self) -> float | None:
        """The same in seconds."""
        return None if self.max_runtime is None else duration_seconds(self.max_runtime)

    @property
    def wait_seconds(self) -> float:
        """The same in seconds."""
        return duration_seconds(self.wait)


class Media(_Section):
    """``media``."""

    connect_seconds: Float = _setting(5.0, "Longest wait for a connection, in seconds.", gt=0)
    read_seconds: Float = _setting(30.0, "Longest silence while a file is read, in seconds.", gt=0)
    max_mb: Float = _setting(50.0, "Largest file, in MB (millions of bytes); a task with a larger one fails.", gt=0)

    @property
    def max_bytes(self) -> int:
        """Largest file, in bytes."""
        return max(1, int(self.max_mb * MB))


class State(_Section):
    """``state``."""

    dir: Folder | None = _setting(
        None,
        "Folder of runs and their ledgers, relative to this file (to the working directory if given by flag or"
        " environment). Empty = .lsbatch beside this file.",
        example="/var/lib/lsbatch",
    )


class Models(_Section):
    """``models``."""

    url: Folder | None = _setting(
        None,
        "Where models are stored: a folder (relative as state.dir is) or an fsspec URL. Empty = in the state folder.",
        example="s3://bucket/models",
    )


class Retrain(_Section):
    """``retrain``."""

    holdout: Float = _setting(
        0.2, "Share of the annotated tasks that the model is measured on and not trained on.", gt=0, le=0.5
    )
    consensus: Literal["latest", "first", "majority", "ground-truth"] = _setting(
        "latest", "Which of several annotations of a task counts: latest, first, majority, or ground-truth."
    )
    view: Int | None = _setting(None, "Learn only from tasks of this tab's filters, by its id.", example="12", ge=1)
    filter: Filters | None = _setting(
        None,
        "Learn only from tasks that match these filters of the data manager, as selection.filter.",
        example="filters.json",
    )
    min_annotations: Int = _setting(0, "Fewer annotated tasks are refused.", ge=0)
    max_regression: Float = _setting(
        0.01,
        "How much worse than the version in use a new one may be on the same held-out tasks, as a share; one that is"
        " worse is stored and not used.",
        ge=0,
        le=1,
    )
    cluster: Literal["auto", "always", "never"] = _setting(
        "auto",
        "Train on the Dask cluster, whose workers then share the memory: auto (where dask.scheduler names one and the"
        " training set is large), always, or never.",
    )
    search: Int = _setting(
        0,
        "Sets of pipeline.params to try on the Dask cluster before training, the configured one included; 0 = none.",
        ge=0,
        le=1000,
    )


class Serve(_Section):
    """``serve``."""

    host: Text = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 = every interface, which needs basic auth.")
    port: Int = _setting(9090, "Port to listen on; 0 = any free one.", ge=0, le=65535)
    workers: Int = _setting(1, "Processes that predict, each with a model of its own.", ge=1, le=64)
    max_batch_size: Int = _setting(64, "Most tasks that the pipeline is given at once.", ge=1)
    max_wait_ms: Float = _setting(
        2.0, "How long a batch that is not full waits for more tasks while others are under way, in milliseconds.", ge=0
    )
    max_queue_tasks: Int = _setting(
        10_000, "Most tasks that wait; what comes beyond is refused with 429 and a Retry-After.", ge=1
    )
    predict_seconds: Float = _setting(
        90.0, "Longest time for an answer, in seconds; less than the 100 that Label Studio waits.", gt=0
    )
    task_seconds: Float = _setting(
        30.0, "Longest time for one call of the pipeline, in seconds; one that hangs is killed then.", gt=0
    )
    max_body_mb: Float = _setting(25.0, "Largest request, in MB (millions of bytes).", gt=0)
    drain_seconds: Float = _setting(30.0, "How long what is under way may take to end after SIGTERM, in seconds.", ge=0)
    reload_seconds: Float = _setting(
        15.0, "How often the model store is asked whether another version is in use, in seconds.", gt=0
    )
    retrain_every: Int | None = _setting(
        None, "Train after so many new annotations. Empty = only when asked to.", example="20", ge=1
    )
    retrain_min_seconds: Float = _setting(
        60.0, "Shortest time from the start of one training after new annotations to the next, in seconds.", ge=0
    )
    basic_auth_user: Text | None = _setting(
        None, "User name that every request must carry.", example="label-studio", env=("BASIC_AUTH_USER",)
    )
    basic_auth_pass: Secret | None = _setting(
        None, "Password that goes with it. Better left empty here.", env=("BASIC_AUTH_PASS",), secret=True
    )
    webhook_secret: Secret | None = _setting(
        None,
        "What webhooks must carry in the header X-Lsbatch-Secret, since Label Studio gives them no basic auth;"
        " lsbatch connect sets it. Better left empty here.",
        secret=True,
    )
    insecure: bool = _setting(False, "Answer on a public interface without basic auth too.")

    @property
    def max_body_bytes(self) -> int:
        """Largest request, in bytes."""
        return max(1, int(self.max_body_mb * MB))


class Config(_Section):
    """All settings. ``import`` is ``import_`` in Python."""

    label_studio: LabelStudio = _section(LabelStudio, "The server.")
    project: Int | None = _setting(None, "Id of the project.", example="1", ge=1)
    pipeline: PipelineSection = _section(PipelineSection, "What predicts.")
    selection: Selection = _section(Selection, "Which tasks.")
    export: Export = _section(Export, "How tasks are read.")
    inference: Inference = _section(Inference, "How tasks are predicted.")
    dask: Dask = _section(Dask, "The cluster.")
    import_: Import = _section(Import, "How predictions are sent.", alias="import")
    run: Run = _section(Run, "How far a run may go.")
    media: Media = _section(Media, "How files that tasks point at are fetched.")
    state: State = _section(State, "Where runs are kept.")
    models: Models = _section(Models, "Where models are kept.")
    retrain: Retrain = _section(Retrain, "How a model learns from annotations.")
    serve: Serve = _section(Serve, "The live backend.")
