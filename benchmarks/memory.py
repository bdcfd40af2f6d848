"""Whether memory stays flat: the driver's peak with many tasks, and with a tenth of them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import httpx

from benchmarks.process import Finished, run_lsbatch_well
from benchmarks.results import Section, Target, cell
from benchmarks.scripted_project import PROJECT
from benchmarks.scripted_server import scripted_server

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "the driver's peak memory with a million tasks, and with a tenth of them, on a scripted server"
TITLES = ["Memory"]
MOST_MB, MOST_GROWTH = 600, 1.15
#: The scripted server takes any.
TOKEN = "0" * 40


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="Dask's processes, 0 for none; default: %(default)s")


def measure(options: Namespace, folder: Path) -> Section:
    """The table: a tenth of the tasks first, then all of them."""
    section = Section(
        "Memory",
        ("tasks", "peak of the driver, MB", "seconds", "ms a task", "predictions held"),
        notes=[
            "The peak is the resident memory of the process of the command; workers and server are others.",
            "The server takes predictions at a cost that does not grow with the project, and says so.",
        ],
    )
    peaks = []
    for tasks in (options.tasks // 10, options.tasks):
        ours, held = _run(tasks, options.workers, folder / str(tasks))
        peaks.append(ours.peak_mb)
        per_task = ours.seconds / tasks * 1e3
        section.rows.append((f"{tasks:,}", cell(ours.peak_mb), cell(ours.seconds), cell(per_task), f"{held:,}"))
    section.targets = [
        Target(f"peak with {options.tasks:,} tasks, MB", peaks[1], most=MOST_MB),
        Target("times the peak with a tenth of them", peaks[1] / peaks[0], most=MOST_GROWTH),
    ]
    return section


def _run(tasks: int, workers: int, folder: Path) -> tuple[Finished, int]:
    folder.mkdir()
    pipeline = ("--pipeline", "benchmarks.pipelines:Constant", "--workers", str(workers))
    with scripted_server(tasks) as url:
        ours = run_lsbatch_well(url, TOKEN, folder, "predict", "--project", str(PROJECT), *pipeline)
        body = httpx.get(f"{url}/api/projects/{PROJECT}/model-versions/").raise_for_status().json()
    held = sum(row["count"] for row in body["static"])
    if held != tasks:
        raise SystemExit(f"the memory is no measure: the server holds {held} predictions of {tasks} tasks")
    return ours, held
