"""A project in memory. Nothing in it happens by chance."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from lsbatch.entities import (
    AnnotatedTask,
    Annotation,
    Prediction,
    StoredPrediction,
    Task,
    TaskId,
    TaskPredictions,
)
from lsbatch.errors import AmbiguousError, PermanentError, TransientError
from lsbatch.ports import (
    AnnotationSource,
    Backend,
    PredictionStore,
    ProjectInfo,
    Selection,
    TaskPage,
    TaskSource,
    VersionCount,
)
from lsbatch.testing.memory_filters import matches

__all__ = ["Fault", "MemoryProject"]

#: When a task in memory was made, unless it is said.
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
#: What one call of ``create`` does instead of storing all and saying so:
#: ``refuse`` surely takes nothing; ``lose before`` and ``lose after`` answer nothing, without and with the rows stored;
#: ``half`` answers nothing and stores the first half; ``late`` answers nothing and stores after ``late_reads`` reads;
#: ``short`` stores half and says so; ``large`` is too large; ``denied`` is refused for good.
Fault = Literal["", "refuse", "lose before", "lose after", "half", "late", "short", "large", "denied"]


@dataclass
class MemoryProject(TaskSource, AnnotationSource, PredictionStore):
    """A project in memory that behaves as Label Studio does. Nothing in it happens by chance.

    Attributes:
        tasks: by id.
        label_config: its text.
        annotations: of tasks, by id.
        created: when tasks were, by id; the others at ``CREATED``.
        views: filters of the data manager's tabs, by id, as JSON text.
        predictions: what is stored, oldest first.
        faults: consumed one by each call of ``create``; then all goes well.
        page_tasks: tasks of one page.
        active: the version that annotators see.
        late: rows of requests that the server is still at work on.
        late_reads: calls of ``carriers`` before those rows are there.
        most_rows: a request with more predictions is too large; None for no limit.
        invalid: tasks whose predictions are dropped without a word, as those with an unknown label are.
        stale: tasks that are shown with a wrong number of predictions.
        connected: live backends.
        shown: whether annotators are shown predictions at all.
        parented: ids of predictions that annotations came from.
        act_faults: as ``faults``, of ``delete_all``, ``delete_version`` and ``accept``: ``refuse``, ``denied``,
            ``lose before``, ``lose after`` and ``half``.
        lock: held while one prediction is created, since threads do that side by side.
    """

    tasks: dict[int, Task] = field(default_factory=dict)
    label_config: str = ""
    annotations: dict[int, AnnotatedTask] = field(default_factory=dict)
    created: dict[int, datetime] = field(default_factory=dict)
    views: dict[int, str] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    page_tasks: int = 7
    active: str = ""
    late: list[Prediction] = field(default_factory=list)
    late_reads: int = 1
    most_rows: int | None = None
    invalid: frozenset[int] = frozenset()
    stale: set[int] = field(default_factory=set)
    connected: list[Backend] = field(default_factory=list)
    shown: bool = True
    parented: set[int] = field(default_factory=set)
    act_faults: list[Fault] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _reads: int = 0

    def project(self) -> ProjectInfo:
        """See ``TaskSource.project``."""
        return ProjectInfo(
            id=1,
            title="in memory",
            label_config=self.label_config,
            task_count=len(self.tasks),
            annotated_count=len(self.annotations),
            active_version=self.active,
            prediction_count=len(self.predictions),
            shows_predictions=self.shown,
        )

    def split(self, selection: Selection, parts: int) -> Sequence[tuple[int, int]]:
        """See ``TaskSource.split``."""
        ids = [task.id for page in self.pages(replace(selection, limit=None)) for task in page.tasks]
        size = -(-len(ids) // parts) or 1
        return [(ids[at], ids[min(at + size, len(ids)) - 1]) for at in range(0, len(ids), size)]

    def pages(self, selection: Selection, *, after: int = 0, last: int | None = None) -> Iterator[TaskPage]:
        """See ``TaskSource.pages``."""
        wanted = [
            task
            for key, task in sorted(self.tasks.items())
            if key > after and (last is None or key <= last) and self._selected(task, selection)
        ][: selection.limit]
        for first in range(0, len(wanted), self.page_tasks):
            yield TaskPage(wanted[first : first + self.page_tasks], len(wanted) - first)

    def absent(self, task_ids: Sequence[int]) -> Iterator[int]:
        """See ``TaskSource.absent``."""
        yield from (task for task in task_ids if task not in self.tasks)

    def _selected(self, task: Task, selection: Selection) -> bool:
        carried = {row.model_version for row in self.predictions if row.task_id == task.id}
        conditions = [self.views[selection.view]] if selection.view is not None else []
        conditions += [selection.filters] if selection.filters else []
        made, since, until = self.created.get(task.id, CREATED), selection.created_since, selection.created_until
        return (
            (not selection.without_version or selection.without_version not in carried)
            and (not selection.with_version or selection.with_version in carried)
            and not (selection.untouched_only and task.id in self.annotations)
            and (selection.task_ids is None or task.id in selection.task_ids)
            and (since is None or made >= since)
            and (until is None or made < until)
            and all(matches(task, json.loads(text)) for text in conditions)
        )

    def annotated(self, selection: Selection) -> Iterator[AnnotatedTask]:
        """See ``AnnotationSource.annotated``; of the selection, only what names tasks counts."""
        ids = selection.task_ids
        chosen = [entry for task, entry in sorted(self.annotations.items()) if ids is None or task in ids]
        yield from chosen[: selection.limit]

    def delete_task(self, task: int) -> None:
        """Somebody deletes a task, and with it what it carries."""
        del self.tasks[task]
        self.annotations.pop(task, None)
        self.predictions = [row for row in self.predictions if row.task_id != task]

    def recounts_project(self) -> bool:
        """See ``PredictionSink.recounts_project``: it does not."""
        return False

    def create(self, predictions: Sequence[Prediction]) -> int:
        """See ``PredictionSink.create``; the next fault happens."""
        fault = self.faults.pop(0) if self.faults else ""
        # Copies: each stored prediction is one of its own, also where the same one is sent twice.
        rows = [replace(row) for row in predictions if row.task_id not in self.invalid]
        half = rows[: len(rows) // 2]
        if fault == "refuse":
            raise TransientError("refused before it was read")
        if fault == "denied":
            raise PermanentError("401", status=401)
        if fault == "large" or (self.most_rows is not None and len(predictions) > self.most_rows):
            raise PermanentError("413", status=413)
        if fault == "lose before":
            raise AmbiguousError("no answer")
        if any(row.task_id not in self.tasks for row in rows):
            raise PermanentError("a task does not exist", status=400)
        if fault == "late":
            self.late += rows
            self._reads = 0
            raise AmbiguousError("no answer")
        stored = half if fault in ("half", "short") else rows
        self.predictions += stored
        if fault in ("lose after", "half"):
            raise AmbiguousError("no answer")
        return len(stored)

    def create_one(self, prediction: Prediction) -> None:
        """See ``PredictionSink.create_one``; the next fault happens, ``half`` and ``short`` store nothing."""
        with self.lock:
            self.create([prediction])

    def carriers(self, model_version: str, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.carriers``."""
        found = {row.task_id for row in self.predictions if row.model_version == model_version}
        self._reads += 1
        if self._reads >= self.late_reads:
            self.predictions += [row for row in self.late if row.task_id in self.tasks]
            self.late = []
        yield from sorted(task for task in found if first <= task <= last)

    def count_carriers(self, model_version: str, task_ids: Sequence[TaskId]) -> int:
        """See ``PredictionSink.count_carriers``; a read as ``carriers`` is."""
        if not task_ids:
            return 0
        return len(set(task_ids).intersection(self.carriers(model_version, task_ids[0], task_ids[-1])))

    def existing(self, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.existing``."""
        yield from (TaskId(task) for task in sorted(self.tasks) if first <= task <= last)

    def prediction_ids(self, model_version: str, first: int, last: int) -> Iterator[tuple[TaskId, tuple[int, ...]]]:
        """See ``PredictionSink.prediction_ids``; the id is that of the object in memory."""
        found: dict[TaskId, list[int]] = {}
        for row in self.predictions:
            if row.model_version == model_version and first <= row.task_id <= last:
                found.setdefault(row.task_id, []).append(id(row))
        yield from ((task, tuple(ids)) for task, ids in sorted(found.items()))

    def delete(self, prediction_id: int) -> None:
        """See ``PredictionSink.delete``."""
        self.predictions = [row for row in self.predictions if id(row) != prediction_id]

    def stale_counters(self, first: int, last: int) -> int:
        """See ``PredictionSink.stale_counters``."""
        return sum(first <= task <= last for task in self.stale)

    def repair_counters(self) -> None:
        """See ``PredictionSink.repair_counters``."""
        self.stale.clear()

    def surplus(self, model_version: str) -> int:
        """See ``PredictionSink.surplus``."""
        rows = [row.task_id for row in self.predictions if row.model_version == model_version]
        return len(rows) - len(set(rows))

    def remove_surplus(self, model_version: str) -> int:
        """See ``PredictionSink.remove_surplus``."""
        kept: list[Prediction] = []
        seen: set[int] = set()
        for row in self.predictions:
            if row.model_version != model_version or row.task_id not in seen:
                kept.append(row)
            if row.model_version == model_version:
                seen.add(row.task_id)
        removed = len(self.predictions) - len(kept)
        self.predictions = kept
        return removed

    def activate(self, model_version: str, *, show: bool = False) -> str:
        """See ``PredictionSink.activate``."""
        titles = {backend.title for backend in self.connected}
        if model_version and model_version not in titles | {row.model_version for row in self.predictions}:
            raise PermanentError("no prediction carries it", status=400)
        self.shown = self.shown or show
        before, self.active = self.active, model_version
        return before

    # -------------------------------------------------------------------------------------------- as a store

    def versions(self) -> Sequence[VersionCount]:
        """See ``PredictionStore.versions``; each prediction was stored a second after the one before."""
        found: dict[str, VersionCount] = {}
        for place, row in enumerate(self.predictions):
            count = found[row.model_version].predictions if row.model_version in found else 0
            found[row.model_version] = VersionCount(row.model_version, count + 1, _stored_at(place))
        return sorted(found.values(), key=lambda entry: entry.latest, reverse=True)

    def backends(self) -> Sequence[Backend]:
        """See ``PredictionStore.backends``."""
        return self.connected

    def holding(
        self, selection: Selection, versions: Collection[str] | None = None, *, references: bool = False
    ) -> Iterator[Sequence[TaskPredictions]]:
        """See ``PredictionStore.holding``."""
        for page in self.pages(selection):
            found = [self._held(task.id, references) for task in page.tasks]
            carrying = [
                task
                for task in found
                if task.predictions
                and (versions is None or any(entry.model_version in versions for entry in task.predictions))
            ]
            if carrying:
                yield carrying

    def _held(self, task: TaskId, references: bool) -> TaskPredictions:
        rows = [(place, row) for place, row in enumerate(self.predictions) if row.task_id == task]
        return TaskPredictions(
            task,
            tuple(
                StoredPrediction(
                    id(row),
                    task,
                    row.result,
                    row.score,
                    row.model_version,
                    _stored_at(place),
                    references and id(row) in self.parented,
                )
                for place, row in rows
            ),
            touched=task in self.annotations,
        )

    def remaining(self, prediction_ids: Collection[int], task_ids: Sequence[TaskId]) -> set[int]:
        """See ``PredictionStore.remaining``."""
        wanted = set(task_ids)
        return {id(row) for row in self.predictions if row.task_id in wanted}.intersection(prediction_ids)

    def holds_others(self, task_ids: Sequence[TaskId], versions: Collection[str]) -> bool:
        """See ``PredictionStore.holds_others``."""
        wanted = set(task_ids)
        return any(row.task_id in wanted and row.model_version not in versions for row in self.predictions)

    def holds_only(self, task_ids: Sequence[TaskId], prediction_ids: Collection[int]) -> bool:
        """See ``PredictionStore.holds_only``."""
        wanted = set(task_ids)
        return {id(row) for row in self.predictions if row.task_id in wanted} <= set(prediction_ids)

    def counters_off(self, task_ids: Sequence[TaskId], predictions: int) -> int:
        """See ``PredictionStore.counters_off``."""
        return len(self.stale.intersection(task_ids))

    def untouched(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """See ``PredictionStore.untouched``."""
        return {task for task in task_ids if task in self.tasks and task not in self.annotations}

    def parents(self, task_ids: Sequence[TaskId]) -> Mapping[int, int]:
        """See ``PredictionStore.parents``."""
        wanted = set(task_ids)
        made = [entry for task, entries in self.annotations.items() if task in wanted for entry in entries.annotations]
        return Counter(entry.id for entry in made if entry.id in self.parented)

    def delete_all(self, task_ids: Sequence[TaskId]) -> None:
        """See ``PredictionStore.delete_all``; the next of ``act_faults`` happens."""
        doomed = set(task_ids)
        self._act([row for row in self.predictions if row.task_id in doomed], self._remove)

    def delete_version(self, model_version: str) -> None:
        """See ``PredictionStore.delete_version``; likewise."""
        self._act([row for row in self.predictions if row.model_version == model_version], self._remove)
        if self.active == model_version or self.active in {backend.title for backend in self.connected}:
            self.active = ""

    def accept(self, model_version: str, task_ids: Sequence[TaskId]) -> None:
        """See ``PredictionStore.accept``; likewise."""
        wanted = set(task_ids)
        rows = [row for row in self.predictions if row.task_id in wanted and row.model_version == model_version]
        self._act([row for row in rows if id(row) not in self.parented], self._annotate)

    def accept_one(self, prediction: Prediction) -> None:
        """Somebody makes an annotation of a stored prediction."""
        self._annotate([prediction])

    def _act(self, rows: list[Prediction], act: Callable[[list[Prediction]], None]) -> None:
        fault = self.act_faults.pop(0) if self.act_faults else ""
        if fault == "refuse":
            raise TransientError("refused before it was read")
        if fault == "denied":
            raise PermanentError("403", status=403)
        if fault != "lose before":
            act(rows[: len(rows) // 2] if fault == "half" else rows)
        if fault:
            raise AmbiguousError("no answer")

    def _remove(self, rows: list[Prediction]) -> None:
        doomed = {id(row) for row in rows}
        self.predictions = [row for row in self.predictions if id(row) not in doomed]

    def _annotate(self, rows: list[Prediction]) -> None:
        for row in rows:
            before = self.annotations.get(row.task_id)
            made = Annotation(id(row), row.result, CREATED.isoformat())
            annotations = (*(before.annotations if before else ()), made)
            self.annotations[row.task_id] = AnnotatedTask(self.tasks[row.task_id], annotations)
            self.parented.add(id(row))


def _stored_at(place: int) -> datetime:
    return CREATED + timedelta(seconds=place)
