"""Runs chunks through a predictor: in this process, or in processes of a Dask cluster when that pays.

The driver owns every state: an executor holds only the chunks in flight.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from lsbatch.entities import DeadLetter, Prediction
from lsbatch.predictor import Predictor
from lsbatch.run_dir import predictions_table, table_tasks
from lsbatch.shipping import places

__all__ = ["AdaptiveExecutor", "ChunkResult", "Executor", "InProcessExecutor", "PredictorFactory", "predict_table"]

logger = logging.getLogger(__name__)


class PredictorFactory(Protocol):
    """The recipe that travels to workers instead of a pipeline: small and picklable."""

    @property
    def key(self) -> str:
        """Equal for equal recipes; a worker keeps the predictor of one."""
        ...

    def parcels(self) -> Mapping[str, bytes]:
        """What workers on other machines lack: zip archives by the absolute folder that they stand for here."""
        ...

    def __call__(self) -> Predictor:
        """Build the predictor. Called once in each process.

        Raises:
            ConfigError: the pipeline cannot be built from these settings.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of a chunk's tasks.

    Attributes:
        chunk: its number.
        tasks: how many tasks it has; as many as ``predictions`` and ``letters`` together.
        predictions: schema ``PREDICTIONS``, ids ascending.
        letters: the other tasks.
        seconds: compute time.
    """

    chunk: int
    tasks: int
    predictions: pa.Table
    letters: tuple[DeadLetter, ...]
    seconds: float


class Executor(Protocol):
    """Runs chunks."""

    def run(self, chunks: Iterable[tuple[int, pa.Table]]) -> Iterator[ChunkResult]:
        """One result for each chunk (number and tasks of schema ``TASKS``), in the order in which they are done.

        ``chunks`` is drawn from only as fast as there is room.

        Raises:
            ConfigError: the pipeline cannot be built.
            TransientError: the cluster has no workers.
        """
        ...


#: The one predictor of this process, by its recipe and by what arrived for it.
_built: dict[tuple[str, tuple[Path, ...]], Predictor] = {}
_building = threading.Lock()


def _predictor(factory: PredictorFactory) -> Predictor:
    with _building:
        key = factory.key, places()
        if key not in _built:
            _built.clear()
            _built[key] = factory()
            _built[key].warm_up()
        return _built[key]


def predict_table(factory: PredictorFactory, table: pa.Table) -> tuple[pa.Table, tuple[DeadLetter, ...], float]:
    """Runs in the worker: predictions, dead letters and seconds of compute for tasks of schema ``TASKS``."""
    predictor = _predictor(factory)
    started = time.perf_counter()
    outcomes = predictor.predict_chunk(table_tasks(table))
    predictions = predictions_table([outcome for outcome in outcomes if isinstance(outcome, Prediction)])
    letters = tuple(outcome for outcome in outcomes if isinstance(outcome, DeadLetter))
    return predictions, letters, time.perf_counter() - started


class InProcessExecutor:
    """One chunk after the other in this process: for projects that do not pay for a cluster."""

    def __init__(self, factory: PredictorFactory) -> None:
        self._factory = factory

    def run(self, chunks: Iterable[tuple[int, pa.Table]]) -> Iterator[ChunkResult]:
        """See ``Executor.run``."""
        for number, table in chunks:
            predictions, letters, seconds = predict_table(self._factory, table)
            yield ChunkResult(number, table.num_rows, predictions, letters, seconds)


class AdaptiveExecutor:
    """Begins in this process, and goes on in a cluster when what is left would take long: found by measuring.

    Args:
        factory: what the predictor is built from.
        total: about how many tasks there are.
        pays_seconds: compute time in this process above which a cluster is opened for the rest.
        open_cluster: opens it.
    """

    def __init__(
        self,
        factory: PredictorFactory,
        total: int,
        pays_seconds: float,
        open_cluster: Callable[[], AbstractContextManager[Executor]],
    ) -> None:
        self._here = InProcessExecutor(factory)
        self._total = total
        self._pays_seconds = pays_seconds
        self._open_cluster = open_cluster

    def run(self, chunks: Iterable[tuple[int, pa.Table]]) -> Iterator[ChunkResult]:
        """See ``Executor.run``."""
        waiting = iter(chunks)
        done = 0
        #: Seconds of a task: of the quickest chunk after the first, in which libraries are still loaded.
        rate: float | None = None
        for chunk in waiting:
            if rate is not None and rate * max(0, self._total - done) > self._pays_seconds:
                logger.info("about %.1f ms of compute a task: the rest goes to a cluster", rate * 1e3)
                with self._open_cluster() as cluster:
                    yield from cluster.run(chain([chunk], waiting))
                return
            for result in self._here.run([chunk]):
                if done:
                    rate = min(rate or math.inf, result.seconds / result.tasks)
                done += result.tasks
                yield result
