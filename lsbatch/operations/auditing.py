"""Prove that Label Studio holds exactly one prediction of the version on each task that the run predicted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lsbatch.chunks import Chunk, ChunkState
from lsbatch.entities import TaskId
from lsbatch.ledger import Ledger
from lsbatch.operations.carrying import which_carry
from lsbatch.ports import PredictionSink
from lsbatch.progress import Progress
from lsbatch.report import AuditProof
from lsbatch.run_dir import RunDir

__all__ = ["audit"]

MOST_NAMED = 20
#: Predictions that are compared at a time: what is in memory for it.
GROUP_TASKS = 20_000


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
    deleted: Callable[[], Collection[TaskId]] = tuple,
) -> AuditProof:
    """Read back what the run imported, and remove surplus predictions by id. May be repeated.

    Memory does not grow with the run. Where all is well the server only counts, which costs it a twentieth of a list.

    Args:
        sink: what is read back.
        run: says what was predicted.
        ledger: the run's.
        model_version: compared exactly.
        progress: told of every prediction.
        missed: told of what is missing.
        remove: delete surplus predictions, the newest first; else only count them.
        deleted: asked, where something is missing, for the tasks whose prediction was deleted on purpose since.

    Raises:
        TransientError: the server could not be read; nothing is proved then.
    """
    chunks = ledger.chunks(ChunkState.IMPORTED)
    found = _Found()
    refused = {letter.task_id for letter in ledger.dead_letters() if letter.stage == "import"}
    with progress.stage("audit", sum(chunk.predicted for chunk in chunks)) as meter:
        for group in _groups(chunks):
            ids = {
                chunk.number: [task for task in run.predicted_ids(chunk.number) if task not in refused]
                for chunk in group
            }
            _compare(sink, model_version, ids, found, missed, deleted)
            meter.advance(sum(chunk.predicted for chunk in group))
    surplus = sink.surplus(model_version)
    removed = 0
    if surplus > 0 and remove:
        removed = sink.remove_surplus(model_version)
        surplus = sink.surplus(model_version)
    return AuditProof(
        found.expected, found.confirmed, found.gone, tuple(found.missing), found.missing_count, removed, surplus
    )


@dataclass
class _Found:
    """What was found so far; see ``AuditProof``."""

    expected: int = 0
    confirmed: int = 0
    gone: int = 0
    missing: list[TaskId] = field(default_factory=list)
    missing_count: int = 0


def _groups(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks, in their order, of about ``GROUP_TASKS`` predictions."""
    group: list[Chunk] = []
    for chunk in chunks:
        group.append(chunk)
        if sum(entry.predicted for entry in group) >= GROUP_TASKS:
            yield group
            group = []
    if group:
        yield group


def _compare(
    sink: PredictionSink,
    model_version: str,
    ids: Mapping[int, Sequence[TaskId]],
    found: _Found,
    missed: Missing | None,
    deleted: Callable[[], Collection[TaskId]],
) -> None:
    """Compare the tasks of some chunks, ids ascending over all of them, with what the server holds."""
    every = [task for tasks in ids.values() for task in tasks]
    carrying = which_carry(sink, model_version, every)
    absent = [task for task in every if task not in carrying]
    alive = set(sink.existing(absent[0], absent[-1])) if absent else set()
    lost = [task for task in absent if task in alive]
    if lost:
        on_purpose = deleted()
        lost = [task for task in lost if task not in on_purpose]
    found.expected += len(every)
    found.confirmed += len(every) - len(absent)
    found.gone += len(absent) - len(lost)
    found.missing_count += len(lost)
    found.missing += lost[: MOST_NAMED - len(found.missing)]
    if lost and missed is not None:
        for number, tasks in ids.items():
            if of_chunk := [task for task in tasks if task in set(lost)]:
                missed(number, of_chunk)
