"""A running live backend, asked over HTTP as Label Studio 1.23 asks it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from lsbatch.entities import Task
from lsbatch.errors import PermanentError, RefusedError, TransientError
from lsbatch.ports import LiveAnswer, LiveBackend, ProjectInfo
from lsbatch.retry import retry_transient

__all__ = ["HttpLiveBackend", "LiveOptions"]

logger = logging.getLogger(__name__)
#: How long Label Studio itself waits for predictions.
ANSWER_SECONDS = 100.0
MESSAGE_LENGTH = 200


@dataclass(frozen=True)
class LiveOptions:
    """How to reach a live backend.

    Attributes:
        url: its address.
        user: of basic auth; empty for none.
        password: that goes with it.
        connect_seconds: longest wait for a connection.
        answer_seconds: longest silence while it answers.
        retry_seconds: how long a request is tried again in all.
        verify_tls: check the server's certificate.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    connect_seconds: float = 5.0
    answer_seconds: float = ANSWER_SECONDS
    retry_seconds: float = 120.0
    verify_tls: bool = True


class HttpLiveBackend(LiveBackend):
    """As ``LiveBackend``. Knows no token of Label Studio and so sends none.

    Args:
        options: where it is.
        transport: instead of the network, for tests.
    """

    def __init__(self, options: LiveOptions, transport: httpx.BaseTransport | None = None) -> None:
        self.url = options.url.rstrip("/")
        self._options = options
        self._http = httpx.Client(
            auth=(options.user, options.password) if options.user else None,
            timeout=httpx.Timeout(options.answer_seconds, connect=options.connect_seconds),
            verify=options.verify_tls,
            follow_redirects=False,
            transport=transport,
        )

    def version(self, project: ProjectInfo) -> str:
        """See ``LiveBackend.version``."""
        body = {
            "project": _uid(project),
            "schema": project.label_config,
            "hostname": "",
            "access_token": "",
            "extra_params": None,
        }
        answer = self._post("/setup", body)
        version = answer.get("model_version") if isinstance(answer, dict) else None
        if not version:
            raise PermanentError(f"the backend at {self.url} names no model version", hint=_IS_IT)
        return str(version)

    def predict(self, project: ProjectInfo, tasks: Sequence[Task]) -> list[LiveAnswer]:
        """See ``LiveBackend.predict``."""
        body = {
            "tasks": [
                {"id": task.id, "data": dict(task.data), "project": project.id, "annotations": [], "predictions": []}
                for task in tasks
            ],
            "project": _uid(project),
            "label_config": project.label_config,
            "params": {"login": None, "password": None, "context": None},
        }
        answer = self._post("/predict", body)
        rows = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise PermanentError(f"the backend at {self.url} answered without results", hint=_IS_IT)
        if len(rows) != len(tasks):
            # As Label Studio does: which answer is whose cannot be told, so that none counts.
            return [LiveAnswer(error=f"{len(rows)} results for {len(tasks)} tasks")] * len(tasks)
        return [_answer(row) for row in rows]

    def _post(self, path: str, body: object) -> Any:
        return retry_transient(lambda: self._post_once(path, body), seconds=self._options.retry_seconds)

    def _post_once(self, path: str, body: object) -> Any:
        what = f"POST {self.url}{path}"
        try:
            response = self._http.post(self.url + path, json=body)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise PermanentError(f"{self.url} is not an address: {error}") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise TransientError(
                f"the live backend at {self.url} cannot be reached: {str(error) or type(error).__name__}",
                hint="Is lsbatch serve running there? --url names another address, as seen from this machine.",
            ) from error
        logger.debug("%s: %d", what, response.status_code)
        return self._read(what, response)

    def _read(self, what: str, response: httpx.Response) -> Any:
        status, said = response.status_code, _short(response)
        if status == 401:
            raise RefusedError(
                f"{what}: the backend wants another user name or password",
                hint="Set BASIC_AUTH_USER and BASIC_AUTH_PASS as lsbatch serve has them.",
            )
        if status in (408, 429) or status >= 500:
            wait = response.headers.get("retry-after", "")
            raise TransientError(
                f"{what}: {status}: {said}",
                hint="Look at the log of lsbatch serve.",
                retry_after=float(wait) if wait.isdigit() else None,
            )
        if status != 200:
            raise RefusedError(f"{what}: refused with {status}: {said}", hint=_IS_IT)
        try:
            return response.json()
        except ValueError:
            raise PermanentError(f"{what}: answered without JSON: {said}", hint=_IS_IT) from None


_IS_IT = "Is it a live backend, and one of this project? --url names another address."


def _uid(project: ProjectInfo) -> str:
    """How Label Studio names a project to a backend: its id and when it was made, in seconds."""
    return f"{project.id}.{0 if project.created_at is None else int(project.created_at.timestamp())}"


def _answer(row: object) -> LiveAnswer:
    if isinstance(row, list) and len(row) == 1:
        [row] = row
    return LiveAnswer.of(row) if isinstance(row, dict) else LiveAnswer(error="the answer is not one prediction")


def _short(response: httpx.Response) -> str:
    text = " ".join(response.text.split())
    return text if len(text) <= MESSAGE_LENGTH else text[:MESSAGE_LENGTH] + "..."
