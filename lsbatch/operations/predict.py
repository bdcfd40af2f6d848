"""Export, predict, import, audit: the main verb. What was done is on disk; the same call continues after a crash."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pyarrow as pa

from lsbatch.chunks import ChunkSizer, ChunkState, rechunk_parts
from lsbatch.entities import Task
from lsbatch.executor import ChunkResult
from lsbatch.operations.finishing import finish
from lsbatch.operations.recording import Recording, recorded
from lsbatch.operations.run_setup import RunSetup
from lsbatch.ports import TaskPage
from lsbatch.prefetch import side_by_side
from lsbatch.progress import Meter
from lsbatch.report import RunReport
from lsbatch.run_dir import tasks_table

__all__ = ["predict"]

#: Pages of tasks, each a few megabytes, that are fetched ahead of inference.
MOST_PAGES = 6
#: Pages that are drawn at most before inference begins, while a range of ids has not answered yet.
FIRST_PAGES = 4 * MOST_PAGES

#: Pages with the number of the range of ids that they belong to; None at the end of a range.
Pages = Iterator[tuple[int, TaskPage | None]]


def predict(setup: RunSetup) -> RunReport:
    """Predict the selected tasks and bring the predictions to Label Studio, exactly one on each.

    May be repeated, also after a crash: what is on disk is not done again, what is on the server is not sent again.

    Raises:
        TransientError, AmbiguousError: not finished now; the same call continues.
        StoppedError: somebody asked to stop; the same call continues.
        BudgetError: too many tasks failed; nothing more was sent.
        ConfigError: the disk, or the pipeline's settings.
        PermanentError: Label Studio refused.
    """
    report = RunReport(setup.run.id, setup.project, setup.model_version, dry_run=setup.options.dry_run)
    importer = setup.importer()
    with recorded(setup, report, importer) as recording:
        ended = _infer(setup, recording)
        if not setup.options.dry_run:
            # What came after the last task was predicted.
            report.seconds["import"] = round(time.perf_counter() - ended, 3)
            finish(setup, report, importer)
    setup.model = importer.model
    return report


def _infer(setup: RunSetup, recording: Recording) -> float:
    """Bring every selected task to ``PREDICTED`` or into quarantine, and all predictions to the server.

    Returns:
        When the last task was predicted.
    """
    setup.ledger.forget_planned()
    waiting, _ = setup.ledger.totals(ChunkState.EXPORTED)
    before, _ = setup.ledger.totals()
    with ExitStack() as stack:
        # Pages come while workers start, and while chunks are predicted.
        pages = stack.enter_context(_reading(setup))
        with recording.report.timed("export"):
            first, coming = _first_pages(pages, len(_ranges(setup)))
        # What an earlier process of this run put into quarantine counts before anything more is sent.
        recording.check_budget(before + coming)
        if not setup.options.dry_run:
            stack.enter_context(recording.importer.alongside(waiting + coming, recording.tick))
        if waiting + coming:
            with recording.report.timed("predict"):
                _predict_all(setup, recording, _chained(first, pages), waiting + coming, before + coming)
        setup.ledger.state_fact("exported", str(setup.ledger.totals()[0]))
        recording.check_budget(setup.ledger.totals()[0])
        return time.perf_counter()


def _predict_all(setup: RunSetup, recording: Recording, pages: Pages, todo: int, selected: int) -> None:
    """Predict what waits on disk and what the pages bring.

    Args:
        setup: the run.
        recording: is told of every chunk.
        pages: the tasks that are not on disk yet.
        todo: about how many tasks there are to predict.
        selected: about how many tasks the run has in all.
    """
    sizer = ChunkSizer(setup.options.chunk_size)
    with ExitStack() as stack:
        exporting = stack.enter_context(setup.progress.stage("export", todo))
        predicting = stack.enter_context(setup.progress.stage("predict", todo))
        executor = stack.enter_context(setup.open_executor(todo))
        for result in executor.run(_tables(setup, pages, sizer, exporting)):
            _keep(setup, recording, result, selected)
            sizer.learn(result.tasks, result.seconds)
            predicting.advance(result.tasks)
            recording.tick()
        setup.stop.check()


def _keep(setup: RunSetup, recording: Recording, result: ChunkResult, selected: int) -> None:
    """Note what became of a chunk, and offer it to the import unless it spends the error budget."""
    setup.run.write_predictions(result.chunk, result.predictions)
    chunk = setup.ledger.predicted(result.chunk, result.predictions.num_rows, result.letters)
    if result.letters:
        recording.check_budget(max(selected, setup.ledger.totals()[0]))
    if not setup.options.dry_run:
        recording.importer.offer(chunk)


# ------------------------------------------------------------------------------------------------ reading


def _ranges(setup: RunSetup) -> list[tuple[int, int]]:
    """The ranges of task ids that are read side by side: chosen once, so that each can be continued where it stood."""
    known = setup.ledger.fact("ranges")
    if known is None:
        selection = setup.options.selection
        # With a limit, the lowest ids count, wherever they are.
        parts = 1 if selection.limit is not None else setup.options.readers
        known = json.dumps([list(ids) for ids in setup.source.split(selection, parts)])
        setup.ledger.state_fact("ranges", known)
    return [(first, last) for first, last in json.loads(known)]


@contextmanager
def _reading(setup: RunSetup) -> Iterator[Pages]:
    """The pages that are not on disk yet, drawn ahead."""
    sources: list[Iterator[TaskPage]] = []
    if not setup.ledger.fact("exported"):
        selection = setup.options.selection
        if selection.limit is not None:
            selection = replace(selection, limit=selection.limit - setup.ledger.totals()[0])
        for first, last in _ranges(setup) if selection.limit != 0 else []:
            after = setup.ledger.last_exported(first, last)
            sources.append(setup.source.pages(selection, after=after, last=last))
    with side_by_side(sources, MOST_PAGES) as pages:
        yield pages


def _first_pages(pages: Pages, ranges: int) -> tuple[list[tuple[int, TaskPage]], int]:
    """Pages up to the first one of every range, and how many tasks these say there are.

    A range that has not answered by then is taken to be as large as the others, which ranges about are.
    """
    drawn: list[tuple[int, TaskPage]] = []
    remaining: dict[int, int] = {}
    while len(remaining) < ranges and len(drawn) < FIRST_PAGES and (entry := next(pages, None)) is not None:
        number, page = entry
        if page is not None:
            drawn.append((number, page))
        remaining.setdefault(number, 0 if page is None else page.remaining)
    known = sum(remaining.values())
    return drawn, known if len(drawn) < FIRST_PAGES else known * ranges // len(remaining)


def _chained(first: list[tuple[int, TaskPage]], pages: Pages) -> Pages:
    yield from first
    first.clear()
    yield from pages


def _tables(setup: RunSetup, pages: Pages, sizer: ChunkSizer, exporting: Meter) -> Iterator[tuple[int, pa.Table]]:
    """Chunks to predict: those that an earlier process left on disk, then new ones as their tasks arrive."""
    for chunk in setup.ledger.chunks(ChunkState.EXPORTED):
        if setup.stop.asked:
            return
        exporting.advance(chunk.tasks)
        yield chunk.number, setup.run.read_tasks(chunk.number)
    tasks = ((number, page.tasks if page is not None else None) for number, page in pages)
    for group in rechunk_parts(tasks, sizer, weigh=_bytes):
        if setup.stop.asked:
            # What is in flight is finished; the rest is exported again.
            return
        chunk, table = setup.ledger.plan(group[0].id, group[-1].id, len(group)), tasks_table(group)
        setup.run.write_tasks(chunk.number, table)
        setup.ledger.exported(chunk)
        exporting.advance(len(group))
        yield chunk.number, table


def _bytes(task: Task) -> int:
    """About the bytes of a task's data."""
    return len(str(task.data))
