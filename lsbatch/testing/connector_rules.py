"""The rules of ``lsbatch.ports.TaskSource`` and ``PredictionSink``, checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lsbatch.entities import Prediction, TaskId
from lsbatch.errors import PermanentError
from lsbatch.ports import PredictionSink, Selection, TaskSource
from lsbatch.testing.rules import must

__all__ = ["check_connector"]

#: Before any task is made, and after.
LONG_AGO, FAR_AHEAD = datetime(1999, 12, 31, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)


def check_connector(source: TaskSource, sink: PredictionSink, *, result: Sequence[Mapping[str, Any]]) -> None:
    """Check a connector on a project of at least four tasks, without predictions of ``check-1`` and ``check-10``.

    Args:
        source: the project's tasks.
        sink: takes predictions for the same project.
        result: a prediction's result that its label config allows.

    Raises:
        AssertionError: a rule of ``lsbatch.ports`` is broken; says which.
    """

    def rows(tasks: Sequence[TaskId], version: str) -> list[Prediction]:
        return [Prediction(task, result, 0.5, version) for task in tasks]

    ids = _check_pages(source)
    _check_ranges(source, ids)
    _check_choice(source, ids)
    must(sink.create(rows(ids[:1], "check-10")) == 1, "create() must return how many it stored")
    must(sink.create(rows(ids[1:3], "check-1")) == 2, "create() must return how many it stored")
    must(sink.create([]) == 0, "create() of nothing must store nothing")
    _refuses(
        lambda: sink.create(rows([ids[3], TaskId(ids[-1] + 1_000_000)], "check-1")),
        "create() must raise PermanentError when a task does not exist",
    )
    _check_versions(source, ids)
    _check_read_back(sink, ids)
    sink.create(rows(ids[1:2], "check-1"))
    _check_removal(sink, ids)
    _check_counters(sink, ids)
    _check_activation(source, sink)


def _check_pages(source: TaskSource) -> list[TaskId]:
    """Check the reading of tasks; their ids."""
    pages = list(source.pages(Selection()))
    ids = [task.id for page in pages for task in page.tasks]
    must(len(ids) >= 4, "the project has fewer than four tasks")
    must(ids == sorted(set(ids)), "pages() gave ids that are not ascending, or twice")
    must(source.project().task_count == len(ids), "project() must count the tasks that pages() gives")
    left = len(ids)
    for page in pages:
        must(page.remaining == left, f"a page must say that {left} tasks are left, itself included")
        left -= len(page.tasks)
    return ids


def _check_ranges(source: TaskSource, ids: Sequence[TaskId]) -> None:
    def between(selection: Selection, after: int, last: int | None) -> list[TaskId]:
        return [task.id for page in source.pages(selection, after=after, last=last) for task in page.tasks]

    every = Selection()
    must(between(every, ids[0], None) == ids[1:], "pages(after=) does not begin after that task")
    must(between(every, ids[-1], None) == [], "pages() after the last task must be none")
    must(between(every, ids[0], ids[2]) == ids[1:3], "pages(last=) must end with that task")
    must(between(every, ids[1], ids[1]) == [], "pages() of an empty range must be none")
    must(_ids(source, Selection(limit=2)) == ids[:2], "limit does not give the lowest ids")
    for selection, chosen in ((every, ids), (Selection(task_ids=(ids[1], ids[3])), [ids[1], ids[3]])):
        for parts in (1, 2, 3, len(ids) + 5):
            ranges = list(source.split(selection, parts))
            edges = [edge for ends in ranges for edge in ends]
            must(edges == sorted(edges), f"split() gave ranges that are not ascending or not disjoint: {ranges}")
            must(1 <= len(ranges) <= parts, f"split() into {parts} gave {len(ranges)} ranges")
            found = [task for first, last in ranges for task in between(selection, first - 1, last)]
            must(found == chosen, "the ranges of split() must hold every selected task")
    must(len(source.split(every, 2)) == 2, "split() must give as many ranges as there are tasks for")
    must(list(source.split(Selection(task_ids=()), 2)) == [], "split() of nothing must be no ranges")


def _check_choice(source: TaskSource, ids: Sequence[TaskId]) -> None:
    absent = ids[-1] + 1_000_000
    must(_ids(source, Selection(task_ids=())) == [], "no task_ids must select nothing")
    must(_ids(source, Selection(task_ids=(ids[0], ids[2], absent))) == [ids[0], ids[2]], "task_ids must be exact")
    must(list(source.absent([*ids, absent])) == [absent], "absent() must give the ids that are no tasks of the project")
    must(list(source.absent([])) == [], "absent() of no ids is none")
    either = _filters("or", ids[3], ids[1])
    must(_ids(source, Selection(filters=either)) == [ids[1], ids[3]], "filters with 'or' must give both, ascending")
    must(_ids(source, Selection(filters=_filters("and", ids[3], ids[1]))) == [], "filters with 'and' must all hold")
    must(
        _ids(source, Selection(filters=either, task_ids=(ids[0], ids[1]))) == [ids[1]],
        "filters with 'or' and task_ids must both hold",
    )
    must(_ids(source, Selection(filters=either, limit=1)) == [ids[1]], "limit must count what the filters leave")
    must(_ids(source, Selection(created_until=FAR_AHEAD)) == ids, "created_until must keep tasks that are older")
    must(_ids(source, Selection(created_since=FAR_AHEAD)) == [], "created_since must leave out tasks that are older")
    must(_ids(source, Selection(created_since=LONG_AGO)) == ids, "created_since must keep tasks that are younger")
    must(_ids(source, Selection(created_until=LONG_AGO)) == [], "created_until must leave out tasks that are younger")


def _filters(conjunction: str, *ids: TaskId) -> str:
    items = [{"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": task} for task in ids]
    return json.dumps({"conjunction": conjunction, "items": items})


def _check_versions(source: TaskSource, ids: Sequence[TaskId]) -> None:
    lacking = [ids[0], *ids[3:]]
    must(
        _ids(source, Selection("check-1")) == lacking,
        "without_version must compare versions whole, and create() must store nothing of a request that it refuses",
    )
    must(_ids(source, Selection("check-1", limit=2)) == lacking[:2], "limit counts only the selected tasks")
    must(_ids(source, Selection(with_version="check-1")) == ids[1:3], "with_version must compare versions whole")
    must(_ids(source, Selection(with_version="check-never")) == [], "with_version of an unknown version selects none")
    must(
        _ids(source, Selection("check-1", filters=_filters("or", ids[0], ids[1]))) == [ids[0]],
        "filters with 'or' and without_version must both hold",
    )


def _check_read_back(sink: PredictionSink, ids: Sequence[TaskId]) -> None:
    first, last = ids[0], ids[-1]
    must(list(sink.carriers("check-1", first, last)) == ids[1:3], "carriers() must compare versions whole")
    must(list(sink.carriers("check-1", ids[2], ids[2])) == [ids[2]], "carriers() must keep to its range")
    must(list(sink.carriers("check-never", first, last)) == [], "carriers() of an unknown version are none")
    must(sink.count_carriers("check-1", ids) == 2, "count_carriers() must compare versions whole")
    must(sink.count_carriers("check-1", [ids[0], *ids[2:]]) == 1, "count_carriers() must count these tasks alone")
    must(sink.count_carriers("check-10", [first, TaskId(last + 1_000_000)]) == 1, "count_carriers() of a missing task")
    must(sink.count_carriers("check-never", ids) == 0, "count_carriers() of an unknown version is 0")
    must(sink.count_carriers("check-1", []) == 0, "count_carriers() of no tasks is 0")
    must(list(sink.existing(first, ids[1])) == ids[:2], "existing() must give the tasks of its range")
    found = list(sink.prediction_ids("check-1", first, last))
    must([task for task, _ in found] == ids[1:3], "prediction_ids() must compare versions whole")
    must(all(len(own) == 1 for _, own in found), "prediction_ids() must give one id for one prediction")
    must(list(sink.prediction_ids("check-1", ids[2], last)) == found[1:], "prediction_ids() must keep to its range")
    must(sink.surplus("check-1") == 0, "surplus() must be 0 where each task has one")


def _check_removal(sink: PredictionSink, ids: Sequence[TaskId]) -> None:
    """Check what is done about the second prediction of ``check-1`` on the second task, then delete the first."""
    first, last = ids[0], ids[-1]
    ((task, before),) = sink.prediction_ids("check-1", ids[1], ids[1])
    must(task == ids[1] and len(before) == 2, "prediction_ids() must give all of a task")
    must(sink.surplus("check-1") == 1, "surplus() must count the second prediction of a task")
    must(sink.remove_surplus("check-1") == 1, "remove_surplus() must remove the second prediction")
    must(sink.surplus("check-1") == 0, "remove_surplus() must leave one each")
    must(list(sink.carriers("check-1", first, last)) == ids[1:3], "remove_surplus() must leave one each")
    must(list(sink.carriers("check-10", first, last)) == ids[:1], "remove_surplus() must leave other versions alone")
    kept = list(sink.prediction_ids("check-1", ids[1], ids[1]))
    must(kept == [(ids[1], before[:1])], "remove_surplus() must keep the oldest; prediction_ids() must begin with it")
    must(sink.remove_surplus("check-1") == 0, "remove_surplus() must be safe to repeat")
    for _ in range(2):
        sink.delete(before[0])
    must(list(sink.carriers("check-1", first, last)) == ids[2:3], "delete() must delete one prediction, once")


def _check_counters(sink: PredictionSink, ids: Sequence[TaskId]) -> None:
    sink.repair_counters()
    must(sink.stale_counters(ids[0], ids[-1]) == 0, "stale_counters() must be 0 after repair_counters()")


def _check_activation(source: TaskSource, sink: PredictionSink) -> None:
    sink.activate("check-10")
    must(sink.activate("check-1") == "check-10", "activate() must return the version shown before")
    must(source.project().active_version == "check-1", "activate() must show the version to annotators")
    must(sink.activate("check-1") == "check-1", "activate() must be safe to repeat")
    _refuses(lambda: sink.activate("check-never"), "activate() must refuse a version that no prediction carries")


def _refuses(call: Callable[[], object], rule: str) -> None:
    try:
        call()
    except PermanentError:
        return
    raise AssertionError(rule)


def _ids(source: TaskSource, selection: Selection) -> list[TaskId]:
    return [task.id for page in source.pages(selection) for task in page.tasks]
