"""Deletion: one version of two, and a version that is alone on its tasks, against the same requests sent raw."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.floor import bulk_import
from benchmarks.process import Finished, run_lsbatch_well
from benchmarks.projects import connect, export_ids, make_project, versions
from benchmarks.results import Section, Target, cell
from benchmarks.servers import SERVERS, about, add_server_option, serve
from lsbatch.local_server import LocalServer

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "predictions of one version among two, and of one that is alone, against the same requests sent raw"
TITLES = [f"Deletion, {words}" for words in SERVERS.values()]
MOST = 1.3
#: Predictions of one raw bulk action, and single deletes side by side, as lsbatch sends them.
PIECE, WRITERS = 500, {"postgres": 3, "sqlite": 1}


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of each project; default: %(default)s")
    parser.add_argument(
        "--raw", type=int, default=2_000, help="predictions that the raw requests delete; default: %(default)s"
    )
    add_server_option(parser, "postgres")


def measure(options: Namespace, folder: Path) -> Section:
    """The table: raw requests on a part before and after, and lsbatch on all."""
    section = Section(
        f"Deletion, {SERVERS[options.server]}",
        ("what", "predictions", "seconds", "ms a prediction", "times raw"),
        notes=[
            *about(options.server),
            f"The raw requests delete {options.raw:,} predictions of a project of that size, half before, half after.",
            "lsbatch is the whole command: it reads all predictions first, writes the backup, and reads back.",
        ],
    )
    writers = WRITERS[options.server]
    with serve(options.server, folder) as server, connect(server) as http:
        section.rows += _cut_off(http, options.tasks)
        for name, others in (("one version of two", True), ("alone on its tasks", False)):
            raw_project, ids = _project(http, options.tasks, others=others)
            project, _ = _project(http, options.tasks, others=others)
            half = options.raw // 2
            raw = [_raw(http, raw_project, ids[:half], writers, others=others)]
            done = _lsbatch(server, folder, project, options.tasks)
            raw.append(_raw(http, raw_project, ids[half : 2 * half], writers, others=others))
            if versions(http, project) != ({"new": options.tasks} if others else {}):
                raise SystemExit(f"the deletion is no measure: {versions(http, project)} is left")
            mean = sum(raw) / (2 * half)
            own = done.seconds / options.tasks
            kind = f"single deletes, {writers} side by side" if others else f"bulk action, {PIECE} tasks each"
            for part, seconds in zip(("before", "after"), raw, strict=True):
                section.rows.append(
                    (f"{name}: raw {kind}, {part}", f"{half:,}", cell(seconds), cell(seconds / half * 1e3), "")
                )
            section.rows.append(
                (
                    f"{name}: lsbatch delete-predictions",
                    f"{options.tasks:,}",
                    cell(done.seconds),
                    cell(own * 1e3),
                    cell(own / mean),
                )
            )
            ways = ", ".join(f"{count:,} {way}" for way, count in done.report["requests"].items() if count)
            section.notes.append(f"{name}: {ways}.")
            section.targets.append(Target(f"{name}: lsbatch / raw, per prediction", own / mean, most=MOST))
    return section


def _project(http: httpx.Client, tasks: int, *, others: bool) -> tuple[int, Sequence[int]]:
    """A project whose tasks all carry ``old``, and ``new`` too if there are others."""
    project = make_project(http, tasks, "deletion")
    ids = export_ids(http, project)
    for version in ("old", *(["new"] if others else [])):
        for start in range(0, tasks, 10_000):
            bulk_import(http, project, ids[start : start + 10_000], version)
    return project, ids


def _lsbatch(server: LocalServer, folder: Path, project: int, tasks: int) -> Finished:
    arguments = ("delete-predictions", "--project", str(project), "--model-version", "old", "--yes")
    finished = run_lsbatch_well(server.url, server.token, folder, *arguments)
    if finished.report["deleted"] != tasks:
        raise SystemExit(f"the deletion is no measure: {finished.report['deleted']} of {tasks} deleted")
    return finished


def _raw(http: httpx.Client, project: int, ids: Sequence[int], writers: int, *, others: bool) -> float:
    """Seconds to delete ``old`` of these tasks."""
    if others:
        doomed = [_prediction_id(http, task) for task in ids]
        started = time.perf_counter()
        with ThreadPoolExecutor(writers) as pool:
            for answer in pool.map(lambda number: http.delete(f"/api/predictions/{number}/"), doomed):
                answer.raise_for_status()
        return time.perf_counter() - started
    started = time.perf_counter()
    for start in range(0, len(ids), PIECE):
        _act(http, project, ids[start : start + PIECE])
    return time.perf_counter() - started


def _prediction_id(http: httpx.Client, task: int) -> int:
    rows = http.get("/api/predictions/", params={"task": task}).raise_for_status().json()
    return int(next(row["id"] for row in rows if row["model_version"] == "old"))


def _act(http: httpx.Client, project: int, ids: Sequence[int]) -> None:
    params = {"id": "delete_tasks_predictions", "project": str(project)}
    body = {"selectedItems": {"all": False, "included": list(ids)}}
    http.post("/api/dm/actions", params=params, json=body).raise_for_status()


def _cut_off(http: httpx.Client, tasks: int) -> list[tuple[str, ...]]:
    """The server's own action on all tasks in one request, as a person clicks it."""
    project, ids = _project(http, tasks, others=True)
    started = time.perf_counter()
    try:
        _act(http, project, ids)
    except (httpx.HTTPStatusError, httpx.TransportError) as error:
        seconds = time.perf_counter() - started
        left = sum(versions(http, project).values())
        words = (
            f"HTTP {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
        )
        return [
            (f"Label Studio's own action on all: {words}, {left:,} are left", f"{2 * tasks:,}", cell(seconds), "", "")
        ]
    seconds = time.perf_counter() - started
    return [
        (
            "Label Studio's own action on all, both versions",
            f"{2 * tasks:,}",
            cell(seconds),
            cell(seconds / tasks / 2e-3),
            "",
        )
    ]
