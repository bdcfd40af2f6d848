"""Export, predict, import, audit: the main verb. What was done is on disk; the same call continues after a crash."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain

import pyarrow as pa

from lsbatch.chunks import ChunkSizer, ChunkState, rechunk
from lsbatch.entities import Task
from lsbatch.errors import LsbatchError
from lsbatch.executor import Executor
from lsbatch.ledger import Ledger
from lsbatch.operations.auditing import audit
from lsbatch.operations.importing import Importer, ImportOptions
from lsbatch.operations.runs import FINISHED
from lsbatch.ports import PredictionSink, Selection, TaskPage, TaskSource
from lsbatch.prefetch import prefetched
from lsbatch.progress import Meter, Progress
from lsbatch.report import RunReport, causes
from lsbatch.run_dir import RunDir, tasks_table, write_json

__all__ = ["ExecutorFactory", "PredictOptions", "PredictRun", "finish", "predict", "recorded"]

logger = logging.getLogger(__name__)

#: Pages of tasks, each a few megabytes, that are fetched ahead of inference.
MOST_PAGES = 6

#: Opens what runs the chunks, for so many tasks.
ExecutorFactory = Callable[[int], AbstractContextManager[Executor]]


@dataclass(frozen=True)
class PredictOptions:
    """What to predict and what to do with it.

    Attributes:
        selection: which tasks.
        chunk_size: tasks of a chunk; None to find it by measuring.
        dry_run: write nothing to Label Studio.
        activate: show the version to annotators after a clean audit.
        importing: how predictions are sent.
    """

    selection: Selection
    chunk_size: int | None = None
    dry_run: bool = False
    activate: bool = False
    importing: ImportOptions = field(default_factory=ImportOptions)


@dataclass
class PredictRun:
    """One run of ``predict``: where from, where to, and what is known of it on disk."""

    source: TaskSource
    sink: PredictionSink
    run: RunDir
    ledger: Ledger
    model_version: str
    project: int
    options: PredictOptions
    open_executor: ExecutorFactory
    progress: Progress
    resumed: bool = False


def predict(job: PredictRun) -> RunReport:
    """Predict the selected tasks and bring the predictions to Label Studio, exactly one on each.

    May be repeated, also after a crash: what is on disk is not done again, what is on the server is not sent again.

    Raises:
        TransientError, AmbiguousError: not finished now; the same call continues.
        ConfigError: the disk, or the pipeline's settings.
        PermanentError: Label Studio refused.
    """
    report = RunReport(job.run.id, job.project, job.model_version, dry_run=job.options.dry_run)
    with recorded(job.run, job.ledger, report):
        _infer(job, report)
        _count(job.ledger, report)
        if not job.options.dry_run:
            finish(job, report)
        report.state = FINISHED
    return report


def finish(job: PredictRun, report: RunReport) -> None:
    """Import what is predicted, prove it, and activate the version if that is asked for."""
    importer = Importer(
        job.sink,
        job.run,
        job.ledger,
        job.model_version,
        job.options.importing,
        job.progress,
        check_first=job.resumed,
    )
    try:
        with report.timed("import"):
            importer.run()
    finally:
        report.imported, report.requests = importer.imported, importer.requests
    with report.timed("audit"):
        report.audit = audit(job.sink, job.run, job.ledger, job.model_version, job.progress)
    if job.options.activate and report.audit.passed and report.audit.confirmed:
        before = job.sink.activate(job.model_version)
        report.activated = True
        if before and before != job.model_version:
            job.progress.say(f"annotators saw {before} before")


@contextmanager
def recorded(run: RunDir, ledger: Ledger, report: RunReport) -> Iterator[None]:
    """Keep ``run_results.json`` true: that the run is under way, and how it ended, whatever ends it."""
    write_json(run.results, report.to_json())
    try:
        yield
    except BaseException as error:
        report.state = "failed" if isinstance(error, LsbatchError) else "interrupted"
        try:
            _count(ledger, report)
            write_json(run.results, {**report.to_json(), "error": str(error)})
        except LsbatchError as second:
            # The first error is the one to show; without a report the run counts as unfinished, which it is.
            logger.debug("the report of run %s could not be written: %s", run.id, second)
        raise
    _count(ledger, report)
    run.write_dead_letters(ledger.dead_letters())
    write_json(run.results, report.to_json())


def _count(ledger: Ledger, report: RunReport) -> None:
    letters = ledger.dead_letters()
    report.selected = ledger.count("tasks")
    report.predicted = ledger.count("predicted")
    report.quarantined = len(letters)
    report.causes = causes(letters)


def _infer(job: PredictRun, report: RunReport) -> None:
    """Bring every selected task to ``PREDICTED`` or into quarantine."""
    job.ledger.forget_planned()
    waiting = sum(chunk.tasks for chunk in job.ledger.chunks(ChunkState.EXPORTED))
    sizer = ChunkSizer(job.options.chunk_size)
    with ExitStack() as stack:
        # Pages come while workers start, and while chunks are predicted.
        pages = stack.enter_context(prefetched(_pages(job), MOST_PAGES))
        with report.timed("export"):
            first = next(pages, None)
        total = waiting + (first.remaining if first else 0)
        if total == 0:
            _exported(job)
            return
        exporting = stack.enter_context(job.progress.stage("export", total - waiting))
        predicting = stack.enter_context(job.progress.stage("predict", total))
        with report.timed("start workers"):
            executor = stack.enter_context(job.open_executor(total))
        tables = _tables(job, report, chain([first] if first else [], pages), sizer, exporting)
        before = report.seconds["export"]
        with report.timed("predict"):
            for result in executor.run(tables):
                job.run.write_predictions(result.chunk, result.predictions)
                job.ledger.predicted(result.chunk, result.predictions.num_rows, result.letters)
                sizer.learn(result.tasks, result.seconds)
                predicting.advance(result.tasks)
        # What is waited for in between is the server.
        waited = report.seconds["export"] - before
        report.seconds["predict"] = round(max(0.0, report.seconds["predict"] - waited), 3)


def _pages(job: PredictRun) -> Iterator[TaskPage]:
    """The pages that are not on disk yet. The ledger is asked here and now: it belongs to this thread."""
    if job.ledger.fact("exported"):
        return iter(())
    selection, last = job.options.selection, 0
    if chunks := job.ledger.chunks():
        last = chunks[-1].last_task
        if selection.limit is not None:
            selection = replace(selection, limit=selection.limit - job.ledger.count("tasks"))
            if selection.limit == 0:
                return iter(())
    return job.source.pages(selection, after=last)


def _tables(
    job: PredictRun, report: RunReport, pages: Iterator[TaskPage], sizer: ChunkSizer, exporting: Meter
) -> Iterator[tuple[int, pa.Table]]:
    """Chunks to predict: those that an earlier run left on disk, then new ones as their tasks arrive."""
    for chunk in job.ledger.chunks(ChunkState.EXPORTED):
        yield chunk.number, job.run.read_tasks(chunk.number)
    tasks = (page.tasks for page in _timed(report, pages))
    for group in rechunk(tasks, sizer, weigh=_bytes):
        chunk = job.ledger.plan(group[0].id, group[-1].id, len(group))
        job.run.write_tasks(chunk.number, group)
        job.ledger.exported(chunk)
        exporting.advance(len(group))
        yield chunk.number, tasks_table(group)
    _exported(job)


def _timed(report: RunReport, pages: Iterator[TaskPage]) -> Iterator[TaskPage]:
    while True:
        with report.timed("export"):
            page = next(pages, None)
        if page is None:
            return
        yield page


def _bytes(task: Task) -> int:
    """About the bytes of a task's data."""
    return len(str(task.data))


def _exported(job: PredictRun) -> None:
    job.ledger.state_fact("exported", str(job.ledger.count("tasks")))
