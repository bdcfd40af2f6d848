"""One line in the log and one count in the metrics for each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lsbatch.serving.metrics import Metrics

__all__ = ["GONE", "Observer", "access"]

#: Of requests. No queries, headers and bodies, so that no secret gets in.
access = logging.getLogger("lsbatch.access")
#: Of a path that somebody made up, so much is logged.
LONGEST = 200
#: What a client that went away before the answer is counted as (nginx's number).
GONE = 499


class Observer:
    """An ASGI middleware that notes every request when it is over.

    Args:
        app: what answers.
        metrics: where it is counted.
        endpoints: known paths; others are counted as one, so that nobody can make the figures grow.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, endpoints: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._endpoints = frozenset(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, noted)
            finally:
                self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path: str = scope["path"]
        endpoint = path if path in self._endpoints else "other"
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
        self._metrics.requests.labels(endpoint, method, str(status)).inc()
        self._metrics.latency.labels(endpoint).observe(seconds)
        if status >= 400:
            self._metrics.errors.labels(f"http_{status}").inc()
        if access.isEnabledFor(logging.INFO):
            client = scope.get("client")
            fields = {"method": method, "path": _short(path), "status": status, "ms": round(seconds * 1e3, 2)}
            fields["client"] = _short(client[0]) if client else None
            access.info("%(method)s %(path)s %(status)d %(ms).1f ms", fields, extra={"fields": fields})


def _short(text: str) -> str:
    """On one line, without what a terminal would take for a command, and not too long."""
    printable = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return printable if len(printable) <= LONGEST else printable[:LONGEST] + "..."
