"""What a pipeline is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from lsbatch.entities import Task, TaskId
from lsbatch.label_config import LabelConfig

__all__ = [
    "Evaluation",
    "LabelMetrics",
    "MediaReader",
    "Pipeline",
    "PipelineContext",
    "TaskFailure",
    "TaskResult",
    "Trainable",
    "TrainingCluster",
    "TrainingTask",
]


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
class TrainingCluster:
    """A Dask cluster to train on.

    Attributes:
        open: connects to it, or starts it; gives a ``distributed.Client`` for as long as the context lasts.
        always: train there whatever the size; else only where it pays.
    """

    open: Callable[[], AbstractContextManager[Any]]
    always: bool = False


@dataclass(frozen=True)
class PipelineContext:
    """All that a pipeline is built from.

    Attributes:
        label_config: the project's labeling config.
        params: ``pipeline.params`` of the configuration, unchecked; a pipeline refuses what it does not know.
        media: reads URIs of the tasks' data.
        model_version: the version that predictions will carry, empty when there is none yet.
        model_dir: the folder with the files that ``Trainable.fit`` stored, or None for a pipeline without a model.
        score: what the score of a prediction should be: ``confidence``, ``least-confidence``, ``margin`` or
            ``entropy``, each in [0, 1] and low where the model is unsure. A pipeline may know only one.
        cluster: where ``Trainable.fit`` may train large sets; None where there is no cluster.
    """

    label_config: LabelConfig
    params: Mapping[str, Any]
    media: MediaReader
    model_version: str = ""
    model_dir: Path | None = None
    score: str = "confidence"
    cluster: TrainingCluster | None = None


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

    It may also have a method ``embed(tasks)`` that gives a vector of numbers, always equally many, or a ``TaskFailure``
    for each task, in their order: near vectors for tasks that look alike, by which ``lsbatch select`` avoids these.

    It may also have a classmethod ``data_keys(label_config) -> Sequence[str]``: the keys of a task's data that its
    predictions depend on, by which ``--select stale`` tells whether a task has changed. Without it, these are the keys
    of the label config's controls.

    Its ``predict`` may also take a keyword ``context: Mapping[str, Any] | None = None``: what an annotator has just
    marked on the only task of the call, with a tool or label that the config declares ``smart="true"``. It is Label
    Studio's ``params.context``: ``{"result": [region, ...]}``, each region as in an annotation, with
    ``original_width``, ``original_height`` and ``is_positive`` where it has them; nobody has checked it. The result
    is what Label Studio offers the annotator at once. Without a mark ``predict`` is called without ``context``, and a
    pipeline that cannot answer then returns a ``TaskFailure``: an empty ``result`` would be stored as a prediction
    that there is nothing.
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
    """A pipeline that learns from annotations.

    It may also have a classmethod ``search_space() -> Mapping[str, Sequence[value]]``: values of ``params`` that are
    worth trying, from which ``retrain.search`` draws. One that answers what annotators mark without a model has a class
    attribute ``untrained_version``: what a live backend says that it serves before the first training.
    """

    @classmethod
    def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Evaluation:
        """Train on the tasks that are not held out, evaluate on the others, write the model into ``model_dir``.

        The same tasks and parameters give the same model. Files must be data (XGBoost's own format, arrays, JSON),
        never pickles. ``context.model_dir`` is None.

        Raises:
            ConfigError: too few annotations, or only one label.
        """
        ...
