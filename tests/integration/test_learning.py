"""The weekly loop on a real Label Studio: learn, refuse what is worse, measure, choose what to label next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ls_support import TOPICS, Studio, annotate, lsbatch, text_tasks, topic_region
from lsbatch.lock import hold
from lsbatch.operations.training_data import is_held_out
from lsbatch.stopping import Stop

TASKS, ANNOTATED = 120, 90


class Loop:
    """A project and the folder that lsbatch works in."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio = studio
        self.folder = folder
        rows = text_tasks(TASKS)
        self.project = studio.make_project(annotate(rows[:ANNOTATED]) + rows[ANNOTATED:])
        self.tasks = studio.task_ids(self.project)
        self.first: dict[str, Any] = {}

    def run(self, *arguments: str, code: int = 0) -> Any:
        """The JSON that a command prints."""
        done = lsbatch(*arguments, "--project", str(self.project), "--json", cwd=self.folder, server=self.studio.server)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def annotations(self) -> dict[int, list[int]]:
        """Ids of the annotations of each annotated task."""
        with self.studio.http as http:
            params = {"project": self.project, "page_size": 1000, "fields": "all"}
            body = http.get("/api/tasks", params=params).raise_for_status().json()
        return {row["id"]: [entry["id"] for entry in row["annotations"]] for row in body["tasks"] if row["annotations"]}

    def relabel(self, task: int, annotation: int, label: str) -> None:
        """Somebody changes an annotation."""
        with self.studio.http as http:
            body = {"result": [topic_region(label)], "task": task}
            http.patch(f"/api/annotations/{annotation}/", json=body).raise_for_status()


@pytest.fixture(scope="module")
def loop(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A project of 120 tasks, 90 of them annotated, all predicted with a trained model."""
    loop = Loop(studio, tmp_path_factory.mktemp("loop"))
    loop.first = loop.run("retrain", "--predict", "--activate")
    return loop


def test_the_weekly_loop(loop: Loop) -> None:
    first = loop.first
    assert first["promoted"]
    assert first["runs"][0]["audit"]["confirmed"] == TASKS
    assert loop.studio.active_version(loop.project) == first["model_version"]
    nothing = loop.run("retrain", "--since-last", "--predict")
    assert (nothing["model_version"], nothing["nothing_new_since"]) == (None, first["model_version"])
    assert [run["selected"] for run in nothing["runs"]] == [0], "what an interrupted command left would be predicted"

    (loop.folder / "pipeline.yaml").write_text("selection: {untouched_only: true, limit: 5}")
    found = loop.run("evaluate", "--report", "page.html")
    (loop.folder / "pipeline.yaml").unlink()
    [version] = found["versions"]
    assert version["left_out_trained_on"] == first["trained_on"]
    assert version["tasks"] == first["held_out"]
    assert version["agreement"]["value"] == pytest.approx(first["accuracy"])
    assert "<svg" in (loop.folder / "page.html").read_text(encoding="utf-8")

    # What the model learns from is turned into nonsense; what it is measured on is not.
    for number, (task, ids) in enumerate(loop.annotations().items()):
        if not is_held_out(task, 0.2):
            loop.relabel(task, ids[0], TOPICS[number * number % 7 % 3])
    refused = loop.run("retrain", "--since-last", "--predict", "--replace", code=6)
    assert (refused["promoted"], refused["runs"]) == (False, [])
    assert refused["gate"]["champion"] == first["model_version"]
    assert refused["gate"]["difference"]["high"] < 0
    states = {entry["model_version"]: entry["state"] for entry in loop.run("models")}
    assert states == {refused["model_version"]: "stored", first["model_version"]: "in use"}
    assert loop.run("predict")["selected"] == 0, "the old version is still the one that predicts"

    loop.run("models", "promote", refused["model_version"])
    assert loop.run("models", "rollback")["in_use"] == first["model_version"]


def test_one_training_at_a_time(loop: Loop) -> None:
    [project] = loop.folder.glob(".lsbatch/*/project-*")
    with hold(project / "locks", "\n\n", wait_seconds=0, stop=Stop()):
        done = lsbatch("retrain", "--project", str(loop.project), cwd=loop.folder, server=loop.studio.server)
    assert (done.returncode, "another training works on this project" in done.stderr) == (75, True), done.stderr


def test_what_to_label_next(loop: Loop) -> None:
    chosen = loop.run("select", "-n", "8", "--strategy", "margin", "--tab", "Next", "--rank-key", "rank")
    ids = [entry["task_id"] for entry in chosen["tasks"]]
    assert chosen["pool"] == TASKS - ANNOTATED
    assert set(ids) <= set(loop.tasks[ANNOTATED:])
    certainties = [entry["certainty"] for entry in chosen["tasks"]]
    assert certainties == sorted(certainties)
    with loop.studio.http as http:
        params: dict[str, Any] = {"view": chosen["tab"], "project": loop.project, "page_size": 100}
        shown = http.get("/api/tasks", params=params).raise_for_status().json()["tasks"]
        assert [task["id"] for task in shown] == ids, "the tab holds these tasks in this order"
        loop.run("select", "-n", "3", "--strategy", "coreset", "--out", "next.txt", "--sampling", "uncertainty")
        assert http.get(f"/api/projects/{loop.project}/").json()["sampling"] == "Uncertainty sampling"
    assert len((loop.folder / "next.txt").read_text().split()) == 3


def test_annotations_of_every_kind(studio: Studio, here: Path) -> None:
    rows = text_tasks(60)
    wrong = [topic_region(TOPICS[(number + 1) % 3]) for number in range(60)]
    annotated = annotate(rows)
    for number in range(10):
        # A second annotator says something else, and a third agrees with the first.
        annotated[number]["annotations"] += [{"result": [wrong[number]]}, dict(annotated[number]["annotations"][0])]
    for number, row in enumerate(annotated):
        for entry in row["annotations"]:
            # Label Studio takes imported annotations for the truth unless they say otherwise.
            entry |= {"was_cancelled": 10 <= number < 15, "ground_truth": 15 <= number < 20}
    loop = Loop.__new__(Loop)
    loop.studio, loop.folder = studio, here
    loop.project = studio.make_project(annotated)
    with studio.http as http:
        task = studio.task_ids(loop.project)[20]
        body = {"result": [wrong[20]], "project": loop.project}
        http.post(f"/api/tasks/{task}/drafts", json=body).raise_for_status()
    majority = loop.run("retrain", "--consensus", "majority")
    assert majority["trained_on"] + majority["held_out"] == 55
    assert majority["accuracy"] == 1
    shown = loop.run("models", "show", majority["model_version"])
    assert (shown["annotations"]["consensus"], shown["annotations"]["tasks"]) == ("majority", 55)
    few = lsbatch(
        *("retrain", "--project", str(loop.project), "--consensus", "ground-truth"), cwd=here, server=studio.server
    )
    assert (few.returncode, "too few annotations" in few.stderr) == (2, True), few.stderr
    assert [entry["state"] for entry in loop.run("models")] == ["in use"]
