"""What people and machines see: tables and JSON on stdout, progress and logs on stderr."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click
from tqdm import tqdm

from lsbatch.progress import Meter

if TYPE_CHECKING:
    from lsbatch.cli.options import Call

__all__ = ["Report", "TerminalProgress", "configure_logging", "end_with", "print_json", "print_table", "worst"]


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


class Report(Protocol):
    """What a command did."""

    @property
    def exit_code(self) -> int:
        """What the process should end with."""
        ...

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        ...

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the table for people."""
        ...


def end_with(call: Call, *reports: Report) -> NoReturn:
    """Print the report of a run, or a list of several, and end with the exit code of the one that went worst."""
    if call.json:
        print_json(reports[0].to_json() if len(reports) == 1 else [report.to_json() for report in reports])
    else:
        for number, report in enumerate(reports):
            if number:
                click.echo()
            print_table(report.rows())
    raise click.exceptions.Exit(worst(reports))


def worst(reports: Iterable[Report]) -> int:
    """The exit code of the one that went worst."""
    return max((int(report.exit_code) for report in reports), default=0)


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
