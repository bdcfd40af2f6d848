"""Work that goes on beside the requests, and whose failure must not go unnoticed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["background", "in_thread"]

T = TypeVar("T")

logger = logging.getLogger(__name__)


def background(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    """Begin some work.

    Args:
        work: is to end by itself or by being cancelled.
        what: it does, in words; logged when it ends by an error, which is a bug.
    """

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("%s ended, and this is a bug in lsbatch", what, exc_info=error)

    task = asyncio.create_task(work, name=what)
    task.add_done_callback(ended)
    return task


async def in_thread(function: Callable[[], T]) -> T:
    """What a function returns that may wait for others; in a thread for which the end of the server does not wait."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(value)  # type: ignore[arg-type]
        else:
            answer.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = function()
        except BaseException as error:  # it is raised where it is waited for
            failure = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, daemon=True).start()
    return await answer
