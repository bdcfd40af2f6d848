"""Whether choosing tasks to label stays quick at a million tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarks.process import ROOT
from benchmarks.results import Section, Target, cell

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "choosing tasks out of a large pool, by each strategy"
TITLES = ["Choosing what to label next"]
MOST_SECONDS, MOST_MB = 120.0, 2_000.0
STRATEGIES = ("random", "margin", "coreset", "cluster-margin", "committee")
#: Each strategy in a process of its own, whose peak is its alone.
SCRIPT = """
import json, resource, sys, time
import numpy as np
from lsbatch.operations.queueing import Pool, choose_tasks

path, tasks, features, count, strategy = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
chance = np.random.default_rng(0)
pool = Pool(list(range(1, tasks + 1)), chance.random(tasks).tolist())
pool.votes = [chance.integers(0, 5, tasks).tolist() for _ in range(3 if strategy == "committee" else 1)]
pool.features = np.memmap(path, dtype=np.float32, mode="r", shape=(tasks, features))
started = time.perf_counter()
picked = choose_tasks(pool, strategy, count, random_fraction=0.1, seed=0)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"seconds": seconds, "peak": peak, "picked": len(picked.picks)}))
"""


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=1_000_000, help="in the pool; default: %(default)s")
    parser.add_argument("--features", type=int, default=64, help="of each task; default: %(default)s")
    parser.add_argument("--picks", type=int, default=1_000, help="default: %(default)s")


def measure(options: Namespace, folder: Path) -> Section:
    """The table: a row for each strategy."""
    section = Section(
        TITLES[0],
        ("strategy", "pool", "features", "picks", "seconds", "peak memory, MB"),
        notes=[
            "From what is known of the pool to the picks, a tenth of them by chance; features lie in a file, as the",
            "command has them. To read and predict the pool takes as long as predict does, and is not counted.",
        ],
    )
    path = folder / "features.f32"
    _write_features(path, options.tasks, options.features)
    for strategy in STRATEGIES:
        arguments = [str(path), str(options.tasks), str(options.features), str(options.picks), strategy]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        if found["picked"] != options.picks:
            raise SystemExit(f"{strategy} picked {found['picked']} of {options.picks} tasks")
        numbers = [f"{options.tasks:,}", str(options.features), f"{options.picks:,}"]
        section.rows.append((strategy, *numbers, cell(found["seconds"]), cell(found["peak"])))
        section.targets += [
            Target(f"{strategy}, seconds", found["seconds"], most=MOST_SECONDS),
            Target(f"{strategy}, MB", found["peak"], most=MOST_MB),
        ]
    return section


def _write_features(path: Path, tasks: int, features: int) -> None:
    import numpy as np

    chance = np.random.default_rng(1)
    with path.open("wb") as file:
        for start in range(0, tasks, 100_000):
            rows = min(100_000, tasks - start)
            file.write(chance.standard_normal((rows, features), dtype=np.float32).tobytes())
