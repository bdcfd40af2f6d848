"""Runs on the disk: which is meant, which is deleted, which one takes another's place."""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lsbatch.chunks import ChunkState
from lsbatch.config import Loaded, load
from lsbatch.entities import TaskId
from lsbatch.errors import ConfigError, ExitCode, StoppedError
from lsbatch.ledger import Ledger
from lsbatch.lock import hold
from lsbatch.operations.runs import (
    close_others,
    find_run,
    fingerprint,
    new_run,
    prune,
    run_report,
    run_state,
    runs,
    unfinished,
    unmade_run,
)
from lsbatch.run_dir import RunDir, predictions_table, write_json
from lsbatch.run_states import CLOSED, FAILED, FINISHED, INTERRUPTED, OVER_BUDGET, RUNNING, STOPPED, SUPERSEDED
from lsbatch.server_key import server_key
from lsbatch.stopping import Stop
from lsbatch.testing import MemoryProject
from lsbatch.verbs.listing import describe, located_run, project_runs, prune_project_runs
from run_support import OPTIONS, SENDING, VERSION, Clock, ClockStop, clocked, prediction

STATES = (RUNNING, FINISHED, FAILED, INTERRUPTED, STOPPED, OVER_BUDGET, SUPERSEDED)
MANIFEST = {"operation": "predict", "server": "http://a", "project": 1, "model_version": VERSION, "origin": "mine:Told"}


def run_in(folder: Path, name: str, state: str | None = FINISHED, **manifest: Any) -> RunDir:
    """A run with a report of this state; with none for None."""
    run = RunDir(folder / name)
    run.create({**MANIFEST, **manifest})
    if state is not None:
        write_json(run.results, {"state": state})
    return run


def ids(folder: Path) -> list[str]:
    """The runs that there are, newest first."""
    return [run.id for run in runs(folder)]


# ------------------------------------------------------------------------------------------------ finding one


def test_a_new_run_is_named_by_its_time(tmp_path: Path) -> None:
    first, second = new_run(tmp_path, MANIFEST), new_run(tmp_path, MANIFEST)
    assert first.id != second.id
    assert re.fullmatch(r"\d{8}T\d{9}Z-[0-9a-f]{4}", first.id)
    assert {**MANIFEST, "created_at": first.manifest()["created_at"]} == first.manifest()


def test_runs_come_newest_first_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    run_in(tmp_path, "20260101T000000Z-ffff")
    run_in(tmp_path, "20260201T000000Z-0000")
    (tmp_path / "20260301T000000Z-aaaa").mkdir()
    (tmp_path / "note.txt").write_text("")
    assert ids(tmp_path) == ["20260201T000000Z-0000", "20260101T000000Z-ffff"]
    assert ids(tmp_path / "nowhere") == []


def test_a_run_is_found_by_its_whole_name(tmp_path: Path) -> None:
    run = run_in(tmp_path, "20260101T000000Z-5e6f")
    assert find_run([tmp_path / "empty", tmp_path], "20260101T000000Z-5e6f").path == run.path


def test_a_name_tells_the_time_to_the_millisecond(tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    named = unmade_run(tmp_path).id.partition("Z-")[0]
    assert before < datetime.strptime(f"{named}000+0000", "%Y%m%dT%H%M%S%f%z") <= datetime.now(UTC)


@pytest.mark.parametrize("name", ["20260101T000000Z-5e6", "20260101T000000Z", "", ".", "..", "../runs"])
def test_a_name_that_is_none_names_the_nearest(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "runs"
    run_in(folder, "20260101T000000Z-5e6f")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"there are 20260101T000000Z-5e6f") as caught:
        find_run([folder], name)
    assert "lsbatch runs" in caught.value.hint


def test_without_runs_there_is_nothing_near(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are none yet"):
        find_run([tmp_path / "empty", tmp_path], "20260101T000000Z-5e6f")


@pytest.mark.parametrize("content", [b"", b'{"state": "fini', b"[]", b"\xff"])
def test_a_report_that_is_not_whole_is_that_of_a_run_under_way(tmp_path: Path, content: bytes) -> None:
    run = run_in(tmp_path, "a", None)
    assert run_state(run) == RUNNING
    run.results.write_bytes(content)
    assert (run_state(run), run_report(run)) == (RUNNING, {})


# ------------------------------------------------------------------------------------------------ continuing one


@pytest.mark.parametrize("state", STATES)
def test_only_a_run_that_is_not_closed_is_continued(tmp_path: Path, state: str) -> None:
    run = run_in(tmp_path, "a", state)
    found = unfinished(tmp_path, MANIFEST)
    assert (found.path if found else None) == (None if state in CLOSED else run.path)


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "import"},
        {"server": "http://b"},
        {"project": 2},
        {"model_version": "v10"},
        {"origin": "mine:Other"},
        {"params": {"size": 2}},
        {"selection": {"limit": 5}},
        {"label_config_hash": "other"},
        {"dry_run": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_run_of_another_command_is_not_continued(tmp_path: Path, change: dict[str, Any]) -> None:
    run_in(tmp_path, "a", STOPPED, **change)
    assert unfinished(tmp_path, MANIFEST) is None


def test_what_may_change_from_call_to_call_does_not_count(tmp_path: Path) -> None:
    run_in(tmp_path, "a", STOPPED, lsbatch="0.0.1", created_at="long ago")
    assert unfinished(tmp_path, MANIFEST) is not None
    assert fingerprint(MANIFEST) == fingerprint({**MANIFEST, "anything": 1})


def test_the_newest_of_several_is_continued(tmp_path: Path) -> None:
    for name in ("a", "c", "b"):
        run_in(tmp_path, name, FAILED)
    run_in(tmp_path, "d", FINISHED)
    found = unfinished(tmp_path, MANIFEST)
    assert found is not None
    assert found.id == "c"


# ------------------------------------------------------------------------------------------------ deleting some


def nobody(_version: str) -> bool:
    """No process is at work."""
    return False


@pytest.mark.parametrize("state", STATES)
def test_what_may_be_continued_is_never_deleted(tmp_path: Path, state: str) -> None:
    run_in(tmp_path, "a", state)
    deleted = prune(tmp_path, 0, busy=nobody)
    assert deleted == (["a"] if state in CLOSED else [])
    assert (tmp_path / "a").exists() == (state not in CLOSED)


def test_a_run_without_a_report_is_never_deleted_but_a_dry_one_is(tmp_path: Path) -> None:
    run_in(tmp_path, "a", None)
    run_in(tmp_path, "b", RUNNING, dry_run=True)
    assert prune(tmp_path, 0, busy=nobody) == ["b"]


def test_a_version_that_is_being_worked_on_is_left_alone(tmp_path: Path) -> None:
    run_in(tmp_path, "a", model_version="busy")
    run_in(tmp_path, "b")
    assert prune(tmp_path, 0, busy=lambda version: version == "busy") == ["b"]


def test_the_newest_stay_those_that_cannot_be_deleted_counted_in(tmp_path: Path) -> None:
    for name in "abcde":
        run_in(tmp_path, name, STOPPED if name in "be" else FINISHED)
    assert prune(tmp_path, 2, busy=nobody) == ["c", "a"]
    assert ids(tmp_path) == ["e", "d", "b"]
    assert prune(tmp_path, 2, busy=nobody) == []


def test_half_a_deletion_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    def interrupted(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    run = run_in(tmp_path, "a")
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(ConfigError, match="Permission denied"):
        prune(tmp_path, 0, busy=nobody)
    assert ids(tmp_path) == []
    assert run.path.exists()


# ------------------------------------------------------------------------------------------------ taking its place


def sending_run(folder: Path, name: str, clock: Clock, project: MemoryProject, tasks: list[int]) -> RunDir:
    """A run that was killed while a request was under way whose rows the server will still store."""
    run = run_in(folder, name, RUNNING, project=1)
    rows = [prediction(task) for task in tasks]
    with closing(Ledger(run.ledger)) as ledger:
        ledger.exported(ledger.plan(tasks[0], tasks[-1], len(tasks)))
        run.write_predictions(0, predictions_table(rows))
        ledger.intend([ledger.predicted(0, len(tasks), ())])
    project.late += rows
    project.late_reads = 4
    clock.now += 1
    return run


@pytest.fixture
def project() -> MemoryProject:
    """Four tasks without predictions."""
    from lsbatch.entities import Task

    return MemoryProject({number: Task(TaskId(number), {}) for number in range(1, 5)})


def test_nothing_of_a_run_that_another_replaces_arrives_any_more(tmp_path: Path, project: MemoryProject) -> None:
    with clocked() as clock:
        run = sending_run(tmp_path, "a", clock, project, [1, 2])
        began = clock.now
        close_others(tmp_path, VERSION, project, OPTIONS, stop=ClockStop(clock))
        # The rows came late, and were waited for; nothing was sent.
        assert [int(row.task_id) for row in project.predictions] == [1, 2]
        assert clock.now - began <= SENDING.write_seconds + SENDING.settle_seconds + 2
    assert run_report(run) == {"state": SUPERSEDED, "run": "a", "model_version": VERSION}
    with closing(Ledger(run.ledger)) as ledger:
        assert [chunk.state for chunk in ledger.chunks()] == [ChunkState.SENDING]


def test_a_request_that_brought_nothing_is_waited_out(tmp_path: Path, project: MemoryProject) -> None:
    with clocked() as clock:
        sending_run(tmp_path, "a", clock, project, [1, 2])
        project.late.clear()
        began = clock.now
        close_others(tmp_path, VERSION, project, OPTIONS, stop=ClockStop(clock))
        assert clock.now - began >= SENDING.write_seconds - 1 + SENDING.settle_seconds
    assert project.predictions == []


@pytest.mark.parametrize("state", STATES)
def test_every_unfinished_run_of_the_version_is_superseded(tmp_path: Path, project: MemoryProject, state: str) -> None:
    run = run_in(tmp_path, "a", state)
    close_others(tmp_path, VERSION, project, OPTIONS)
    assert run_state(run) == (FINISHED if state == FINISHED else SUPERSEDED)
    assert unfinished(tmp_path, MANIFEST) is None


def test_the_run_itself_other_versions_and_dry_runs_are_left_alone(tmp_path: Path, project: MemoryProject) -> None:
    kept = run_in(tmp_path, "a", STOPPED)
    run_in(tmp_path, "b", STOPPED, model_version="v10")
    run_in(tmp_path, "c", STOPPED, dry_run=True)
    close_others(tmp_path, VERSION, project, OPTIONS, keep=kept)
    assert {run.id: run_state(run) for run in runs(tmp_path)} == {"a": STOPPED, "b": STOPPED, "c": STOPPED}


def test_a_damaged_ledger_does_not_stand_in_the_way(tmp_path: Path, project: MemoryProject) -> None:
    run = run_in(tmp_path, "a", RUNNING)
    run.ledger.write_bytes(b"not a database, and longer than its header" * 10)
    close_others(tmp_path, VERSION, project, OPTIONS)
    assert run_state(run) == SUPERSEDED


def test_predictions_that_were_lost_do_not_stand_in_the_way(tmp_path: Path, project: MemoryProject) -> None:
    with clocked() as clock:
        run = sending_run(tmp_path, "a", clock, project, [1, 2])
        for path in (run.path / "predictions").iterdir():
            path.unlink()
        close_others(tmp_path, VERSION, project, OPTIONS, stop=ClockStop(clock))
    assert run_state(run) == SUPERSEDED


def test_a_stop_leaves_a_run_that_is_not_settled_as_it_was(tmp_path: Path, project: MemoryProject) -> None:
    with clocked() as clock:
        run = sending_run(tmp_path, "a", clock, project, [1, 2])
        stop = ClockStop(clock)
        stop.ask("told to", ExitCode.INTERRUPTED)
        with pytest.raises(StoppedError):
            close_others(tmp_path, VERSION, project, OPTIONS, stop=stop)
    assert run_state(run) == RUNNING


# ------------------------------------------------------------------------------------------------ listing them


def loaded(tmp_path: Path, **environ: str) -> Loaded:
    """The configuration of a state folder below this one."""
    return load(None, environ=environ, flags={}, cwd=tmp_path, flag_names={})


def state_folder(tmp_path: Path, url: str, project: int) -> Path:
    """Where the state of a project is."""
    return tmp_path / ".lsbatch" / server_key(url) / f"project-{project}"


def test_runs_of_one_project_of_one_server_or_of_all(tmp_path: Path) -> None:
    for url, project, name in (("http://a:1", 1, "x"), ("http://a:1", 12, "y"), ("http://b", 1, "z")):
        run_in(state_folder(tmp_path, url, project) / "runs", name)

    def found(**environ: str) -> list[str]:
        return [run.id for _, run in project_runs(loaded(tmp_path, **environ))]

    assert found() == ["x", "y", "z"]
    assert found(LABEL_STUDIO_URL="http://a:1") == ["x", "y"]
    assert found(LABEL_STUDIO_URL="http://a:1", LSBATCH_PROJECT="1") == ["x"]
    assert found(LSBATCH_PROJECT="1") == ["x", "z"]
    assert found(LABEL_STUDIO_URL="http://c") == []


def test_a_run_is_located_wherever_it_is(tmp_path: Path) -> None:
    folder = state_folder(tmp_path, "http://a:1", 12)
    run_in(folder / "runs", "20260101T000000Z-5e6f")
    run_in(state_folder(tmp_path, "http://a:1", 3) / "runs", "20260101T000000Z-aaaa")
    where, run = located_run(loaded(tmp_path), "20260101T000000Z-5e6f")
    assert (where, run.id) == (folder, "20260101T000000Z-5e6f")
    with pytest.raises(ConfigError, match="there are 20260101T000000Z-5e6f, 20260101T000000Z-aaaa"):
        located_run(loaded(tmp_path), "20260101T000000Z-5e6e")


def test_a_run_that_nobody_works_on_was_killed(tmp_path: Path) -> None:
    folder = state_folder(tmp_path, "http://a:1", 1)
    run = run_in(folder / "runs", "x", None)
    assert describe(folder, run)["state"] == "killed"
    with hold(folder / "locks", VERSION, wait_seconds=0, stop=Stop()):
        assert describe(folder, run)["state"] == "running"
        assert prune_project_runs(loaded(tmp_path), 0) == []


def test_a_line_of_a_run_has_its_counts(tmp_path: Path) -> None:
    folder = state_folder(tmp_path, "http://a:1", 1)
    run = run_in(folder / "runs", "x", created_at="2026-01-01T00:00:00+00:00")
    write_json(
        run.results, {"state": FINISHED, "selected": 5, "confirmed": 4, "seconds": {"export": 1.2, "audit": 0.4}}
    )
    line = describe(folder, run)
    assert (line["state"], line["selected"], line["confirmed"], line["imported"]) == (FINISHED, 5, 4, None)
    assert (line["started"], line["seconds"], line["project"]) == ("2026-01-01T00:00:00+00:00", 2, 1)
    assert json.loads(json.dumps(line)) == line


def test_a_dry_run_is_called_one(tmp_path: Path) -> None:
    folder = state_folder(tmp_path, "http://a:1", 1)
    assert describe(folder, run_in(folder / "runs", "x", dry_run=True))["state"] == "dry run"
