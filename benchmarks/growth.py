"""Time per task as the project grows: the command and the floor beside it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import httpx

from benchmarks.floor import floor
from benchmarks.process import Finished, run_lsbatch_well
from benchmarks.projects import connect, make_project
from benchmarks.results import Section, cell
from benchmarks.servers import SERVERS, about, add_server_option, serve

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "milliseconds a task in projects of growing size"
TITLES = [f"Growth, {words}" for words in SERVERS.values()]


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument(
        "--tasks", type=int, nargs="+", default=[5_000, 20_000, 80_000], help="default: 5000 20000 80000"
    )
    add_server_option(parser, "sqlite")


def measure(options: Namespace, folder: Path) -> Section:
    """The table; each size has a project of its own for lsbatch, and one for the floor."""
    section = Section(
        f"Growth, {SERVERS[options.server]}",
        ("tasks", "floor, ms a task", "lsbatch, ms a task", "lsbatch / floor", "stages, ms a task", "peak memory, MB"),
        notes=[
            *about(options.server),
            "The floor is the cheapest export and one bulk import; where the server cuts it off there is none.",
        ],
    )
    with serve(options.server, folder) as server, connect(server) as http:
        for tasks in options.tasks:
            project = make_project(http, tasks, f"growth {tasks}")
            run_lsbatch_well(server.url, server.token, folder, "retrain", "--project", str(project))
            ours = run_lsbatch_well(server.url, server.token, folder, "predict", "--project", str(project))
            raw = _floor(http, make_project(http, tasks, f"growth floor {tasks}"))
            section.rows.append(_row(tasks, ours, raw))
    return section


def _floor(http: httpx.Client, project: int) -> float | None:
    try:
        return floor(http, project).total
    except (httpx.HTTPStatusError, httpx.TransportError):
        return None


def _row(tasks: int, ours: Finished, raw: float | None) -> tuple[str, ...]:
    def per_task(seconds: float) -> str:
        return cell(seconds / tasks * 1e3)

    stages = ", ".join(f"{stage} {per_task(seconds)}" for stage, seconds in ours.report["seconds"].items())
    return (
        f"{tasks:,}",
        "cut off" if raw is None else per_task(raw),
        per_task(ours.seconds),
        "" if raw is None else cell(ours.seconds / raw),
        stages,
        cell(ours.peak_mb),
    )
