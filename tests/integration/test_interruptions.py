"""Runs that end in the middle, and pipelines that misbehave: the server holds each prediction once all the same."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from ls_support import USER_PIPELINE, Studio, lsbatch, text_tasks
from running import running

#: A text of a megabyte.
LONG = "word " * 200_000


def told(*texts: str) -> list[dict[str, dict[str, str]]]:
    """Tasks with these texts."""
    return [{"data": {"text": text}} for text in texts]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["interrupted", "terminated", "killed"],
)
def test_an_interrupted_run_continues(studio: Studio, here: Path, number: signal.Signals, code: int) -> None:
    """The pipeline hangs: the first signal would be obeyed once it ends, the second is obeyed at once."""
    (here / "mine.py").write_text(USER_PIPELINE)
    project = studio.make_project([*text_tasks(40), *told("HANG"), *text_tasks(9)])
    command = ["predict", "--project", str(project), "--pipeline", "mine:Told", "--workers", "0", "--chunk-size", "10"]
    with running(*command, cwd=here, server=studio.server) as process:
        process.until_there("hanging")
        process.send(number)
        if number != signal.SIGKILL:
            process.until_said("Once more stops at once.")
            process.send(number)
        ended = process.end()
    assert ended.code == code, ended.stderr
    (here / "go").touch()
    done = lsbatch(*command, "--resume", "--json", cwd=here, server=studio.server)
    assert done.returncode == 0, done.stderr
    assert "continuing run" in done.stderr
    assert json.loads(done.stdout)["selected"] == 50
    found = studio.predictions(project)
    assert sorted(found) == studio.task_ids(project)
    assert all([entry[0] for entry in entries] == ["told-1"] for entries in found.values())
    assert len(list((here / ".lsbatch").glob("*/*/runs/*"))) == 1


@pytest.mark.parametrize("workers", ["0", "1"])
def test_only_the_task_at_fault_is_quarantined(studio: Studio, here: Path, workers: str) -> None:
    (here / "mine.py").write_text(USER_PIPELINE)
    bad = ("RAISE", "NAN", "UNKNOWN", "FEWER")
    project = studio.make_project([*text_tasks(20), *told(*bad, LONG), *text_tasks(20)])
    arguments = ["predict", "--project", str(project), "--pipeline", "mine:Told", "--workers", workers, "--json"]
    done = lsbatch(*arguments, "--max-failures", "100%", cwd=here, server=studio.server)
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert (report["selected"], report["predicted"], report["quarantined"]) == (45, 41, 4)
    ids = studio.task_ids(project)
    found = studio.predictions(project)
    assert sorted(found) == ids[:20] + ids[24:]
    for task, entries in found.items():
        [(_, _, [region])] = entries
        assert region["value"]["choices"] == [("sport", "food", "music")[task % 3]], "shifted to another task"
    [letters] = (here / ".lsbatch").glob("*/*/runs/*/dead_letters.jsonl")
    assert [json.loads(line)["task"] for line in letters.read_text().splitlines()] == ids[20:24]


def test_when_all_tasks_fail_nothing_is_imported(studio: Studio, here: Path) -> None:
    (here / "mine.py").write_text(USER_PIPELINE)
    project = studio.make_project(told("RAISE", "RAISE"))
    done = lsbatch("predict", "--project", str(project), "--pipeline", "mine:Told", cwd=here, server=studio.server)
    assert done.returncode == 4, done.stderr
    assert studio.predictions(project) == {}
