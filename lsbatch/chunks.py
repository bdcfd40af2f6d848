"""Chunks: the unit of inference, of retry and of resume. Planning and transitions, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import TypeVar

__all__ = ["Chunk", "ChunkSizer", "ChunkState", "check_transition", "plan_batches", "rechunk"]

T = TypeVar("T")

#: Most bytes of task data in one chunk: what travels to a worker at a time, and what is in memory for it.
CHUNK_BYTES = 8_000_000


class ChunkState(StrEnum):
    """How far a chunk has come. Each state is true on disk before the next step begins."""

    PLANNED = "planned"
    EXPORTED = "exported"
    PREDICTED = "predicted"
    SENDING = "sending"
    IMPORTED = "imported"


_NEXT = {
    ChunkState.PLANNED: {ChunkState.EXPORTED},
    ChunkState.EXPORTED: {ChunkState.PREDICTED},
    ChunkState.PREDICTED: {ChunkState.SENDING},
    # Back, when the server surely took nothing.
    ChunkState.SENDING: {ChunkState.IMPORTED, ChunkState.PREDICTED},
    ChunkState.IMPORTED: set(),
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some tasks of a run, contiguous in the order of their ids.

    Attributes:
        number: 0, 1, 2, ... in the order of ids.
        state: how far it has come.
        first_task: its lowest task id.
        last_task: its highest task id.
        tasks: how many it has.
        predicted: how many of them have a prediction, 0 before ``PREDICTED``.
    """

    number: int
    state: ChunkState
    first_task: int
    last_task: int
    tasks: int
    predicted: int = 0


def check_transition(old: ChunkState, new: ChunkState) -> None:
    """Raise ``ValueError`` unless a chunk may go from ``old`` to ``new``."""
    if new not in _NEXT[old]:
        raise ValueError(f"a chunk cannot go from {old} to {new}")


class ChunkSizer:
    """Finds the number of tasks that take about a second, from what chunks took.

    Args:
        fixed: always this number of tasks; None to find it.
    """

    FIRST, LEAST, MOST = 64, 16, 2_000
    TARGET_SECONDS = 1.0

    def __init__(self, fixed: int | None = None) -> None:
        self.tasks = fixed or self.FIRST
        self._fixed = fixed is not None

    def learn(self, tasks: int, seconds: float) -> None:
        """Take note of a chunk of ``tasks`` that took ``seconds``; grows at most fourfold at a time."""
        if self._fixed or tasks == 0:
            return
        wanted = int(tasks * self.TARGET_SECONDS / max(seconds, 1e-3))
        self.tasks = max(self.LEAST, min(wanted, 4 * self.tasks, self.MOST))


def rechunk(
    pages: Iterable[Sequence[T]],
    sizer: ChunkSizer,
    *,
    weigh: Callable[[T], int] = lambda _: 0,
    most_weight: int = CHUNK_BYTES,
) -> Iterator[list[T]]:
    """Regroup pages into lists of ``sizer.tasks`` elements, asked anew for each; order kept, nothing left out.

    Args:
        pages: the elements.
        sizer: how many elements a list should have.
        weigh: an element's weight, such as its bytes.
        most_weight: a list weighs no more than this, unless its one element does.
    """
    chunk: list[T] = []
    weight = 0
    for element in chain.from_iterable(pages):
        added = weigh(element)
        if chunk and (len(chunk) >= sizer.tasks or weight + added > most_weight):
            yield chunk
            chunk, weight = [], 0
        chunk.append(element)
        weight += added
    if chunk:
        yield chunk


def plan_batches(chunks: Iterable[Chunk], most_rows: int) -> Iterator[list[Chunk]]:
    """Group chunks, in order, into import batches of at most ``most_rows`` predictions.

    A chunk is never cut, so that one with more predictions than that is a batch of its own.
    """
    batch: list[Chunk] = []
    rows = 0
    for chunk in chunks:
        if batch and rows + chunk.predicted > most_rows:
            yield batch
            batch, rows = [], 0
        batch.append(chunk)
        rows += chunk.predicted
    if batch:
        yield batch
