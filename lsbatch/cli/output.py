"""What people and machines see: tables and JSON on stdout, progress and logs on stderr."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click
from tqdm import tqdm

from lsbatch.progress import Meter

if TYPE_CHECKING:
    from lsbatch.cli.options import Call
    from lsbatch.report import RunReport

__all__ = ["TerminalProgress", "configure_logging", "end_with", "print_json", "print_table"]


class TerminalProgress:
    """Progress bars on a terminal; without one, only what is said.

    Args:
        quiet: say nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: list[Any] = []

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Meter]:
        """See ``Progress.stage``."""
        # Where stderr is closed, there is none.
        silent = self._quiet or sys.stderr is None or not sys.stderr.isatty()
        bar = tqdm(
            total=total,
            desc=f"{name:<11}",
            unit=" tasks",
            disable=silent,
            file=sys.stderr,
            leave=True,
        )
        self._bars.append(bar)
        try:
            yield _Bar(bar)
        finally:
            self._bars.remove(bar)
            bar.close()

    def refresh(self) -> None:
        """See ``Progress.refresh``."""
        for bar in list(self._bars):
            bar.refresh()

    def say(self, message: str) -> None:
        """See ``Progress.say``."""
        if not self._quiet:
            _write(message)


def _write(line: str) -> None:
    # tqdm takes None for stdout, which is for data.
    if sys.stderr is not None:
        tqdm.write(line, file=sys.stderr)


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, tasks: int) -> None:
        """See ``Meter.advance``."""
        self._bar.update(tasks)


class _Handler(logging.Handler):
    """Log lines that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        _write(self.format(record))


def configure_logging(verbosity: int) -> None:
    """Log to stderr: warnings, with 1 also information, with 2 everything of ours; -1 only errors."""
    _never_fail_on_a_letter()
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = _Handler()
    # On the handler too: the log of a run lowers the level of the loggers.
    handler.setLevel(level)
    form = "%(levelname)s: %(message)s" if verbosity < 1 else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(form))
    logger = logging.getLogger("lsbatch")
    for name in ("lsbatch", "lsbatch_connectors", "lsbatch_pipelines"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def _never_fail_on_a_letter() -> None:
    """Whatever the locale says: data is UTF-8, and a terminal shows an escape for what it has no letter for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def end_with(call: Call, report: RunReport) -> NoReturn:
    """Print a run's report and end with its exit code."""
    if call.json:
        print_json(report.to_json())
    else:
        print_table(report.rows())
    raise click.exceptions.Exit(int(report.exit_code))


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Iterable[Sequence[str]], *, header: Sequence[str] = ()) -> None:
    """Columns on stdout, each as wide as it needs."""
    lines = [list(row) for row in ([header] if header else [])] + [list(row) for row in rows]
    if not lines:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
