"""Runs chunks on a Dask cluster with few of them in flight: the local one of processes, or one that is there already.

Dask owns no state: a worker that is killed, runs out of memory or hangs takes only its chunks; they are run again, in
halves, until the task at fault is alone.
"""

from __future__ import annotations

import io
import itertools
import logging
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dask
import pyarrow as pa
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin, wait
from distributed.comm.core import CommClosedError

from lsbatch.entities import DeadLetter, TaskId
from lsbatch.errors import TransientError
from lsbatch.executor import ChunkResult, PredictorFactory, predict_table
from lsbatch.run_dir import PREDICTIONS
from lsbatch.shipping import arrived

__all__ = ["DaskExecutor", "DaskOptions", "open_dask"]

logger = logging.getLogger(__name__)
#: How often workers are looked at while nothing is done.
POLL_SECONDS = 2.0
#: Longest wait for a hanging worker to be replaced.
RESTART_SECONDS = 30.0


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
        self._busy: dict[str, tuple[frozenset[str], float]] = {}
        self._looked_at = time.monotonic()
        self._empty_since: float | None = None
        self._hung: set[str] = set()

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
            TransientError: the cluster had no worker for ``worker_seconds``, or its scheduler is gone.
        """
        while True:
            try:
                # wait() asks the current client, and ours is not the process's default.
                with self._client.as_current():
                    done = wait(list(self._pending), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                done = set()
            except (CancelledError, CommClosedError, OSError) as error:
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
        self._client.restart_workers([worker], timeout=RESTART_SECONDS, raise_for_error=False)

    def _lost(self) -> TransientError:
        return TransientError(
            "the connection to the Dask scheduler was lost", hint="What is done is kept: run the same command again."
        )

    def _take(self, future: Future, *, alone: bool = False) -> Iterator[ChunkResult]:
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
            predictions, seconds = PREDICTIONS.empty_table(), 0.0
            letters = (self._guilty(piece, str(future.key)),)
        except (CancelledError, CommClosedError) as error:
            raise self._lost() from error
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

    def _guilty(self, piece: _Piece, key: str) -> DeadLetter:
        task = TaskId(piece.table.column("id")[0].as_py())
        cause = "the pipeline kills its worker process (memory, or a crash)"
        if key in self._hung:
            cause = f"the pipeline does not end within {self._options.chunk_seconds:.0f} s (inference.chunk_seconds)"
        logger.error("task %d: %s", task, cause)
        return DeadLetter(task, "predict", cause)

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
            with _connect(options, cluster) as client:
                if cluster is None:
                    _ship(client, factory)
                if client.dashboard_link and (cluster is None or options.dashboard_address):
                    say(f"Dask dashboard: {client.dashboard_link}")
                yield DaskExecutor(client, factory, run, options)
        finally:
            if cluster is not None:
                cluster.close()


@contextmanager
def _connect(options: DaskOptions, cluster: LocalCluster | None) -> Iterator[Client]:
    try:
        client = Client(cluster if cluster is not None else options.scheduler, set_as_default=False)
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


class _Courier(WorkerPlugin):  # type: ignore[misc]
    """Unpacks a folder of the driver's on every worker, also on those that come later.

    Args:
        folder: absolute path on the driver's machine.
        archive: what it holds, zipped.
    """

    def __init__(self, folder: str, archive: bytes) -> None:
        self.name = f"lsbatch-{folder}"
        self._folder = folder
        self._archive = archive

    def setup(self, worker: Worker) -> None:
        """See ``WorkerPlugin``."""
        place = Path(worker.local_directory) / "lsbatch" / self._folder.strip("/").replace("/", "-")
        with zipfile.ZipFile(io.BytesIO(self._archive)) as archive:
            archive.extractall(place)
        arrived(self._folder, place)


def _ship(client: Client, factory: PredictorFactory) -> None:
    for folder, archive in factory.parcels().items():
        logger.info("sending %s to the workers, %.1f MB", folder, len(archive) / 1e6)
        client.register_plugin(_Courier(folder, archive))
