"""The live backend beside two minimal ones on Flask: requests a second, and how long one takes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.clients import ask
from benchmarks.process import environment, run_lsbatch_well
from benchmarks.projects import connect, make_project
from benchmarks.results import Section, Target, cell
from benchmarks.servers import serve
from lsbatch.config import load
from lsbatch.entities import Task, TaskId
from lsbatch.local_server import free_port
from lsbatch.wiring import Bench

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "the live backend against two minimal ones on Flask: requests a second, p50 and p99"
TITLES = ["Live backend"]
OURS, KEPT, BUILT = "lsbatch serve", "Flask, one model kept", "Flask, a model for each request"
CLIENTS = (1, 16, 64)
TASKS, LARGE = 2_000, 1_000
TEXT = "parcel courier late the my was is with for and please order yesterday again today still about your team"
TIMES_OF_BUILT, TIMES_OF_KEPT, MOST_ABOVE_BARE = 10.0, 3.0, 5.0
START_SECONDS = 120.0


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s; the median counts")


def measure(options: Namespace, folder: Path) -> Section:
    """The table: the three backends with the same model, in turns."""
    with serve("sqlite", folder) as server, connect(server) as http:
        project = make_project(http, TASKS, "serving")
        run_lsbatch_well(server.url, server.token, folder, "retrain", "--project", str(project))
        environ = environment(
            LABEL_STUDIO_URL=server.url, LABEL_STUDIO_API_KEY=server.token, LSBATCH_PROJECT=str(project)
        )
        with ExitStack() as stack:
            urls = {
                OURS: stack.enter_context(_ours(folder, environ)),
                KEPT: stack.enter_context(_flask(folder, environ, "once")),
                BUILT: stack.enter_context(_flask(folder, environ, "per request")),
            }
            _check_equal(urls)
            bare = _bare(folder, environ)
            found, large = _in_turns(options, folder, urls)
    return _section(found, large, bare)


Figures = dict[tuple[str, int], list[dict[str, float]]]


def _in_turns(options: Namespace, folder: Path, urls: dict[str, str]) -> tuple[Figures, dict[str, list[float]]]:
    found: Figures = defaultdict(list)
    large: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for clients in CLIENTS:
            for name, url in urls.items():
                found[name, clients].append(_clients(folder, url, clients, options.seconds))
        for name, url in urls.items():
            started = time.perf_counter()
            httpx.post(f"{url}/predict", content=ask([TEXT] * LARGE), headers=_JSON, timeout=300).raise_for_status()
            large[name].append(time.perf_counter() - started)
    return found, large


_JSON = {"Content-Type": "application/json"}


def _clients(folder: Path, url: str, clients: int, seconds: float) -> dict[str, float]:
    body = folder / "body.json"
    body.write_bytes(ask([TEXT]))
    command = [sys.executable, "-m", "benchmarks.clients", url, str(clients), str(seconds), str(body)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return {**figures, "rate": figures["requests"] / seconds}


@contextmanager
def _ours(folder: Path, environ: dict[str, str]) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "lsbatch", "serve", "--port", str(port), "--quiet"]
    with _backend(command, port, "/ready", folder, environ) as url:
        yield url


@contextmanager
def _flask(folder: Path, environ: dict[str, str], build: str) -> Iterator[str]:
    port = free_port()
    # As the image of the public library does.
    command = [
        *(sys.executable, "-m", "gunicorn", "--workers", "1", "--threads", "8", "--timeout", "0"),
        *("-b", f"127.0.0.1:{port}", "benchmarks.flask_backend:app"),
    ]
    with _backend(command, port, "/health", folder, {**environ, "BUILD": build}) as url:
        yield url


@contextmanager
def _backend(command: list[str], port: int, path: str, folder: Path, environ: dict[str, str]) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with (folder / f"backend-{port}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        _until_ready(process, url + path)
        yield url
    finally:
        process.terminate()
        process.wait()


def _until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{url} does not come to answer")
        time.sleep(0.1)


def _check_equal(urls: dict[str, str]) -> None:
    """Make sure that all answer the same, or it would be no comparison."""
    answers: list[Any] = []
    for url in urls.values():
        answer = httpx.post(f"{url}/predict", content=ask([TEXT, "great thank you"]), headers=_JSON, timeout=60)
        answers.append([(row["result"], row["score"]) for row in answer.raise_for_status().json()["results"]])
    if answers[0] != answers[1] or answers[0] != answers[2]:
        raise SystemExit("the backends give different answers")


def _bare(folder: Path, environ: dict[str, str]) -> float:
    """Median milliseconds of ``predict_chunk`` of one task in this process, without any server."""
    predictor = Bench(load(None, environ=environ, flags={}, cwd=folder)).spec()
    predictor.warm_up()
    took = []
    for _ in range(500):
        started = time.perf_counter()
        predictor.predict_chunk([Task(TaskId(1), {"text": TEXT})])
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


def _section(found: Figures, large: dict[str, list[float]], bare: float) -> Section:
    section = Section(
        TITLES[0],
        ("backend", "clients", "requests a second", "p50, ms", "p99, ms", f"{LARGE:,} tasks in one request, s"),
        notes=[
            "All with the same XGBoost model of texts; Flask under gunicorn with one worker of eight threads.",
            f"The pipeline itself takes {cell(bare)} ms for one task (median, in the process that measures).",
        ],
    )
    rates = {}
    for (name, clients), figures in found.items():
        middle = {key: statistics.median(entry[key] for entry in figures) for key in ("rate", "p50", "p99")}
        rates[name, clients] = middle
        once = cell(statistics.median(large[name])) if clients == 1 else ""
        section.rows.append(
            (name, str(clients), cell(middle["rate"]), cell(middle["p50"] * 1e3), cell(middle["p99"] * 1e3), once)
        )
    most = CLIENTS[-1]
    ours = rates[OURS, most]["rate"]
    section.targets = [
        Target(f"requests a second, {most} clients / {BUILT}", ours / rates[BUILT, most]["rate"], least=TIMES_OF_BUILT),
        Target(f"requests a second, {most} clients / {KEPT}", ours / rates[KEPT, most]["rate"], least=TIMES_OF_KEPT),
        Target("p50 of 1 client above the bare pipeline, ms", rates[OURS, 1]["p50"] * 1e3 - bare, most=MOST_ABOVE_BARE),
    ]
    return section
