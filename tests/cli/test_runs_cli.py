"""Runs as a user sees them: listed, continued, retried, audited, stopped; real processes and a real Label Studio."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ls_support import Studio, lsbatch, text_tasks
from lsbatch.config import load
from lsbatch.verbs.listing import describe, project_runs
from running import Ended, running

VERSION = "mine-1"
CHUNK = 5

#: Writes down what it predicts. Waits at the task HOLD until the file ``go`` is there; fails on the words of ``bad``.
PIPELINE = """
import os
import pathlib
import threading


class Mine:
    model_version = "mine-1"

    @classmethod
    def why_not(cls, label_config):
        return None

    @classmethod
    def build(cls, context):
        return cls()

    def predict(self, tasks):
        bad = pathlib.Path("bad").read_text().split()
        for task in tasks:
            words = task.data["text"].split()
            if "HOLD" in words:
                pathlib.Path("held").touch()
                while not pathlib.Path("go").exists():
                    threading.Event().wait(0.05)
            if set(bad).intersection(words):
                raise ValueError(f"a bad word in task {task.id}")
        with open("predicted", "a") as file:
            file.write("".join(f"{task.id}\\n" for task in tasks))
        return [{"result": [], "score": 0.5} for _ in tasks]
"""


@dataclass
class Place:
    """A working directory, and a project of tasks with these texts."""

    studio: Studio
    folder: Path
    project: int
    ids: list[int]

    @classmethod
    def make(cls, studio: Studio, folder: Path, *, tasks: int, odd: Mapping[int, str] | None = None) -> Place:
        """A new project; ``odd`` are the texts of some of its tasks, by their place."""
        rows = text_tasks(tasks)
        for place, text in (odd or {}).items():
            rows[place] = {"data": {"text": text}}
        (folder / "mine.py").write_text(PIPELINE)
        (folder / "bad").write_text("BAD")
        project = studio.make_project(rows)
        return cls(studio, folder, project, studio.task_ids(project))

    @property
    def predict(self) -> list[str]:
        """The command of every run."""
        words = ["predict", "--project", str(self.project), "--pipeline", "mine:Mine", "--chunk-size", str(CHUNK)]
        return [*words, "--workers", "0"]

    def run(self, *arguments: str, code: int = 0) -> Ended:
        """A command that ends with this code; it shows no traceback and no token."""
        done = lsbatch(*arguments, cwd=self.folder, server=self.studio.server)
        assert done.returncode == code, (done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        assert self.studio.server.token not in done.stdout + done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What such a command prints as JSON."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def go(self) -> None:
        """Let the pipeline go on."""
        (self.folder / "go").touch()

    def runs(self) -> list[dict[str, Any]]:
        """What ``lsbatch runs`` says of the project, newest first; without the start of a process."""
        loaded = load(None, environ={"LSBATCH_PROJECT": str(self.project)}, flags={}, cwd=self.folder)
        return [describe(folder, run) for folder, run in project_runs(loaded)]

    def newest(self) -> str:
        """The id of the newest run."""
        return str(self.runs()[0]["run"])

    def predicted(self) -> Counter[int]:
        """How often each task was predicted."""
        return Counter(int(line) for line in (self.folder / "predicted").read_text().split())

    def held(self) -> dict[int, int]:
        """How many predictions of the version each task has on the server."""
        found = self.studio.predictions(self.project)
        counts = {task: sum(version == VERSION for version, _, _ in rows) for task, rows in found.items()}
        return dict(sorted(counts.items()))

    def one_each(self, *but: int) -> bool:
        """Whether each task but these has exactly one prediction."""
        return self.held() == {task: 1 for task in self.ids if task not in but}


# ------------------------------------------------------------------------------------------------ runs


def test_runs_are_listed_shown_and_deleted(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=8)
    project = str(place.project)
    assert place.run("runs", "--project", project).stderr == "there are no runs yet\n"
    assert place.json("runs", "--project", project) == []
    place.run(*place.predict, "--limit", "3")
    place.run(*place.predict)
    place.run(*place.predict, "--dry-run")
    newest, second, first = place.json("runs", "--project", project)
    assert place.runs() == [newest, second, first]
    assert [entry["state"] for entry in (newest, second, first)] == ["dry run", "finished", "finished"]
    assert [entry["selected"] for entry in (newest, second, first)] == [0, 5, 3]
    assert (first["confirmed"], first["quarantined"], first["model_version"]) == (3, 0, VERSION)

    table = place.run("runs", "--project", project).stdout.splitlines()
    assert table[0].split()[:5] == ["run", "operation", "project", "state", "model_version"]
    assert [line.split()[0] for line in table[1:]] == [newest["run"], second["run"], first["run"]]

    shown = dict(line.split("  ", 1) for line in place.run("runs", "show", second["run"]).stdout.splitlines())
    assert {key: value.strip() for key, value in shown.items()}.items() >= {
        "run": second["run"],
        "state": "finished",
        "selected": "5",
        "audit passed": "True",
        "origin": "mine:Mine",
        "exit code": "0",
    }.items()
    told = place.json("runs", "show", second["run"])
    assert told["report"]["audit"]["confirmed"] == 5
    assert Path(told["folder"]).joinpath("log.jsonl").is_file()
    missing = place.run("runs", "show", f"{newest['run']}0", code=2)
    assert newest["run"] in missing.stderr.split("there are ")[1]

    assert place.json("runs", "prune", "--project", project, "--keep", "2") == {"deleted": [first["run"]]}
    assert place.run("runs", "prune", "--project", project, "--keep", "0").stdout == "2 runs deleted\n"
    assert place.runs() == []
    assert not list((here / ".lsbatch").glob("*/*/runs/*"))
    # The server still knows what is done.
    assert place.json(*place.predict)["selected"] == 0


def test_a_killed_run_is_continued_by_name(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=20, odd={12: "HOLD"})
    with running(*place.predict, cwd=here, server=studio.server) as process:
        process.until_there("held")
        assert place.runs()[0]["state"] == "running"
        process.send(signal.SIGKILL)
        assert process.end().code == -signal.SIGKILL
    [run] = place.runs()
    assert run["state"] == "killed"
    assert place.json("runs", "prune", "--keep", "0") == {"deleted": []}
    place.go()
    ended = place.run("resume", run["run"])
    assert f"continuing run {run['run']}" in ended.stderr
    assert place.one_each()
    assert set(place.predicted().values()) == {1}
    again = place.run("resume", run["run"], code=2)
    assert "there is nothing to continue" in again.stderr
    assert "lsbatch retry" in again.stderr


def test_failed_tasks_are_tried_again_once_the_pipeline_is_mended(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=12, odd={3: "BAD", 10: "WORSE"})
    (here / "bad").write_text("BAD WORSE")
    bad = (place.ids[3], place.ids[10])
    report = place.json(*place.predict, "--max-failures", "2", code=3)
    assert (report["quarantined"], report["allowed"], report["exit_code"]) == (2, 2, 3)
    assert place.one_each(*bad)
    first = place.newest()
    lines = (here / ".lsbatch").glob(f"*/*/runs/{first}/dead_letters.jsonl")
    assert [json.loads(line)["task"] for path in lines for line in path.read_text().splitlines()] == list(bad)

    # Mended, but not for all of them.
    (here / "bad").write_text("WORSE")
    tried = place.json("retry", first, code=3)
    assert (tried["selected"], tried["imported"], tried["quarantined"]) == (2, 1, 1)
    assert place.one_each(bad[1])
    (here / "bad").write_text("")
    assert place.json("retry", place.newest())["imported"] == 1
    assert place.one_each()
    assert set(place.predicted().values()) == {1}
    # Everything is there: what is tried again of the first run is nothing.
    assert place.json("retry", first)["selected"] == 0
    assert "no task of run" in place.run("retry", place.newest(), code=2).stderr


# ------------------------------------------------------------------------------------------------ the error budget


def test_beyond_the_budget_nothing_more_is_sent(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=20, odd={6: "BAD", 13: "BAD"})
    ended = place.run(*place.predict, code=4)
    assert "2 of 20 tasks failed, 1 may (run.max_failures)" in ended.stderr
    assert "a bad word in task" in ended.stderr
    [over] = place.runs()
    assert (over["state"], over["quarantined"]) == ("over budget", 2)
    # What comes after the failures was not even predicted.
    assert not set(place.predicted()) & set(place.ids[15:])
    assert not set(place.held()) & set(place.ids[10:])

    # It goes on by name, but sends nothing before more is allowed; a program reads how it ended.
    sent = place.held()
    again = place.json("resume", over["run"], code=4)
    assert (again["run"], again["state"], again["exit_code"], again["quarantined"]) == (
        over["run"],
        "over budget",
        4,
        2,
    )
    assert "run.max_failures" in again["error"]
    assert place.held() == sent
    assert place.json("resume", over["run"], "--max-failures", "10%", code=3)["quarantined"] == 2
    assert place.one_each(place.ids[6], place.ids[13])


def test_the_same_command_begins_anew_after_a_spent_budget(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=10, odd={0: "BAD"})
    place.run(*place.predict, "--fail-fast", code=4)
    assert place.held() == {}
    (here / "bad").write_text("")
    ended = place.run(*place.predict, "--fail-fast")
    assert "starting run" in ended.stderr
    assert place.one_each()
    assert [entry["state"] for entry in place.runs()] == ["finished", "superseded"]


# ------------------------------------------------------------------------------------------------ the audit


def spoil(place: Place, *, lost: int, doubled: int) -> None:
    """Somebody deletes the first predictions of a project and doubles the next ones."""
    with place.studio.http as http:
        rows = http.get("/api/predictions/", params={"project": place.project}).raise_for_status().json()
        rows.sort(key=lambda row: row["task"])
        for row in rows[:lost]:
            http.delete(f"/api/predictions/{row['id']}/").raise_for_status()
        for row in rows[lost : lost + doubled]:
            body = {key: row[key] for key in ("task", "result", "model_version")}
            http.post("/api/predictions/", json={**body, "project": place.project, "score": 0.9}).raise_for_status()


def test_an_audit_finds_what_others_did_and_repairs_it(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=12)
    audit = ["audit", "--project", str(place.project), "--pipeline", "mine:Mine"]
    assert "no run on this disk" in place.run(*audit).stdout
    place.run(*place.predict)
    run = place.newest()
    clean = place.json(*audit)
    assert (clean["missing"], clean["surplus"], clean["runs"][run]["confirmed"]) == (0, 0, 12)

    spoil(place, lost=3, doubled=2)
    found = place.json(*audit, code=7)
    assert (found["missing"], found["surplus"], found["removed"], found["exit_code"]) == (3, 2, 0, 7)
    assert found["runs"][run]["missing"] == place.ids[:3]
    ended = place.run(*audit, code=7)
    assert "--repair" in ended.stderr
    assert sum(place.held().values()) == 11, "an audit alone changes nothing"

    mended = place.json(*audit, "--repair")
    assert (mended["missing"], mended["surplus"], mended["removed"]) == (0, 0, 2)
    assert mended["repaired"]["imported"] == 3
    assert place.one_each()
    # Of two the older one stayed, and nothing was predicted again.
    assert {score for rows in studio.predictions(place.project).values() for _, score, _ in rows} == {0.5}
    assert set(place.predicted().values()) == {1}
    place.run(*audit)
    refused = place.run("resume", place.newest(), code=2)
    assert "lsbatch audit --repair" in refused.stderr


# ------------------------------------------------------------------------------------------------ how runs are stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_the_first_signal_lets_the_chunk_in_flight_end(
    studio: Studio, here: Path, number: signal.Signals, code: int
) -> None:
    place = Place.make(studio, here, tasks=20, odd={12: "HOLD"})
    with running(*place.predict, cwd=here, server=studio.server) as process:
        process.until_there("held")
        process.send(number)
        process.until_said("Stopping: what is under way is finished first. Once more stops at once.")
        place.go()
        ended = process.end()
    assert ended.code == code
    assert "Stopped:" in ended.stderr
    assert "the same command continues" in ended.stderr
    [run] = place.runs()
    assert (run["state"], run["selected"], run["predicted"]) == ("stopped", 15, 15)
    report = place.json("runs", "show", run["run"])["report"]
    assert report["exit_code"] == code
    ended = place.run(*place.predict)
    assert "continuing run" in ended.stderr
    assert place.one_each()
    assert place.predicted() == dict.fromkeys(place.ids, 1), "work was lost or done twice"


def test_a_terminal_interrupts_the_workers_too_and_they_go_on(studio: Studio, here: Path) -> None:
    """Ctrl-C goes to every process of the group: the workers must end what they have all the same."""
    place = Place.make(studio, here, tasks=30, odd={7: "HOLD"})
    command = [*place.predict[:-1], "2"]
    with running(*command, cwd=here, server=studio.server) as process:
        process.until_there("held")
        process.send_group(signal.SIGINT)
        process.until_said("Once more stops at once.")
        place.go()
        ended = process.end()
    assert ended.code == 130
    assert "died" not in ended.stderr
    [run] = place.runs()
    assert (run["state"], run["quarantined"]) == ("stopped", 0)
    assert run["predicted"] == run["selected"] == sum(place.predicted().values()) > 0
    place.run(*command)
    assert place.one_each()
    assert set(place.predicted().values()) == {1}


def test_a_run_out_of_time_stops_and_continues(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=20, odd={2: "HOLD"})
    with running(*place.predict, "--max-runtime", "10s", cwd=here, server=studio.server) as process:
        process.until_there("held")
        # Its time is up by then, and what is under way has not ended.
        assert process.goes_on(10.0)
        place.go()
        ended = process.end()
    assert ended.code == 75
    assert "(run.max_runtime)" in ended.stderr
    [run] = place.runs()
    assert (run["state"], run["predicted"]) == ("stopped", CHUNK)
    assert place.json(*place.predict)["selected"] == 20
    assert place.one_each()
    assert set(place.predicted().values()) == {1}


def test_a_second_run_of_the_version_waits_or_ends(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=10, odd={7: "HOLD"})
    with running(*place.predict, cwd=here, server=studio.server) as first:
        first.until_there("held")
        refused = place.run(*place.predict, code=75)
        assert f"another run works on version {VERSION} of this project: process {first.process.pid} " in refused.stderr
        assert "--wait" in refused.stderr
        # Another version is free.
        place.run(*place.predict, "--model-version", "mine-2", "--limit", "2")
        with running(*place.predict, "--wait", "100s", "--json", cwd=here, server=studio.server) as second:
            second.until_said(f"process {first.process.pid} ")
            place.go()
            assert first.end().code == 0
            ended = second.end()
    assert ended.code == 0
    assert json.loads(ended.stdout)["selected"] == 0
    assert place.one_each()


def test_the_log_of_a_run_tells_what_happened_and_no_token(studio: Studio, here: Path) -> None:
    place = Place.make(studio, here, tasks=5)
    ended = place.run(*place.predict)
    assert "import plan" not in ended.stderr
    [log] = here.glob(".lsbatch/*/*/runs/*/log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["message"].startswith("import plan: ") for line in lines)
    assert all(set(line) >= {"time", "level", "logger", "message"} for line in lines)
    assert studio.server.token not in log.read_text()
