"""The log of a run as JSON lines, for machines and for the morning after."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from lsbatch.run_dir import disk_errors

__all__ = ["LOGGERS", "JsonLines", "logged"]

#: The loggers of all that is ours.
LOGGERS = ("lsbatch", "lsbatch_connectors", "lsbatch_pipelines")


class JsonLines(logging.Formatter):
    """A record as one JSON object; what it carries as ``fields`` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        value = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            value["traceback"] = self.formatException(record.exc_info)
        return json.dumps(value, ensure_ascii=False)


class _Log(logging.FileHandler):
    """A log that a full disk cuts short: that is told of by what must be written, not by the log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """See ``logging.Handler``."""

    def close(self) -> None:
        """See ``logging.Handler``; what could not be written is given up."""
        with suppress(OSError):
            super().close()


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append what is logged inside, from information upwards, to a file of JSON lines.

    Raises:
        ConfigError: the file cannot be opened.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Log(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    handler.setLevel(logging.INFO)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
