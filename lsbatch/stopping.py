"""A request to stop a run in order: what is under way is finished and recorded, nothing new begins."""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lsbatch.errors import ExitCode, StoppedError

__all__ = ["Stop"]


class Stop:
    """Set once, from a signal handler, a clock or another thread; asked by everything that begins something new.

    Args:
        on_ask: called once when somebody asks, in the thread of whoever does.
    """

    def __init__(self, on_ask: Callable[[], None] = lambda: None) -> None:
        self._on_ask = on_ask
        self._asked = False
        self._reason = ""
        self._exit_code = ExitCode.TEMPORARY
        # Not an Event: a signal handler that sets one waits for ever when it interrupts a wait for the same one.
        self._wakes, self._wake = os.pipe()
        weakref.finalize(self, _close, self._wakes, self._wake)

    def ask(self, reason: str, exit_code: ExitCode) -> None:
        """Ask for the end; the first reason counts. Does no more than a signal handler may."""
        if not self._asked:
            self._reason, self._exit_code = reason, exit_code
            self._asked = True
            # Never read, so that everybody who waits is woken, now and later.
            os.write(self._wake, b".")
            self._on_ask()

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._asked

    def check(self) -> None:
        """Return if nobody asked.

        Raises:
            StoppedError: somebody did.
        """
        if self.asked:
            raise StoppedError(
                f"Stopped: {self._reason}.",
                hint="What is done is kept: the same command continues.",
                exit_code=self._exit_code,
            )

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until somebody asks.

        Raises:
            StoppedError: somebody did.
        """
        woken = select.poll()
        woken.register(self._wakes, select.POLLIN)
        woken.poll(max(0.0, seconds) * 1_000)
        self.check()

    @contextmanager
    def after(self, seconds: float | None) -> Iterator[None]:
        """Ask by itself so long after entering, unless the context ends before; None for never. A clock may jump."""
        if seconds is None:
            yield
            return
        began = time.monotonic()
        timer = threading.Timer(
            seconds,
            lambda: self.ask(f"{time.monotonic() - began:.0f} s have passed (run.max_runtime)", ExitCode.TEMPORARY),
        )
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
