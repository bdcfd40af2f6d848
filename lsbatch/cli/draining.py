"""The first signal ends a run in order, the second at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lsbatch.cli.boundary import OutOfTime, Terminated
from lsbatch.errors import ExitCode
from lsbatch.stopping import Stop

__all__ = ["draining"]

#: What is under way gets this long to end after the first signal, in seconds; then the run stops at once.
DRAIN_SECONDS = 30.0
_EXITS = {
    signal.SIGINT: ("interrupted (Ctrl-C)", ExitCode.INTERRUPTED, KeyboardInterrupt),
    signal.SIGTERM: ("terminated (SIGTERM)", ExitCode.TERMINATED, Terminated),
}


@contextmanager
def draining() -> Iterator[Stop]:
    """A ``Stop`` that the first SIGINT or SIGTERM asks; the second raises, and so does what takes too long to end."""

    def limit() -> None:
        signal.setitimer(signal.ITIMER_REAL, DRAIN_SECONDS)

    stop = Stop(on_ask=limit)
    first: list[signal.Signals] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            # What is under way does not end. The clock may have asked, and no signal at all.
            raise _EXITS[first[0]][2] if first else OutOfTime
        if stop.asked:
            raise _EXITS[signal.Signals(number)][2]
        first.append(signal.Signals(number))
        reason, code, _ = _EXITS[first[0]]
        # Not through Python's buffers, which the handler may have interrupted.
        os.write(2, b"Stopping: what is under way is finished first. Once more stops at once.\n")
        stop.ask(reason, code)

    numbers = (*_EXITS, signal.SIGALRM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, old in before.items():
            signal.signal(number, old)
