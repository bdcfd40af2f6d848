"""The same work through Ray Data. Runs in Ray's own environment, without lsbatch; prints its seconds as JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

import ray  # type: ignore[import-not-found]  # it is in an environment of its own

from benchmarks.burn import burn


def main() -> None:
    """Read ids, burn for each, write Parquet: the seconds of a warm Ray."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--tasks", "--rounds", "--workers", "--batch-size"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    rounds = options.rounds

    def predict(batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"], "hash": [burn(str(number), rounds).hex() for number in batch["id"]]}

    def run(tasks: int, folder: str) -> float:
        started = time.perf_counter()
        data = ray.data.range(tasks, override_num_blocks=max(options.workers, tasks // options.batch_size))
        data.map_batches(predict, batch_size=options.batch_size, num_cpus=1).write_parquet(folder)
        return time.perf_counter() - started

    ray.init(num_cpus=options.workers, include_dashboard=False, configure_logging=True, logging_level="warning")
    with tempfile.TemporaryDirectory(prefix="lsbatch-bench-ray-") as folder:
        # Workers start with the first tasks, and are kept.
        run(options.workers * options.batch_size, f"{folder}/warm")
        seconds = run(options.tasks, f"{folder}/out")
    print(json.dumps({"seconds": seconds, "ray": ray.__version__}))


if __name__ == "__main__":
    main()
