"""Where tasks and annotations are read from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lsbatch.entities import AnnotatedTask, Task

__all__ = ["AnnotationSource", "LabelQueue", "ProjectInfo", "Selection", "TaskPage", "TaskSource"]


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
        shows_predictions: whether annotators are shown predictions at all.
        warnings: settings of the project that will surprise, in words.
        created_at: in UTC; None where it is not known.
    """

    id: int
    title: str
    label_config: str
    task_count: int
    annotated_count: int
    active_version: str
    prediction_count: int = 0
    one_writer: bool = False
    shows_predictions: bool = True
    warnings: tuple[str, ...] = ()
    created_at: datetime | None = None


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


class LabelQueue(Protocol):
    """Where annotators get their next task from."""

    def make_tab(self, title: str, task_ids: Sequence[int], *, order_by: str = "") -> int:
        """Make a tab of the data manager that shows exactly these tasks; its id. Each call makes one.

        Args:
            title: of the tab.
            task_ids: at least one.
            order_by: key of the tasks' data to order by; by id without it.

        Raises:
            AmbiguousError: the answer was lost; the tab may be there.
        """
        ...

    def put_data(self, task: Task, key: str, value: str) -> None:
        """Set one key of a task's data. May be repeated.

        Args:
            task: with its data as it is stored.
            key: to set.
            value: what to set it to.
        """
        ...

    def set_sampling(self, how: str) -> None:
        """Set how the project chooses the next task: ``sequential``, ``uniform``, or ``uncertainty``. May be repeated.

        ``uncertainty`` gives the task with the lowest score of the active version first.
        """
        ...


class AnnotationSource(Protocol):
    """What annotations are read from."""

    def annotated(self, selection: Selection) -> Iterator[AnnotatedTask]:
        """The selected tasks with at least one annotation, ids ascending, cancelled annotations included.

        Raises:
            TransientError: the source did not answer, or not completely.
            PermanentError: the source refused.
        """
        ...
