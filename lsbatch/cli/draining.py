"""The first signal ends a run in order, the second at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lsbatch.cli.boundary import Terminated
from lsbatch.errors import ExitCode
from lsbatch.stopping import Stop

__all__ = ["draining"]

#: What is under way gets this long to end after the first signal, in seconds; then the run stops at once.
DRAIN_SECONDS = 30.0
_EXITS = {
    signal.SIGINT: ("interrupted", ExitCode.INTERRUPTED, KeyboardInterrupt),
    signal.SIGTERM: ("terminated", ExitCode.TERMINATED, Terminated),
}


@contextmanager
def draining() -> Iterator[Stop]:
    """A ``Stop`` that the first SIGINT or SIGTERM asks; the second, or half a minute, raises as without it."""
    stop = Stop()
    first: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if first:
            raise _EXITS[signal.Signals(first[0] if number == signal.SIGALRM else number)][2]
        first.append(number)
        reason, code, _ = _EXITS[signal.Signals(number)]
        stop.ask(reason, code)
        signal.setitimer(signal.ITIMER_REAL, DRAIN_SECONDS)
        # Not through Python's buffers, which the handler may have interrupted.
        os.write(2, b"Stopping: what is under way is finished first. Once more stops at once.\n")

    numbers = (*_EXITS, signal.SIGALRM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, old in before.items():
            signal.signal(number, old)
