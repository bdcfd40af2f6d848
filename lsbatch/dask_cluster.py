"""Opens the Dask cluster that chunks run on: a local one of processes, or one that is there already.

Workers on other machines are sent what they need. Local ones are kept out of the way of Ctrl-C.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster, Worker, WorkerPlugin, as_completed
from distributed.comm.addressing import get_address_host

from lsbatch.dask_executor import LOST, DaskExecutor, DaskOptions
from lsbatch.errors import ConfigError, PipelineError, TransientError
from lsbatch.executor import PredictorFactory
from lsbatch.shipping import unpack

__all__ = ["map_on_cluster", "open_client", "open_dask"]

Recipe = TypeVar("Recipe", bound=PredictorFactory)
Shared = TypeVar("Shared")
T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)
#: What asks a run to end.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def open_dask(
    options: DaskOptions, factory: PredictorFactory, run: str, *, say: Callable[[str], None]
) -> Iterator[DaskExecutor]:
    """What runs chunks on the cluster that ``open_client`` connects to; raises as that."""
    with open_client(options, factory, run, say=say) as client:
        yield DaskExecutor(client, factory, run, options)


def map_on_cluster(
    options: DaskOptions,
    recipe: Recipe,
    call: Callable[[Recipe, Shared, T], R],
    todo: Sequence[T],
    shared: Shared,
    *,
    say: Callable[[str], None],
) -> Iterator[tuple[T, R]]:
    """Each of ``todo`` with what ``call(recipe, shared, it)`` gives in a worker, as they are done.

    ``shared`` goes to each worker once.

    Raises:
        ConfigError, TransientError: as ``open_client``.
        PipelineError: a worker died of it, such as for lack of memory.
    """
    with open_client(options, recipe, "search", say=say) as client:
        [held] = client.scatter([shared], broadcast=True)
        futures = {client.submit(call, recipe, held, entry, pure=False): entry for entry in todo}
        try:
            for future, result in as_completed(list(futures), loop=client.loop, with_results=True):
                yield futures[future], result
        except KilledWorker as error:
            raise PipelineError(
                f"a Dask worker died: {error}", hint="Give workers more memory (dask.memory_limit), or use fewer."
            ) from error


@contextmanager
def open_client(
    options: DaskOptions, factory: PredictorFactory, run: str, *, say: Callable[[str], None]
) -> Iterator[Client]:
    """Connect to the cluster, or start a local one of processes; closed at the end, but for one that was there before.

    Raises:
        ConfigError: the scheduler's address is none.
        TransientError: no scheduler at the address, or no worker within ``worker_seconds``.
    """
    connect = f"{min(10.0, options.worker_seconds)}s"
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.timeouts.connect": connect,
        # A worker that died is started again by its nanny. LocalCluster would close the nanny, for good, when it finds
        # the worker dead this long after a death: because it starts slowly, or has just died again.
        "distributed.deploy.lost-worker-timeout": "1000 days",
        # The log of messages keeps what they carried: by default a thousand chunks of tasks.
        "distributed.admin.low-level-log-length": 10,
        # It looks at every thread each 10 ms through sys._current_frames, which in Python 3.11 can stop the whole
        # process for good when the garbage collector runs then (python/cpython issue 106883).
        "distributed.worker.profile.enabled": False,
    }
    with dask.config.set(settings), _quiet():
        cluster = None if options.scheduler is not None else _local_cluster(options)
        try:
            with _connect(options, cluster) as client, ExitStack() as stack:
                if cluster is None:
                    stack.enter_context(_shipped(client, factory, run))
                else:
                    client.register_plugin(_Deaf())
                if client.dashboard_link and (cluster is None or options.dashboard_address):
                    say(f"Dask dashboard: {client.dashboard_link}")
                yield client
        finally:
            if cluster is not None:
                cluster.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own log is silent in this process: what ends a run is said by us, without a traceback."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for silenced in levels:
        silenced.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for silenced, level in levels.items():
            silenced.setLevel(level)


def _local_cluster(options: DaskOptions) -> LocalCluster:
    """Start it. Ctrl-C at a terminal goes to every process: that is ours to see, while workers end what they have."""
    # Its start unblocks both signals again in the thread that needs it first.
    resource_tracker.ensure_running()
    # Threads inherit what is blocked, and so do the processes that they start, those that replace dead ones too.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=options.memory_limit,
            dashboard_address=options.dashboard_address,
            # Without a dashboard the scheduler would still ask for Dask's usual port, and warn when it is taken.
            scheduler_kwargs={} if options.dashboard_address else {"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _connect(options: DaskOptions, cluster: LocalCluster | None) -> Iterator[Client]:
    if options.scheduler is not None:
        _check_address(options.scheduler)
    try:
        client = Client(cluster if cluster is not None else options.scheduler, set_as_default=False)
    except OSError as error:
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


def _check_address(address: str) -> None:
    """Return if Dask can make something of it; a client that cannot leaves a traceback behind."""
    try:
        get_address_host(address)
    except ValueError as error:
        raise ConfigError(
            f"dask.scheduler: {error}", hint="Give the address that the scheduler shows, such as tcp://host:8786."
        ) from error


class _Deaf(WorkerPlugin):  # type: ignore[misc]
    """Local workers begin with the signals blocked; from here on they pass them over, so that their children need not.

    What is blocked or ignored stays so in every program that a pipeline starts; what is handled does not.
    """

    name = "lsbatch-deaf"

    def setup(self, worker: Worker) -> None:
        """See ``WorkerPlugin``; called in the main thread of the process."""
        for number in SIGNALS:
            signal.signal(number, _pass_over)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _pass_over(_number: int, _frame: FrameType | None) -> None:
    """The driver gets the signal too, and ends the run."""


class _Courier(WorkerPlugin):  # type: ignore[misc]
    """Unpacks a folder of the driver's on every worker, also on those that come later.

    Args:
        run: name of the run.
        folder: absolute path on the driver's machine.
        archive: what it holds, packed.
    """

    def __init__(self, run: str, folder: str, archive: bytes) -> None:
        self.name = f"lsbatch-{run}-{folder}"
        self.folder = folder
        self.archive = archive

    def setup(self, worker: Worker) -> None:
        """See ``WorkerPlugin``."""
        unpack(self.folder, self.archive, Path(worker.local_directory) / "lsbatch")


@contextmanager
def _shipped(client: Client, factory: PredictorFactory, run: str) -> Iterator[None]:
    """What the recipe needs is on every worker of somebody else's cluster, which keeps none of it for later workers."""
    couriers = [_Courier(run, folder, archive) for folder, archive in factory.parcels().items()]
    for courier in couriers:
        logger.info("sending %s to the workers, %.1f MB", courier.folder, len(courier.archive) / 1e6)
        client.register_plugin(courier)
    try:
        yield
    finally:
        for courier in couriers:
            # Where the scheduler is gone, nothing is kept.
            with suppress(*LOST):
                client.unregister_worker_plugin(courier.name)
