"""Runs chunks on a Dask cluster with few of them in flight: the local one of processes, or one that is there already.

Dask owns no state: a worker that is killed, runs out of memory or hangs takes only its chunks; they are run again, in
parts, until the task at fault is alone.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
from distributed import Client, Future, KilledWorker, wait
from distributed.comm.core import CommClosedError

from lsbatch.entities import DeadLetter, TaskId
from lsbatch.errors import TransientError
from lsbatch.executor import ChunkResult, PredictorFactory, predict_table
from lsbatch.run_dir import PREDICTIONS

__all__ = ["LOST", "DaskExecutor", "DaskOptions"]

logger = logging.getLogger(__name__)
#: What is raised when the scheduler is gone.
LOST = (CancelledError, CommClosedError, OSError)
#: How often workers are looked at while nothing is done.
POLL_SECONDS = 2.0
#: Longest wait for a hanging worker to be replaced.
RESTART_SECONDS = 30.0
#: Longest wait for the result of a chunk that is done; its worker may die with it, and then it is computed again.
RESULT_SECONDS = 60.0
#: Parts of a chunk that killed its worker. Each death costs the start of a process, so that halves would be dear.
PARTS = 16


@dataclass(frozen=True)
class DaskOptions:
    """The cluster.

    Attributes:
        workers: processes of a local cluster, one thread each.
        scheduler: address of an existing cluster, which is used instead of a local one.
        memory_limit: of each local worker, in Dask's notation.
        dashboard_address: where a local cluster shows its dashboard; None for none.
        worker_seconds: longest wait while there is no worker.
        chunk_seconds: a worker that finishes nothing for so long is taken to hang, and is restarted.
        in_flight: chunks given to each worker at a time.
    """

    workers: int = 1
    scheduler: str | None = None
    memory_limit: str = "auto"
    dashboard_address: str | None = None
    worker_seconds: float = 60.0
    chunk_seconds: float = 600.0
    in_flight: int = 2


@dataclass
class _Piece:
    """A chunk, or a part of one that killed a worker.

    Attributes:
        alone: nothing else is on the cluster while it runs.
    """

    chunk: int
    offset: int
    table: pa.Table
    alone: bool = False


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
        self._suspects: deque[_Piece] = deque()
        self._busy: dict[str, tuple[frozenset[str], float]] = {}
        self._looked_at = time.monotonic()
        self._empty_since: float | None = None
        self._hung: set[str] = set()

    def run(self, chunks: Iterable[tuple[int, pa.Table]]) -> Iterator[ChunkResult]:
        """See ``Executor.run``. A chunk that kills its worker is divided until the task at fault is alone."""
        waiting = iter(chunks)
        exhausted = False
        try:
            while True:
                # Alone, so that whatever kills a worker then is surely to blame for it.
                if self._suspects and not self._pending:
                    self._submit(self._suspects.popleft())
                while not exhausted and not self._suspects and len(self._pending) < self._room():
                    chunk = next(waiting, None)
                    if chunk is None:
                        exhausted = True
                        break
                    self._parts[chunk[0]] = _Parts(chunk[1].num_rows)
                    self._submit(_Piece(chunk[0], 0, chunk[1]))
                if not self._pending:
                    return
                for future in self._finished():
                    yield from self._take(future)
        finally:
            self._client.cancel(list(self._pending), force=True)
            self._pending.clear()

    def _room(self) -> int:
        return max(1, len(self._workers())) * self._options.in_flight

    def _workers(self) -> dict[str, object]:
        with self._reached():
            return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Ask the scheduler something.

        Raises:
            TransientError: it is gone.
        """
        try:
            yield
        except LOST as error:
            raise self._lost() from error

    def _submit(self, piece: _Piece) -> None:
        key = f"{self._run}-chunk{piece.chunk}-{piece.offset}-{next(self._attempts)}"
        with self._reached():
            future = self._client.submit(predict_table, self._factory, piece.table, key=key, pure=False)
        self._pending[future] = piece

    def _finished(self) -> list[Future]:
        """At least one future that is done.

        Raises:
            TransientError: the cluster had no worker for ``worker_seconds``, or its scheduler is gone.
        """
        while True:
            try:
                # wait() asks the current client, and ours is not the process's default.
                with self._client.as_current():
                    done = wait(list(self._pending), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
                # One whose result died with its worker is computed again.
                done = {future for future in done if future.status != "lost"}
            except TimeoutError:
                done = set()
            except LOST as error:
                raise self._lost() from error
            if time.monotonic() - self._looked_at >= POLL_SECONDS:
                self._look()
            if done:
                return list(done)

    def _look(self) -> None:
        """Look whether there are workers, and whether each of them gets on."""
        self._looked_at = now = time.monotonic()
        if self._client.status != "running":
            raise self._lost()
        self._empty_since = None if self._workers() else (self._empty_since or now)
        if self._empty_since is not None and now - self._empty_since >= self._options.worker_seconds:
            raise TransientError(
                f"the Dask cluster has had no worker for {self._options.worker_seconds:.0f} s",
                hint="Start workers, or use a local cluster with --workers N; then run the same command again.",
            )
        ours = {str(future.key) for future in self._pending}
        with self._reached():
            processing: Mapping[str, Iterable[str]] = self._client.processing()
        busy = {worker: ours.intersection(map(str, keys)) for worker, keys in processing.items()}
        for worker, keys in busy.items():
            before, since = self._busy.get(worker, (frozenset(), now))
            # Something that it had is done, or it had nothing: it gets on.
            if not before or before - keys:
                since = now
            self._busy[worker] = (frozenset(keys), since)
            if keys and now - since >= self._options.chunk_seconds:
                self._restart(worker, keys)

    def _restart(self, worker: str, keys: set[str]) -> None:
        logger.error("worker %s has finished nothing for %.0f s; restarting it", worker, self._options.chunk_seconds)
        self._hung |= keys
        del self._busy[worker]
        with self._reached():
            self._client.restart_workers([worker], timeout=RESTART_SECONDS, raise_for_error=False)

    def _lost(self) -> TransientError:
        return TransientError(
            "the connection to the Dask scheduler was lost", hint="What is done is kept: run the same command again."
        )

    def _take(self, future: Future) -> Iterator[ChunkResult]:
        piece = self._pending.pop(future)
        try:
            predictions, letters, seconds = future.result(timeout=RESULT_SECONDS)
        except KilledWorker:
            if piece.table.num_rows > 1 or not piece.alone:
                self._suspect(piece)
                return
            predictions, seconds = PREDICTIONS.empty_table(), 0.0
            letters = (self._guilty(piece, str(future.key)),)
        except LOST as error:
            if future.status == "error":
                raise
            if not isinstance(error, TimeoutError):
                raise self._lost() from error
            self._pending[future] = piece
            return
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

    def _guilty(self, piece: _Piece, key: str) -> DeadLetter:
        task = TaskId(piece.table.column("id")[0].as_py())
        cause = "the pipeline kills its worker process (memory, or a crash)"
        if key in self._hung:
            cause = f"the pipeline does not end within {self._options.chunk_seconds:.0f} s (inference.chunk_seconds)"
        logger.error("task %d: %s", task, cause)
        return DeadLetter(task, "predict", cause)

    def _suspect(self, piece: _Piece) -> None:
        """Try the tasks of a piece again, in parts, once nothing else runs: others on its worker are suspected too."""
        rows = piece.table.num_rows
        logger.warning("chunk %d: a worker died with %d of its tasks; trying them again alone", piece.chunk, rows)
        size = -(-rows // PARTS)
        for start in range(0, rows, size):
            part = piece.table.slice(start, size)
            self._suspects.append(_Piece(piece.chunk, piece.offset + start, part, alone=True))
