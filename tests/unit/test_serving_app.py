"""The endpoints, over a real model in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import pytest

from ls_support import TEXT_CONFIG
from lsbatch.config import load
from lsbatch.errors import ConfigError, RefusedError, TransientError
from lsbatch.serving import create_app
from serving_support import PROJECT, Versions, choices, configured, renewed, request, served, serving, until

Use = Callable[[httpx.AsyncClient], Awaitable[None]]


def use(folder: Path, do: Use, versions: Versions | None = None, *, ready: bool = True, **settings: Any) -> None:
    """Do something with an application."""

    async def main() -> None:
        async with serving(folder, versions, ready=ready, **settings) as http:
            await do(http)

    asyncio.run(main())


def test_what_label_studio_asks(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        assert (await http.get("/")).json() == {"status": "UP"}
        health = (await http.get("/health")).json()
        assert (health["status"], health["model_class"]) == ("UP", "mine:Told")
        setup = {
            "project": f"{PROJECT}.1700000000",
            "schema": TEXT_CONFIG,
            "hostname": "http://127.0.0.1:1",
            "access_token": "must-never-be-used",
            "extra_params": None,
        }
        assert (await http.post("/setup", json=setup)).json() == {"model_version": "v1"}
        answer = await http.post("/predict", json=request("goal", "soup", "goal RAISE"))
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert choices(results) == ["sport", "food", "error"]
        assert "told to" in results[2]["error"]
        assert [row.get("model_version") for row in results] == ["v1", "v1", None]
        assert results[0]["score"] == pytest.approx(0.004)
        assert [(await http.head(path)).status_code for path in ("/", "/health", "/ready")] == [200, 200, 200]
        # In older documentation the body comes with GET.
        old = await http.request("GET", "/predict", json=request("soup"))
        assert choices(old.json()["results"]) == ["food"]
        # A person sends less.
        least = await http.post("/predict", json={"tasks": [{"data": {"text": "soup"}}]})
        assert choices(least.json()["results"]) == ["food"]
        assert (await http.post("/predict", json={"tasks": []})).json()["results"] == []
        ready = (await http.get("/ready")).json()
        assert (ready["status"], ready["model_version"], ready["project"]) == ("ready", "v1", PROJECT)

    use(tmp_path, do)


def test_an_interactive_request_reaches_the_pipeline(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        drawn = {"result": [{"type": "choices", "is_positive": True, "value": {}}]}
        assert choices((await http.post("/predict", json=request("goal", context=drawn))).json()["results"]) == [
            "music"
        ]
        # The page cannot show an item without a result.
        failed = (await http.post("/predict", json=request("goal RAISE", context=drawn))).json()["results"][0]
        assert failed["result"] == []
        assert "told to" in failed["error"]

    use(tmp_path, do)


def test_what_else_there_is(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        assert (await http.get("/versions")).json() == {"versions": ["v0", "v1"], "in_use": "v1"}
        assert (await http.post("/validate", json={"config": TEXT_CONFIG})).json() == {"status": "ok"}
        wrong = await http.post("/validate", json={"config": "<View/>"})
        assert (wrong.status_code, wrong.json()["detail"]) == (422, "no Choices")
        assert (await http.get("/is_training")).json() == {"is_training": False, "last": None}
        assert (await http.post("/job_status", json={"job": "no such"})).status_code == 410
        page = await http.get("/docs")
        assert "swagger" in page.text
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert {"/predict", "/setup", "/webhook", "/train", "/metrics"} <= set(paths)

    use(tmp_path, do, Versions(served(tmp_path), known=["v0", "v1"]))


def test_the_metrics_tell_what_happened(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        await http.post("/predict", json=request("goal", "RAISE"))
        await http.get("/no/such/path")
        lines = (await http.get("/metrics")).text.splitlines()
        for line in (
            'lsbatch_requests_total{endpoint="/predict",method="POST",status="200"} 1.0',
            'lsbatch_requests_total{endpoint="other",method="GET",status="404"} 1.0',
            'lsbatch_tasks_total{outcome="predicted"} 1.0',
            'lsbatch_tasks_total{outcome="failed"} 1.0',
            'lsbatch_errors_total{kind="task"} 1.0',
            'lsbatch_model_info{version="v1"} 1.0',
            "lsbatch_batch_tasks_count 1.0",
            "lsbatch_queue_tasks 0.0",
            "lsbatch_training 0.0",
            "lsbatch_ready 1.0",
        ):
            assert line in lines

    use(tmp_path, do)


BAD = [
    ("POST", "/predict", b"{", 422),
    ("POST", "/predict", b"[]", 422),
    ("POST", "/predict", b'{"tasks": [{"id": 1}]}', 422),
    ("POST", "/predict", b'{"tasks": [{"id": "x", "data": {}}]}', 422),
    ("POST", "/predict", b'{"tasks": [], "project": "8.1700000000"}', 409),
    ("POST", "/predict", b"\xff\xfe", 422),
    ("POST", "/setup", b'{"project": "8.1700000000"}', 409),
    ("POST", "/setup", b"no", 422),
    ("POST", "/predict", b'{"tasks": [], "project": true}', 422),
    ("POST", "/webhook", b"{}", 422),
    ("POST", "/predict", rb'{"tasks": [{"data": {"text": "\ud800"}}]}', 422),
    ("POST", "/webhook", rb'{"action": "\ud800"}', 422),
    ("POST", "/setup", rb'{"schema": "\ud800"}', 422),
    ("POST", "/validate", rb'{"config": "\ud800"}', 422),
    ("POST", "/job_status", rb'{"job": "\ud800"}', 422),
    ("POST", "/job_status", b'{"job": "' + b"x" * 1000 + b'"}', 422),
    ("DELETE", "/predict", b"", 405),
    ("GET", "/nothing", b"", 404),
]


def test_a_bad_request_has_words_and_no_traceback(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        for method, path, body, status in BAD:
            answer = await http.request(method, path, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == status, (method, path, body)
            assert answer.json()
            assert "Traceback" not in answer.text

    use(tmp_path, do, Versions(None), ready=False)


def test_a_mistake_is_named_by_its_place(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        tasks: list[dict[str, Any]] = [{"data": {}} for _ in range(5000)]
        tasks[4321] = {"data": "SECRET"}
        answer = await http.post("/predict", json={"tasks": tasks})
        assert answer.status_code == 422
        assert [error["loc"] for error in answer.json()["detail"]] == [["tasks", 4321, "data"]]
        assert "SECRET" not in answer.text

    use(tmp_path, do, Versions(None), ready=False)


def test_pages_from_elsewhere_are_refused(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        for origin, host, status in (
            ("http://evil.example", "localhost:9090", 403),
            ("null", "localhost:9090", 403),
            ("http://localhost:9090", "localhost:9090", 201),
            ("http://127.0.0.1:9090", "127.0.0.1:9090", 201),
            ("http://[::1]:9090", "[::1]:9090", 201),
            # Whoever owns this name can have it mean this machine.
            ("http://evil.example:9090", "evil.example:9090", 403),
            ("http://[", "[", 403),
        ):
            answer = await http.post("/train", headers={"Origin": origin, "Host": host})
            assert answer.status_code == status, (origin, host)

    use(tmp_path, do, Versions(None), ready=False)


def test_a_login_is_asked_for(tmp_path: Path) -> None:
    def basic(user: str, password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    async def do(http: httpx.AsyncClient) -> None:
        assert (await http.get("/")).status_code == 200
        ready = await http.get("/ready")
        assert (ready.status_code, list(ready.json())) == (503, ["status"])
        assert (await http.get("/ready", headers=basic("ls", "pa:ss"))).json()["project"] == PROJECT
        for wrong in ({}, basic("ls", "wrong"), basic("", ""), {"Authorization": "Basic %%%"}, {"Authorization": "x"}):
            for path in ("/health", "/metrics", "/docs", "/openapi.json", "/versions"):
                answer = await http.get(path, headers=wrong)
                assert answer.status_code == 401
                assert "Basic" in answer.headers["WWW-Authenticate"]
            assert (await http.post("/predict", json=request("goal"), headers=wrong)).status_code == 401
        # There is no model, but the login is right.
        assert (await http.post("/predict", json=request("goal"), headers=basic("ls", "pa:ss"))).status_code == 503
        assert (await http.get("/health", headers=basic("ls", "pa:ss"))).status_code == 200
        # Label Studio gives webhooks no login; a training comes with it.
        event = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}}
        assert (await http.post("/webhook", json=event)).status_code == 401
        assert (await http.post("/webhook", json=event, headers={"X-Lsbatch-Secret": "no"})).status_code == 401
        assert (await http.post("/webhook", json=event, headers={"X-Lsbatch-Secret": "s3cret"})).status_code == 202
        assert (await http.post("/webhook", json=event, headers=basic("ls", "pa:ss"))).status_code == 202
        assert (await http.post("/train", headers={"X-Lsbatch-Secret": "s3cret"})).status_code == 401

    use(
        tmp_path,
        do,
        Versions(None),
        ready=False,
        basic_auth_user="ls",
        basic_auth_pass="pa:ss",
        webhook_secret="s3cret",
    )


def test_a_secret_alone_guards_what_webhooks_tell(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        event = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}}
        assert (await http.post("/webhook", json=event)).status_code == 401
        assert (await http.post("/webhook", json=event, headers={"X-Lsbatch-Secret": "s3cret"})).status_code == 202

    use(tmp_path, do, Versions(None), ready=False, webhook_secret="s3cret")


def test_without_a_project_or_a_label_studio_there_is_no_application(tmp_path: Path) -> None:
    for environ, words in (
        ({"LABEL_STUDIO_URL": "http://localhost:1", "LABEL_STUDIO_API_KEY": "not-used"}, "project"),
        ({"LSBATCH_PROJECT": "7"}, "LABEL_STUDIO_URL"),
    ):
        loaded = load(None, environ=environ, flags={}, cwd=tmp_path)
        with pytest.raises(ConfigError) as caught:
            create_app(loaded)
        assert words in f"{caught.value} {caught.value.hint}"


def test_half_a_login_is_a_mistake(tmp_path: Path) -> None:
    for given, lacking in (("user", "pass"), ("pass", "user")):
        with pytest.raises(ConfigError, match=f"serve.basic_auth_{lacking}: not set"):
            create_app(configured(tmp_path, **{f"basic_auth_{given}": "ls"}), source=Versions(None))


@pytest.mark.parametrize("in_pieces", [True, False])
def test_a_body_has_a_limit(tmp_path: Path, in_pieces: bool) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        body = json.dumps(request("goal" * 1000)).encode()

        async def pieces() -> Any:
            for start in range(0, len(body), 500):
                yield body[start : start + 500]

        for path in ("/predict", "/setup"):
            answer = await http.post(path, content=pieces() if in_pieces else body)
            assert answer.status_code == 413
            assert "serve.max_body_mb" in answer.json()["detail"]
        assert (await http.post("/predict", json=request("goal"))).status_code == 503

    use(tmp_path, do, Versions(None), ready=False, max_body_mb=0.002)


def test_the_public_is_answered_only_with_a_login(tmp_path: Path) -> None:
    async def main() -> None:
        for settings, status in (({}, 403), ({"insecure": True}, 200)):
            app = create_app(configured(tmp_path, **settings), source=Versions(None))
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://203.0.113.5:9090") as http,
            ):
                assert (await http.get("/health")).status_code == status

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------ too much


def test_more_than_fits_the_queue_is_refused(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        alone = await http.post("/predict", json=request(*["goal"] * 21))
        assert alone.status_code == 413
        assert f"lsbatch predict --project {PROJECT}" in alone.json()["detail"]
        # Nobody looks at what is too much: these are no tasks.
        assert (await http.post("/predict", json={"tasks": [0] * 21})).status_code == 413
        answers = await asyncio.gather(*(http.post("/predict", json=request(*["SLOW"] * 10)) for _ in range(6)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert all(answer.status_code == 200 for answer in answers if answer not in refused)
        assert (await http.post("/predict", json=request("goal"))).status_code == 200

    use(tmp_path, do, max_queue_tasks=20, max_batch_size=4)


def test_what_cannot_be_answered_in_time_is_refused_early(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        # 20 s of work.
        answer = await http.post("/predict", json=request(*["SLOW"] * 400))
        assert answer.status_code == 503
        assert f"lsbatch predict --project {PROJECT}" in answer.json()["detail"]
        assert loop.time() - started < 4
        again = await http.post("/predict", json=request(*["SLOW"] * 400))
        assert again.status_code == 503
        assert (await http.post("/predict", json=request("goal"))).status_code == 200

    use(tmp_path, do, predict_seconds=4, max_batch_size=8)


def test_a_caller_that_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        app = create_app(configured(tmp_path, max_batch_size=2), source=Versions(served(tmp_path)))
        async with app.router.lifespan_context(app):
            backend = app.state.backend
            await until(lambda: backend.ready)
            body, gone = json.dumps(request(*["SLOW"] * 500)).encode(), asyncio.Event()
            sent: list[Any] = []

            async def receive() -> dict[str, Any]:
                nonlocal body
                if body:
                    told, body = body, b""
                    return {"type": "http.request", "body": told}
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/predict",
                "raw_path": b"/predict",
                "query_string": b"",
                "headers": [],
                "server": ("127.0.0.1", 1),
                "client": ("127.0.0.1", 2),
                "scheme": "http",
                "http_version": "1.1",
                "root_path": "",
            }
            asking = asyncio.create_task(app(scope, receive, send))
            await until(lambda: backend.keeper.waiting > 400)
            gone.set()
            await asyncio.wait_for(asking, 5)
            assert backend.keeper.waiting == 0
            assert sent[0]["status"] == 499

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------ models come and go


def test_a_model_that_dies_or_hangs_costs_its_task_alone(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        answer = await http.post("/predict", json=request("goal", "DIE", "soup", "HANG", "goal"))
        results = answer.json()["results"]
        assert choices(results) == ["sport", "error", "food", "error", "sport"]
        assert "exit code 9" in results[1]["error"]
        assert "longer than 1 s" in results[3]["error"]
        assert choices((await http.post("/predict", json=request("soup"))).json()["results"]) == ["food"]

    use(tmp_path, do, task_seconds=1)


def test_health_answers_while_every_model_hangs(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        asking = [asyncio.create_task(http.post("/predict", json=request("HANG"))) for _ in range(3)]
        longest = 0.0
        while not asking[0].done():
            started = loop.time()
            assert (await http.get("/health")).status_code == 200
            assert (await http.post("/setup", json={})).json() == {"model_version": "v1"}
            longest = max(longest, loop.time() - started)
            await asyncio.sleep(0.02)
        await asyncio.gather(*asking)
        assert longest < 1

    use(tmp_path, do, task_seconds=1, workers=2)


def test_another_version_takes_over_without_a_request_failing(tmp_path: Path) -> None:
    versions = Versions(served(tmp_path))

    async def do(http: httpx.AsyncClient) -> None:
        seen: list[set[str]] = []
        done = asyncio.Event()

        async def client() -> None:
            while not done.is_set():
                answer = await http.post("/predict", json=request(*["goal"] * 9))
                assert answer.status_code == 200
                seen.append({row["model_version"] for row in answer.json()["results"]})

        clients = [asyncio.create_task(client()) for _ in range(8)]
        assert isinstance(versions.current, type(served(tmp_path)))
        versions.current = renewed(versions.current, "v2")
        async with asyncio.timeout(60):
            while (await http.post("/setup", json={})).json() != {"model_version": "v2"}:
                await asyncio.sleep(0.02)
        seen_before = len(seen)
        await until(lambda: len(seen) > seen_before + 20)
        done.set()
        await asyncio.gather(*clients)
        # No answer holds two versions, and none is older than what /setup says by now.
        assert {len(found) for found in seen} == {1}
        assert set.union(*seen) == {"v1", "v2"}
        assert all(found == {"v2"} for found in seen[-10:])
        assert 'version="v2"' in (await http.get("/metrics")).text
        assert 'version="v1"' not in (await http.get("/metrics")).text

    use(tmp_path, do, versions, reload_seconds=0.1, max_batch_size=4)


def test_before_the_first_training_it_can_be_connected(tmp_path: Path) -> None:
    versions = Versions(None)

    async def do(http: httpx.AsyncClient) -> None:
        assert (await http.get("/health")).status_code == 200
        assert (await http.post("/setup", json={})).json() == {"model_version": ""}
        assert (await http.get("/ready")).status_code == 503
        answer = await http.post("/predict", json=request("goal"))
        assert answer.status_code == 503
        assert "retrain" in answer.json()["detail"]
        versions.current = served(tmp_path)
        await until_ready(http)
        assert (await http.post("/predict", json=request("goal"))).status_code == 200

    use(tmp_path, do, versions, ready=False, reload_seconds=0.1)


async def until_ready(http: httpx.AsyncClient) -> None:
    """Return when predictions can be had."""
    async with asyncio.timeout(60):
        while (await http.get("/ready")).status_code != 200:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("error", [TransientError("Label Studio is down"), ConfigError("the store is damaged")])
def test_what_cannot_be_loaded_leaves_what_answers(tmp_path: Path, error: Exception) -> None:
    versions = Versions(served(tmp_path))

    async def do(http: httpx.AsyncClient) -> None:
        versions.current = error  # type: ignore[assignment]
        async with asyncio.timeout(30):
            while not (await http.get("/ready")).json()["problem"]:
                await asyncio.sleep(0.02)
        assert (await http.post("/predict", json=request("goal"))).status_code == 200
        assert str(error) in (await http.get("/ready")).json()["problem"]

    use(tmp_path, do, versions, reload_seconds=0.1)


def test_a_label_config_that_does_not_fit_any_more_ends_the_answers(tmp_path: Path) -> None:
    versions = Versions(served(tmp_path))

    async def do(http: httpx.AsyncClient) -> None:
        asked = versions.asked
        # The same label config is no reason to ask Label Studio again, another one is.
        same = {"action": "PROJECT_UPDATED", "project": {"id": PROJECT, "label_config": TEXT_CONFIG}}
        assert (await http.post("/webhook", json=same)).status_code == 202
        assert versions.asked == asked
        versions.current = RefusedError("the pipeline cannot serve it")
        other = {"action": "PROJECT_UPDATED", "project": {"id": PROJECT, "label_config": "<View/>"}}
        assert (await http.post("/webhook", json=other)).status_code == 202
        async with asyncio.timeout(30):
            while (await http.get("/ready")).status_code == 200:
                await asyncio.sleep(0.02)
        assert versions.asked > asked
        answer = await http.post("/predict", json=request("goal"))
        assert (answer.status_code, answer.json()["detail"]) == (503, "the pipeline cannot serve it")
        assert (await http.post("/setup", json={})).status_code == 503

    use(tmp_path, do, versions)


def test_a_model_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    (tmp_path / "flag").touch()
    versions = Versions(served(tmp_path, params={"broken": str(tmp_path / "flag")}))

    async def do(http: httpx.AsyncClient) -> None:
        answer = await http.post("/setup", json={})
        async with asyncio.timeout(30):
            while "broken" not in (await http.post("/predict", json=request("goal"))).text:
                await asyncio.sleep(0.02)
        assert answer.status_code == 503
        assert (await http.get("/health")).status_code == 200

    use(tmp_path, do, versions, ready=False)


def test_a_model_that_dies_between_two_requests_is_loaded_again(tmp_path: Path) -> None:
    async def do(http: httpx.AsyncClient) -> None:
        for _ in range(2):
            for process in models():
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                process.join()
            # It is not the task's fault.
            answer = await http.post("/predict", json=request("soup"))
            assert choices(answer.json()["results"]) == ["food"]

    use(tmp_path, do, workers=2)


def models() -> list[BaseProcess]:
    """The processes in which models are."""
    return [process for process in multiprocessing.active_children() if process.name == "lsbatch-model"]
