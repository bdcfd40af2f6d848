"""Requests to a live backend, and what each of its answers means."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from lsbatch.entities import Task, TaskId
from lsbatch.errors import LsbatchError, PermanentError, RefusedError, TransientError
from lsbatch.ports import ProjectInfo
from lsbatch_connectors.live_backend import HttpLiveBackend, LiveOptions

INFO = ProjectInfo(3, "p", "<View/>", 2, 0, "", created_at=datetime(2026, 1, 1, 12, 0, 0, 999_000, tzinfo=UTC))
TASKS = [Task(TaskId(1), {"text": "a"}), Task(TaskId(2), {"text": "b"})]
OPTIONS = LiveOptions("http://live:9090/", "user", "pass-word", retry_seconds=0)


class Served:
    """A backend whose answers are given; ``requests`` has what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception, options: LiveOptions = OPTIONS) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)
        self.client = HttpLiveBackend(options, httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_setup_names_the_project_as_label_studio_does_and_holds_no_token() -> None:
    served = Served(httpx.Response(200, json={"model_version": "v1"}))
    assert served.client.version(INFO) == "v1"
    [request] = served.requests
    assert (request.method, str(request.url)) == ("POST", "http://live:9090/setup")
    body = json.loads(request.content)
    assert (body["project"], body["schema"], body["access_token"]) == ("3.1767268800", "<View/>", "")
    assert request.headers["authorization"] == "Basic dXNlcjpwYXNzLXdvcmQ="


def test_tasks_are_asked_for_in_one_request() -> None:
    rows = [{"result": [], "score": 0.5, "model_version": "v1"}, {"error": "broken"}]
    served = Served(httpx.Response(200, json={"results": rows}))
    first, second = served.client.predict(INFO, TASKS)
    assert (first.result, first.score, first.model_version, first.error) == ([], 0.5, "v1", "")
    assert second.error == "broken"
    body = json.loads(served.requests[0].content)
    assert [(row["id"], row["data"]) for row in body["tasks"]] == [(1, {"text": "a"}), (2, {"text": "b"})]
    assert (body["project"], body["label_config"]) == ("3.1767268800", "<View/>")
    assert body["params"] == {"login": None, "password": None, "context": None}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"result": []}], "1 results for 2 tasks"),
        ([[{"result": []}, {"result": []}], []], "the answer is not one prediction"),
        ([{}, None], "the answer holds no result"),
    ],
)
def test_an_answer_that_is_no_prediction_is_a_failure_of_its_task(rows: list[object], words: str) -> None:
    assert Served(httpx.Response(200, json={"results": rows})).client.predict(INFO, TASKS)[0].error == words


def test_a_list_of_one_is_a_prediction() -> None:
    rows = [[{"result": [], "model_version": "v1"}], {"result": []}]
    answers = Served(httpx.Response(200, json={"results": rows})).client.predict(INFO, TASKS)
    assert [answer.error for answer in answers] == ["", ""]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (httpx.ConnectError("refused"), TransientError, "cannot be reached: refused"),
        (httpx.ReadTimeout(""), TransientError, "cannot be reached: ReadTimeout"),
        (httpx.Response(401), RefusedError, "another user name or password"),
        (httpx.Response(429, text="full"), TransientError, "429: full"),
        (httpx.Response(503, text="not ready"), TransientError, "503: not ready"),
        (httpx.Response(400, text="other project"), RefusedError, "refused with 400: other project"),
        (httpx.Response(404), RefusedError, "refused with 404"),
        (httpx.Response(307, headers={"location": "https://there/"}), RefusedError, "refused with 307"),
        (httpx.Response(200, text="<html>"), PermanentError, "without JSON"),
        (httpx.Response(200, json=[]), PermanentError, "names no model version"),
        (httpx.Response(200, json={"model_version": None}), PermanentError, "names no model version"),
    ],
)
def test_errors(answer: httpx.Response | Exception, kind: type[LsbatchError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        Served(answer).client.version(INFO)
    assert "pass-word" not in f"{caught.value} {caught.value.hint} {OPTIONS!r}"


def test_a_backend_that_is_busy_for_a_moment_is_asked_again() -> None:
    options = LiveOptions("http://live:9090", retry_seconds=5.0)
    busy, good = httpx.Response(429, headers={"retry-after": "0"}), httpx.Response(200, json={"model_version": "v1"})
    served = Served(busy, good, options=options)
    assert served.client.version(INFO) == "v1"
    assert len(served.requests) == 2
    assert "authorization" not in served.requests[0].headers
