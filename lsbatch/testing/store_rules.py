"""The rules of ``lsbatch.ports.PredictionStore``, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lsbatch.entities import Prediction, TaskId, TaskPredictions
from lsbatch.ports import PredictionStore, Selection, TaskSource
from lsbatch.testing.rules import must

__all__ = ["check_store"]

#: Two versions of which one contains the other, and one with all that an address or a list must not be taken in by.
ONE, LONGER, ODD = "store-1", "store-10", "store/1, \"ö\" 'x' %_*"


def check_store(source: TaskSource, store: PredictionStore, *, result: Sequence[Mapping[str, Any]]) -> None:
    """Check a store on a project of at least six untouched tasks without predictions; leaves it without any.

    Args:
        source: the project's tasks.
        store: its predictions.
        result: a prediction's result that its label config allows.

    Raises:
        AssertionError: a rule of ``lsbatch.ports`` is broken; says which.
    """
    ids = [task.id for page in source.pages(Selection()) for task in page.tasks]
    must(len(ids) >= 6, "the project has fewer than six tasks")
    must(list(store.versions()) == [], "the project must hold no predictions")
    for version, tasks in ((ONE, ids[:3]), (LONGER, ids[2:5]), (ODD, ids[4:5])):
        store.create([Prediction(task, result, 0.25, version) for task in tasks])
    _check_counts(store)
    _check_holding(store, ids)
    _check_asking(store, ids)
    _check_deletion(source, store, ids)
    _check_acceptance(store, ids)


def _counts(store: PredictionStore) -> dict[str, int]:
    return {entry.model_version: entry.predictions for entry in store.versions()}


def _held(store: PredictionStore, *versions: str, selection: Selection | None = None) -> dict[int, TaskPredictions]:
    pages = store.holding(selection or Selection(), versions or None, references=True)
    return {task.task_id: task for page in pages for task in page}


def _check_counts(store: PredictionStore) -> None:
    must(_counts(store) == {ONE: 3, LONGER: 3, ODD: 1}, "versions() must count each version whole")
    newest = [entry.model_version for entry in store.versions()]
    must(newest == [ODD, LONGER, ONE], "versions() must begin with the newest")
    must(list(store.backends()) == [], "backends() of a project without any is none")


def _check_holding(store: PredictionStore, ids: Sequence[TaskId]) -> None:
    every = _held(store)
    must(list(every) == ids[:5], "holding() must give the tasks that hold predictions, ids ascending")
    must(list(_held(store, ONE)) == ids[:3], "holding() must compare versions whole")
    must(list(_held(store, LONGER, ODD)) == ids[2:5], "holding() must give the tasks of any of the versions")
    must(list(_held(store, ODD)) == ids[4:5], "holding() must find a version whatever is in its name")
    must(_held(store, "store-never") == {}, "holding() of an unknown version is none")
    must(list(store.holding(Selection(), [])) == [], "holding() of no versions is none")
    chosen = Selection(task_ids=(ids[1], ids[3]))
    must(list(_held(store, selection=chosen)) == [ids[1], ids[3]], "holding() must keep to the selection")
    both = every[ids[2]].predictions
    must([entry.model_version for entry in both] == [ONE, LONGER], "holding() must give all of a task, oldest first")
    must(all(entry.task_id == ids[2] for entry in both), "a prediction must name its task")
    must(both[0].score == 0.25 and both[0].created_at.tzinfo is not None, "a prediction must have score and time")
    must(not any(task.touched for task in every.values()), "a task without annotations is not touched")


def _check_asking(store: PredictionStore, ids: Sequence[TaskId]) -> None:
    held = _held(store)
    one = [entry.id for entry in held[ids[0]].predictions]
    must(store.remaining([*one, 10**9], ids[:2]) == set(one), "remaining() must give what is still stored")
    must(store.remaining(one, ids[1:2]) == set(), "remaining() must keep to its tasks")
    must(not store.holds_others(ids[:2], {ONE}), "holds_others() must not see these versions")
    must(store.holds_others(ids[:3], {ONE}), "holds_others() must see another version that contains this one")
    must(store.holds_others(ids[:1], {LONGER}), "holds_others() must see another version that this one contains")
    must(store.holds_others(ids[4:5], {LONGER}), "holds_others() must see a version whatever is in its name")
    must(not store.holds_others([], {ONE}), "holds_others() of no tasks is nothing")
    must(store.holds_only(ids[:1], one), "holds_only() must know what is there")
    must(not store.holds_only(ids[:2], one), "holds_only() must see what is there besides")
    must(store.holds_only(ids[5:], []), "holds_only() of a task without predictions holds")
    must(store.counters_off(ids[:2], 1) == 0, "counters_off() must be 0 where counters are right")
    must(store.untouched(ids) == set(ids), "untouched() must give tasks without annotations")
    must(store.untouched([]) == set() and dict(store.parents([])) == {}, "of no tasks there is nothing")


def _check_deletion(source: TaskSource, store: PredictionStore, ids: Sequence[TaskId]) -> None:
    before = _counts(store)
    store.delete_all([])
    must(_counts(store) == before, "delete_all() of no tasks must delete nothing")
    store.delete_all(ids[:1])
    must(_counts(store) == {ONE: 2, LONGER: 3, ODD: 1}, "delete_all() must delete what these tasks hold")
    store.delete_all(ids[:1])
    store.activate(LONGER)
    store.delete_version(ONE)
    must(_counts(store) == {LONGER: 3, ODD: 1}, "delete_version() must compare versions whole")
    store.delete_version(ONE)
    store.delete_version(ODD)
    must(_counts(store) == {LONGER: 3}, "delete_version() must find a version whatever is in its name")
    must(source.project().active_version == LONGER, "to delete another version must leave the active one")


def _check_acceptance(store: PredictionStore, ids: Sequence[TaskId]) -> None:
    accepted = ids[2:4]
    [entry] = _held(store)[ids[2]].predictions
    store.accept(LONGER, [])
    must(store.untouched(ids) == set(ids), "accept() of no tasks must make nothing")
    for _ in range(2):
        store.accept(LONGER, accepted)
    must(store.untouched(ids) == {*ids} - {*accepted}, "accept() must make annotations of these tasks alone")
    must(store.parents(ids).get(entry.id) == 1, "accept() twice must make one annotation of a prediction")
    held = _held(store)
    must(held[ids[2]].touched and held[ids[2]].predictions[0].referenced, "holding() must see what was accepted")
    must(not held[ids[4]].touched and not held[ids[4]].predictions[0].referenced, "and what was not")
    store.delete_all(ids)
    must(_counts(store) == {}, "delete_all() must also delete what annotations came from")
