"""A real HTTP server whose answers are a script, faults of the connection included."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

#: What happens to the connection: ``close`` before any answer, ``cut`` in the middle of the body, ``stall`` for good.
Fault = Literal["", "close", "cut", "stall"]
#: How soon the server sees that it is told to stop.
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Answer:
    """One answer. A body that is no bytes is sent as JSON."""

    status: int = 200
    body: object = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault = ""

    @property
    def content(self) -> bytes:
        """The body's bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Request:
    """One request, as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class ScriptedServer:
    """Answers a path's requests in the order of its script; the last answer is repeated. Unknown paths are 404."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer]] = {}
        self.requests: list[Request] = []
        self.ended = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(POLL_SECONDS,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def on(self, path: str, *answers: Answer) -> None:
        """Script the answers of a path, without its query."""
        self.script[path] = list(answers)

    def next_answer(self, path: str) -> Answer:
        """The answer that is due."""
        answers = self.script.get(path.partition("?")[0], [Answer(404, {"detail": "Not found."})])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def stop(self) -> None:
        """Stop, and let go of whoever stalls."""
        self.ended.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """A server for the time of the context."""
    server = ScriptedServer()
    try:
        yield server
    finally:
        server.stop()


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept open

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append(Request(self.command, self.path, dict(self.headers), body))
            answer = server.next_answer(self.path)
            if answer.fault == "stall":
                server.ended.wait()
            if answer.fault in ("close", "stall"):
                self._hang_up()
                return
            self.send_response(answer.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.content)), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.fault == "cut":
                self.wfile.write(answer.content[: len(answer.content) // 2])
                self._hang_up()
                return
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names that the base class looks for

        def _hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
