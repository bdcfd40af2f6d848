"""The interfaces between the core and the adapters: connectors and pipelines implement them, the core calls them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self

from lsbatch.entities import AnnotatedTask, ModelVersion, Prediction, Task, TaskId
from lsbatch.label_config import LabelConfig

__all__ = [
    "AnnotationSource",
    "Evaluation",
    "LabelMetrics",
    "MediaReader",
    "ModelStore",
    "Pipeline",
    "PipelineContext",
    "PredictionSink",
    "ProjectInfo",
    "Selection",
    "TaskFailure",
    "TaskPage",
    "TaskResult",
    "TaskSource",
    "Trainable",
    "TrainingTask",
]


# ------------------------------------------------------------------------------------------------ pipelines


class MediaReader(Protocol):
    """Reads what a task's data points at."""

    def read(self, uri: str) -> bytes:
        """The bytes behind a URI of a task's data. May be repeated.

        Raises:
            PipelineError: not found, too large, refused, or a kind of URI that cannot be read.
            TransientError: could not be had now; the same call may succeed later.
        """
        ...


@dataclass(frozen=True)
class PipelineContext:
    """All that a pipeline is built from.

    Attributes:
        label_config: the project's labeling config.
        params: ``pipeline.params`` of the configuration, unchecked; a pipeline refuses what it does not know.
        media: reads URIs of the tasks' data.
        model_version: the version that predictions will carry, empty when there is none yet.
        model_dir: the folder with the files that ``Trainable.fit`` stored, or None for a pipeline without a model.
    """

    label_config: LabelConfig
    params: Mapping[str, Any]
    media: MediaReader
    model_version: str = ""
    model_dir: Path | None = None


#: The prediction for one task, as Label Studio writes it: ``{"result": [region, ...], "score": 0.93}``. ``score`` is
#: the model's confidence in [0, 1] and may be left out. An empty ``result`` is a prediction that there is nothing.
TaskResult = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Returned instead of a result: this task cannot be predicted, and why, in words for the person who reads it."""

    cause: str


class Pipeline(Protocol):
    """What turns tasks into predictions.

    Built once per worker process, used from one thread at a time, never pickled.

    Rules:
        - ``predict`` returns one element for each task, in the same order; a wrong number is never guessed at:
          the tasks are tried again in smaller groups, and a task alone that still has none is quarantined.
        - Results do not depend on which other tasks are in the call.
        - Raising spoils only the call: it is repeated in halves until the task at fault is alone.

    It may also have a classmethod ``data_keys(label_config) -> Sequence[str]``: the keys of a task's data that its
    predictions depend on, by which ``--select stale`` tells whether a task has changed. Without it, these are the keys
    of the label config's controls.
    """

    model_version: str

    @classmethod
    def why_not(cls, label_config: LabelConfig) -> str | None:
        """Why this pipeline cannot serve the label config, in words, or None if it can."""
        ...

    @classmethod
    def build(cls, context: PipelineContext) -> Self:
        """A pipeline ready to predict. Called once in each worker.

        Raises:
            ConfigError: unknown or bad ``params``, or no model where one is needed.
        """
        ...

    def predict(self, tasks: Sequence[Task]) -> Sequence[TaskResult | TaskFailure]:
        """One result or failure for each of the tasks, in their order. May be repeated."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """A task with the one annotation result that counts, and whether it is held out from training."""

    task: Task
    result: Sequence[Mapping[str, Any]]
    held_out: bool


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """Quality on one label of the held-out tasks; all but ``support`` (a count) are in [0, 1]."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What training measured.

    Attributes:
        trained_on: number of tasks that the model learned from.
        held_out: number of tasks that the metrics are computed on; none of them was trained on.
        accuracy: share of held-out tasks whose whole set of labels is right, in [0, 1].
        baseline: accuracy of always giving the most frequent answer, in [0, 1].
        per_label: one row a label, in the label config's order.
        unread: task id and cause of tasks that could not be used.
    """

    trained_on: int
    held_out: int
    accuracy: float
    baseline: float
    per_label: tuple[LabelMetrics, ...]
    unread: tuple[tuple[TaskId, str], ...] = ()


class Trainable(Pipeline, Protocol):
    """A pipeline that learns from annotations."""

    @classmethod
    def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Evaluation:
        """Train on the tasks that are not held out, evaluate on the others, write the model into ``model_dir``.

        The same tasks and parameters give the same model. Files must be data (XGBoost's own format, arrays, JSON),
        never pickles. ``context.model_dir`` is None.

        Raises:
            ConfigError: too few annotations, or only one label.
        """
        ...


# ------------------------------------------------------------------------------------------------ connectors


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tasks of a project: those that fulfil all of it.

    Attributes:
        without_version: leave out tasks that carry a prediction of exactly this version; empty for all tasks.
        with_version: only tasks that carry a prediction of exactly this version; empty for all tasks.
        untouched_only: leave out tasks that have annotations (cancelled ones too) or drafts.
        limit: at most this many tasks, lowest ids first; None for all.
        view: id of a data-manager tab whose filters narrow the selection; None for none.
        filters: data-manager filters as JSON text, ``{"conjunction": ..., "items": [...]}``; empty for none.
        task_ids: only these, ascending, each once; None for all.
        created_since: tasks created at this time or later, in UTC.
        created_until: tasks created before this time, in UTC.
    """

    without_version: str = ""
    untouched_only: bool = False
    limit: int | None = None
    view: int | None = None
    filters: str = ""
    task_ids: tuple[int, ...] | None = None
    created_since: datetime | None = None
    created_until: datetime | None = None
    with_version: str = ""


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks in ascending order of id, and how many of the selection are left from here on, these included.

    Where the source cannot tell how many (alternatives in filters, a tab's excluded tasks), they are at most so many.
    """

    tasks: Sequence[Task]
    remaining: int


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """What is known of a project.

    Attributes:
        id: the project's id.
        title: its name.
        label_config: its labeling config, maybe empty.
        task_count: number of its tasks.
        annotated_count: number of its tasks with annotations.
        active_version: the model version that annotators see, or empty.
        prediction_count: number of its predictions, of all versions together.
        one_writer: the server carries out one write at a time, as ``label-studio start`` on SQLite does.
        warnings: settings of the project that will surprise, in words.
    """

    id: int
    title: str
    label_config: str
    task_count: int
    annotated_count: int
    active_version: str
    prediction_count: int = 0
    one_writer: bool = False
    warnings: tuple[str, ...] = ()


class TaskSource(Protocol):
    """What tasks are read from."""

    def project(self) -> ProjectInfo:
        """The project. May be repeated."""
        ...

    def split(self, selection: Selection, parts: int) -> Sequence[tuple[int, int]]:
        """Ranges of task ids (first, last), disjoint and ascending, that hold the selected tasks in about equal parts.

        At most ``parts`` of them; none when nothing is selected. However the ids are distributed, it costs about one
        small request a part. ``limit`` is passed over. Tasks that are added later have higher ids and are in none of
        the ranges. May be repeated.
        """
        ...

    def absent(self, task_ids: Sequence[int]) -> Iterator[int]:
        """Those of these ids (ascending, unique) that are no tasks of the project, ascending. May be repeated."""
        ...

    def pages(self, selection: Selection, *, after: int = 0, last: int | None = None) -> Iterator[TaskPage]:
        """The selected tasks with an id greater than ``after`` and at most ``last``, each once, ids ascending.

        A task that is there from the first page to the last comes, whatever is added, changed or deleted meanwhile.

        Raises:
            TransientError: the source did not answer, or answered with fewer tasks than it said there are.
            PermanentError: the source refused.
        """
        ...


class AnnotationSource(Protocol):
    """What annotations are read from."""

    def annotated(self) -> Iterator[AnnotatedTask]:
        """Every task with at least one annotation, ids ascending, cancelled annotations included."""
        ...


class PredictionSink(Protocol):
    """What takes predictions. The only port that changes anything."""

    def recounts_project(self) -> bool:
        """Whether ``create`` makes the server count every task of the project again; stores nothing. May be repeated.

        Raises:
            PermanentError: this token may not import predictions.
            TransientError: no answer.
        """
        ...

    def create(self, predictions: Sequence[Prediction]) -> int:
        """Store all of them in one request and return how many the server says it created. NOT safe to repeat.

        Raises:
            TransientError: surely nothing was stored; the same call may be made again.
            PermanentError: refused; nothing was stored by a server in its default setting.
            AmbiguousError: all, some or none may be stored, now or in a while.
        """
        ...

    def create_one(self, prediction: Prediction) -> None:
        """Store one prediction in a request of its own, whose cost does not grow with the project. NOT safe to repeat.

        Threads may call it side by side. The server does not check that the result fits the label config.

        Raises:
            TransientError: surely not stored; the same call may be made again.
            PermanentError: refused, not stored.
            AmbiguousError: may be stored, now or in a while.
        """
        ...

    def carriers(self, model_version: str, first: int, last: int) -> Iterator[TaskId]:
        """Tasks with an id from ``first`` to ``last`` (both included) that carry exactly this version, ascending."""
        ...

    def count_carriers(self, model_version: str, task_ids: Sequence[TaskId]) -> int:
        """How many of these tasks (ids ascending, unique) exist and carry exactly this version.

        Far cheaper than ``carriers``, which says which: one request where few other ids lie between these.
        """
        ...

    def existing(self, first: int, last: int) -> Iterator[TaskId]:
        """Tasks that still exist with an id from ``first`` to ``last`` (both included), ascending."""
        ...

    def prediction_ids(self, model_version: str, first: int, last: int) -> Iterator[tuple[TaskId, tuple[int, ...]]]:
        """Ids, oldest first, of the predictions of exactly this version on each task with an id in this range.

        Tasks that carry none are left out; the others ascend.
        """
        ...

    def delete(self, prediction_id: int) -> None:
        """Delete one prediction. Safe to repeat: one that is gone already counts as deleted."""
        ...

    def stale_counters(self, first: int, last: int) -> int:
        """Tasks with an id in this range that the server shows with a wrong number of predictions."""
        ...

    def repair_counters(self) -> None:
        """Have the server count the predictions of the whole project again. Safe to repeat.

        Raises:
            TransientError, AmbiguousError: it may not have finished.
        """
        ...

    def surplus(self, model_version: str) -> int:
        """Predictions of exactly this version in the project, less the tasks that carry it: 0 means one each."""
        ...

    def remove_surplus(self, model_version: str) -> int:
        """Delete all but the oldest prediction of this version on each task, by id; how many were deleted."""
        ...

    def activate(self, model_version: str) -> str:
        """Show this version to annotators; returns the version shown before. Safe to repeat.

        Raises:
            PermanentError: no prediction carries it.
        """
        ...


class ModelStore(Protocol):
    """Immutable model versions."""

    #: Where it is, for messages.
    url: str

    def publish(self, name: str, folder: Path, manifest: Mapping[str, Any]) -> ModelVersion:
        """Store the folder's files under a new version ``<name>-<UTC time>-<short hash>``, all or nothing."""
        ...

    def versions(self) -> Sequence[ModelVersion]:
        """All complete versions, oldest first."""
        ...

    def get(self, version: str) -> ModelVersion:
        """The version of this exact name.

        Raises:
            ConfigError: there is none; the message names those that exist.
        """
        ...

    def fetch(self, version: str) -> Path:
        """A local folder with the version's files, verified against the hashes in its manifest. May be repeated."""
        ...
