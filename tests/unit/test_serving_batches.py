"""How tasks of many requests become batches, and what becomes of batches that have no answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsbatch.entities import DeadLetter, Outcome, Prediction, Task
from lsbatch.serving.batching import Batcher, Ticket
from lsbatch.serving.model_process import LateError, LostError
from lsbatch.serving.pace import Pace, shares
from serving_support import task


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=80), st.integers(1, 300))
def test_shares_fill_the_room_and_are_fair(waiting: list[int], room: int) -> None:
    given_ = shares(waiting, room)
    assert sum(given_) == min(room, sum(waiting))
    assert all(0 <= got <= wanted for got, wanted in zip(given_, waiting, strict=True))
    assert given_[0] >= 1
    # Who did not get all it wanted got no less than any other, but for what cannot be divided.
    short = [got for got, wanted in zip(given_, waiting, strict=True) if got < wanted]
    assert not short or min(short) >= max(given_[1:], default=0) - 1


def test_a_pace_is_learned_and_bounds_a_batch() -> None:
    pace = Pace(64, lanes=2)
    assert pace.batch_size == 64
    assert pace.seconds(1000) == 0
    for _ in range(20):
        pace.note(1, 0.1)
    # One task alone may cost more than one of many.
    assert not pace.sure
    assert pace.seconds(20) == pytest.approx(1.0)
    assert pace.batch_size == 5
    for _ in range(20):
        pace.note(64, 0.64)
    assert pace.sure
    assert pace.seconds(100) == pytest.approx(0.5, rel=0.01)
    assert pace.batch_size in (49, 50)


@dataclass
class Model:
    """A lane that answers at once, and never does with tasks that it is told to lose."""

    lost: frozenset[int] = frozenset()
    broken: bool = False
    how: type[LostError] = LostError
    batches: list[list[int]] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    revived: int = 0

    async def warm_up(self) -> None:
        """See ``Lane.warm_up``."""
        self.revived += 1
        if self.broken:
            raise LostError("broken for good")

    async def predict(self, tasks: Sequence[Task], context: Mapping[str, Any] | None) -> tuple[list[Outcome], float]:
        """See ``Lane.predict``."""
        ids = [int(entry.id) for entry in tasks]
        self.batches.append(ids)
        self.contexts.append(context)
        await asyncio.sleep(0)
        if self.lost & set(ids):
            raise self.how("killed")
        return [Prediction(entry.id, (), entry.id / 1e6, "v") for entry in tasks], 1e-6 * len(ids)


async def answered(ticket: Ticket) -> list[int | str]:
    """The ids of the outcomes; the cause in place of a task that failed."""
    await asyncio.wait_for(ticket.answered, 10)
    assert None not in ticket.outcomes
    return [one.cause if isinstance(one, DeadLetter) else int(one.task_id) for one in ticket.outcomes if one]


def run(model: Model, requests: Sequence[Sequence[int]], size: int = 8) -> list[list[int | str]]:
    """The answers to requests that come all at once."""

    async def main() -> list[list[int | str]]:
        batcher = Batcher(Pace(size, 1), 0.001)
        tickets = [batcher.add([task(number) for number in ids], None, 60) for ids in requests]
        lane = asyncio.create_task(batcher.serve(model))
        found = [await answered(ticket) for ticket in tickets]
        batcher.close()
        await asyncio.wait_for(lane, 10)
        return found

    return asyncio.run(main())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 16))
def test_every_request_gets_its_own_answers_in_order(sizes: list[int], size: int) -> None:
    number = iter(range(1, sum(sizes) + 1))
    requests = [[next(number) for _ in range(count)] for count in sizes]
    model = Model()
    assert run(model, requests, size) == requests
    assert max(map(len, model.batches)) <= size
    assert sorted(number for batch in model.batches for number in batch) == list(range(1, sum(sizes) + 1))


def test_requests_share_a_batch() -> None:
    model = Model()
    run(model, [[1], [2], [3]])
    assert model.batches == [[1, 2, 3]]


def test_a_small_request_need_not_wait_for_a_large_one() -> None:
    model = Model()
    run(model, [list(range(1, 101)), [999]])
    assert 999 in model.batches[0]


@pytest.mark.parametrize("at_fault", [1, 5, 8])
def test_a_task_that_kills_the_model_spoils_no_other(at_fault: int) -> None:
    model = Model(lost=frozenset({at_fault}))
    first, second = run(model, [[1, 2, 3, 4], [5, 6, 7, 8]])
    expected = ["killed" if number == at_fault else number for number in range(1, 9)]
    assert first + second == expected


@pytest.mark.parametrize(("how", "tries"), [(LostError, 2), (LateError, 1)])
def test_a_task_alone_is_tried_once_more_where_somebody_else_may_have_killed_the_model(
    how: type[LostError], tries: int
) -> None:
    model = Model(lost=frozenset({1}), how=how)
    assert run(model, [[1]]) == [["killed"]]
    assert model.batches == [[1]] * tries
    assert model.revived == len(model.batches)


def test_a_model_that_cannot_be_loaded_again_is_said() -> None:
    assert run(Model(lost=frozenset({1}), broken=True), [[1, 2]]) == [["broken for good", "broken for good"]]


def test_an_interactive_request_is_alone_and_first() -> None:
    async def main() -> Model:
        model, batcher = Model(), Batcher(Pace(8, 1), 0.001)
        tickets = [batcher.add([task(number)], None, 60) for number in (1, 2)]
        tickets.append(batcher.add([task(3)], {"result": []}, 60))
        lane = asyncio.create_task(batcher.serve(model))
        for ticket in tickets:
            await answered(ticket)
        batcher.close()
        await lane
        return model

    model = asyncio.run(main())
    assert model.batches == [[3], [1, 2]]
    assert model.contexts == [{"result": []}, None]


def test_what_nobody_waits_for_is_not_computed() -> None:
    async def main() -> Model:
        model, batcher = Model(), Batcher(Pace(4, 1), 0.001)
        left = batcher.add([task(number) for number in range(1, 21)], None, 60)
        kept = batcher.add([task(99)], None, 60)
        batcher.drop(left)
        lane = asyncio.create_task(batcher.serve(model))
        assert await answered(kept) == [99]
        assert batcher.waiting == 0
        batcher.close()
        await lane
        return model

    assert asyncio.run(main()).batches == [[99]]


def test_a_lane_goes_on_where_all_went_away_while_it_waited_for_more() -> None:
    async def main() -> Model:
        model, batcher = Model(), Batcher(Pace(64, 1), 0.05)
        lane = asyncio.create_task(batcher.serve(model))
        # Two at once: the next batch is waited for.
        for ticket in [batcher.add([task(number)], None, 60) for number in (1, 2)]:
            await answered(ticket)
        alone = batcher.add([task(3)], None, 60)
        await asyncio.sleep(0)  # the lane sees it, and waits for more
        await asyncio.sleep(0)
        batcher.drop(alone)
        late = batcher.add([task(4)], None, 60)
        batcher.drop(late)
        await asyncio.sleep(0.1)  # longer than it waits
        assert await answered(batcher.add([task(5)], None, 60)) == [5]
        batcher.close()
        await lane
        return model

    assert asyncio.run(main()).batches == [[1, 2], [5]]


@pytest.mark.parametrize("lanes", [1, 3])
def test_clients_that_come_and_go_leave_every_lane_at_work(lanes: int) -> None:
    async def main() -> None:
        batcher = Batcher(Pace(4, lanes), 0.0005)
        serving = [asyncio.create_task(batcher.serve(Model())) for _ in range(lanes)]
        loop, chance = asyncio.get_running_loop(), random.Random(7)

        async def client(number: int) -> None:
            for _ in range(60):
                ticket = batcher.add([task(number)] * chance.randint(1, 6), None, 60)
                if chance.random() < 0.5:
                    loop.call_later(chance.random() / 500, batcher.drop, ticket)
                await asyncio.wait({ticket.answered})
                batcher.drop(ticket)

        await asyncio.gather(*(client(number) for number in range(8)))
        assert not any(lane.done() for lane in serving)
        batcher.close()
        await asyncio.gather(*serving)

    asyncio.run(main())


def test_closing_answers_what_waits() -> None:
    async def main() -> list[int | str]:
        model, batcher = Model(), Batcher(Pace(2, 1), 0.001)
        ticket = batcher.add([task(number) for number in range(1, 8)], None, 60)
        batcher.close()
        await asyncio.wait_for(batcher.serve(model), 10)
        return await answered(ticket)

    assert asyncio.run(main()) == list(range(1, 8))


def test_a_batch_that_takes_too_long_teaches_the_next_one_to_be_smaller() -> None:
    class Slow(Model):
        async def predict(
            self, tasks: Sequence[Task], context: Mapping[str, Any] | None
        ) -> tuple[list[Outcome], float]:
            outcomes, _ = await super().predict(tasks, context)
            if len(tasks) > 4:
                raise LostError("killed: it took too long")
            return outcomes, 0.2 * len(tasks)

    model = Slow()
    numbers = list(range(1, 21))
    assert run(model, [numbers[:10]], 10) == [numbers[:10]]
    model.batches.clear()
    assert run(model, [numbers], 10) == [numbers]
    assert len([batch for batch in model.batches if len(batch) > 4]) == 1
