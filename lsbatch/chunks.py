"""Chunks: the unit of inference, of retry and of resume. Planning and transitions, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

__all__ = ["Chunk", "ChunkSizer", "ChunkState", "check_transition", "rechunk", "rechunk_parts"]

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


class _Group(Generic[T]):
    """Elements that become a chunk once there are enough of them."""

    def __init__(self, sizer: ChunkSizer, weigh: Callable[[T], int], most_weight: int) -> None:
        self._sizer, self._weigh, self._most_weight = sizer, weigh, most_weight
        self.elements: list[T] = []
        self._weight = 0

    def add(self, element: T) -> list[T]:
        """The chunk that is full now and has no room for this element; empty while there is room."""
        full: list[T] = []
        added = self._weigh(element)
        if self.elements and (len(self.elements) >= self._sizer.tasks or self._weight + added > self._most_weight):
            full, self.elements, self._weight = self.elements, [], 0
        self.elements.append(element)
        self._weight += added
        return full


def rechunk_parts(
    pages: Iterable[tuple[int, Sequence[T] | None]],
    sizer: ChunkSizer,
    *,
    weigh: Callable[[T], int] = lambda _: 0,
    most_weight: int = CHUNK_BYTES,
) -> Iterator[list[T]]:
    """Regroup pages of several parts into lists of ``sizer.tasks`` elements of one part each, asked anew for each list.

    The order within a part is kept, and nothing is left out.

    Args:
        pages: number of a part with some of its elements, or with None at its end.
        sizer: how many elements a list should have.
        weigh: an element's weight, such as its bytes.
        most_weight: a list weighs no more than this, unless its one element does.
    """
    groups: dict[int, _Group[T]] = {}
    for number, page in pages:
        if page is None:
            if (ended := groups.pop(number, None)) and ended.elements:
                yield ended.elements
            continue
        group = groups.setdefault(number, _Group(sizer, weigh, most_weight))
        for element in page:
            if full := group.add(element):
                yield full
    yield from (group.elements for group in groups.values() if group.elements)


def rechunk(
    pages: Iterable[Sequence[T]],
    sizer: ChunkSizer,
    *,
    weigh: Callable[[T], int] = lambda _: 0,
    most_weight: int = CHUNK_BYTES,
) -> Iterator[list[T]]:
    """As ``rechunk_parts`` for pages of one part."""
    return rechunk_parts(((0, page) for page in pages), sizer, weigh=weigh, most_weight=most_weight)
