"""``lsbatch serve`` behind a real Label Studio: the same predictions as predict, and models that learn meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fault.waiting import until
from ls_support import Studio, annotate, lsbatch, text_tasks, topic_region
from serving_process import Relay, Server, relay, serve

TASKS, ANNOTATED = 500, 90
PASSWORD, SECRET = "pass-Wd-0123456789", "hook-Secret-0123456789"
LOGIN = {"BASIC_AUTH_USER": "studio", "BASIC_AUTH_PASS": PASSWORD, "LSBATCH_SERVE_WEBHOOK_SECRET": SECRET}


@dataclass
class Scene:
    """A project with a trained model, and a working directory."""

    studio: Studio
    folder: Path
    id: int

    def run(self, *arguments: str, code: int = 0, **environ: str) -> Any:
        """Run a command on the project; its JSON."""
        done = lsbatch(
            *arguments, "--project", str(self.id), "--json", cwd=self.folder, server=self.studio.server, **environ
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """Have Label Studio do something."""
        with self.studio.http as http:
            http.timeout = 150
            answer = http.post(path, json=body or {}, params=params).raise_for_status()
        return answer.json() if answer.content else None

    def retrieve(self, *tasks: int) -> None:
        """The data manager's "Retrieve Predictions" on these tasks, or on all."""
        chosen = {"all": False, "included": list(tasks)} if tasks else {"all": True, "excluded": []}
        selected = {"selectedItems": chosen}
        self.post("/api/dm/actions", selected, id="retrieve_tasks_predictions", project=self.id)

    def versions(self) -> Counter[str]:
        """How many predictions of each version there are; no task carries one twice."""
        found = self.studio.predictions(self.id)
        for rows in found.values():
            assert max(Counter(version for version, _, _ in rows).values()) == 1
        return Counter(version for rows in found.values() for version, _, _ in rows)

    def annotate(self, count: int) -> None:
        """Say of so many more tasks what they are about."""
        with self.studio.http as http:
            fields = {"project": self.id, "page_size": TASKS + 100, "fields": "all"}
            rows = http.get("/api/tasks", params=fields).raise_for_status().json()["tasks"]
            open_tasks = [row for row in rows if not row["total_annotations"]][:count]
            assert len(open_tasks) == count
            for row in open_tasks:
                body = {"result": [topic_region(row["data"]["topic"])]}
                http.post(f"/api/tasks/{row['id']}/annotations/", json=body).raise_for_status()

    @property
    def backend(self) -> dict[str, Any]:
        """The connected backend, as Label Studio has it after asking it."""
        with self.studio.http as http:
            [row] = http.get("/api/ml/", params={"project": self.id}).raise_for_status().json()
        return dict(row)


@pytest.fixture(scope="module")
def scene(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """500 texts, 90 of them annotated, and a model trained from these."""
    rows = text_tasks(TASKS)
    project = studio.make_project([*annotate(rows[:ANNOTATED]), *rows[ANNOTATED:]])
    scene = Scene(studio, tmp_path_factory.mktemp("serving"), project)
    assert scene.run("retrain")["promoted"]
    return scene


@pytest.fixture(scope="module")
def server(scene: Scene) -> Iterator[Server]:
    """The live backend of the scene."""
    with serve(scene.studio, scene.folder, "--project", str(scene.id)) as server:
        yield server


@pytest.fixture(scope="module")
def connected(scene: Scene, server: Server) -> Iterator[Relay]:
    """The backend, connected through a relay that remembers what is sent."""
    with relay(server.url) as found:
        assert scene.run("connect", "--url", found.url)["change"] == "created"
        yield found
        scene.run("connect", "--remove")


def test_retrieve_predictions_gives_each_task_one_of_the_version_that_predict_imports(
    scene: Scene, server: Server, connected: Relay
) -> None:
    version = server.version
    assert scene.backend["state"] == "CO"
    assert scene.backend["model_version"] == version
    scene.retrieve()
    assert scene.versions() == {version: TASKS}
    asked = len(connected.bodies("/predict"))
    # What is there is not asked for again, and predict finds nothing to do.
    scene.retrieve()
    assert len(connected.bodies("/predict")) == asked
    assert scene.run("predict")["selected"] == 0
    assert scene.versions() == {version: TASKS}
    assert scene.run("verify-serve", "--sample", "200")["equal"] == 200


def test_what_label_studio_sends(scene: Scene, server: Server, connected: Relay) -> None:
    # The real server's requests, in the forms that the protocol's description has.
    with scene.studio.http as http:
        http.post(f"/api/projects/{scene.id}/import", json=[{"data": {"text": "goal", "topic": "sport"}}])
    scene.retrieve()
    setup = connected.bodies("/setup")[-1]
    assert setup["project"].split(".")[0] == str(scene.id)
    assert {"schema", "hostname", "access_token", "extra_params"} <= set(setup)
    predict = connected.bodies("/predict")[-1]
    assert set(predict) == {"tasks", "project", "label_config", "params"}
    assert predict["params"]["context"] is None
    [task] = predict["tasks"]
    assert task["data"] == {"text": "goal", "topic": "sport"}
    assert scene.versions()[server.version] == TASKS + 1
    assert [method for method, path, _, _ in connected.seen if path == "/health"][-1] == "GET"
    # The token that /setup brings is in no log.
    assert setup["access_token"] not in server.said
    # Webhooks: what people do, without a login.
    scene.annotate(1)
    until(lambda: bool(connected.bodies("/webhook")))
    event = connected.bodies("/webhook")[-1]
    assert event["action"] == "ANNOTATION_CREATED"
    assert event["project"]["id"] == scene.id
    assert {"task", "annotation"} <= set(event)


def test_predictions_come_while_labeling(scene: Scene, server: Server, connected: Relay) -> None:
    with scene.studio.http as http:
        new = {"data": {"text": "soup bread cheese dinner", "topic": "food"}}
        http.post(f"/api/projects/{scene.id}/import", json=[new]).raise_for_status()
        settings = {"evaluate_predictions_automatically": True}
        http.patch(f"/api/projects/{scene.id}/", json=settings).raise_for_status()
        try:
            task = max(scene.studio.task_ids(scene.id))
            shown = http.get(f"/api/tasks/{task}/", params={"project": scene.id}).raise_for_status().json()
        finally:
            settings = {"evaluate_predictions_automatically": False}
            http.patch(f"/api/projects/{scene.id}/", json=settings).raise_for_status()
    [prediction] = shown["predictions"]
    assert prediction["model_version"] == server.version
    assert prediction["result"][0]["value"] == {"choices": ["food"]}


def test_the_button_trains_and_the_new_version_answers(scene: Scene, server: Server, connected: Relay) -> None:
    before = server.version
    scene.annotate(30)
    scene.post(f"/api/ml/{scene.backend['id']}/train")
    assert connected.bodies("/webhook")[-1]["action"] == "START_TRAINING"
    until(lambda: server.version != before, seconds=180)
    last = server.get("/is_training").json()["last"]
    assert (last["job_status"], last["why"]) == ("finished", "START_TRAINING")
    assert server.post("/job_status", {"job": last["job"]}).json() == last
    assert server.version in server.get("/versions").json()["versions"]
    # Label Studio notices by itself, and predict imports the same.
    assert scene.backend["model_version"] == server.version
    assert scene.run("predict", "--dry-run")["model_version"] == server.version


def test_annotations_train_and_a_rollback_counts_at_once(scene: Scene) -> None:
    arguments = ("--project", str(scene.id), "--retrain-every", "10")
    environ = {"LSBATCH_SERVE_RETRAIN_MIN_SECONDS": "0", "LSBATCH_SERVE_RELOAD_SECONDS": "0.5", **LOGIN}
    with serve(scene.studio, scene.folder, *arguments, **environ) as server, relay(server.url) as passed:
        scene.run("connect", "--remove")
        assert scene.run("connect", "--url", passed.url, **LOGIN)["change"] == "created"
        first = scene.backend["model_version"]
        # What it has not learned from yet, it learns when it starts.
        until(lambda: trainings(passed) == 1, seconds=180)
        scene.annotate(10)
        hooks = [headers for _, path, headers, _ in passed.seen if path == "/webhook"]
        assert len(hooks) == 10
        assert {headers["x-lsbatch-secret"] for headers in hooks} == {SECRET}
        until(lambda: trainings(passed) == 2, seconds=180)
        until(lambda: scene.backend["model_version"] != first, seconds=60)
        now = scene.backend["model_version"]
        before = scene.run("models", "rollback", **LOGIN)["in_use"]
        assert before != now
        until(lambda: scene.backend["model_version"] == before, seconds=60)
        scene.run("connect", "--remove", **LOGIN)
        for word in (PASSWORD, SECRET, scene.studio.server.token):
            assert word not in server.said


def trainings(passed: Relay) -> int:
    """How many trainings have ended."""
    metrics = httpx.get(passed.url + "/metrics", auth=("studio", PASSWORD)).text
    ended = [line for line in metrics.splitlines() if line.startswith("lsbatch_trainings_total")]
    return sum(int(float(line.split()[-1])) for line in ended)


def test_either_side_may_start_again(scene: Scene, server: Server) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    scene.run("connect", "--remove")
    scene.run("connect", "--url", server.url)
    server.process.kill()
    server.process.wait()
    assert scene.backend["state"] == "DI"
    with scene.studio.http as http:
        http.post(f"/api/projects/{scene.id}/import", json=[{"data": {"text": "song", "topic": "music"}}])
    task = max(scene.studio.task_ids(scene.id))
    scene.retrieve(task)
    assert task not in scene.studio.predictions(scene.id)
    with serve(scene.studio, scene.folder, "--project", str(scene.id), port=port) as again:
        assert scene.backend["state"] == "CO"
        scene.retrieve(task)
        [(version, _, _)] = scene.studio.predictions(scene.id)[task]
        assert version == again.version
        again.process.terminate()
        assert again.process.wait(60) == 0
    scene.run("connect", "--remove")
