"""``lsbatch serve`` as a real process, clients that cost little, and what is left of its processes."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from fault.waiting import until
from ls_support import Studio
from running import PATIENCE, Ended, Running, running

__all__ = ["PIPELINE", "Client", "Live", "Load", "Prober", "gone", "live"]

USER, PASSWORD, SECRET = "studio", "pass-Wd-987654321", "hook-Secret-987654321"
LOGIN = {"BASIC_AUTH_USER": USER, "BASIC_AUTH_PASS": PASSWORD, "LSBATCH_SERVE_WEBHOOK_SECRET": SECRET}
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

#: A user's pipeline that learns next to nothing, does what its tasks tell, and has a process of its own.
PIPELINE = """
import json
import os
import pathlib
import subprocess
import threading
import time

from lsbatch.ports import Evaluation


class Told:
    @classmethod
    def why_not(cls, label_config):
        return None if label_config.find("Choices", "Text") else "no Choices on Text"

    @classmethod
    def fit(cls, context, tasks, model_dir):
        held_out = [task.held_out for task in tasks]
        if pathlib.Path("fit-hangs").exists():
            subprocess.Popen(["sleep", "600"])
            pathlib.Path("fitting").write_text(str(os.getpid()))
            threading.Event().wait()
        # Each is told apart from the one before.
        (model_dir / "model.json").write_text(json.dumps(time.time()))
        return Evaluation(len(held_out) - sum(held_out), sum(held_out), 1.0, 0.5, ())

    @classmethod
    def build(cls, context):
        subprocess.Popen(["sleep", "600"])
        return cls()

    def predict(self, tasks):
        return [self.one(task.data["text"]) for task in tasks]

    def one(self, text):
        if "DIE" in text:
            os._exit(9)
        if "HANG" in text:
            pathlib.Path("hanging").touch()
            threading.Event().wait()
        if "SLOW" in text:
            time.sleep(0.05)
        label = "sport" if "goal" in text else "music" if "song" in text else "food"
        region = {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
        return {"result": [region], "score": 0.5}
"""


@dataclass
class Live:
    """A server under way.

    Attributes:
        process: it.
        url: its address.
        login: whether it wants one.
    """

    process: Running
    url: str
    project: int
    login: bool = True

    def client(self, seconds: float = PATIENCE) -> httpx.Client:
        """A client with the login."""
        headers = {"Authorization": BASIC} if self.login else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=seconds, verify=False)  # noqa: S501

    def get(self, path: str) -> httpx.Response:
        """One answer."""
        with self.client() as http:
            return http.get(path)

    def post(self, path: str, body: Any = None) -> httpx.Response:
        """One answer."""
        with self.client() as http:
            return http.post(path, json=body)

    def predict(self, *texts: str) -> httpx.Response:
        """The answer to a request for predictions."""
        return self.post("/predict", self.request(*texts))

    def request(self, *texts: str) -> dict[str, Any]:
        """As Label Studio sends it."""
        tasks = [{"id": number, "data": {"text": text}} for number, text in enumerate(texts, 1)]
        return {"tasks": tasks, "project": f"{self.project}.1700000000", "params": {"context": None}}

    def until_ready(self, version: str = "") -> str:
        """Wait until predictions can be had; the version, which is another one than that given."""
        until(lambda: self.get("/ready").status_code == 200, seconds=PATIENCE)
        until(lambda: self.get("/ready").json()["model_version"] != version, seconds=PATIENCE)
        return str(self.get("/ready").json()["model_version"])

    def train(self) -> dict[str, Any]:
        """Train, and wait for the end; how it ended."""
        name = self.post("/train").json()["job"]
        until(lambda: self.status(name)["job_status"] in ("finished", "failed"), seconds=PATIENCE)
        return self.status(name)

    def status(self, training: str) -> dict[str, Any]:
        """How far a training is."""
        found: dict[str, Any] = self.post("/job_status", {"job": training}).json()
        return found

    @property
    def all_processes(self) -> list[psutil.Process]:
        """The server's process and all that came of it."""
        me = psutil.Process(self.process.process.pid)
        return [me, *me.children(recursive=True)]

    @property
    def models(self) -> list[psutil.Process]:
        """The processes that predict."""
        me = psutil.Process(self.process.process.pid)
        forking = [entry for entry in me.children() if "multiprocessing.forkserver" in " ".join(entry.cmdline())]
        return [model for entry in forking for model in entry.children()]

    def end(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """Send a signal and wait for the end; nothing that it wrote holds a secret."""
        self.process.send(number)
        return self.ended()

    def ended(self) -> Ended:
        """Wait for the end; nothing that it wrote holds a secret."""
        ended = self.process.end()
        assert not any(word in ended.stdout + ended.stderr for word in (PASSWORD, SECRET, BASIC.split()[1]))
        return ended


@contextmanager
def live(
    studio: Studio, folder: Path, project: int, *arguments: str, login: bool = True, **environ: str
) -> Iterator[Live]:
    """A server of the project, on a port of its own, with the pipeline above."""
    (folder / "mine.py").write_text(PIPELINE)
    command = ["serve", "--project", str(project), "--pipeline", "mine:Told", "--port", "0", *arguments]
    settings = {**(LOGIN if login else {}), **environ}
    with running(*command, cwd=folder, server=studio.server, **settings) as process:
        process.until_said("serving project")
        said = process.said
        found = re.search(r"serving project \d+ at (http://\S+) ", said)
        assert found is not None, said
        yield Live(process, found[1], project, login)


def gone(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    """Whether all of these end soon; one that nobody has waited for has ended, too."""

    def over(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    try:
        until(lambda: all(over(process) for process in processes), seconds=seconds)
    except AssertionError:
        print([process for process in processes if not over(process)])  # noqa: T201 - for whoever reads the failure
        return False
    return True


class Client:
    """A connection that is kept open, with as little work as can be for each request."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        body = await reader.readexactly(int(length[1]))
        if b"connection: close" in head:
            self.close()
        return int(head.split()[1]), body

    def close(self) -> None:
        """Close the connection. May be repeated."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Load:
    """Clients that ask one after another, each on a connection of its own, in a loop of its own.

    Attributes:
        server: what is asked.
        statuses: how often each status was the answer.
        versions: of the answers, in their order, each as often as it changed.
        failures: what else came.
    """

    server: Live
    clients: int
    texts: tuple[str, ...] = ("soup", "goal")
    pause: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self, until_set: asyncio.Event) -> None:
        """Ask until the event is set; what is under way then is waited for."""
        await asyncio.gather(*(self._one(number, until_set) for number in range(self.clients)))

    async def _one(self, number: int, until_set: asyncio.Event) -> None:
        # People do not come all in the same millisecond.
        await asyncio.sleep(number / self.clients)
        url = httpx.URL(self.server.url)
        assert url.port is not None
        client, request = Client(url.host, url.port), raw("POST", "/predict", self.server.request(*self.texts))
        while not until_set.is_set():
            try:
                status, body = await client.ask(request)
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status == 200:
                    self._check(json.loads(body))
                else:
                    self.failures.append(f"{status} {body[:200]!r}")
            except (OSError, EOFError, AssertionError) as error:
                self.failures.append(repr(error))
                return
            if self.pause:
                await asyncio.sleep(self.pause)
        client.close()

    def _check(self, answer: Mapping[str, Any]) -> None:
        found = {row.get("model_version") for row in answer["results"]}
        assert len(answer["results"]) == len(self.texts)
        assert found == {answer["model_version"]}, answer
        if not self.versions or answer["model_version"] not in self.versions:
            self.versions.append(answer["model_version"])


def raw(method: str, path: str, body: Any = None) -> bytes:
    """A request as it goes over the wire."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {BASIC}\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + content


#: Asks for /health again and again until its stdin ends, then prints what each answer took, in seconds, and how much of
#: that the server's loop or this process waited for a processor that others had.
PROBER = """
import json, os, select, socket, sys, time
host, port, server, request = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4].encode().decode("unicode_escape")
connection, times, waits = socket.create_connection((host, port)), [], []


def waited():
    files = [f"/proc/{process}/task/{process}/schedstat" for process in (server, os.getpid())]
    return sum(int(open(file).read().split()[1]) / 1e9 for file in files)


while not select.select([sys.stdin], [], [], 0.02)[0]:
    before, started, answer = waited(), time.perf_counter(), b""
    connection.sendall(request.encode())
    while not answer.endswith(b"}"):
        answer += connection.recv(65536)
    times.append(time.perf_counter() - started)
    waits.append(waited() - before)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
print(json.dumps({"times": times, "waits": waits}))
"""


class Prober:
    """A process that asks for ``/health`` up to fifty times a second."""

    def __init__(self, server: Live) -> None:
        url = httpx.URL(server.url)
        request = raw("GET", "/health").decode().encode("unicode_escape").decode()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROBER, url.host, str(url.port), str(server.process.process.pid), request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def end(self) -> tuple[list[float], list[float]]:
        """Seconds that each answer took, and how many of them passed while others had the processor."""
        out, _ = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0
        found = json.loads(out)
        return found["times"], found["waits"]
