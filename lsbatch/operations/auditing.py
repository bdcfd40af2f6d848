"""Prove that Label Studio holds exactly one prediction of the version on each task that the run predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lsbatch.chunks import ChunkState
from lsbatch.entities import TaskId
from lsbatch.ledger import Ledger
from lsbatch.ports import PredictionSink
from lsbatch.progress import Progress
from lsbatch.report import AuditProof
from lsbatch.run_dir import RunDir

__all__ = ["audit"]

MOST_NAMED = 20


#: Told of the number of a chunk and of those of its tasks that lack their prediction.
Missing = Callable[[int, Sequence[TaskId]], None]


def audit(
    sink: PredictionSink,
    run: RunDir,
    ledger: Ledger,
    model_version: str,
    progress: Progress,
    *,
    missed: Missing | None = None,
    remove: bool = True,
) -> AuditProof:
    """Read back what the run imported, and remove surplus predictions by id. May be repeated.

    Both sides come in ascending order of id and are compared as they stream: memory does not grow with the run.

    Args:
        sink: what is read back.
        run: says what was predicted.
        ledger: the run's.
        model_version: compared exactly.
        progress: told of every prediction.
        missed: told of what is missing.
        remove: delete surplus predictions, the newest first; else only count them.

    Raises:
        TransientError: the server could not be read; nothing is proved then.
    """
    chunks = ledger.chunks(ChunkState.IMPORTED)
    expected = confirmed = gone = 0
    missing: list[TaskId] = []
    missing_count = 0
    if chunks:
        first, last = chunks[0].first_task, max(chunk.last_task for chunk in chunks)
        carriers = _Carriers(sink.carriers(model_version, first, last))
        refused = {letter.task_id for letter in ledger.dead_letters() if letter.stage == "import"}
        with progress.stage("audit", sum(chunk.predicted for chunk in chunks)) as meter:
            for chunk in chunks:
                ids = [task for task in run.predicted_ids(chunk.number) if task not in refused]
                absent = [task for task in ids if not carriers.holds(task)]
                alive = set(sink.existing(absent[0], absent[-1])) if absent else set()
                lost = [task for task in absent if task in alive]
                expected += len(ids)
                confirmed += len(ids) - len(absent)
                gone += len(absent) - len(lost)
                missing_count += len(lost)
                missing += lost[: MOST_NAMED - len(missing)]
                if lost and missed is not None:
                    missed(chunk.number, lost)
                meter.advance(chunk.predicted)
    surplus = sink.surplus(model_version)
    removed = 0
    if surplus > 0 and remove:
        removed = sink.remove_surplus(model_version)
        surplus = sink.surplus(model_version)
    return AuditProof(expected, confirmed, gone, tuple(missing), missing_count, removed, surplus)


class _Carriers:
    """The tasks that carry the version, drawn only as far as they are asked for: both they and the questions ascend."""

    def __init__(self, ids: Iterator[TaskId]) -> None:
        self._ids = ids
        self._at: int | None = -1

    def holds(self, task: TaskId) -> bool:
        """Whether this task is among them. ``task`` is greater than at the call before."""
        while self._at is not None and self._at < task:
            self._at = next(self._ids, None)
        return self._at == task
