"""Answers out of finished runs: what ``lsbatch predict`` computed is not computed again."""

from __future__ import annotations

import json
import logging
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lsbatch.chunks import ChunkState
from lsbatch.entities import Outcome, Prediction, Task
from lsbatch.errors import ConfigError
from lsbatch.label_config import LabelConfig
from lsbatch.ledger import Ledger
from lsbatch.operations.runs import runs
from lsbatch.operations.staleness import digest
from lsbatch.run_dir import RunDir
from lsbatch.serving.model import Served

__all__ = ["StoredAnswers"]

logger = logging.getLogger(__name__)
#: Chunks whose predictions are in memory.
OPEN_CHUNKS = 32


@dataclass(frozen=True)
class _Run:
    """The chunks of a run that reached Label Studio, in the order of their first tasks."""

    run: RunDir
    firsts: Sequence[int]
    lasts: Sequence[int]
    numbers: Sequence[int]

    def chunk_of(self, task: int) -> int | None:
        """The number of the chunk that this task would be in."""
        place = bisect_right(self.firsts, task) - 1
        return self.numbers[place] if place >= 0 and task <= self.lasts[place] else None


class StoredAnswers:
    """Predictions on this disk, found by task. Memory holds a few chunks only, whatever the project's size.

    Args:
        folder: of the project's runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Requests come in threads of their own, and while a version takes over, for two of them.
        self._looking = threading.Lock()
        self._state: object = None
        self._runs: Sequence[_Run] = ()
        self._read = lru_cache(maxsize=OPEN_CHUNKS)(_predictions)

    def find(self, tasks: Sequence[Task], served: Served) -> Mapping[int, Outcome]:
        """The stored prediction of each task that has one, by the task's place; of the newest run that has one.

        Left out is what was predicted by another version, for another label config, or from other data than the task's
        as far as the pipeline reads it. Blocks while it reads.
        """
        with self._looking:
            runs = self._look(served)
        found: dict[int, Outcome] = {}
        for place, task in enumerate(tasks):
            wanted = digest(task.data, served.data_keys)
            for entry in runs:
                number = entry.chunk_of(task.id)
                if number is None:
                    continue
                prediction, predicted_from = self._chunk(entry, number, served).get(task.id, (None, b""))
                if prediction is not None:
                    if predicted_from == wanted and prediction.model_version == served.model_version:
                        found[place] = prediction
                    break
        return found

    def _look(self, served: Served) -> Sequence[_Run]:
        """Read which chunks there are, if a run has begun or gone on since the last look; the runs, newest first."""
        with_files = [(run, run.ledger) for run in runs(self._folder)] if self._folder.is_dir() else []
        state = (
            *(served.model_version, served.label_config),
            *((str(file), file.stat().st_mtime_ns) for _, file in with_files if file.is_file()),
        )
        if state == self._state:
            return self._runs
        label_config_hash = LabelConfig(served.label_config).hash
        found = (_indexed(run, served.model_version, label_config_hash) for run, _ in with_files)
        self._runs = [entry for entry in found if entry is not None]
        self._state = state
        self._read.cache_clear()
        return self._runs

    def _chunk(self, entry: _Run, number: int, served: Served) -> Mapping[int, tuple[Prediction, bytes]]:
        try:
            return self._read(entry.run.path, number, served.data_keys)
        except ConfigError as error:
            logger.warning("run %s: %s", entry.run.id, error)
            return {}


def _indexed(run: RunDir, version: str, label_config_hash: str) -> _Run | None:
    """The run's chunks, or None where it predicted something else."""
    try:
        manifest = run.manifest()
        same = manifest.get("model_version") == version and manifest.get("label_config_hash") == label_config_hash
        if not same or manifest.get("dry_run") or not run.ledger.is_file():
            return None
        with closing(Ledger(run.ledger)) as ledger:
            chunks = sorted(ledger.chunks(ChunkState.IMPORTED), key=lambda chunk: chunk.first_task)
    except ConfigError as error:
        logger.warning("run %s cannot be read: %s", run.id, error)
        return None
    return _Run(
        run,
        [chunk.first_task for chunk in chunks],
        [chunk.last_task for chunk in chunks],
        [chunk.number for chunk in chunks],
    )


def _predictions(folder: Path, number: int, data_keys: tuple[str, ...]) -> Mapping[int, tuple[Prediction, bytes]]:
    """A chunk's predictions, each with the digest of the data that it was made from, by task.

    Raises:
        ConfigError: a file is missing or damaged. A run that imported stored predictions has no tasks.
    """
    run = RunDir(folder)
    table = run.read_tasks(number)
    pairs = zip(table.column("id").to_pylist(), table.column("data").to_pylist(), strict=True)
    digests = {task: digest(json.loads(text), data_keys) for task, text in pairs}
    found = run.read_predictions(number)
    return {prediction.task_id: (prediction, digests.get(prediction.task_id, b"")) for prediction in found}
