"""What takes predictions, and what is known and done about those that are stored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lsbatch.entities import Prediction, TaskId, TaskPredictions
from lsbatch.ports.tasks import Selection

__all__ = ["Backend", "PredictionSink", "PredictionStore", "VersionCount"]


@dataclass(frozen=True, slots=True)
class VersionCount:
    """A model version that predictions of the project carry.

    Attributes:
        model_version: as it is stored; empty for predictions without one.
        predictions: how many carry it.
        latest: when the newest of them was created, in UTC.
    """

    model_version: str
    predictions: int
    latest: datetime


@dataclass(frozen=True, slots=True)
class Backend:
    """A live backend that is connected to the project.

    Attributes:
        title: its name in the project; annotators see its predictions while it stands for the active version.
        model_version: of the model that it last said it serves; empty when it did not say.
        url: its address.
        id: unique on one Label Studio.
        state: in the server's words, such as Connected or Disconnected.
        problem: what the server says is wrong with it; empty when nothing is.
        interactive: it is also asked while somebody annotates.
        user: of basic auth; empty for none.
    """

    title: str
    model_version: str
    url: str
    id: int = 0
    state: str = ""
    problem: str = ""
    interactive: bool = False
    user: str = ""


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

    def activate(self, model_version: str, *, show: bool = False) -> str:
        """Show this version to annotators; returns the version shown before. Safe to repeat.

        Args:
            model_version: a version, the title of a live backend, or empty to show none.
            show: also switch on that predictions are shown at all.

        Raises:
            PermanentError: no prediction carries it.
        """
        ...


class PredictionStore(PredictionSink, Protocol):
    """The predictions that a project holds: counted, read whole, deleted, made annotations."""

    def versions(self) -> Sequence[VersionCount]:
        """Every version with its number of predictions, newest first; costs the server milliseconds."""
        ...

    def backends(self) -> Sequence[Backend]:
        """The live backends of the project."""
        ...

    def holding(
        self, selection: Selection, versions: Collection[str] | None = None, *, references: bool = False
    ) -> Iterator[Sequence[TaskPredictions]]:
        """The selected tasks that hold predictions, ids ascending, a page at a time, each with all its predictions.

        Args:
            selection: which tasks.
            versions: leave out tasks that carry none of these exactly, the empty text being none; None for all tasks.
            references: find out which predictions annotations came from, which costs more; else none counts as such.

        Raises:
            TransientError: the server did not answer, or not completely.
        """
        ...

    def remaining(self, prediction_ids: Collection[int], task_ids: Sequence[TaskId]) -> set[int]:
        """Those of these predictions, all of these tasks (ids ascending, unique), that are still stored."""
        ...

    def holds_others(self, task_ids: Sequence[TaskId], versions: Collection[str]) -> bool:
        """Whether one of these tasks (ids ascending, unique) holds a prediction of another version than these."""
        ...

    def holds_only(self, task_ids: Sequence[TaskId], prediction_ids: Collection[int]) -> bool:
        """Whether these tasks (ids ascending, unique) hold no predictions but some of these."""
        ...

    def counters_off(self, task_ids: Sequence[TaskId], predictions: int) -> int:
        """How many of these tasks (ids ascending, unique) the server shows with another number of predictions."""
        ...

    def untouched(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """Those of these tasks (ids ascending, unique) that exist and have neither annotations nor drafts."""
        ...

    def parents(self, task_ids: Sequence[TaskId]) -> Mapping[int, int]:
        """Ids of the predictions that annotations of these tasks came from, each with the number of these."""
        ...

    def delete_all(self, task_ids: Sequence[TaskId]) -> None:
        """Delete every prediction of these tasks, of every version, in one request; of no tasks none. Safe to repeat.

        Raises:
            TransientError: surely nothing was deleted.
            AmbiguousError: all, some or none may be deleted, now or in a while.
            PermanentError: refused.
        """
        ...

    def delete_version(self, model_version: str) -> None:
        """Delete every prediction of exactly this version, in one request and all or none. Safe to repeat.

        The active version may be another afterwards: the caller puts it back. Raises as ``delete_all``.
        """
        ...

    def accept(self, model_version: str, task_ids: Sequence[TaskId]) -> None:
        """Make an annotation of every prediction of this version on these tasks of which none was made yet.

        In one request. NOT safe to repeat while an earlier one may still be under way; nothing of no tasks.

        Raises as ``delete_all``.
        """
        ...
