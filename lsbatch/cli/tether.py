"""Run lsbatch as the child of a server that it must not outlive: ``python -m lsbatch.cli.tether retrain ...``.

Its stdin is a pipe that the server holds open and never writes to. When the server is gone, however it went, the pipe
is at its end, and this process ends with all that it started: it is the leader of a group of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["main"]


def main() -> None:
    """Carry out the command line."""
    pipe = os.dup(0)
    # What the command starts neither reads from the pipe nor ends by it.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    from lsbatch.cli import main as lsbatch

    lsbatch(args=sys.argv[1:], prog_name="lsbatch")


def _end_with(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
