"""The labeling lead's commands on a real Label Studio: each does exactly what it says, as every prediction tells."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fault.waiting import until
from ls_support import TOPICS, USER_PIPELINE, Studio, environment, lsbatch, text_tasks, topic_region
from scripted_http import Answer, scripted_server

TASKS = 600
#: Versions of which one contains another, and one with what a path, a shell or a list could stumble over.
ODD = "v/1 \"ö\" 'x', %_*[2]"
Stored = tuple[int, str, float | None, str]


@contextmanager
def backend() -> Iterator[str]:
    """A live backend that is up and serves v10; its address."""
    with scripted_server() as server:
        for path in ("/", "/health", "/setup"):
            server.on(path, Answer(body={"status": "UP", "model_class": "Live", "model_version": "v10"}))
        yield server.url


@dataclass
class Project:
    """A project and a working directory.

    Attributes:
        studio: the real server.
        folder: where lsbatch runs.
        id: the project's id.
        tasks: its tasks, ids ascending.
        known: what it held after the last deletion; empty after anything else.
    """

    studio: Studio
    folder: Path
    id: int
    tasks: list[int]
    known: dict[int, Stored] = field(default_factory=dict)

    @classmethod
    def make(cls, studio: Studio, folder: Path, tasks: int) -> Project:
        """A project of so many tasks."""
        (folder / "mine.py").write_text(USER_PIPELINE)
        project = studio.make_project(text_tasks(tasks))
        return cls(studio, folder, project, studio.task_ids(project))

    def add(self, version: str | None, tasks: list[int], *, score: float | None = 0.5) -> None:
        """Store a prediction of this version on each of the tasks."""
        self.known = {}
        rows = [
            {
                "task": task,
                "result": [topic_region(TOPICS[task % 3])],
                "score": score,
                **({} if version is None else {"model_version": version}),
            }
            for task in tasks
        ]
        with self.studio.http as http:
            http.post(f"/api/projects/{self.id}/import/predictions", json=rows).raise_for_status()

    def stored(self) -> dict[int, Stored]:
        """Every prediction: task, version, score and result, by id."""
        with self.studio.http as http:
            rows = http.get("/api/predictions/", params={"project": self.id}).raise_for_status().json()
        return {
            row["id"]: (row["task"], row["model_version"] or "", row["score"], json.dumps(row["result"]))
            for row in rows
        }

    def annotate(self, task: int, prediction: int | None = None) -> None:
        """A person annotates a task, from a prediction or by hand."""
        body = {"result": [topic_region("food")], "parent_prediction": prediction}
        with self.studio.http as http:
            http.post(f"/api/tasks/{task}/annotations/", json=body).raise_for_status()

    def annotations(self) -> Counter[int]:
        """How many annotations each task has."""
        with self.studio.http as http:
            params = {"project": self.id, "page_size": 10_000, "include": "id,total_annotations"}
            rows = http.get("/api/tasks", params=params).raise_for_status().json()["tasks"]
        return Counter({row["id"]: row["total_annotations"] for row in rows})

    def show(self, version: str) -> None:
        """Annotators see this."""
        with self.studio.http as http:
            http.patch(f"/api/projects/{self.id}/", json={"model_version": version}).raise_for_status()

    def lsbatch(self, *arguments: str, code: int = 0, **environ: str) -> str:
        """Run lsbatch on the project; what it printed."""
        self.known = self.known if arguments[0] in ("delete-predictions", "versions", "activate") else {}
        command = [arguments[0], "--project", str(self.id), *arguments[1:]]
        done = lsbatch(*command, cwd=self.folder, server=self.studio.server, **environ)
        assert done.returncode == code, (done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def delete(self, *arguments: str) -> tuple[dict[str, Any], dict[int, Stored]]:
        """Delete; the report, and what is gone of what was there. Nothing is new afterwards."""
        before = self.known or self.stored()
        report = json.loads(self.lsbatch("delete-predictions", *arguments, "--yes", "--json"))
        after = self.known = self.stored()
        assert after.items() <= before.items()
        gone = {key: row for key, row in before.items() if key not in after}
        assert report["deleted"] == len(gone)
        assert report["versions"] == dict(Counter(row[1] for row in gone.values()))
        assert report["audit"]["passed"] is True
        assert report["stale_counters"] == 0
        return report, gone

    def off_counters(self) -> int:
        """Tasks that are shown with a wrong number of predictions."""
        held = Counter(row[0] for row in self.stored().values())
        with self.studio.http as http:
            params = {"project": self.id, "page_size": 10_000, "include": "id,total_predictions"}
            rows = http.get("/api/tasks", params=params).raise_for_status().json()["tasks"]
        return sum(row["total_predictions"] != held[row["id"]] for row in rows)


def test_each_selector_deletes_exactly_what_it_says(studio: Studio, here: Path) -> None:
    project = Project.make(studio, here, TASKS)
    tasks = project.tasks
    project.add("v1", tasks)
    project.add("v10", tasks[:60])
    project.add(ODD, tasks[40:80])
    project.add("v1", tasks[:10])
    project.add(None, tasks[75:85])
    [referenced] = [key for key, row in project.stored().items() if row[:2] == (tasks[-1], "v1")]
    project.annotate(tasks[-1], referenced)
    with backend() as url:
        with studio.http as http:
            body = {"project": project.id, "url": url, "title": "live"}
            http.post("/api/ml", json=body).raise_for_status()
        project.show("live")
        everything = project.stored()

        # Duplicates: the newer one of each pair.
        _, gone = project.delete("--duplicates")
        assert sorted(row[:2] for row in gone.values()) == [(task, "v1") for task in tasks[:10]]
        assert min(gone) > max(key for key, row in everything.items() if row[1] == ODD)

        # What has no version.
        _, gone = project.delete("--versionless")
        assert {row[1] for row in gone.values()} == {"undefined"}
        assert len(gone) == 10

        # Some tasks, some versions.
        (here / "ids.txt").write_text("\n".join(map(str, tasks[30:35])))
        _, gone = project.delete("--model-version", "v1*", "--task-ids", "ids.txt")
        assert Counter(row[1] for row in gone.values()) == {"v1": 5, "v10": 5}
        assert {row[0] for row in gone.values()} == {*tasks[30:35]}

        # v1 alone, neither v10 nor the odd one; an annotation came from one of them.
        before = project.known
        report, gone = project.delete("--model-version", "v1")
        assert gone == {key: row for key, row in before.items() if row[1] == "v1" and key != referenced}
        assert report["requests"]["bulk"] > TASKS / 2
        assert studio.active_version(project.id) == "live"
        assert project.off_counters() == 0

        # The backup brings back the same set.
        project.lsbatch("import", "--from", report["backup"])
        assert Counter(project.stored().values()) == Counter(before.values())

        # All but the two newest, each a whole version with others besides.
        project.add("v2", tasks[:3])
        report, gone = project.delete("--keep-latest", "2")
        assert Counter(row[1] for row in gone.values()) == {"v10": 55, ODD: 40}
        assert report["requests"]["by version"] == 95
        assert studio.active_version(project.id) == "live"


def test_versions_and_activation(studio: Studio, here: Path) -> None:
    project = Project.make(studio, here, 6)
    project.add("v1", project.tasks, score=0.2)
    project.add("v10", project.tasks[:2], score=None)
    project.add("v10", project.tasks[:1], score=1.0)
    found = json.loads(project.lsbatch("versions", "--json"))
    assert [entry["model_version"] for entry in found["versions"]] == ["v10", "v1"]
    v10, v1 = found["versions"]
    assert (v10["predictions"], v10["tasks"], v10["mean_score"], v10["active"]) == (3, 2, 1.0, False)
    assert (v1["predictions"], v1["tasks"], v1["mean_score"]) == (6, 6, pytest.approx(0.2))
    assert v10["first"] <= v10["last"]
    assert len(found["problems"]) == 2
    assert found["problems"] == json.loads(project.lsbatch("versions", "--quick", "--json"))["problems"]

    assert "there are v1, v10" in project.lsbatch("activate", "v11", code=2)
    assert project.lsbatch("activate", "v1").splitlines() == ["annotators see v1", "before: none"]
    assert project.lsbatch("activate", "v10").splitlines()[1] == "before: v1"
    assert studio.active_version(project.id) == "v10"
    assert "see it" in project.lsbatch("versions")

    with studio.http as http:
        http.patch(f"/api/projects/{project.id}/", json={"show_collab_predictions": False}).raise_for_status()
    project.lsbatch("activate", "v1", "--show-predictions")
    with studio.http as http:
        now = http.get(f"/api/projects/{project.id}/").json()
    assert (now["model_version"], now["show_collab_predictions"]) == ("v1", True)
    project.lsbatch("activate", "--deactivate")
    assert studio.active_version(project.id) == ""


def test_what_annotators_see_is_not_deleted_by_a_slip(studio: Studio, here: Path) -> None:
    project = Project.make(studio, here, 4)
    project.add("v1", project.tasks)
    project.add("v2", project.tasks[:2])
    project.show("v2")
    before = project.stored()
    for selector in (["--model-version", "v2"], ["--all-versions"], ["--older-than", "2999-01-01"]):
        assert "annotators see v2 now" in project.lsbatch("delete-predictions", *selector, "--yes", code=2)
    assert "there are v" in project.lsbatch("delete-predictions", "--model-version", "v3", "--yes", code=2)
    said = project.lsbatch("delete-predictions", "--all-versions", "--dry-run")
    assert "6 on 4 tasks" in said
    assert project.stored() == before
    # Nothing that was refused leaves a run or a backup behind.
    assert not list(here.rglob("*.parquet"))
    project.delete("--model-version", "v2", "--force", "--no-backup")
    assert not list(here.rglob("backups/*"))


def test_acceptance_is_once_each(studio: Studio, here: Path) -> None:
    project = Project.make(studio, here, 40)
    tasks = project.tasks
    project.add("v1", tasks[:30], score=0.97)
    project.add("v1", tasks[30:], score=0.5)
    project.add("v10", tasks, score=0.99)
    project.annotate(tasks[0])
    with studio.http as http:
        http.post(f"/api/tasks/{tasks[1]}/drafts", json={"result": [topic_region("food")]}).raise_for_status()
        body = {"result": [], "was_cancelled": True}
        http.post(f"/api/tasks/{tasks[2]}/annotations/", json=body).raise_for_status()
    flags = ("--model-version", "v1", "--min-score", "0.95", "--sample-for-review", "50%", "--json")
    tried = json.loads(project.lsbatch("accept", *flags, "--dry-run"))
    assert sum(project.annotations().values()) == 1
    report = json.loads(project.lsbatch("accept", *flags, "--yes"))
    assert report["verdicts"] == tried["verdicts"]
    assert report["verdicts"]["score too low"] == 10
    assert report["verdicts"]["has annotations or drafts"] == 3
    review = report["verdicts"]["left for review"]
    assert report["accepted"] == sum(report["labels"].values()) == sum(report["scores"].values()) == 27 - review
    accepted = {task for task, count in project.annotations().items() if count} - {tasks[0]}
    assert len(accepted) == 27 - review
    listed = {int(line) for line in Path(report["review"]).read_text().split()}
    assert listed | accepted == {*tasks[3:30]}
    again = json.loads(project.lsbatch("accept", *flags, "--yes"))
    assert (again["accepted"], again["exit_code"]) == (0, 0)
    assert max(project.annotations().values()) == 1


def test_a_new_version_takes_the_place_of_the_old_ones(studio: Studio, here: Path) -> None:
    project = Project.make(studio, here, 9)
    tasks = project.tasks
    for version in ("old", "older"):
        project.add(version, tasks)
    project.add("newest", tasks[:2])
    project.show("old")
    with studio.http as http:
        http.patch(f"/api/tasks/{tasks[8]}/", json={"data": {"text": "RAISE"}}).raise_for_status()
    command = ("predict", "--pipeline", "mine:Told", "--workers", "0", "--max-failures", "1", "--replace")
    said = project.lsbatch(*command, "--keep-versions", "1", code=3)
    assert "annotators saw old before" in said
    held = {task: sorted(row[1] for row in project.stored().values() if row[0] == task) for task in tasks}
    # The task in quarantine keeps what it has.
    assert held[tasks[8]] == ["old", "older"]
    assert all(held[task] == (["newest", "told-1"] if task in tasks[:2] else ["told-1"]) for task in tasks[:8])
    assert studio.active_version(project.id) == "told-1"
    # Again, there is nothing to predict, and the one that was kept goes.
    project.lsbatch(*command, code=3)
    held = {task: sorted(row[1] for row in project.stored().values() if row[0] == task) for task in tasks}
    assert all(held[task] == ["told-1"] for task in tasks[:8])
    assert len(list(here.rglob("backups/*.parquet"))) == 2


def test_help_names_every_selector(here: Path) -> None:
    text = lsbatch("delete-predictions", "--help", cwd=here).stdout
    for flag in ("--model-version", "--all-versions", "--except", "--keep-latest", "--older-than", "--duplicates"):
        assert re.search(rf"^ +{flag}", text, re.MULTILINE), flag


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [(b"y\n", 0, "Bring them back"), (signal.SIGINT, 130, "Interrupted")],
    ids=["yes", "Ctrl-C"],
)
def test_the_question_at_a_terminal(
    studio: Studio, here: Path, answer: bytes | signal.Signals, code: int, words: str
) -> None:
    project = Project.make(studio, here, 3)
    project.add("v1", project.tasks)
    terminal, end = os.openpty()
    said = here / "said"
    command = [sys.executable, "-m", "lsbatch", "delete-predictions", "--project", str(project.id), "--all-versions"]
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=here, env=environment(studio.server), stdin=end, stdout=subprocess.DEVNULL, stderr=stderr
        )
    until(lambda: "[y/N]" in said.read_text())
    assert "3 predictions on 3 tasks" in said.read_text()
    if isinstance(answer, bytes):
        os.write(terminal, answer)
    else:
        process.send_signal(answer)
    assert process.wait(60) == code
    os.close(terminal)
    os.close(end)
    assert words in said.read_text()
    deleted = answer == b"y\n"
    assert len(project.stored()) == (0 if deleted else 3)
    assert len(list(here.rglob("manifest.json"))) == deleted
    assert len(list(here.rglob("backups/*"))) == deleted
