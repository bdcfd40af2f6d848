"""A live backend that speaks the protocol of Label Studio and nothing else, on a port of its own."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: How soon the server sees that it is told to stop.
POLL_SECONDS = 0.02
Answers = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Call:
    """One request, as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def secret(self) -> str | None:
        """What it carries in the header of webhooks."""
        return self.headers.get("x-lsbatch-secret")


@dataclass
class TinyBackend:
    """What it answers, and what it was asked.

    Attributes:
        version: that it serves; empty for one that is not ready.
        login: user and password that every request but a webhook must carry; empty for none.
        predict: answers tasks.
        calls: every request, oldest first.
        url: its address.
    """

    version: str = "live-1"
    login: tuple[str, str] | tuple[()] = ()
    predict: Answers = lambda tasks: []
    calls: list[Call] = field(default_factory=list)
    url: str = ""

    def asked(self, path: str) -> list[Call]:
        """The requests to this path."""
        return [call for call in self.calls if call.path == path]

    def answer(self, call: Call) -> tuple[int, Any]:
        """Status and body."""
        token = base64.b64encode(":".join(self.login).encode()).decode()
        if self.login and call.path != "/webhook" and call.headers.get("authorization") != f"Basic {token}":
            return 401, {"detail": "who are you?"}
        if call.path == "/setup":
            return (200, {"model_version": self.version}) if self.version else (503, {"detail": "not ready"})
        if call.path == "/predict":
            return 200, {"results": self.predict(call.body["tasks"])}
        return (200, {"status": "UP"}) if call.path in ("/health", "/webhook") else (404, {})


@contextmanager
def tiny_backend(**settings: Any) -> Iterator[TinyBackend]:
    """One for the time of the context."""
    backend = TinyBackend(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(backend))
    server.daemon_threads = True
    backend.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,))
    thread.start()
    try:
        yield backend
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(backend: TinyBackend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept open

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.path, headers, json.loads(body) if body else None)
            backend.calls.append(call)
            status, answer = backend.answer(call)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 - the names that the base class looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
