"""What is tried again, and for how long. Only calls that are safe to repeat come here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    wait_exponential,
    wait_random,
)

from lsbatch.errors import TransientError

__all__ = ["LONGEST_WAIT_SECONDS", "retry_transient", "wait_seconds"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 30.0
_backoff = wait_exponential(multiplier=0.25, max=LONGEST_WAIT_SECONDS) + wait_random(0, 0.25)


def wait_seconds(state: RetryCallState) -> float:
    """Seconds to wait before the next attempt: what the server asked for, else a growing, jittered time."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, TransientError) else None
    return _backoff(state) if asked is None else min(asked, 10 * LONGEST_WAIT_SECONDS)


def retry_transient(
    call: Callable[[], T],
    *,
    seconds: float,
    level: int = logging.WARNING,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until it does not raise ``TransientError``, for at most ``seconds`` in all.

    Args:
        call: may be repeated.
        seconds: in all.
        level: of the log's line about each attempt that failed.
        sleep: waits.

    Raises:
        TransientError: that of the last attempt.
    """

    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        logger.log(level, "%s; attempt %d, trying again in %.1f s", error, state.attempt_number, wait)

    def too_late(state: RetryCallState) -> bool:
        # Before the wait: a server may ask for more time than there is.
        return (state.seconds_since_start or 0.0) + wait_seconds(state) > seconds

    policy = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=too_late,
        wait=wait_seconds,
        before_sleep=log,
        reraise=True,
        sleep=sleep,
    )
    return policy(call)
