"""How long the pipeline takes, learned from its batches, and how the tasks of a batch are shared among requests."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Pace", "shares"]

#: A call should not take longer than this, in seconds, so that a small request soon gets its turn.
CALL_SECONDS = 0.5


class Pace:
    """Seconds that a task costs: a mean in which the newest batches count most, and large ones more than small ones.

    Args:
        batch_size: most tasks of a batch.
        lanes: batches that are under way side by side.
    """

    def __init__(self, batch_size: int, lanes: int) -> None:
        self._batch_size = batch_size
        self._lanes = lanes
        self._per_task = 0.0
        #: Whether a batch was seen that tells what a large request costs; one task alone pays the whole overhead.
        self.sure = False

    def note(self, tasks: int, seconds: float) -> None:
        """A batch of so many tasks took so long."""
        weight = 1.0 if self._per_task == 0 else tasks / (tasks + self._batch_size)
        self._per_task += weight * (seconds / tasks - self._per_task)
        self.sure = self.sure or tasks >= self._batch_size // 4

    def seconds(self, tasks: int) -> float:
        """Seconds that so many tasks take on all lanes together; 0 before anything is known."""
        return tasks * self._per_task / self._lanes

    @property
    def batch_size(self) -> int:
        """How many tasks the next batch should hold at most."""
        if self._per_task == 0:
            return self._batch_size
        return max(1, min(self._batch_size, int(CALL_SECONDS / self._per_task)))


def shares(waiting: Sequence[int], room: int) -> list[int]:
    """How many tasks each request gives to a batch, so that each gets an equal part and none of the room is left over.

    Args:
        waiting: how many tasks of each request wait, at least one, the oldest first; each at least 1.
        room: how many tasks the batch holds, at least 1.
    """
    left = list(waiting)
    given = [0] * len(left)
    # One for the oldest in any case, so that a large request gets on among however many small ones.
    left[0], given[0], room = left[0] - 1, 1, room - 1
    # The smallest first: what they leave of their equal part is for the larger ones.
    order = sorted(range(len(left)), key=lambda number: left[number])
    for place, number in enumerate(order):
        part = min(left[number], -(-room // (len(order) - place)))
        given[number] += part
        room -= part
    return given
