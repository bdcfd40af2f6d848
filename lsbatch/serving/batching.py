"""Tasks of many requests, gathered into batches for one loaded model; the answer of each request put together again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lsbatch.entities import DeadLetter, Outcome, Task
from lsbatch.errors import LsbatchError
from lsbatch.serving.model_process import LateError
from lsbatch.serving.pace import Pace, shares

__all__ = ["Batcher", "Lane", "Ticket"]

logger = logging.getLogger(__name__)


class Lane(Protocol):
    """What a batch is given to. See ``ModelProcess``."""

    async def warm_up(self) -> None:
        """Be ready for the next batch."""
        ...

    async def predict(self, tasks: Sequence[Task], context: Mapping[str, Any] | None) -> tuple[list[Outcome], float]:
        """One outcome for each task, and the seconds that it took."""
        ...


@dataclass(eq=False)
class Ticket:
    """A request that is waited for.

    Attributes:
        tasks: in the order of the answer.
        context: of an interactive request; such a one is never put together with others.
        outcomes: what is known so far, by the task's place.
        answered: done when every outcome is known, or when none will come.
        left: so many outcomes are not known yet.
        end: when the answer must be there, by the loop's clock.
        taken: so many tasks are in batches, or were.
    """

    tasks: Sequence[Task]
    context: Mapping[str, Any] | None
    outcomes: list[Outcome | None]
    answered: asyncio.Future[None]
    left: int
    end: float
    taken: int = 0

    @property
    def waiting(self) -> int:
        """How many tasks are in no batch yet."""
        return len(self.tasks) - self.taken

    @property
    def over(self) -> bool:
        """Nobody waits for it any more."""
        return self.answered.done()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some tasks of a request, by their places."""

    ticket: Ticket
    first: int
    last: int

    @property
    def tasks(self) -> Sequence[Task]:
        return self.ticket.tasks[self.first : self.last]

    def deliver(self, outcomes: Sequence[Outcome]) -> None:
        self.ticket.outcomes[self.first : self.last] = outcomes
        self.ticket.left -= len(outcomes)
        if not self.ticket.over and not self.ticket.left:
            self.ticket.answered.set_result(None)


@dataclass
class Batcher:
    """The waiting tasks of one model, and the lanes that work on them.

    Args:
        pace: learns what tasks cost, and says how many should go at once.
        max_wait_seconds: how long a batch that is not full waits while several requests come.
        batches: told the size of each batch.

    Attributes:
        closing: the lanes end once nothing waits any more.
    """

    pace: Pace
    max_wait_seconds: float
    batches: Callable[[int], object] = lambda _: None
    closing: bool = field(default=False, init=False)
    _tickets: list[Ticket] = field(default_factory=list, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _crowded: bool = field(default=False, init=False)

    @property
    def waiting(self) -> int:
        """How many tasks are in no batch yet."""
        return sum(ticket.waiting for ticket in self._tickets)

    def add(self, tasks: Sequence[Task], context: Mapping[str, Any] | None, seconds: float) -> Ticket:
        """Queue a request of at least one task; await its ``answered``, and ``drop`` it where nobody waits any more.

        Args:
            tasks: in the order of the answer.
            context: of an interactive request.
            seconds: how long the answer may take; whoever asked sees to it.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        ticket = Ticket(tasks, context, [None] * len(tasks), loop.create_future(), left=len(tasks), end=end)
        self._tickets.append(ticket)
        self._changed.set()
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Forget a request: what waits of it is not computed. May be repeated."""
        ticket.answered.cancel()
        if ticket in self._tickets:
            self._tickets.remove(ticket)

    def close(self) -> None:
        """Let the lanes end once nothing waits any more."""
        self.closing = True
        self._changed.set()

    async def serve(self, lane: Lane) -> None:
        """Work on batches until ``close``. Once for each lane."""
        while pieces := await self._taken():
            try:
                await self._answer(lane, pieces)
            except Exception as error:
                # The lane goes on; whoever waits is told.
                logger.exception("a batch was lost")
                _fail([piece.ticket for piece in pieces], error)

    async def _taken(self) -> list[_Piece]:
        """As ``_take``; without a lane nothing would ever be answered, so that no bug may end it."""
        while True:
            try:
                return await self._take()
            except Exception as error:
                logger.exception("what waits cannot be put together: this is a bug in lsbatch")
                lost, self._tickets = self._tickets, []
                _fail(lost, error)

    async def _take(self) -> list[_Piece]:
        """The next batch; empty when there will be none."""
        while True:
            while not self._tickets:
                if self.closing:
                    return []
                self._changed.clear()
                await self._changed.wait()
            # Alone, a client would only lose by waiting for others.
            if self._crowded and self.waiting < self.pace.batch_size and not self.closing:
                await asyncio.sleep(self.max_wait_seconds)
            # Meanwhile another lane may have taken them, or nobody waits for them any more.
            if self._tickets:
                return self._gather()

    def _gather(self) -> list[_Piece]:
        someone = next((ticket for ticket in self._tickets if ticket.context is not None), None)
        # A person looks at the screen while an interactive request waits.
        chosen = [someone] if someone is not None else list(self._tickets)
        room = self.pace.batch_size
        self._crowded = len(chosen) > 1
        pieces = []
        for ticket, count in zip(chosen, shares([ticket.waiting for ticket in chosen], room), strict=True):
            if count:
                pieces.append(_Piece(ticket, ticket.taken, ticket.taken + count))
                ticket.taken += count
            if not ticket.waiting:
                self._tickets.remove(ticket)
        return pieces

    async def _answer(self, lane: Lane, pieces: Sequence[_Piece]) -> None:
        tasks = [task for piece in pieces for task in piece.tasks]
        self.batches(len(tasks))
        try:
            outcomes, seconds = await lane.predict(tasks, pieces[0].ticket.context)
        except LsbatchError as error:
            logger.warning("%d tasks: %s", len(tasks), error)
            await self._one_by_one(lane, pieces, error)
            return
        self.pace.note(len(tasks), seconds)
        for piece in pieces:
            piece.deliver(outcomes[: len(piece.tasks)])
            outcomes = outcomes[len(piece.tasks) :]

    async def _one_by_one(self, lane: Lane, pieces: Sequence[_Piece], why: LsbatchError) -> None:
        """After a batch that had no answer: each task alone, so that the one at fault spoils no other."""
        if len(pieces) == 1 and len(pieces[0].tasks) == 1 and isinstance(why, LateError):
            # A process that died may have been killed by others; this one was by its task.
            pieces[0].deliver([_dead(pieces[0].tasks[0], why)])
            await self._revive(lane)
            return
        fault = await self._revive(lane)
        for piece in pieces:
            for place in range(piece.first, piece.last):
                if piece.ticket.over:
                    break
                task, single = piece.ticket.tasks[place], _Piece(piece.ticket, place, place + 1)
                if fault is not None:
                    # It is tried no more: nothing is known of the task, but of the model.
                    single.deliver([_dead(task, fault)])
                    continue
                outcome, lost = await self._alone(lane, piece.ticket, task)
                single.deliver([outcome])
                fault = await self._revive(lane) if lost else None

    async def _alone(self, lane: Lane, ticket: Ticket, task: Task) -> tuple[Outcome, bool]:
        """What becomes of the task, and whether the lane must be made ready again."""
        try:
            outcomes, seconds = await lane.predict([task], ticket.context)
        except LsbatchError as error:
            logger.warning("task %d: %s", task.id, error)
            return _dead(task, error), True
        # If the batch took too long because it was too large, the next one is smaller.
        self.pace.note(1, seconds)
        return outcomes[0], False

    async def _revive(self, lane: Lane) -> LsbatchError | None:
        """Have the lane ready again; why that fails, if it does."""
        try:
            await lane.warm_up()
        except LsbatchError as error:
            # It is tried again with the next batch; what this one held is answered with the error.
            logger.error("the model cannot be loaded again: %s", error)
            return error
        return None


def _fail(tickets: Sequence[Ticket], error: Exception) -> None:
    for ticket in tickets:
        if not ticket.over:
            ticket.answered.set_exception(error)


def _dead(task: Task, error: Exception) -> DeadLetter:
    return DeadLetter(task.id, "predict", str(error))
