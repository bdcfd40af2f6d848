"""``connect`` and ``verify-serve`` on a real Label Studio, with a backend that speaks the protocol and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fault.waiting import until
from ls_support import TOPICS, USER_PIPELINE, Studio, environment, lsbatch, text_tasks, topic_region
from lsbatch.local_server import free_port, start
from tiny_backend import TinyBackend, tiny_backend

PASSWORD, SECRET = "pass-Wd-0123456789", "hook-Secret-0123456789"
LOGIN = {"BASIC_AUTH_USER": "studio", "BASIC_AUTH_PASS": PASSWORD}
HOOK = {"LSBATCH_SERVE_WEBHOOK_SECRET": SECRET}
EVENTS = {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "PROJECT_UPDATED"}


@pytest.fixture
def backend() -> Iterator[TinyBackend]:
    """A running backend that wants no login."""
    with tiny_backend() as backend:
        yield backend


@dataclass
class Scene:
    """A project, and lsbatch on it."""

    studio: Studio
    folder: Path
    id: int

    def run(self, *arguments: str, code: int = 0, **environ: str) -> str:
        """Run a command on the project; what it printed on both streams, in which no secret ever is."""
        command = [arguments[0], "--project", str(self.id), *arguments[1:]]
        done = lsbatch(*command, cwd=self.folder, server=self.studio.server, **environ)
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert not any(word in said for word in (PASSWORD, SECRET, self.studio.server.token, "Traceback"))
        return done.stdout if code == 0 else said

    def connect(self, url: str, *more: str, **environ: str) -> dict[str, Any]:
        """Connect a backend; the report."""
        report: dict[str, Any] = json.loads(self.run("connect", "--url", url, "--json", *more, code=0, **environ))
        return report

    def get(self, path: str) -> Any:
        """What the server answers for the project."""
        with self.studio.http as http:
            return http.get(path, params={"project": self.id}).raise_for_status().json()

    @property
    def backends(self) -> list[dict[str, Any]]:
        """The project's backends as the server has them."""
        return list(self.get("/api/ml/"))

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The project's webhooks as the server has them."""
        return list(self.get("/api/webhooks/"))

    @property
    def active(self) -> str:
        """The version that annotators see."""
        return self.studio.active_version(self.id)

    def predict(self, version: str, tasks: list[int]) -> None:
        """Store a prediction of this version on these tasks."""
        rows = [{"task": task, "model_version": version, **told(task)} for task in tasks]
        with self.studio.http as http:
            http.post(f"/api/projects/{self.id}/import/predictions", json=rows).raise_for_status()


def told(task: int) -> dict[str, Any]:
    """Result and score of a task, which its id tells."""
    return {"result": [{**topic_region(TOPICS[task % 3]), "id": f"r{task}", "score": 0.1}], "score": 0.1 + task / 1e6}


@pytest.fixture
def scene(studio: Studio, here: Path) -> Scene:
    """A project with 90 tasks."""
    return Scene(studio, here, studio.make_project(text_tasks(90)))


# ------------------------------------------------------------------------------------------------ connect


def test_a_backend_is_connected_once_with_a_webhook_that_carries_the_secret(scene: Scene, backend: TinyBackend) -> None:
    backend.login = (LOGIN["BASIC_AUTH_USER"], PASSWORD)
    first = scene.connect(backend.url, **LOGIN, **HOOK)
    again = scene.connect(backend.url + "/", "-vv", **LOGIN, **HOOK)
    assert (first["change"], first["webhook"], first["active_before"], first["active"]) == (
        *("created", "created"),
        *("", "lsbatch"),
    )
    assert (again["change"], again["webhook"], again["active"]) == ("unchanged", "unchanged", "lsbatch")
    assert (again["backend"]["state"], again["backend"]["model_version"]) == ("Connected", "live-1")
    [row] = scene.backends
    assert (row["url"], row["title"], row["basic_auth_user"]) == (backend.url, "lsbatch", "studio")
    [hook] = scene.webhooks
    assert (hook["url"], hook["headers"]) == (f"{backend.url}/webhook", {"X-Lsbatch-Secret": SECRET})
    assert (set(hook["actions"]), hook["send_for_all_actions"], hook["send_payload"]) == (EVENTS, False, True)
    with scene.studio.http as http:
        task = scene.studio.task_ids(scene.id)[0]
        http.post(f"/api/tasks/{task}/annotations/", json={"result": [topic_region("food")]}).raise_for_status()
        http.post(f"/api/ml/{row['id']}/train", json={}).raise_for_status()
    told_of = [
        (call.body["action"], call.secret, "authorization" in call.headers) for call in backend.asked("/webhook")
    ]
    # What it is told of by hand comes from the other side of Label Studio: with basic auth, without the secret.
    assert told_of == [("ANNOTATION_CREATED", SECRET, False), ("START_TRAINING", None, True)]
    assert all(scene.studio.server.token not in str(call.headers) for call in backend.calls)


def test_changed_settings_are_changed_in_place(scene: Scene, backend: TinyBackend) -> None:
    scene.connect(backend.url)
    backend.login = ("studio", PASSWORD)
    changed = scene.connect(backend.url, "--title", "topics", "--interactive", **LOGIN, **HOOK)
    assert (changed["change"], changed["webhook"], changed["active"]) == ("changed", "changed", "topics")
    kept = scene.connect(backend.url, **LOGIN)
    assert (kept["change"], kept["webhook"]) == ("unchanged", "changed")
    [row] = scene.backends
    assert (row["title"], row["is_interactive"], row["auth_method"]) == ("topics", True, "BASIC_AUTH")
    assert [(set(hook["actions"]), hook["headers"]) for hook in scene.webhooks] == [(EVENTS, {})]
    backend.login = ()
    backend.calls.clear()
    open_again = scene.connect(backend.url, "--no-interactive")
    assert open_again["change"] == "changed"
    assert "authorization" not in backend.calls[-1].headers


def test_a_webhook_that_label_studio_made_itself_is_taken_over(scene: Scene, backend: TinyBackend) -> None:
    body = {"project": scene.id, "url": backend.url, "title": "by hand"}
    with scene.studio.http as http:
        for _ in range(2):
            http.post("/api/ml/", json=body).raise_for_status()
    assert [hook["send_for_all_actions"] for hook in scene.webhooks] == [True]
    done = scene.connect(backend.url, **HOOK)
    assert (done["change"], done["webhook"], done["backend"]["title"]) == ("changed", "changed", "by hand")
    assert [row["title"] for row in scene.backends] == ["by hand"]
    assert [(set(hook["actions"]), list(hook["headers"])) for hook in scene.webhooks] == [
        (EVENTS, ["X-Lsbatch-Secret"])
    ]


def test_a_version_that_annotators_see_stays_and_predictions_can_be_switched_on(
    scene: Scene, backend: TinyBackend
) -> None:
    scene.predict("v1", scene.studio.task_ids(scene.id)[:5])
    with scene.studio.http as http:
        http.patch(f"/api/projects/{scene.id}/", json={"model_version": "v1"}).raise_for_status()
    done = scene.connect(backend.url)
    assert (done["active_before"], done["active"], scene.active) == ("v1", "v1", "v1")
    assert "is a model version or a backend" in scene.run("connect", "--url", backend.url, "--title", "v1", code=2)
    scene.run("connect", "--remove")
    with scene.studio.http as http:
        http.patch(f"/api/projects/{scene.id}/", json={"show_collab_predictions": False}).raise_for_status()
    assert scene.connect(backend.url)["shown"] is False
    shown = scene.connect(backend.url, "--show-predictions")
    assert (shown["shown"], shown["active"], scene.active) == (True, "lsbatch", "lsbatch")


def test_what_is_connected_is_shown_and_taken_away(scene: Scene, backend: TinyBackend) -> None:
    assert scene.run("connect") == "no live backend is connected\n"
    assert scene.run("connect", "--remove") == "nothing to remove\n"
    scene.connect(backend.url, **HOOK)
    line = scene.run("connect").splitlines()[1].split("  ")
    assert [cell.strip() for cell in line if cell.strip()] == [
        *("lsbatch", backend.url, "Connected", "live-1", "with a secret", "see it"),
    ]
    gone = json.loads(scene.run("connect", "--remove", "--json"))
    assert (len(gone["backends"]), gone["webhooks"], gone["active_before"], gone["active"]) == (1, 1, "lsbatch", "")
    assert (scene.backends, scene.webhooks, scene.active) == ([], [], "")
    assert scene.run("connect", "--remove", "--url", backend.url) == "nothing to remove\n"


def test_of_several_backends_one_is_named(scene: Scene, backend: TinyBackend) -> None:
    with tiny_backend() as second:
        scene.connect(backend.url)
        said = scene.run("connect", "--url", second.url, code=5)
        assert f"lsbatch connect --project {scene.id} --remove --url {backend.url}" in said
        assert len(scene.webhooks) == 1
        both = scene.connect(second.url, "--interactive", "--title", "clicks")
        assert both["others"] == [{"title": "lsbatch", "url": backend.url}]
        said = scene.run("connect", "--remove", code=2)
        assert backend.url in said
        assert second.url in said
        scene.run("connect", "--remove", "--url", second.url)
        assert [row["url"] for row in scene.backends] == [backend.url]
        assert [hook["url"] for hook in scene.webhooks] == [f"{backend.url}/webhook"]


# ------------------------------------------------------------------------------------------------ refusals


def test_what_is_refused_leaves_nothing_and_says_the_way_out(scene: Scene, backend: TinyBackend) -> None:
    said = scene.run("connect", "--url", f"http://127.0.0.1:{free_port()}", code=5)
    assert "localhost means the machine (container) of Label Studio" in said
    assert "Connection refused" in said
    said = scene.run("connect", "--url", "http://nosuch.invalid:9090", code=5)
    assert "does not find the host" in said
    said = scene.run("connect", "--url", "http://backend:9090", code=5)
    assert "network alias" in said
    backend.login = ("studio", PASSWORD)
    said = scene.run("connect", "--url", backend.url, BASIC_AUTH_USER="studio", BASIC_AUTH_PASS="wrong", code=5)
    assert "BASIC_AUTH_USER and BASIC_AUTH_PASS" in said
    backend.version = ""
    said = scene.run("connect", "--url", backend.url, **LOGIN, **HOOK, code=5)
    assert "does not serve this project (503 Server Error" in said
    assert (scene.backends, scene.webhooks, scene.active) == ([], [], "")


def test_a_server_in_its_default_setting_refuses_private_addresses(
    tmp_path: Path, studio_template: Path, backend: TinyBackend
) -> None:
    with start(tmp_path / "data", template=studio_template) as server:
        strict = Studio(server)
        scene = Scene(strict, tmp_path, strict.make_project([]))
        said = scene.run("connect", "--url", backend.url, code=5)
        assert "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false" in said
        assert (scene.backends, scene.webhooks) == ([], [])


# ------------------------------------------------------------------------------------------------ verify-serve


def test_live_answers_are_compared_with_the_stored_ones(scene: Scene, backend: TinyBackend) -> None:
    tasks = scene.studio.task_ids(scene.id)
    backend.predict = lambda rows: [{**told(row["id"]), "model_version": "live-1"} for row in rows]
    scene.connect(backend.url)
    assert "lsbatch predict" in scene.run("verify-serve", code=2)
    scene.predict("live-1", tasks[:70])
    scene.predict("live-10", tasks)
    backend.calls.clear()
    found = json.loads(scene.run("verify-serve", "--sample", "50", "--json"))
    assert (found["sampled"], found["compared"], found["equal"], found["url"]) == (50, 50, 50, backend.url)
    asked = [row for call in backend.asked("/predict") for row in call.body["tasks"]]
    assert len({row["id"] for row in asked}) == 50
    assert all(row["id"] in tasks[:70] and row["data"]["text"] for row in asked)
    again = [row["id"] for row in asked]
    backend.calls.clear()
    scene.run("verify-serve", "--sample", "50")
    assert [row["id"] for call in backend.asked("/predict") for row in call.body["tasks"]] == again
    body = backend.asked("/predict")[0].body
    assert body["project"] == backend.asked("/setup")[0].body["project"], "as Label Studio names it"
    assert body["params"] == {"login": None, "password": None, "context": None}
    assert body["label_config"].startswith("<View>")
    assert json.loads(scene.run("verify-serve", "--sample", "1000", "--json"))["compared"] == 70


def test_what_differs_is_named(scene: Scene, backend: TinyBackend) -> None:
    tasks = scene.studio.task_ids(scene.id)
    scene.predict("live-1", tasks)

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        if row["id"] == tasks[0]:
            return {"error": "no picture"}
        topic = TOPICS[(row["id"] + (row["id"] == tasks[1])) % 3]
        region = {**topic_region(topic), "id": "another", "score": 0.1 + 1e-9}
        score = told(row["id"])["score"] + (1e-3 if row["id"] == tasks[2] else 1e-9)
        return {"result": [region], "score": score, "model_version": "live-1"}

    backend.predict = lambda rows: [answer(row) for row in rows]
    said = scene.run("verify-serve", "--url", backend.url, "--json", code=7)
    found, _ = json.JSONDecoder().raw_decode(said)
    assert (found["compared"], found["equal"], found["different"], found["failed"]) == (89, 87, 2, 1)
    assert found["failures"] == [{"task": tasks[0], "what": "no picture"}]
    assert [entry["task"] for entry in found["differences"]] == tasks[1:3]
    assert found["differences"][0]["what"].startswith("result[0].value.choices[0]: ")
    assert found["differences"][1]["what"].startswith("score: ")
    assert "--select stale" in said


def test_a_backend_that_is_away_or_wants_a_login(scene: Scene, backend: TinyBackend) -> None:
    quick = {"LSBATCH_LABEL_STUDIO_RETRY_SECONDS": "0"}
    said = scene.run("verify-serve", code=75, LSBATCH_SERVE_PORT=str(free_port()), **quick)
    assert "Is lsbatch serve running there?" in said
    backend.login = ("studio", PASSWORD)
    assert "BASIC_AUTH_USER" in scene.run("verify-serve", "--url", backend.url, code=5)


# ------------------------------------------------------------------------------------------------ with lsbatch serve


@contextmanager
def served(scene: Scene, pipeline: str, **environ: str) -> Iterator[str]:
    """A running ``lsbatch serve`` of the scene's project; its address."""
    port = free_port()
    command = [sys.executable, "-m", "lsbatch", "serve", "--project", str(scene.id), "--pipeline", pipeline]
    with (scene.folder / "serve.log").open("wb") as log:
        given = environment(scene.studio.server, LSBATCH_SERVE_PORT=str(port), **environ)
        process = subprocess.Popen(command, cwd=scene.folder, env=given, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, (scene.folder / "serve.log").read_text()
        try:
            return httpx.get(f"{url}/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_what_serve_answers_is_what_predict_stored(scene: Scene) -> None:
    (scene.folder / "mine.py").write_text(USER_PIPELINE)
    scene.run("predict", "--pipeline", "mine:Told")
    with served(scene, "mine:Told", **LOGIN, **HOOK) as url:
        done = scene.connect(url, **LOGIN, **HOOK)
        assert (done["backend"]["state"], done["backend"]["model_version"]) == ("Connected", "told-1")
        found = json.loads(scene.run("verify-serve", "--json", code=0, **LOGIN))
        assert (found["model_version"], found["compared"], found["equal"]) == ("told-1", 90, 90)
        with scene.studio.http as http:
            task = scene.studio.task_ids(scene.id)[0]
            http.post(f"/api/tasks/{task}/annotations/", json={"result": [topic_region("food")]}).raise_for_status()
        scene.run("connect", "--remove")
    assert (scene.backends, scene.webhooks) == ([], [])
