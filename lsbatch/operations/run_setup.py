"""What the operations of a run are given: ports, files and options, made by whoever composes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lsbatch.budget import ErrorBudget
from lsbatch.executor import Executor
from lsbatch.import_plan import CostModel, Standing
from lsbatch.ledger import Ledger
from lsbatch.operations.importing import Importer, ImportOptions, ImportSetup
from lsbatch.ports import PredictionSink, Selection, TaskSource
from lsbatch.progress import Progress
from lsbatch.run_dir import RunDir
from lsbatch.stopping import Stop

__all__ = ["ExecutorFactory", "RunOptions", "RunSetup"]

#: Opens what runs the chunks, for so many tasks.
ExecutorFactory = Callable[[int], AbstractContextManager[Executor]]


@dataclass(frozen=True)
class RunOptions:
    """What to do.

    Attributes:
        selection: which tasks.
        replace: delete what the selected tasks carry of this version in favour of the new prediction.
        chunk_size: tasks of a chunk; None to find it by measuring.
        readers: ranges of task ids that are exported side by side.
        dry_run: write nothing to Label Studio.
        activate: show the version to annotators after a clean audit.
        repair_counters: have the server recount when an answer that was lost left its counters wrong.
        budget: how many tasks may fail.
        known_failures: tasks that failed in the last finished run of the version as well; the budget is not for them.
        importing: how predictions are sent.
    """

    selection: Selection
    replace: bool = False
    chunk_size: int | None = None
    readers: int = 1
    dry_run: bool = False
    activate: bool = False
    repair_counters: bool = True
    budget: ErrorBudget = field(default_factory=ErrorBudget)
    known_failures: frozenset[int] = frozenset()
    importing: ImportOptions = field(default_factory=ImportOptions)


@dataclass
class RunSetup:
    """What a run works with: where from, where to, and what is known of it on disk.

    Attributes:
        source: gives the tasks.
        sink: takes the predictions.
        run: the run's files.
        ledger: the run's ledger.
        model_version: carried by every prediction.
        project: the project's id.
        options: what to do.
        open_executor: opens what runs the chunks.
        progress: told how far it is.
        standing: what the project holds already.
        model: what requests cost on this server, as far as it is known; replaced by what was learned.
        stop: asked before anything new begins.
        resumed: an earlier process has worked on this run.
    """

    source: TaskSource
    sink: PredictionSink
    run: RunDir
    ledger: Ledger
    model_version: str
    project: int
    options: RunOptions
    open_executor: ExecutorFactory
    progress: Progress
    standing: Standing = field(default_factory=lambda: Standing(0, 0))
    model: CostModel = field(default_factory=CostModel)
    stop: Stop = field(default_factory=Stop)
    resumed: bool = False

    def importer(self) -> Importer:
        """Imports what this run predicts."""
        return Importer(
            ImportSetup(
                sink=self.sink,
                run=self.run,
                ledger=self.ledger,
                model_version=self.model_version,
                options=self.options.importing,
                progress=self.progress,
                standing=self.standing,
                model=self.model,
                stop=self.stop,
                check_first=self.resumed,
                replace=self.options.replace,
            )
        )
