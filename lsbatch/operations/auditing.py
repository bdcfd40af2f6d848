"""Prove that Label Studio holds exactly one prediction of the version on each task that the run predicted."""

from __future__ import annotations

from collections.abc import Iterator

from lsbatch.chunks import ChunkState
from lsbatch.entities import TaskId
from lsbatch.ledger import Ledger
from lsbatch.ports import PredictionSink
from lsbatch.progress import Progress
from lsbatch.report import AuditProof
from lsbatch.run_dir import RunDir

__all__ = ["audit"]

MOST_NAMED = 20


def audit(sink: PredictionSink, run: RunDir, ledger: Ledger, model_version: str, progress: Progress) -> AuditProof:
    """Read back what the run imported, and remove surplus predictions by id. May be repeated.

    Both sides come in ascending order of id and are compared as they stream: memory does not grow with the run.

    Raises:
        TransientError: the server could not be read; nothing is proved then.
    """
    chunks = ledger.chunks(ChunkState.IMPORTED)
    expected = confirmed = gone = 0
    missing: list[TaskId] = []
    missing_count = 0
    if chunks:
        first, last = chunks[0].first_task, chunks[-1].last_task
        carriers = sink.carriers(model_version, first, last)
        refused = {letter.task_id for letter in ledger.dead_letters() if letter.stage == "import"}
        with progress.stage("audit", sum(chunk.predicted for chunk in chunks)) as meter:
            for chunk in chunks:
                ids = [task for task in run.predicted_ids(chunk.number) if task not in refused]
                absent, carriers = _absent(ids, carriers)
                alive = set(sink.existing(absent[0], absent[-1])) if absent else set()
                lost = [task for task in absent if task in alive]
                expected += len(ids)
                confirmed += len(ids) - len(absent)
                gone += len(absent) - len(lost)
                missing_count += len(lost)
                missing += lost[: MOST_NAMED - len(missing)]
                meter.advance(chunk.predicted)
    surplus = sink.surplus(model_version)
    removed = 0
    if surplus > 0:
        removed = sink.remove_surplus(model_version)
        surplus = sink.surplus(model_version)
    return AuditProof(expected, confirmed, gone, tuple(missing), missing_count, removed, surplus)


def _absent(wanted: list[TaskId], carriers: Iterator[TaskId]) -> tuple[list[TaskId], Iterator[TaskId]]:
    """The wanted ids that are not among the carriers, and the carriers after the last wanted id. Both ascend."""
    absent = []
    held: TaskId | None = None
    for task in wanted:
        while held is None or held < task:
            held = next(carriers, None)
            if held is None:
                break
        if held != task:
            absent.append(task)
            if held is None:
                # No carriers are left: neither for the rest of these.
                absent += [other for other in wanted if other > task]
                return absent, iter(())
    return absent, _put_back(held, carriers)


def _put_back(held: TaskId | None, carriers: Iterator[TaskId]) -> Iterator[TaskId]:
    if held is not None:
        yield held
    yield from carriers
