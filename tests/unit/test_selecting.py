"""What ``--select`` means: which tasks, whether they are predicted anew, and what is said about it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lsbatch.entities import DeadLetter, Prediction, Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.ledger import Ledger
from lsbatch.operations.selecting import Resolved, Select, resolve, selection_json
from lsbatch.operations.staleness import digest
from lsbatch.ports import Selection
from lsbatch.run_dir import RunDir, predictions_table, tasks_table, write_json
from lsbatch.testing import MemoryProject

VERSION, HASH = "v1", "feed"


def data(number: int) -> dict[str, Any]:
    """The data of a task: what the pipeline reads, and what it does not."""
    return {"text": f"words {number}", "note": "old"}


def project(*ids: int, carry: Sequence[int] | None = None, version: str = VERSION) -> MemoryProject:
    """A project in which some tasks (all, unless it is said) carry a prediction of the version."""
    rows = [Prediction(TaskId(task), [], 0.5, version) for task in (ids if carry is None else carry)]
    return MemoryProject({task: Task(TaskId(task), data(task)) for task in ids}, predictions=rows)


def add_run(
    folder: Path,
    name: str,
    tasks: Mapping[int, Mapping[str, Any]],
    *,
    chunk: int = 3,
    letters: Sequence[DeadLetter] = (),
    imported: bool = True,
    state: str = "finished",
    with_tasks: bool = True,
    **manifest: Any,
) -> RunDir:
    """A run on disk that predicted these tasks from this data; names order the runs."""
    run = RunDir(folder / name)
    run.create({"model_version": VERSION, "label_config_hash": HASH, **manifest})
    ids = sorted(tasks)
    dead = {letter.task_id for letter in letters if letter.stage != "import"}
    with closing(Ledger(run.ledger)) as ledger:
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            planned = ledger.plan(part[0], part[-1], len(part))
            if with_tasks:
                run.write_tasks(planned.number, tasks_table([Task(TaskId(task), tasks[task]) for task in part]))
            rows = [Prediction(TaskId(task), [], 0.5, VERSION) for task in part if task not in dead]
            run.write_predictions(planned.number, predictions_table(rows))
            ledger.exported(planned)
            own = [letter for letter in letters if letter.task_id in part]
            predicted = ledger.predicted(planned.number, len(rows), [x for x in own if x.stage != "import"])
            if imported:
                ledger.imported(ledger.intend([predicted]), [x for x in own if x.stage == "import"])
        run.write_dead_letters(ledger.dead_letters())
    write_json(run.results, {"state": state})
    return run


def resolved(
    select: Select,
    source: MemoryProject,
    folder: Path,
    base: Selection | None = None,
    *,
    config: str = HASH,
    keys: Sequence[str] = ("text",),
) -> Resolved:
    """What ``--select`` gives."""
    return resolve(
        select,
        base or Selection(),
        version=VERSION,
        runs_folder=folder,
        source=source,
        label_config_hash=config,
        data_keys=keys,
    )


def letter(task: int, stage: Any = "predict") -> DeadLetter:
    """A quarantined task."""
    return DeadLetter(TaskId(task), stage, "told to")


# ------------------------------------------------------------------------------------------------ missing, all


def test_missing_leaves_out_what_carries_the_version_and_replaces_nothing(here: Path) -> None:
    base = Selection(untouched_only=True, limit=5, view=3)
    found = resolved("missing", project(1, 2), here, base)
    assert found == Resolved(replace(base, without_version=VERSION), False, ())


def test_all_takes_everything_and_replaces_it(here: Path) -> None:
    assert resolved("all", project(1, 2), here, Selection(limit=5)) == Resolved(Selection(limit=5), True, ())


@pytest.mark.parametrize("select", ["missing", "all"])
def test_ids_that_are_not_in_the_project_are_told_and_left_out(select: Select, here: Path) -> None:
    source = project(*range(1, 11))
    found = resolved(select, source, here, Selection(task_ids=(2, 4, 90, 91, 92, 93, 94, 95)))
    assert found.selection.task_ids == (2, 4)
    assert found.notes == ("6 of 8 task ids are not in the project: 90, 91, 92, 93, 94, ...",)
    assert resolved(select, source, here, Selection(task_ids=(2, 4))).notes == ()


# ------------------------------------------------------------------------------------------------ failed


def test_failed_takes_the_quarantine_of_the_newest_finished_run_of_the_version(here: Path) -> None:
    tasks = {task: data(task) for task in range(1, 8)}
    add_run(here, "1", tasks, letters=[letter(1), letter(2)])
    add_run(here, "2", tasks, letters=[letter(3), letter(5, "validate"), letter(6, "import")])
    add_run(here, "3", tasks, letters=[letter(4)], state="failed")
    add_run(here, "4", tasks, letters=[letter(4)], dry_run=True)
    add_run(here, "5", tasks, letters=[letter(4)], model_version="v10")
    found = resolved("failed", project(*tasks), here)
    assert found.selection == Selection(without_version=VERSION, task_ids=(3, 5, 6))
    assert not found.replace
    assert found.notes == ("3 tasks are in the quarantine of run 2",)


def test_failed_counts_together_with_task_ids(here: Path) -> None:
    add_run(here, "1", {task: data(task) for task in range(1, 8)}, letters=[letter(1), letter(2), letter(5)])
    found = resolved("failed", project(*range(1, 8)), here, Selection(task_ids=(2, 3, 5)))
    assert found.selection.task_ids == (2, 5)


def test_failed_of_a_run_without_failures_is_nothing(here: Path) -> None:
    add_run(here, "1", {1: data(1)})
    assert resolved("failed", project(1), here).selection.task_ids == ()


def test_failed_without_a_finished_run_says_the_way_out(here: Path) -> None:
    add_run(here, "1", {1: data(1)}, state="running")
    with pytest.raises(ConfigError, match=r"no finished run of v1 in .*") as caught:
        resolved("failed", project(1), here)
    assert "lsbatch runs" in caught.value.hint


# ------------------------------------------------------------------------------------------------ stale


def changed(source: MemoryProject, task: int, **more: Any) -> None:
    """Somebody changes the data of a task."""
    source.tasks[task] = Task(TaskId(task), {**source.tasks[task].data, **more})


def test_stale_is_what_changed_as_far_as_the_pipeline_reads_it(here: Path) -> None:
    source = project(*range(1, 21))
    add_run(here, "1", {task: data(task) for task in range(1, 21)})
    changed(source, 4, text="other words")
    changed(source, 9, note="not read")
    changed(source, 20, text="other words")
    found = resolved("stale", source, here)
    assert found.selection == Selection(task_ids=(4, 20))
    assert found.replace
    assert found.notes == ("2 of 20 tasks that carry v1 are stale",)
    assert resolved("stale", source, here, keys=()).selection.task_ids == (4, 9, 20), "all data, where no key is known"


def test_stale_is_everything_of_a_run_with_another_label_config(here: Path) -> None:
    source = project(*range(1, 9))
    add_run(here, "1", {task: data(task) for task in range(1, 5)}, label_config_hash="0ld")
    add_run(here, "2", {task: data(task) for task in range(5, 9)})
    assert resolved("stale", source, here).selection.task_ids == (1, 2, 3, 4)
    assert resolved("stale", source, here, config="new").selection.task_ids == tuple(range(1, 9))


def test_the_newest_run_that_predicted_a_task_counts(here: Path) -> None:
    source = project(*range(1, 9))
    old = {task: {"text": "before"} for task in range(1, 9)}
    add_run(here, "1", old, chunk=8)
    add_run(here, "2", {task: data(task) for task in (2, 3, 5)}, chunk=2)
    assert resolved("stale", source, here).selection.task_ids == (1, 4, 6, 7, 8)
    add_run(here, "3", {3: {"text": "later"}, 4: data(4)})
    assert resolved("stale", source, here).selection.task_ids == (1, 3, 6, 7, 8)


@pytest.mark.parametrize(
    "later",
    [
        {"letters": [letter(1)]},
        {"letters": [letter(1, "import")]},
        {"imported": False},
        {"dry_run": True},
        {"model_version": "v2"},
    ],
    ids=["quarantined", "refused", "not sent", "dry run", "other version"],
)
def test_a_run_whose_prediction_is_not_on_the_server_does_not_count(later: dict[str, Any], here: Path) -> None:
    add_run(here, "1", {1: {"text": "before"}, 2: data(2)})
    add_run(here, "2", {1: data(1)}, **later)
    assert resolved("stale", project(1, 2), here).selection.task_ids == (1,)


def test_tasks_that_no_run_predicted_cannot_be_judged_and_are_told(here: Path) -> None:
    source = project(*range(1, 7), carry=(1, 2, 3, 4, 5))
    add_run(here, "1", {1: data(1), 2: {"text": "before"}})
    add_run(here, "2", {3: data(3)}, with_tasks=False)
    found = resolved("stale", source, here)
    assert found.selection.task_ids == (2,)
    assert found.notes[0] == "1 of 5 tasks that carry v1 are stale"
    assert found.notes[1].startswith("3 tasks that carry v1 were predicted by no run on this disk")
    assert "--select all" in found.notes[1]


def test_a_run_that_cannot_be_read_is_told_and_passed_over(here: Path) -> None:
    source = project(1, 2, 3)
    add_run(here, "1", {1: {"text": "before"}})
    torn = add_run(here, "2", {2: {"text": "before"}})
    torn.ledger.write_bytes(b"not a ledger" * 100)
    half = add_run(here, "3", {3: {"text": "before"}})
    (half.path / "predictions" / "00000.parquet").write_bytes(b"PAR1")
    found = resolved("stale", source, here)
    assert found.selection.task_ids == (1,)
    assert sum("run 2" in note or "run 3" in note for note in found.notes) == 2
    assert found.notes[-1].startswith("2 tasks")


def test_stale_counts_together_with_all_that_narrows_the_choice(here: Path) -> None:
    source = project(*range(1, 21))
    add_run(here, "1", {task: {"text": "before"} for task in range(1, 21)})
    base = Selection(task_ids=tuple(range(3, 21)), limit=4, created_until=datetime(2027, 1, 1, tzinfo=UTC))
    found = resolved("stale", source, here, base)
    assert found.selection == replace(base, task_ids=(3, 4, 5, 6))
    assert resolved("stale", source, here, replace(base, created_since=base.created_until)).selection.task_ids == ()


def test_only_chunks_around_the_task_in_question_are_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = project(*range(1, 61), carry=range(28, 33))
    add_run(here, "1", {task: data(task) for task in range(1, 61)}, chunk=10)
    read: list[int] = []
    original = RunDir.read_tasks
    monkeypatch.setattr(RunDir, "read_tasks", lambda run, chunk: (read.append(chunk), original(run, chunk))[1])
    assert resolved("stale", source, here).selection.task_ids == ()
    assert read == [2, 3]


def test_a_digest_tells_what_the_pipeline_can_tell_apart() -> None:
    one = {"text": "a", "more": [1, {"b": 2}]}
    assert digest(one, ["text"]) == digest({"text": "a", "more": 5}, ["text"])
    assert digest(one, []) == digest(dict(reversed(one.items())), [])
    assert digest(one, []) != digest({**one, "more": 5}, [])
    assert digest({"other": 1}, ["text"]) != digest({"other": 2}, ["text"]), "all data, where a key is not there"
    assert digest({"text": "1"}, ["text"]) != digest({"text": 1}, ["text"])


# ------------------------------------------------------------------------------------------------ the manifest


def test_the_form_for_a_manifest_is_small_json_that_tells_selections_apart() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    many = Selection(task_ids=tuple(range(1, 100_001)), created_since=now)
    form = selection_json(many)
    assert form["task_ids"]["count"] == 100_000
    assert form["created_since"] == "2026-01-31T00:00:00+00:00"
    assert len(json.dumps(form)) < 600
    others = [
        Selection(),
        Selection(task_ids=()),
        Selection(task_ids=(1, 2)),
        Selection(task_ids=(1, 3)),
        Selection(view=1),
        Selection(filters="{}"),
        Selection(limit=1),
        Selection(created_until=now),
        Selection(without_version="v"),
        Selection(with_version="v"),
        Selection(untouched_only=True),
    ]
    texts = [json.dumps(selection_json(selection), sort_keys=True) for selection in [many, *others]]
    assert len(set(texts)) == len(texts)


def test_a_selection_is_hashable_and_small_when_pickled() -> None:
    one = Selection(view=3, filters="{}", created_since=datetime(2026, 1, 31, tzinfo=UTC))
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(one) == hash(replace(one))
    assert len(pickle.dumps(one)) < 400
