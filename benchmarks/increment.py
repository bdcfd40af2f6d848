"""The nightly increment: a few new tasks in a project whose other tasks are predicted."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks.floor import bulk_import
from benchmarks.process import Finished, run_lsbatch_well
from benchmarks.projects import add_tasks, connect, export_ids, make_project, versions
from benchmarks.results import Section, Target, cell
from benchmarks.servers import SERVERS, about, add_server_option, serve
from lsbatch.local_server import LocalServer

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "a few new tasks in a large predicted project: the whole command, and its import against one bulk request"
SIZES = (20_000, 100_000)
TITLES = [f"Nightly increment, {size:,} tasks, {words}" for words in SERVERS.values() for size in SIZES]
MOST_SECONDS, MOST_OF_BULK = 10.0, 0.1


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=SIZES[0], help="predicted before; default: %(default)s")
    parser.add_argument("--new", type=int, default=50, help="new tasks of each night; default: %(default)s")
    add_server_option(parser, "postgres")


def measure(options: Namespace, folder: Path) -> Section:
    """The table: a night with lsbatch, one with a bulk request, and one with lsbatch again."""
    section = Section(
        f"Nightly increment, {options.tasks:,} tasks, {SERVERS[options.server]}",
        ("what", "new tasks", "seconds", "of which import"),
        notes=[
            *about(options.server),
            "Each night adds tasks to the same project; the seconds of making it ready are not counted.",
            "What was predicted before came by one bulk request: its rows are there even where the server cuts it off.",
        ],
    )
    with serve(options.server, folder) as server, connect(server) as http:
        project = make_project(http, options.tasks, "increment")
        trained = run_lsbatch_well(server.url, server.token, folder, "retrain", "--project", str(project))
        version = trained.report["model_version"]
        _predict_all(http, project, version, options.tasks)
        nights = [_night(server, http, project, folder, options.new, seed=1)]
        bulk, cut = _bulk_night(http, project, options.new, version)
        nights.append(_night(server, http, project, folder, options.new, seed=3))
    imports = [night.report["seconds"]["import"] for night in nights]
    for night, seconds in zip(nights, imports, strict=True):
        section.rows.append(("lsbatch predict, whole command", str(options.new), cell(night.seconds), cell(seconds)))
    name = f"one bulk request{', cut off by the server' if cut else ''}"
    section.rows.append((name, str(options.new), cell(bulk), cell(bulk)))
    worst, mean = max(night.seconds for night in nights), sum(imports) / len(imports)
    section.targets = [
        Target("the whole command, seconds", worst, most=MOST_SECONDS),
        Target("its import / one bulk request", mean / bulk, most=MOST_OF_BULK),
    ]
    return section


def _predict_all(http: httpx.Client, project: int, version: str, tasks: int) -> None:
    """Give every task a prediction, quickly: the answer does not matter, what is there does.

    Raises:
        SystemExit: another number is there.
    """
    with suppress(httpx.HTTPStatusError, httpx.TransportError):
        bulk_import(http, project, export_ids(http, project), version)
    there = versions(http, project).get(version, 0)
    if there != tasks:
        raise SystemExit(f"the increment is no measure: {there} of {tasks} tasks are predicted before")


def _night(server: LocalServer, http: httpx.Client, project: int, folder: Path, new: int, *, seed: int) -> Finished:
    add_tasks(http, project, new, seed=seed)
    finished = run_lsbatch_well(server.url, server.token, folder, "predict", "--project", str(project))
    confirmed = finished.report["audit"]["confirmed"]
    if confirmed != new:
        raise SystemExit(f"the increment is no measure: {confirmed} of {new} predictions confirmed")
    return finished


def _bulk_night(http: httpx.Client, project: int, new: int, version: str) -> tuple[float, bool]:
    """Seconds of the bulk request, and whether the server's limit cut it off (its rows are there all the same)."""
    last = export_ids(http, project)[-1]
    add_tasks(http, project, new, seed=2)
    ids = export_ids(http, project, after=last)
    started = time.perf_counter()
    try:
        return bulk_import(http, project, ids, version), False
    except (httpx.HTTPStatusError, httpx.TransportError):
        return time.perf_counter() - started, True
