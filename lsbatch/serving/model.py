"""One model version, loaded in processes of its own and answering requests until it is closed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsbatch.entities import Outcome, Task
from lsbatch.executor import PredictorFactory
from lsbatch.serving.background import background
from lsbatch.serving.batching import Batcher, Ticket
from lsbatch.serving.model_process import ModelProcess
from lsbatch.serving.pace import Pace
from lsbatch.serving.request_error import RequestError, too_many_tasks

__all__ = ["Limits", "Model", "Served"]

#: How often it is asked whether answers can still come in time, in seconds.
WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """How much is taken on, and how it is worked on.

    Attributes:
        project: for messages.
        workers: processes of a model.
        batch_size: most tasks of a batch.
        max_wait_seconds: how long a batch that is not full waits while several requests come.
        queue_tasks: most tasks that wait.
        answer_seconds: longest time for an answer.
        call_seconds: longest time of one call of the pipeline.
        batches: told the size of each batch.
    """

    project: int
    workers: int = 1
    batch_size: int = 64
    max_wait_seconds: float = 0.002
    queue_tasks: int = 10_000
    answer_seconds: float = 90.0
    call_seconds: float = 30.0
    batches: Callable[[int], object] = lambda _: None


@dataclass(frozen=True)
class Served:
    """What is to be loaded.

    Attributes:
        recipe: builds the predictor.
        pipeline: its name.
        model_version: what its predictions carry.
        label_config: what its predictions fit, as text.
        data_keys: keys of the tasks' data that it reads; empty for all data.
        sample: some tasks of the project, to warm up with; none where there are none.
    """

    recipe: PredictorFactory
    pipeline: str
    model_version: str
    label_config: str
    data_keys: tuple[str, ...] = ()
    sample: Sequence[Task] = ()


class Model:
    """A loaded model. Make it with ``load``.

    Attributes:
        served: what it is.
    """

    def __init__(self, served: Served, limits: Limits, processes: Sequence[ModelProcess]) -> None:
        self.served = served
        self._limits = limits
        self._processes = processes
        self._pace = Pace(limits.batch_size, limits.workers)
        self._batcher = Batcher(self._pace, limits.max_wait_seconds, limits.batches)
        self._open: set[Ticket] = set()
        self._lanes = [background(self._batcher.serve(process), "predicting") for process in processes]
        self._watching = background(self._watch(), "watching the time")

    @classmethod
    async def load(cls, served: Served, limits: Limits) -> Model:
        """Start the processes and wait until each has built the model and predicted the sample.

        Raises:
            LsbatchError: it cannot be built.
        """
        processes = [ModelProcess(served.recipe, served.sample, limits.call_seconds) for _ in range(limits.workers)]
        try:
            await asyncio.gather(*(process.warm_up() for process in processes))
        except BaseException:
            await _stop(processes)
            raise
        return cls(served, limits, processes)

    @property
    def closing(self) -> bool:
        """It takes nothing new."""
        return self._batcher.closing

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return self._batcher.waiting

    async def predict(self, tasks: Sequence[Task], context: Mapping[str, Any] | None) -> list[Outcome]:
        """One outcome for each task, in their order. Cancelled, it leaves nothing in the queue.

        Raises:
            RequestError: too much is waiting (429), or the answer cannot come in time (413, 503, 504).
        """
        if not tasks:
            return []
        self._check_room(len(tasks))
        ticket = self._batcher.add(tasks, context, self._limits.answer_seconds)
        self._open.add(ticket)
        try:
            await ticket.answered
        finally:
            self._open.discard(ticket)
            self._batcher.drop(ticket)
        return [outcome for outcome in ticket.outcomes if outcome is not None]

    async def _watch(self) -> None:
        """Refuse each request as soon as it is sure that it cannot be answered in time.

        What a large one costs may be known only while it goes on.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, self._limits.answer_seconds / 4))
            for ticket in self._open:
                rest = ticket.end - loop.time()
                late = rest <= 0 or (self._pace.sure and self._pace.seconds(ticket.left) > rest)
                if late and not ticket.over:
                    ticket.answered.set_exception(self._too_late(len(ticket.tasks)))

    def _check_room(self, tasks: int) -> None:
        limits = self._limits
        if tasks > limits.queue_tasks:
            raise too_many_tasks(tasks, limits.queue_tasks, limits.project)
        waiting = self.waiting
        seconds = self._pace.seconds(waiting)
        if waiting + tasks > limits.queue_tasks:
            raise RequestError(
                429,
                f"{waiting:,} tasks wait already, at most {limits.queue_tasks:,} may (serve.max_queue_tasks)",
                retry_after=max(1, math.ceil(seconds)),
            )
        # One batch is always tried, or a single slow one would be believed for good.
        if self._pace.sure and tasks > self._pace.batch_size and self._pace.seconds(tasks) > limits.answer_seconds:
            raise self._too_late(tasks)
        if self._pace.sure and waiting and self._pace.seconds(waiting + tasks) > limits.answer_seconds:
            raise RequestError(
                429, f"{waiting:,} tasks wait already, too many for an answer in time", max(1, math.ceil(seconds))
            )

    def _too_late(self, tasks: int) -> RequestError:
        return RequestError(
            503,
            f"{tasks:,} tasks cannot be predicted within {self._limits.answer_seconds:g} s (serve.predict_seconds), "
            "and Label Studio waits no longer than 100 s; "
            f"predict them offline: lsbatch predict --project {self._limits.project}",
        )

    async def close(self) -> None:
        """Answer what waits, then end the processes. Cancelled, it ends them at once."""
        self._batcher.close()
        try:
            await asyncio.wait(self._lanes)
        finally:
            for ticket in self._open:
                if not ticket.over:
                    ticket.answered.set_exception(RequestError(503, "the model ended before its answer", 5))
            for task in (*self._lanes, self._watching):
                task.cancel()
            await asyncio.gather(*self._lanes, self._watching, return_exceptions=True)
            await _stop(self._processes)


async def _stop(processes: Sequence[ModelProcess]) -> None:
    await asyncio.gather(*(asyncio.to_thread(process.stop) for process in processes))
