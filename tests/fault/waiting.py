"""Wait for what another thread or process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["until"]

LOOK_SECONDS = 0.005


def until(condition: Callable[[], bool], *, seconds: float = 30.0, look_seconds: float = LOOK_SECONDS) -> None:
    """Return as soon as the condition holds; it is looked at every so often.

    Raises:
        AssertionError: it did not within this time.
    """
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        pause.wait(look_seconds)
