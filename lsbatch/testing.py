"""For authors of pipelines and connectors: conformance suites, and a project in memory whose faults are scripted."""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from lsbatch.entities import AnnotatedTask, DeadLetter, Prediction, Task, TaskId
from lsbatch.errors import AmbiguousError, PermanentError, PipelineError, TransientError
from lsbatch.label_config import LabelConfig
from lsbatch.ports import (
    AnnotationSource,
    MediaReader,
    Pipeline,
    PipelineContext,
    PredictionSink,
    ProjectInfo,
    Selection,
    TaskPage,
    TaskSource,
)
from lsbatch.predictor import Predictor, plain

__all__ = ["Fault", "MemoryMedia", "MemoryProject", "check_connector", "check_pipeline"]

#: What one call of ``create`` does instead of storing all and saying so:
#: ``refuse`` surely takes nothing; ``lose before`` and ``lose after`` answer nothing, without and with the rows stored;
#: ``half`` answers nothing and stores the first half; ``late`` answers nothing and stores after ``late_reads`` reads;
#: ``short`` stores half and says so; ``large`` is too large; ``denied`` is refused for good.
Fault = Literal["", "refuse", "lose before", "lose after", "half", "late", "short", "large", "denied"]


class MemoryMedia(MediaReader):
    """Media from a dictionary.

    Args:
        files: bytes by URI.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self._files = dict(files or {})

    def read(self, uri: str) -> bytes:
        """See ``MediaReader.read``."""
        if uri not in self._files:
            raise PipelineError(f"not found: {uri}")
        return self._files[uri]


@dataclass
class MemoryProject(TaskSource, AnnotationSource, PredictionSink):
    """A project in memory that behaves as Label Studio does. Nothing in it happens by chance.

    Attributes:
        tasks: by id.
        label_config: its text.
        annotations: of tasks, by id.
        predictions: what is stored, oldest first.
        faults: consumed one by each call of ``create``; then all goes well.
        page_tasks: tasks of one page.
        active: the version that annotators see.
        late: rows of requests that the server is still at work on.
        late_reads: calls of ``carriers`` before those rows are there.
        most_rows: a request with more predictions is too large; None for no limit.
        invalid: tasks whose predictions are dropped without a word, as those with an unknown label are.
        stale: tasks that are shown with a wrong number of predictions.
        lock: held while one prediction is created, since threads do that side by side.
    """

    tasks: dict[int, Task] = field(default_factory=dict)
    label_config: str = ""
    annotations: dict[int, AnnotatedTask] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    page_tasks: int = 7
    active: str = ""
    late: list[Prediction] = field(default_factory=list)
    late_reads: int = 1
    most_rows: int | None = None
    invalid: frozenset[int] = frozenset()
    stale: set[int] = field(default_factory=set)
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
        )

    def split(self, selection: Selection, parts: int) -> Sequence[tuple[int, int]]:
        """See ``TaskSource.split``."""
        ids = [task.id for page in self.pages(selection) for task in page.tasks]
        size = -(-len(ids) // parts) or 1
        return [(ids[at], ids[min(at + size, len(ids)) - 1]) for at in range(0, len(ids), size)]

    def pages(self, selection: Selection, *, after: int = 0, last: int | None = None) -> Iterator[TaskPage]:
        """See ``TaskSource.pages``."""
        carriers = {row.task_id for row in self.predictions if row.model_version == selection.without_version}
        touched = set(self.annotations) if selection.untouched_only else set()
        wanted = [task for key, task in sorted(self.tasks.items()) if key > after and key not in carriers | touched]
        wanted = [task for task in wanted if last is None or task.id <= last]
        wanted = wanted[: selection.limit]
        for first in range(0, len(wanted), self.page_tasks):
            yield TaskPage(wanted[first : first + self.page_tasks], len(wanted) - first)

    def annotated(self) -> Iterator[AnnotatedTask]:
        """See ``AnnotationSource.annotated``."""
        yield from (entry for _, entry in sorted(self.annotations.items()))

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
        rows = [row for row in predictions if row.task_id not in self.invalid]
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

    def activate(self, model_version: str) -> str:
        """See ``PredictionSink.activate``."""
        if all(row.model_version != model_version for row in self.predictions):
            raise PermanentError("no prediction carries it", status=400)
        before, self.active = self.active, model_version
        return before


def _must(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(rule)


def check_pipeline(
    pipeline: type[Pipeline],
    *,
    label_config: str,
    tasks: Sequence[Task],
    model_dir: Path | None = None,
    params: Mapping[str, Any] | None = None,
    media: MediaReader | None = None,
) -> None:
    """Check that a pipeline keeps the rules of ``lsbatch.ports.Pipeline`` on these tasks, all of them good ones.

    Raises:
        AssertionError: a rule is broken; says which.
    """
    config = LabelConfig(label_config)
    _check_importable(pipeline)
    why = pipeline.why_not(config)
    _must(why is None, f"why_not() refuses the label config: {why}")
    other = cast("object", pipeline.why_not(LabelConfig("<View/>")))
    _must(other is None or (isinstance(other, str) and other != ""), "why_not() must give words or None")
    built = pipeline.build(PipelineContext(config, dict(params or {}), media or MemoryMedia(), "check-1", model_dir))
    _must(list(built.predict([])) == [], "no tasks must give no results")
    together = list(built.predict(tasks))
    _must(len(together) == len(tasks), f"predict() gave {len(together)} results for {len(tasks)} tasks")
    for outcome in Predictor(built, config, "check-1").predict_chunk(tasks):
        if isinstance(outcome, DeadLetter):
            raise AssertionError(f"task {outcome.task_id}: {outcome.stage}: {outcome.cause}")
    backwards = list(built.predict(tasks[::-1]))[::-1]
    for place, (task, result) in enumerate(zip(tasks, together, strict=True)):
        alone = list(built.predict([task]))
        _must(len(alone) == 1, f"predict() gave {len(alone)} results for task {task.id} alone")
        _must(_same(alone[0], result), f"task {task.id} alone gives another result than among others")
        _must(_same(backwards[place], result), f"task {task.id} gives another result when the order is turned round")


def _check_importable(pipeline: type[Pipeline]) -> None:
    """Workers get the name of a pipeline, not the class."""
    found: object = importlib.import_module(pipeline.__module__)
    for name in pipeline.__qualname__.split("."):
        found = getattr(found, name, None)
    place = f"{pipeline.__module__}:{pipeline.__qualname__}"
    _must(found is pipeline, f"workers cannot import {place}: define the class at the top of a module")


def _same(one: object, other: object) -> bool:
    """Whether two results are the same but for the rounding of numbers, which may depend on the size of a batch."""
    return isinstance(one, Mapping) and isinstance(other, Mapping) and _alike(plain(one), plain(other))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    return bool(one == other)


def check_connector(source: TaskSource, sink: PredictionSink, *, result: Sequence[Mapping[str, Any]]) -> None:
    """Check a connector on a project of at least four tasks, without predictions of ``check-1`` and ``check-10``.

    Args:
        source: the project's tasks.
        sink: takes predictions for the same project.
        result: a prediction's result that its label config allows.

    Raises:
        AssertionError: a rule of ``lsbatch.ports`` is broken; says which.
    """
    ids = _check_source(source)
    first, last = ids[0], ids[-1]

    def rows(tasks: Sequence[TaskId], version: str) -> list[Prediction]:
        return [Prediction(task, result, 0.5, version) for task in tasks]

    _must(sink.create(rows(ids[:1], "check-10")) == 1, "create() must return how many it stored")
    _must(sink.create(rows(ids[1:3], "check-1")) == 2, "create() must return how many it stored")
    _must(sink.create([]) == 0, "create() of nothing must store nothing")
    _refuses(
        lambda: sink.create(rows([ids[3], TaskId(last + 1_000_000)], "check-1")),
        "create() must raise PermanentError when a task does not exist",
    )
    lacking = [first, *ids[3:]]
    _must(
        _ids(source, Selection("check-1")) == lacking,
        "without_version must compare versions whole, and create() must store nothing of a request that it refuses",
    )
    _must(_ids(source, Selection("check-1", limit=2)) == lacking[:2], "limit counts only the selected tasks")
    _must(list(sink.carriers("check-1", first, last)) == ids[1:3], "carriers() must compare versions whole")
    _must(list(sink.carriers("check-1", ids[2], ids[2])) == [ids[2]], "carriers() must keep to its range")
    _must(list(sink.carriers("check-never", first, last)) == [], "carriers() of an unknown version are none")
    _must(sink.count_carriers("check-1", ids) == 2, "count_carriers() must compare versions whole")
    _must(sink.count_carriers("check-1", [ids[0], *ids[2:]]) == 1, "count_carriers() must count these tasks alone")
    _must(sink.count_carriers("check-10", [first, TaskId(last + 1_000_000)]) == 1, "count_carriers() of a missing task")
    _must(sink.count_carriers("check-never", ids) == 0, "count_carriers() of an unknown version is 0")
    _must(sink.count_carriers("check-1", []) == 0, "count_carriers() of no tasks is 0")
    _must(list(sink.existing(first, ids[1])) == ids[:2], "existing() must give the tasks of its range")
    _must(sink.surplus("check-1") == 0, "surplus() must be 0 where each task has one")
    sink.create(rows(ids[1:2], "check-1"))
    _must(sink.surplus("check-1") == 1, "surplus() must count the second prediction of a task")
    _must(sink.remove_surplus("check-1") == 1, "remove_surplus() must remove the second prediction")
    _must(sink.surplus("check-1") == 0, "remove_surplus() must leave one each")
    _must(list(sink.carriers("check-1", first, last)) == ids[1:3], "remove_surplus() must leave one each")
    _must(list(sink.carriers("check-10", first, last)) == ids[:1], "remove_surplus() must leave other versions alone")
    sink.activate("check-10")
    _must(sink.activate("check-1") == "check-10", "activate() must return the version shown before")
    _must(source.project().active_version == "check-1", "activate() must show the version to annotators")
    _must(sink.activate("check-1") == "check-1", "activate() must be safe to repeat")
    _refuses(lambda: sink.activate("check-never"), "activate() must refuse a version that no prediction carries")


def _check_source(source: TaskSource) -> list[TaskId]:
    """Check the reading of tasks; their ids."""
    pages = list(source.pages(Selection()))
    ids = [task.id for page in pages for task in page.tasks]
    _must(len(ids) >= 4, "the project has fewer than four tasks")
    _must(ids == sorted(set(ids)), "pages() gave ids that are not ascending, or twice")
    _must(source.project().task_count == len(ids), "project() must count the tasks that pages() gives")
    left = len(ids)
    for page in pages:
        _must(page.remaining == left, f"a page must say that {left} tasks are left, itself included")
        left -= len(page.tasks)
    after = [task.id for page in source.pages(Selection(), after=ids[0]) for task in page.tasks]
    _must(after == ids[1:], "pages(after=) does not begin after that task")
    _must(list(source.pages(Selection(), after=ids[-1])) == [], "pages() after the last task must be none")
    _must(_ids(source, Selection(limit=2)) == ids[:2], "limit does not give the lowest ids")
    return ids


def _refuses(call: Callable[[], object], rule: str) -> None:
    try:
        call()
    except PermanentError:
        return
    raise AssertionError(rule)


def _ids(source: TaskSource, selection: Selection) -> list[TaskId]:
    return [task.id for page in source.pages(selection) for task in page.tasks]
