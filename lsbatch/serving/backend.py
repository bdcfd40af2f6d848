"""The live backend of one project, without HTTP: what each endpoint does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lsbatch.entities import DeadLetter, Outcome, Task
from lsbatch.serving.keeper import Keeper
from lsbatch.serving.metrics import Metrics
from lsbatch.serving.model import Served
from lsbatch.serving.protocol import (
    PredictRequest,
    SetupRequest,
    WebhookRequest,
    answer,
    interactive_answer,
    project_id,
)
from lsbatch.serving.request_error import RequestError, too_many_tasks
from lsbatch.serving.stored_answers import StoredAnswers
from lsbatch.serving.training import Trainer, Training

__all__ = ["Backend"]

logger = logging.getLogger(__name__)
#: How long ``/setup`` waits for a model that is being loaded, in seconds: Label Studio waits 3.
SETUP_SECONDS = 2.0
#: Tasks of a request whose failure is logged one by one.
TOLD = 10
#: Events after which there is more to learn from (``webhooks/models.py``).
ANNOTATED = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED")


class Backend:
    """What the endpoints do.

    Args:
        project: the one that is served.
        keeper: has the model.
        trainer: trains; None for a pipeline that does not learn.
        metrics: told what happens.
        stored: answers from finished runs; None to compute every answer.
        most_tasks: in a request, where every answer is computed; None for any number.

    Attributes:
        draining: the server is about to end and takes nothing new.
    """

    def __init__(
        self,
        project: int,
        keeper: Keeper,
        trainer: Trainer,
        metrics: Metrics,
        stored: StoredAnswers | None = None,
        most_tasks: int | None = None,
    ) -> None:
        self.project = project
        self.keeper = keeper
        self.trainer = trainer
        self.metrics = metrics
        self.draining = False
        self._stored = stored
        self._most_tasks = most_tasks
        self._answering = 0
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.watch(
            lambda: keeper.waiting,
            lambda: float(trainer.running is not None),
            lambda: float(self.ready),
        )

    @property
    def ready(self) -> bool:
        """Whether predictions can be had."""
        return self.keeper.state == "ready" and not self.draining

    def status(self) -> dict[str, Any]:
        """What ``/ready`` says."""
        served = self.keeper.served
        return {
            "status": "draining" if self.draining else self.keeper.state,
            "project": self.project,
            "pipeline": None if served is None else served.pipeline,
            "model_version": None if served is None else served.model_version,
            "problem": self.keeper.problem or None,
            "training": self.trainer.running is not None,
        }

    def health(self) -> dict[str, Any]:
        """What ``/health`` says: the process is alive."""
        served = self.keeper.served
        return {
            "status": "UP",
            "model_class": "" if served is None else served.pipeline,
            "model_version": None if served is None else served.model_version,
        }

    async def setup(self, request: SetupRequest) -> dict[str, Any]:
        """The version that answers, which is the one that ``lsbatch predict`` imports.

        Before the first training it is empty: Label Studio can be connected, and what people annotate trains it.

        Raises:
            RequestError: another project's server, or no model can be loaded.
        """
        self._mine(request.project)
        self._compare(request.label_config)
        await self.keeper.settled(SETUP_SECONDS)
        if self.keeper.state == "untrained":
            return {"model_version": ""}
        return {"model_version": self.keeper.model().served.model_version}

    def check_size(self, tasks: int) -> None:
        """Return if a request may hold so many tasks; what is stored costs next to nothing.

        Raises:
            RequestError: it may not (413).
        """
        if self._stored is None and self._most_tasks is not None and tasks > self._most_tasks:
            raise too_many_tasks(tasks, self._most_tasks, self.project)

    async def predict(self, request: PredictRequest) -> dict[str, Any]:
        """One result for each task. Cancelled where nobody waits any more.

        Raises:
            RequestError: it cannot be done, or not in time.
        """
        if self.draining:
            raise RequestError(503, "the server is about to end", retry_after=5)
        self._mine(request.project)
        self._compare(request.label_config)
        self._answering += 1
        self._idle.clear()
        try:
            return await self._predict(request)
        finally:
            self._answering -= 1
            if not self._answering:
                self._idle.set()

    async def idle(self, seconds: float) -> bool:
        """Return when no prediction is under way, or after so many seconds; whether none is."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _predict(self, request: PredictRequest) -> dict[str, Any]:
        tasks, context = request.found(), request.context
        while True:
            model = self.keeper.model()
            known = await self._known(tasks, model.served) if context is None else {}
            # Another may have taken its place while the disk was read.
            if not model.closing:
                break
        version = model.served.model_version
        computed = iter(await model.predict([task for place, task in enumerate(tasks) if place not in known], context))
        outcomes = [known[place] if place in known else next(computed) for place in range(len(tasks))]
        self._count(outcomes, len(known))
        return answer(outcomes, version) if context is None else interactive_answer(outcomes, version)

    async def _known(self, tasks: Sequence[Task], served: Served) -> Mapping[int, Outcome]:
        if self._stored is None:
            return {}
        return await asyncio.to_thread(self._stored.find, tasks, served)

    def _count(self, outcomes: Sequence[Outcome], stored: int) -> None:
        failed = [outcome for outcome in outcomes if isinstance(outcome, DeadLetter)]
        for outcome in failed[:TOLD]:
            logger.warning("task %d: %s", outcome.task_id, outcome.cause)
        if len(failed) > TOLD:
            logger.warning("%d more tasks of the request failed", len(failed) - TOLD)
        self.metrics.tasks.labels("failed").inc(len(failed))
        self.metrics.tasks.labels("stored").inc(stored)
        self.metrics.tasks.labels("predicted").inc(len(outcomes) - len(failed) - stored)
        if failed:
            self.metrics.errors.labels("task").inc(len(failed))

    def webhook(self, request: WebhookRequest) -> dict[str, Any]:
        """Take note of what happened; returns at once.

        Raises:
            RequestError: a training of a pipeline that does not learn was asked for.
        """
        project = project_id(request.project)
        if project is not None and project != self.project:
            # A webhook of the whole organization tells of every project.
            return {"status": "ignored", "why": f"this server serves project {self.project}"}
        if request.action == "START_TRAINING":
            return {"status": "training", "job": self.train("START_TRAINING").id}
        if request.action in ANNOTATED:
            self.trainer.annotated(request.annotations)
        elif request.action == "PROJECT_UPDATED":
            self._compare((request.project or {}).get("label_config"))
        return {"status": "noted"}

    def train(self, why: str) -> Training:
        """Train soon.

        Raises:
            RequestError: the server is about to end.
        """
        if self.draining:
            raise RequestError(503, "the server is about to end", retry_after=5)
        return self.trainer.start(why)

    def job_status(self, name: str) -> dict[str, Any]:
        """How far a training is.

        Raises:
            RequestError: there is none of this id, or it is forgotten.
        """
        training = self.trainer.find(name)
        if training is None:
            # The status by which servers of 1.x tell a training that is gone.
            raise RequestError(410, f"no training {name} is known")
        return training.to_json()

    def is_training(self) -> dict[str, Any]:
        """Whether one is under way, and the last one."""
        last = self.trainer.last
        return {"is_training": self.trainer.running is not None, "last": None if last is None else last.to_json()}

    def _mine(self, project: object) -> None:
        asked = project_id(project)
        if asked is not None and asked != self.project:
            raise RequestError(
                409, f"this server serves project {self.project}, not {asked}; start another: lsbatch serve --project"
            )

    def _compare(self, label_config: object) -> None:
        """Look at the project again if somebody says that its label config is another one."""
        served = self.keeper.served
        if isinstance(label_config, str) and served is not None and label_config != served.label_config:
            # Only Label Studio itself is believed, and asked.
            self.keeper.ask(fresh=True)
