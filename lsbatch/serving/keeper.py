"""The model that answers now, and how another version takes its place without a request noticing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

from lsbatch.errors import LsbatchError, RefusedError, TransientError
from lsbatch.serving.background import background, in_thread
from lsbatch.serving.model import Limits, Model, Served
from lsbatch.serving.request_error import RequestError

__all__ = ["Keeper", "ModelSource", "Models", "State"]

logger = logging.getLogger(__name__)
#: How soon it is tried again after Label Studio or the store did not answer, in seconds.
RETRY_SECONDS = 2.0

#: loading: not yet; ready: answers; untrained: there is no model version yet; failed: what there is cannot be loaded.
State = Literal["loading", "ready", "untrained", "failed"]


class ModelSource(Protocol):
    """Says what should be loaded. Called in a thread; may block."""

    def __call__(self, *, fresh: bool) -> Served | None:
        """What is in use now; None where the pipeline has no model version yet.

        Args:
            fresh: ask Label Studio for the project's label config again.

        Raises:
            LsbatchError: it cannot be found out, or cannot be used.
        """
        ...


class Models(ModelSource, Protocol):
    """As ``ModelSource``, and what there is besides. May block."""

    def versions(self) -> list[str]:
        """Model versions that are stored for the project, oldest first.

        Raises:
            LsbatchError: they cannot be found out.
        """
        ...

    def why_not(self, label_config: str) -> str | None:
        """Why the pipeline cannot serve a label config, in words, or None if it can."""
        ...


class Keeper:
    """Keeps the model in use loaded.

    Args:
        source: says which it is.
        limits: of each model.
        poll_seconds: how often the source is asked.
        changed: told the version whenever another one answers.

    Attributes:
        problem: why the newest state could not be loaded, in words; empty when all is well.
    """

    def __init__(
        self,
        source: ModelSource,
        limits: Limits,
        poll_seconds: float,
        changed: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.problem = ""
        self._source = source
        self._limits = limits
        self._poll_seconds = poll_seconds
        self._changed = changed
        self._model: Model | None = None
        self._state: State = "loading"
        self._fresh = True
        self._asked = asyncio.Event()
        self._settled = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> State:
        """How far it is."""
        return "ready" if self._model is not None else self._state

    @property
    def served(self) -> Served | None:
        """What answers now."""
        return None if self._model is None else self._model.served

    @property
    def waiting(self) -> int:
        """How many tasks wait for the model in use."""
        return 0 if self._model is None else self._model.waiting

    def ask(self, *, fresh: bool = False) -> None:
        """Look soon whether another version is in use.

        Args:
            fresh: and whether the project's label config has changed.
        """
        self._fresh = self._fresh or fresh
        self._asked.set()

    async def settled(self, seconds: float) -> None:
        """Return when the first look is over, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            return

    def model(self) -> Model:
        """The model in use. A request keeps the one that it began with.

        Raises:
            RequestError: there is none.
        """
        if self._model is not None:
            return self._model
        if self._state == "untrained":
            project = self._limits.project
            raise RequestError(
                503, f"no model is trained yet: annotate, then start a training, or lsbatch retrain --project {project}"
            )
        raise RequestError(503, self.problem or "the model is being loaded", retry_after=5)

    async def run(self) -> None:
        """Look for another version until cancelled."""
        while True:
            self._asked.clear()
            fresh, self._fresh = self._fresh, False
            again = await self._look(fresh=fresh)
            self._settled.set()
            try:
                async with asyncio.timeout(RETRY_SECONDS if again else self._poll_seconds):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _look(self, *, fresh: bool) -> bool:
        """Load what is in use if it is not loaded; whether that should be tried again soon."""
        try:
            served = await in_thread(partial(self._source, fresh=fresh))
            if served is None:
                self._state, self.problem = "untrained", ""
            elif self._model is None or self._model.served.recipe.key != served.recipe.key:
                await self._swap(await Model.load(served, self._limits))
            else:
                self.problem = ""
            return False
        except LsbatchError as error:
            self._note(error)
            self._fresh = self._fresh or fresh
            if isinstance(error, TransientError):
                return True
            self._state = "failed"
            if isinstance(error, RefusedError) and self._model is not None:
                # What it predicts does not fit the project any more.
                self._retire()
            return False
        except Exception as error:
            # Looking goes on: what answers now goes on answering, and the next look may do better.
            self._fresh = self._fresh or fresh
            self._state = "failed"
            self._note(error)
            return True

    def _note(self, error: Exception) -> None:
        known = isinstance(error, LsbatchError)
        words = (
            f"{error} {error.hint}".strip() if isinstance(error, LsbatchError) else f"{type(error).__name__}: {error}"
        )
        if words != self.problem:
            logger.error("the model in use cannot be loaded: %s", words, exc_info=None if known else error)
        self.problem = words

    async def _swap(self, model: Model) -> None:
        self._retire()
        self._model, self.problem = model, ""
        logger.info("model version %s answers now", model.served.model_version)
        self._changed(model.served.model_version)

    def _retire(self) -> None:
        """Let the model in use answer what it was asked, and end."""
        if self._model is not None:
            closing = background(self._model.close(), "closing a model")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._model = None

    async def close(self, seconds: float) -> None:
        """End every model; what is not answered within so many seconds is lost."""
        self._retire()
        if closing := list(self._closing):
            await asyncio.wait(closing, timeout=seconds)
            for task in closing:
                task.cancel()
            await asyncio.gather(*closing, return_exceptions=True)
