"""What the verbs share: a run's setup from the configuration, its lock, and what is learned from run to run."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lsbatch.errors import RefusedError, TransientError
from lsbatch.executor import AdaptiveExecutor, Executor, InProcessExecutor
from lsbatch.import_plan import CostModel, Standing
from lsbatch.ledger import Ledger
from lsbatch.lock import hold
from lsbatch.operations.counters import Recount
from lsbatch.operations.run_setup import ExecutorFactory, RunOptions, RunSetup
from lsbatch.operations.runs import run_state
from lsbatch.operations.selecting import known_ids
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.run_dir import RunDir, write_json
from lsbatch.run_log import logged
from lsbatch.run_states import RUNNING
from lsbatch.stopping import Stop
from lsbatch.wiring import Bench

if TYPE_CHECKING:
    from lsbatch.dask_executor import DaskOptions

__all__ = ["chosen_tasks", "composed", "dask_options", "held", "recount", "same_label_config", "warn"]

logger = logging.getLogger(__name__)
COSTS = "import_costs.json"


def warn(bench: Bench, progress: Progress) -> None:
    """Say what about the project will surprise."""
    for warning in bench.info.warnings:
        progress.say(f"warning: {warning}")


def held(bench: Bench, model_version: str, stop: Stop, *, what: str = "another run") -> AbstractContextManager[None]:
    """The lock of this version of the project, for as long as the context lasts; ``what`` else may hold it, in words.

    Raises:
        LockedError: another process holds it, and did so for as long as may be waited.
    """
    folder, seconds = bench.folder / "locks", bench.config.run.wait_seconds
    return hold(folder, model_version, wait_seconds=seconds, stop=stop, what=what)


def chosen_tasks(bench: Bench, progress: Progress, selection: Selection | None = None) -> Selection:
    """Which tasks an action on stored predictions takes: the configured ones by default, of which all count.

    Raises:
        ConfigError: as ``Bench.selection``.
    """
    chosen = bench.selection if selection is None else selection
    # A limit would be spent on tasks that hold nothing to act on.
    chosen, notes = known_ids(bench.project, dataclasses.replace(chosen, limit=None))
    for note in notes:
        progress.say(note)
    narrowed = [field.name for field in dataclasses.fields(chosen) if getattr(chosen, field.name) != field.default]
    if narrowed and selection is None:
        progress.say(f"only of the tasks that the selection takes: {', '.join(narrowed).replace('_', ' ')}")
    return chosen


def same_label_config(bench: Bench, run: RunDir) -> None:
    """Return if the project's label config is what it was when the run began.

    Raises:
        RefusedError: it is not.
    """
    if run.manifest().get("label_config_hash") != bench.label_config.hash:
        raise RefusedError(
            f"the project's label config has changed since run {run.id}",
            hint=f"Predict again: lsbatch predict --project {bench.project_id}",
        )


@contextmanager
def composed(
    bench: Bench, run: RunDir, options: RunOptions, model_version: str, progress: Progress, stop: Stop, *, resumed: bool
) -> Iterator[RunSetup]:
    """A run's setup, its ledger open and its log written, for as long as the context lasts.

    Raises:
        ConfigError: the ledger cannot be used.
    """
    costs = bench.folder / COSTS
    # One that was killed while it predicted in its own process may have been killed by a task.
    cautious = resumed and run_state(run) == RUNNING
    with logged(run.log), closing(Ledger(run.ledger)) as ledger:
        setup = RunSetup(
            source=bench.project,
            sink=bench.project,
            run=run,
            ledger=ledger,
            model_version=model_version,
            project=bench.project_id,
            options=options,
            open_executor=_executors(bench, run, progress, cautious=cautious),
            progress=progress,
            standing=_standing(bench),
            model=CostModel() if options.dry_run else _costs(bench, costs),
            stop=stop,
            resumed=resumed,
        )
        with stop.after(bench.config.run.max_runtime_seconds):
            yield setup
        if setup.model.answers:
            write_json(costs, setup.model.to_json())


def _standing(bench: Bench) -> Standing:
    info = bench.info
    return Standing(info.task_count, min(info.task_count, info.annotated_count + info.prediction_count))


def recount(bench: Bench) -> Recount:
    """Whether the server may count the project again, from what earlier runs learned of it."""
    model = _known_costs(bench.folder / COSTS) or CostModel.of_server(recounts=True)
    return Recount(
        allowed=bench.config.import_.repair_counters == "auto",
        seconds=model.seconds(0, _standing(bench)),
        most_seconds=bench.config.import_.request_seconds,
    )


def _known_costs(path: Path) -> CostModel | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return CostModel.from_json(json.loads(path.read_bytes()))
    return None


def _costs(bench: Bench, path: Path) -> CostModel:
    """What requests cost: as earlier runs learned it, unless the server imports in another way by now.

    Raises:
        PermanentError: this token may not import predictions; better known before hours of inference.
    """
    try:
        recounts: bool | None = bench.project.recounts_project()
    except TransientError as error:
        # A server that is down is told of by the next read. One that cannot answer this is learned from its answers.
        logger.warning("%s; how the server imports is not known yet", error)
        recounts = None
    known = _known_costs(path)
    if known is not None and recounts in (None, known.recounts):
        return known
    return CostModel.of_server(recounts=recounts is not False)


def dask_options(bench: Bench, *, most_workers: int | None = None) -> DaskOptions:
    """How the cluster is opened, with no more local workers than can be busy."""
    from lsbatch.dask_executor import DaskOptions

    options = bench.config.dask
    workers = os.cpu_count() or 1 if options.workers is None else options.workers
    return DaskOptions(
        workers=max(1, workers if most_workers is None else min(workers, most_workers)),
        scheduler=options.scheduler,
        memory_limit=options.memory_limit,
        dashboard_address=options.dashboard_address,
        worker_seconds=options.worker_seconds,
        chunk_seconds=bench.config.inference.chunk_seconds,
    )


def _executors(bench: Bench, run: RunDir, progress: Progress, *, cautious: bool) -> ExecutorFactory:
    options = bench.config.dask

    @contextmanager
    def open_cluster() -> Iterator[Executor]:
        from lsbatch.dask_cluster import open_dask

        with open_dask(dask_options(bench), bench.spec, run.id, say=progress.say) as executor:
            yield executor

    @contextmanager
    def open_executor(tasks: int) -> Iterator[Executor]:
        pays = bench.config.inference.cluster_above_seconds
        if options.scheduler is None and options.workers == 0:
            yield InProcessExecutor(bench.spec)
        elif options.scheduler is None and options.workers is None and not cautious and pays > 0:
            yield AdaptiveExecutor(bench.spec, tasks, pays, open_cluster)
        else:
            with open_cluster() as executor:
                yield executor

    return open_executor
