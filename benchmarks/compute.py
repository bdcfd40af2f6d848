"""Whether two workers do twice the work of one process, when the pipeline is all that takes time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from distributed import LocalCluster

from benchmarks.burn import burn_many, rounds_of
from benchmarks.memory import TOKEN
from benchmarks.process import ROOT, environment, run_lsbatch_well
from benchmarks.results import Section, Target, cell
from benchmarks.scripted_project import PROJECT
from benchmarks.scripted_server import scripted_server

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "a CPU-bound pipeline on Dask workers against one process, and the same through Ray Data"
TITLES = ["Compute"]
LEAST_OF_IDEAL = 0.9
#: Tasks of each measurement of the single process.
BARE_TASKS = 1_000
RAY = "ray[data]>=2.40,<3"
RAY_BATCH = 100
#: Ray is large: its environment is kept between runs.
RAY_VENV = ROOT / ".cache" / "bench-ray"


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--milliseconds", type=float, default=5.0, help="work of a task; default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--no-ray", dest="ray", action="store_false", help="leave Ray out")


def measure(options: Namespace, folder: Path) -> Section:
    """The table: one process before and after, lsbatch on a cluster that runs already, and Ray Data."""
    tasks, workers = options.tasks, options.workers
    rounds = rounds_of(options.milliseconds)
    section = Section(
        "Compute",
        ("what", "tasks", "seconds", "tasks a second", f"of {workers} x one process"),
        notes=[
            f"A task keeps one core busy for {options.milliseconds:g} ms ({rounds:,} rounds of a hash).",
            "The start of Dask and of Ray is not counted; lsbatch is the whole command, from export to audit.",
        ],
    )
    before = burn_many(BARE_TASKS, rounds)
    side_by_side = _side_by_side(workers, rounds)
    with _cluster(workers) as scheduler, scripted_server(tasks) as url:
        (folder / "pipeline.yaml").write_text(_settings(rounds), encoding="utf-8")
        arguments = ("predict", "--project", str(PROJECT), "--scheduler", scheduler)
        ours = run_lsbatch_well(url, TOKEN, folder, *arguments).seconds
    ray = _ray(options, rounds) if options.ray else None
    after = burn_many(BARE_TASKS, rounds)
    ideal = workers * 2 * BARE_TASKS / (before + after)

    def row(name: str, count: int, seconds: float) -> float:
        share = float(count / seconds / ideal)
        section.rows.append((name, f"{count:,}", cell(seconds), cell(count / seconds), cell(share)))
        return share

    row("one process, before", BARE_TASKS, before)
    row("one process, after", BARE_TASKS, after)
    row(f"{workers} bare processes side by side", workers * BARE_TASKS, side_by_side)
    share = row(f"lsbatch predict, {workers} workers", tasks, ours)
    if ray is not None:
        row(f"Ray Data {ray[0]}, map_batches, {workers} workers", tasks, ray[1])
    section.targets = [Target(f"lsbatch / ({workers} x one process)", share, least=LEAST_OF_IDEAL)]
    return section


def _settings(rounds: int) -> str:
    return f"pipeline:\n  name: benchmarks.pipelines:Busy\n  params: {{rounds: {rounds}}}\n"


def _side_by_side(workers: int, rounds: int) -> float:
    """Seconds of as many bare processes as there are workers: what the machine itself allows."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # The processes are there when the clock of each starts.
        list(pool.map(burn_many, [1] * workers, [1] * workers))
        return max(pool.map(burn_many, [BARE_TASKS] * workers, [rounds] * workers))


@contextmanager
def _cluster(workers: int) -> Iterator[str]:
    """A Dask cluster whose workers are ready, and can import the pipelines of the benchmarks; its address."""
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]
    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, cluster.get_client() as client:
        client.wait_for_workers(workers)
        yield str(cluster.scheduler_address)


def _ray(options: Namespace, rounds: int) -> tuple[str, float]:
    """Ray's version, and its seconds for the same work.

    Raises:
        SystemExit: it could not be installed, or failed.
    """
    python = RAY_VENV / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    if not python.exists():
        _run([str(uv), "venv", "-q", "-p", sys.executable, str(RAY_VENV)])
    _run([str(uv), "pip", "install", "-q", "-p", str(python), RAY])
    numbers = {"tasks": options.tasks, "rounds": rounds, "workers": options.workers, "batch-size": RAY_BATCH}
    flags = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    answer = json.loads(_run([str(python), "-m", "benchmarks.ray_script", *flags]).splitlines()[-1])
    return str(answer["ray"]), float(answer["seconds"])


def _run(command: list[str]) -> str:
    # Alone on its path: Ray's environment must not see this one's packages.
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
