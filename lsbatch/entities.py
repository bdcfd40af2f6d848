"""The nouns: task, annotation, prediction, dead letter, model version. Values only, no behaviour that does I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NewType

from lsbatch.errors import ConfigError

__all__ = [
    "AnnotatedTask",
    "Annotation",
    "DeadLetter",
    "ModelVersion",
    "Outcome",
    "Prediction",
    "Region",
    "Stage",
    "StoredPrediction",
    "Task",
    "TaskId",
    "TaskPredictions",
    "check_model_version",
]

TaskId = NewType("TaskId", int)

#: One element of a prediction's or annotation's ``result``: ``from_name``, ``to_name``, ``type``, ``value``, ...
Region = Mapping[str, Any]

#: Where a task failed for good.
Stage = Literal["predict", "validate", "import"]

MODEL_VERSION_LENGTH = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORBIDDEN = re.compile(r"[,\"'\\\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a project.

    Attributes:
        id: unique on one Label Studio, across its projects.
        data: the task's data as stored, URIs unresolved.
    """

    id: TaskId
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a person said of a task.

    Attributes:
        id: unique on one Label Studio.
        result: its regions.
        updated_at: ISO 8601 time in UTC, as the server gives it.
        was_cancelled: the annotator skipped the task.
        ground_truth: marked as the truth.
        parent_prediction: id of the prediction that it was begun from, or None.
    """

    id: int
    result: Sequence[Region]
    updated_at: str
    was_cancelled: bool = False
    ground_truth: bool = False
    parent_prediction: int | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedTask:
    """A task with its annotations, oldest first."""

    task: Task
    annotations: Sequence[Annotation]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one task; ``score`` is its confidence in [0, 1], or None."""

    task_id: TaskId
    result: Sequence[Region]
    score: float | None
    model_version: str


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """A prediction as a project holds it.

    Attributes:
        id: unique on one Label Studio; greater for a newer one.
        task_id: its task.
        result: its regions, as they are stored.
        score: in [0, 1] by custom, or None.
        model_version: as it is stored; empty when there is none.
        created_at: in UTC.
        referenced: an annotation came from it.
    """

    id: int
    task_id: TaskId
    result: Any
    score: float | None
    model_version: str
    created_at: datetime
    referenced: bool = False


@dataclass(frozen=True, slots=True)
class TaskPredictions:
    """A task with all predictions that it holds, oldest first.

    Attributes:
        task_id: the task.
        predictions: at least one.
        touched: the task has annotations, cancelled ones included, or drafts.
    """

    task_id: TaskId
    predictions: Sequence[StoredPrediction]
    touched: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task that failed for good, with the stage, the cause in words, and how often it was tried."""

    task_id: TaskId
    stage: Stage
    cause: str
    attempts: int = 1


#: Every selected task ends as exactly one of these.
Outcome = Prediction | DeadLetter


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An immutable, stored model.

    Attributes:
        name: ``<name>-<UTC time>-<short hash>``; also the model version of its predictions.
        manifest: where it comes from: pipeline, parameters, training annotations, metrics, libraries.
    """

    name: str
    manifest: Mapping[str, Any]


def check_model_version(version: str, *, setting: str = "model version", stored: bool = False) -> str:
    """Return ``version`` if predictions that carry it can be found again exactly.

    Label Studio gives the versions of a task as one comma-joined string without quotes, so a comma, a quote, a
    backslash, a control character or a blank at either end would make exact comparison impossible; a missing version
    is stored as ``undefined``, and a null one cannot be deleted by version.

    Args:
        version: the text.
        setting: where it stands, for the message.
        stored: Label Studio held it already, so that commas and quotes may be in it; to find it exactly is slower.

    Raises:
        ConfigError: the version is empty, too long, or holds such a character.
    """
    if not version or version != version.strip() or version == "undefined":
        raise ConfigError(
            f"{setting}: {version!r} is empty, 'undefined', or has blanks at its ends",
            hint="Give the model a version such as 'digits-2026-01-31'.",
        )
    if len(version) > MODEL_VERSION_LENGTH:
        raise ConfigError(f"{setting}: {len(version)} characters, at most {MODEL_VERSION_LENGTH} are allowed")
    if found := (_CONTROL if stored else _FORBIDDEN).search(version):
        raise ConfigError(
            f"{setting}: {version!r} holds {found.group()!r}, which Label Studio cannot give back unchanged",
            hint="Leave out commas, quotes, backslashes and control characters.",
        )
    return version
