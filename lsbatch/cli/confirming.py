"""Nothing that cannot be taken back happens unasked."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

import click

from lsbatch.cli.boundary import Terminated
from lsbatch.errors import ConfigError

if TYPE_CHECKING:
    from lsbatch.cli.options import Call

__all__ = ["ask", "must_be_able_to_ask"]


def must_be_able_to_ask(command: str, *, yes: bool) -> None:
    """Return if somebody can be asked, or need not be.

    Raises:
        ConfigError: there is no terminal to ask at.
    """
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise ConfigError(
            f"{command} asks before it changes anything, and there is no terminal to ask at",
            hint="Look first with --dry-run, then give --yes.",
        )


def ask(call: Call, question: str, rows: Sequence[tuple[str, str]], *, yes: bool) -> bool:
    """Show what will happen, and whether it may: on stderr, since stdout is for the result.

    Raises:
        KeyboardInterrupt, Terminated: a signal is the answer.
    """
    width = max((len(label) for label, _ in rows), default=0)
    lines = [f"{label.ljust(width)}  {value}" for label, value in rows]
    if yes:
        for line in lines:
            call.progress.say(line)
        return True
    for line in lines:
        click.echo(line, err=True)
    return _answered(question)


def _answered(question: str) -> bool:
    """The answer; nothing is under way that a signal would have to wait for."""
    ended: list[type[BaseException]] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ended.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        # The end of what is typed is a no.
        if ended:
            raise ended[0] from None
        return False
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
