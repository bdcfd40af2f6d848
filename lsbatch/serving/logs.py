"""The log of a server: JSON lines on stderr for machines, plain lines on a terminal."""

from __future__ import annotations

import logging
import sys

from lsbatch.run_log import LOGGERS, JsonLines

__all__ = ["configure"]

#: What uvicorn has to say that is not about a single request.
UVICORN = ("uvicorn.error",)


def configure(*, quiet: bool = False) -> None:
    """Log everything of ours from information upwards to stderr, each request a line. May be repeated.

    Args:
        quiet: only errors.
    """
    handler = logging.StreamHandler(sys.stderr)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s") if terminal else JsonLines())
    for name in (*LOGGERS, *UVICORN):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.ERROR if quiet else logging.INFO if name in LOGGERS else logging.WARNING)
        logger.propagate = False
