"""One process with one loaded model, which may die or hang without harm to the server.

It is the leader of a group of its own, so that whatever the pipeline started ends with it (unless that began a group of
its own), and it ends when the server does, however that ends. After a death or a call that took too long, the next call
starts another process; no lock and no pipe is shared with the one before.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from lsbatch.entities import Outcome, Task
from lsbatch.errors import LsbatchError, PipelineError
from lsbatch.executor import PredictorFactory
from lsbatch.predictor import Predictor, raised
from lsbatch.serving.logs import configure

__all__ = ["LateError", "LostError", "ModelProcess"]

#: Longest time to build a model, in seconds.
BUILD_SECONDS = 600.0
#: How often it is asked whether the process lives, in seconds: what the pipeline started may hold its pipes open.
LOOK_SECONDS = 0.5

#: Processes are forked from one that has loaded what every model needs: one that died is there again at once.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["lsbatch.serving.model_process", "lsbatch.pipeline_spec", "label_studio_sdk.label_interface"]
)


class LostError(PipelineError):
    """The call had no answer: its process died, or was killed because it took too long."""


class LateError(LostError):
    """It was killed because it took too long."""


class ModelProcess:
    """A process that builds a predictor and calls it. One call at a time.

    Args:
        recipe: builds the predictor, in the process.
        sample: tasks that it predicts first, so that what is loaded late is loaded before the first request.
        call_seconds: longest time of a call.
    """

    def __init__(self, recipe: PredictorFactory, sample: Sequence[Task], call_seconds: float) -> None:
        self._recipe = recipe
        self._sample = list(sample)
        self._call_seconds = call_seconds
        # Of its own, so that no other call of the server waits for this one, which waits for the process.
        self._thread = ThreadPoolExecutor(1, "model")
        self._child: _Child | None = None
        self._starting = threading.Lock()
        self._stopped = False

    async def warm_up(self) -> None:
        """Build the model, if this process has not yet. May be repeated.

        Raises:
            LsbatchError: it cannot be built.
            LostError: the process died of it.
        """
        error = await self._call(BUILD_SECONDS, _warm, self._sample)
        if error is not None:
            raise error

    async def predict(self, tasks: Sequence[Task], context: Mapping[str, Any] | None) -> tuple[list[Outcome], float]:
        """One outcome for each task, in their order, and the seconds that the pipeline took.

        A process that died since the last call is no fault of these tasks: the model is built again first.

        Raises:
            LsbatchError: it cannot be built again.
            LostError: the process died.
            LateError: it was killed after ``call_seconds``.
        """
        if self._child is None or not self._child.alive:
            await self.warm_up()
        answer: tuple[list[Outcome], float] = await self._call(self._call_seconds, _predict, list(tasks), context)
        return answer

    async def _call(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
        asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask, function, arguments)
        try:
            done, _ = await asyncio.wait({asking}, timeout=seconds)
            if not done:
                self._kill()
                await asyncio.wait({asking})
                if asking.exception() is not None:
                    raise LateError(f"the model took longer than {seconds:g} s and was killed")
            return asking.result()
        finally:
            # Nobody reads the answer of a call that nobody waits for.
            asking.cancel()

    def _ask(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """Runs in the thread."""
        with self._starting:
            if self._stopped:
                raise LostError("the model is about to end")
            if self._child is None or not self._child.alive:
                if self._child is not None:
                    self._child.kill()
                self._child = _Child(self._recipe)
            child = self._child
        try:
            return child.ask(function, arguments)
        except LostError:
            child.kill()
            raise

    def _kill(self) -> None:
        with self._starting:
            if self._child is not None:
                self._child.kill()

    def stop(self) -> None:
        """End the process. What it still works on is lost. Blocks for a moment."""
        with self._starting:
            self._stopped = True
            if self._child is not None:
                self._child.kill()
        self._thread.shutdown()


class _Child:
    """The process and the pipe to it. A ``kill`` from another thread ends ``ask``."""

    def __init__(self, recipe: PredictorFactory) -> None:
        try:
            self._pipe, theirs = _context.Pipe()
        except OSError as error:
            raise LostError(f"the model's process cannot be started: {error}") from error
        # No daemon: those may have no processes of their own, and a pipeline may need some.
        self._process = _context.Process(target=_main, args=(theirs, recipe), name="lsbatch-model", daemon=False)
        try:
            self._process.start()
        except OSError as error:
            self._pipe.close()
            raise LostError(f"the model's process cannot be started: {error}") from error
        finally:
            theirs.close()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def ask(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """What the function returns in the process.

        Raises:
            LostError: it raised something, or the process died.
        """
        try:
            self._pipe.send((function, arguments))
            while not connection.wait([self._pipe], LOOK_SECONDS):
                if not self.alive and not self._pipe.poll():
                    raise EOFError
            good, answer = self._pipe.recv()
        except (OSError, EOFError) as error:
            self.kill()
            raise LostError(f"the model's process ended with {self._code()}") from error
        except Exception as error:  # somebody else's objects: reading them may raise anything
            raise LostError(f"the model's answer cannot be read: {raised(error)}") from error
        if not good:
            raise LostError(f"the model's process raised {answer}")
        return answer

    def kill(self) -> None:
        """With all that it started. May be repeated."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # It may not yet be the leader of its group.
        self._process.kill()
        self._process.join()

    def _code(self) -> str:
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


# ------------------------------------------------------------------------------------------------ in the process

_recipe: PredictorFactory | None = None
_predictor: Predictor | None = None


def _main(pipe: Connection, recipe: PredictorFactory) -> None:
    """Carry out calls until the server is gone; then this process ends, with all that it started."""
    global _recipe
    # Ctrl-C in a terminal reaches the whole group; the server ends this process when nothing is under way.
    os.setsid()
    threading.Thread(target=_end_with_server, daemon=True).start()
    _recipe = recipe
    configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            break
        try:
            answer = True, function(*arguments)
        except BaseException as error:  # somebody else's code
            answer = False, raised(error)
        try:
            pipe.send(answer)
        except OSError:  # nobody reads it any more
            break
    os.killpg(0, signal.SIGKILL)


def _end_with_server() -> None:
    server = multiprocessing.parent_process()
    assert server is not None
    server.join()
    os.killpg(0, signal.SIGKILL)


def _warm(sample: Sequence[Task]) -> LsbatchError | None:
    global _predictor
    if _predictor is None:
        assert _recipe is not None
        try:
            built = _recipe()
            built.warm_up()
        except LsbatchError as error:
            return error
        if sample:
            built.predict_chunk(sample)
        _predictor = built
    return None


def _predict(tasks: Sequence[Task], context: Mapping[str, Any] | None) -> tuple[list[Outcome], float]:
    assert _predictor is not None
    started = time.perf_counter()
    outcomes = _predictor.predict_chunk(tasks, context)
    return outcomes, time.perf_counter() - started
