"""Runs chunks through a predictor: in this process, or on a Dask cluster with few chunks in flight.

The driver owns every state: Dask holds only the chunks in flight, and a worker that dies takes only its own.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from lsbatch.entities import DeadLetter, Prediction, TaskId
from lsbatch.errors import TransientError
from lsbatch.predictor import Predictor
from lsbatch.run_dir import PREDICTIONS, predictions_table, table_tasks

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = [
    "ChunkResult",
    "DaskExecutor",
    "DaskOptions",
    "Executor",
    "InProcessExecutor",
    "PredictorFactory",
    "open_dask",
]

logger = logging.getLogger(__name__)
POLL_SECONDS = 5.0


class PredictorFactory(Protocol):
    """The recipe that travels to workers instead of a pipeline: small and picklable."""

    @property
    def key(self) -> str:
        """Equal for equal recipes; a worker keeps the predictor of one."""
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


_built: dict[str, Predictor] = {}
_building = threading.Lock()


def _predictor(factory: PredictorFactory) -> Predictor:
    with _building:
        if factory.key not in _built:
            _built.clear()
            _built[factory.key] = factory()
        return _built[factory.key]


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


@dataclass(frozen=True)
class DaskOptions:
    """The cluster.

    Attributes:
        workers: processes of a local cluster, one thread each.
        scheduler: address of an existing cluster, which is used instead of a local one.
        memory_limit: of each local worker, in Dask's notation.
        dashboard_address: where a local cluster shows its dashboard; None for none.
        worker_seconds: longest wait while there is no worker.
        in_flight: chunks given to each worker at a time.
    """

    workers: int = 1
    scheduler: str | None = None
    memory_limit: str = "auto"
    dashboard_address: str | None = None
    worker_seconds: float = 60.0
    in_flight: int = 2


@dataclass
class _Piece:
    """A chunk, or a part of one that killed a worker."""

    chunk: int
    offset: int
    table: pa.Table


@dataclass
class _Parts:
    """What is known of a chunk so far."""

    tasks: int
    done: int = 0
    seconds: float = 0.0
    tables: list[tuple[int, pa.Table]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)


class DaskExecutor:
    """Chunks on the workers of a Dask client.

    Args:
        client: connected.
        factory: what a worker builds its predictor from.
        run: name of the run, part of every key.
        options: how many chunks in flight, how long to wait without workers.
    """

    def __init__(self, client: Client, factory: PredictorFactory, run: str, options: DaskOptions) -> None:
        self._client = client
        self._factory = factory
        self._run = run
        self._options = options
        self._attempts = itertools.count()
        self._pending: dict[Future, _Piece] = {}
        self._parts: dict[int, _Parts] = {}
        self._suspects: list[_Piece] = []

    def run(self, chunks: Iterable[tuple[int, pa.Table]]) -> Iterator[ChunkResult]:
        """See ``Executor.run``. A chunk that kills its worker is halved until the task at fault is alone."""
        waiting = iter(chunks)
        exhausted = False
        try:
            while True:
                # A task is found guilty of killing its worker only when it ran alone.
                if self._suspects and not self._pending:
                    self._submit(self._suspects.pop())
                    yield from self._take(self._finished()[0], alone=True)
                    continue
                while not exhausted and not self._suspects and len(self._pending) < self._room():
                    chunk = next(waiting, None)
                    if chunk is None:
                        exhausted = True
                        break
                    self._parts[chunk[0]] = _Parts(chunk[1].num_rows)
                    self._submit(_Piece(chunk[0], 0, chunk[1]))
                if not self._pending:
                    if self._suspects:
                        continue
                    return
                for future in self._finished():
                    yield from self._take(future)
        finally:
            self._client.cancel(list(self._pending), force=True)
            self._pending.clear()

    def _room(self) -> int:
        return max(1, len(self._workers())) * self._options.in_flight

    def _workers(self) -> dict[str, object]:
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def _submit(self, piece: _Piece) -> None:
        key = f"{self._run}-chunk{piece.chunk}-{piece.offset}-{next(self._attempts)}"
        future = self._client.submit(predict_table, self._factory, piece.table, key=key, pure=False)
        self._pending[future] = piece

    def _finished(self) -> list[Future]:
        """At least one future that is done.

        Raises:
            TransientError: the cluster had no worker for ``worker_seconds``.
        """
        from distributed import wait

        empty_since: float | None = None
        while True:
            try:
                # wait() asks the current client, and ours is not the process's default.
                with self._client.as_current():
                    done = wait(list(self._pending), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                now = time.monotonic()
                empty_since = None if self._workers() else (empty_since or now)
                if empty_since is not None and now - empty_since >= self._options.worker_seconds:
                    raise TransientError(
                        f"the Dask cluster has had no worker for {self._options.worker_seconds:.0f} s",
                        hint="Start workers, or use a local cluster with --workers N; then run the same command again.",
                    ) from None
                continue
            return list(done)

    def _take(self, future: Future, *, alone: bool = False) -> Iterator[ChunkResult]:
        from distributed import KilledWorker

        piece = self._pending.pop(future)
        try:
            predictions, letters, seconds = future.result()
        except KilledWorker:
            if piece.table.num_rows > 1:
                self._halve(piece)
                return
            if not alone:
                self._suspects.append(piece)
                return
            task = TaskId(piece.table.column("id")[0].as_py())
            logger.error("task %d kills its worker", task)
            predictions, seconds = PREDICTIONS.empty_table(), 0.0
            letters = (DeadLetter(task, "predict", "the pipeline kills its worker process (memory, or a crash)"),)
        finally:
            future.release()
        parts = self._parts[piece.chunk]
        parts.done += piece.table.num_rows
        parts.seconds += seconds
        parts.tables.append((piece.offset, predictions))
        parts.letters.extend(letters)
        if parts.done == parts.tasks:
            del self._parts[piece.chunk]
            table = pa.concat_tables([part for _, part in sorted(parts.tables, key=lambda pair: pair[0])])
            yield ChunkResult(piece.chunk, parts.tasks, table, tuple(parts.letters), parts.seconds)

    def _halve(self, piece: _Piece) -> None:
        rows = piece.table.num_rows
        logger.warning("chunk %d: %d tasks killed their worker; trying them in halves", piece.chunk, rows)
        middle = rows // 2
        self._submit(_Piece(piece.chunk, piece.offset, piece.table.slice(0, middle)))
        self._submit(_Piece(piece.chunk, piece.offset + middle, piece.table.slice(middle)))


@contextmanager
def open_dask(
    options: DaskOptions, factory: PredictorFactory, run: str, *, say: Callable[[str], None]
) -> Iterator[DaskExecutor]:
    """Connect to the cluster, or start a local one of processes; closed at the end, but for one that was there before.

    Raises:
        TransientError: no scheduler at the address, or no worker within ``worker_seconds``.
    """
    import dask
    from distributed import Client, LocalCluster

    connect = f"{min(10.0, options.worker_seconds)}s"
    with dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.comm.timeouts.connect": connect}):
        if options.scheduler is None:
            cluster = LocalCluster(
                n_workers=options.workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=options.memory_limit,
                dashboard_address=options.dashboard_address,
                # Without a dashboard the scheduler would still ask for Dask's usual port, and warn when it is taken.
                scheduler_kwargs={} if options.dashboard_address else {"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
            )
        else:
            cluster = None
        try:
            with _connect(Client, options, cluster) as client:
                if client.dashboard_link and (cluster is None or options.dashboard_address):
                    say(f"Dask dashboard: {client.dashboard_link}")
                yield DaskExecutor(client, factory, run, options)
        finally:
            if cluster is not None:
                cluster.close()


@contextmanager
def _connect(client_type: type[Client], options: DaskOptions, cluster: object) -> Iterator[Client]:
    try:
        client = client_type(cluster if cluster is not None else options.scheduler, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise TransientError(
            f"no Dask scheduler at {options.scheduler}: {error}", hint="Check dask.scheduler (--scheduler)."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=options.worker_seconds)
        except TimeoutError as error:
            raise TransientError(
                f"the Dask cluster at {options.scheduler} got no worker within {options.worker_seconds:.0f} s",
                hint="Start workers, or use a local cluster with --workers N.",
            ) from error
        yield client
