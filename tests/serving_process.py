"""``lsbatch serve`` as a process of its own, and a relay before it that remembers what Label Studio sends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from fault.waiting import until
from ls_support import Studio, environment

__all__ = ["Relay", "Server", "relay", "serve"]


@dataclass
class Server:
    """A running ``lsbatch serve``.

    Attributes:
        url: its address.
        process: itself.
        log: the file with what it said on stderr.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> httpx.Response:
        """Ask it. Loading the certificates would take longer than the answer."""
        return httpx.get(self.url + path, timeout=30, verify=False)  # noqa: S501

    def post(self, path: str, body: Any = None) -> httpx.Response:
        """Ask it, with a body."""
        return httpx.post(self.url + path, json={} if body is None else body, timeout=120, verify=False)  # noqa: S501

    @property
    def version(self) -> str:
        """The version that it says it answers with."""
        return str(self.post("/setup").json()["model_version"])

    @property
    def said(self) -> str:
        """What it said so far."""
        return self.log.read_text()

    def lines(self, logger: str) -> list[dict[str, Any]]:
        """The log of one module, or of requests (``lsbatch.access``)."""
        found = [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]
        return [line for line in found if line["logger"] == logger]

    def requests(self, path: str) -> int:
        """How many requests for this path were answered."""
        return sum(line["path"] == path for line in self.lines("lsbatch.access"))

    def until_ready(self) -> None:
        """Return when predictions can be had.

        Raises:
            AssertionError: it ended, or takes too long.
        """

        def ready() -> bool:
            assert self.process.poll() is None, self.said
            return self.get("/ready").status_code == 200

        # Who asks all the time takes the processor from what starts.
        until(ready, seconds=120, look_seconds=0.1)


@contextmanager
def serve(
    studio: Studio, folder: Path, *arguments: str, port: int = 0, ready: bool = True, **environ: str
) -> Iterator[Server]:
    """A live backend; it is killed at the end.

    Args:
        studio: the Label Studio that it serves.
        folder: its working directory.
        arguments: more of its command line.
        port: to listen on; 0 for any.
        ready: wait until predictions can be had.
        environ: more of its environment.
    """
    log = folder / f"serve-{len(list(folder.glob('serve-*.log')))}.log"
    command = [sys.executable, "-m", "lsbatch", "serve", "--port", str(port), *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(studio.server, **environ), stdout=file, stderr=file
        )
    try:
        server = Server(_address(process, log), process, log)
        if ready:
            server.until_ready()
        yield server
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    def started() -> bool:
        assert process.poll() is None, log.read_text()
        return "serving project" in log.read_text()

    until(started, seconds=120)
    line = next(line for line in log.read_text().splitlines() if "serving project" in line)
    return str(json.loads(line)["message"]).split(" at ")[1].split(" ")[0]


@dataclass
class Relay:
    """What passes everything on to a live backend.

    Attributes:
        url: its address.
        seen: method, path, headers in lower case, and body of every request.
    """

    url: str
    seen: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    def bodies(self, path: str) -> list[Any]:
        """The bodies of all requests for a path."""
        return [body for _, asked, _, body in self.seen if asked == path]


@contextmanager
def relay(target: str) -> Iterator[Relay]:
    """A relay to the live backend at an address."""
    found = Relay("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass()

        def do_POST(self) -> None:
            self._pass()

        def _pass(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.seen.append((self.command, self.path, headers, json.loads(content) if content else None))
            kept = {name: value for name, value in headers.items() if name in ("content-type", "authorization")}
            kept |= {name: value for name, value in headers.items() if name.startswith("x-")}
            answer = httpx.request(self.command, target + self.path, content=content, headers=kept, timeout=120)
            self.send_response(answer.status_code)
            for name in ("content-type", "retry-after", "www-authenticate"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
