"""Where every error ends: known, interrupted and unknown take three ways out."""

from __future__ import annotations

import errno
import logging
import os
import platform
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import FrameType
from typing import NoReturn

import click

from lsbatch.errors import ExitCode, LsbatchError, StoppedError

__all__ = ["OutOfTime", "Terminated", "boundary"]

logger = logging.getLogger(__name__)


class Terminated(BaseException):
    """SIGTERM arrived."""

    exit_code = ExitCode.TERMINATED


class OutOfTime(Terminated):
    """The time of the run was up, and what was under way did not end."""

    exit_code = ExitCode.TEMPORARY


@contextmanager
def boundary(secrets: Sequence[str] = ()) -> Iterator[None]:
    """Turn whatever ends a command into one message on stderr and its exit code.

    Args:
        secrets: texts that never appear in a message or report, such as the token. Read when an error arrives, so
            that a list may grow inside.
    """

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except LsbatchError as error:
        logger.debug("the error in full\n%s", _masked(traceback.format_exc().rstrip(), secrets))
        # To have stopped when asked to is no error.
        _say(str(error) if isinstance(error, StoppedError) else f"Error: {error}", error.hint, secrets)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        _say("Interrupted.", "Nothing is lost: give the same command again.", ())
        sys.exit(int(ExitCode.INTERRUPTED))
    except Terminated as end:
        _say("Terminated.", "Nothing is lost: give the same command again.", ())
        sys.exit(int(end.exit_code))
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            _end_as_a_pipe_does()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            # What lsbatch writes itself has an error of its own; this is where stdout goes.
            _say(f"Error: the result cannot be written: {error}", "Make room, and give the same command again.", ())
            sys.exit(int(ExitCode.USAGE))
        _say(f"Error: this is a bug in lsbatch: {type(error).__name__}: {error}", _report(error, secrets), secrets)
        sys.exit(int(ExitCode.BUG))
    finally:
        signal.signal(signal.SIGTERM, before)


def _masked(text: str, secrets: Sequence[str]) -> str:
    # The longest first: one may be a part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _say(message: str, hint: str, secrets: Sequence[str]) -> None:
    click.echo(_masked(message, secrets), err=True)
    if hint:
        click.echo(_masked(hint, secrets), err=True)


def _reader_is_gone() -> bool:
    """Whether nobody reads stdout any more; a connection or a worker's pipe may break too, which is another matter."""
    watched = select.poll()
    watched.register(1, 0)
    return bool(watched.poll(0))


def _end_as_a_pipe_does() -> NoReturn:
    """As any other program whose reader went away: by SIGPIPE, without a word."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    raise AssertionError("SIGPIPE did not end the process")


def _report(error: Exception, secrets: Sequence[str]) -> str:
    """Write versions and the traceback to a file of its own; says where."""
    lines = [
        f"lsbatch {metadata.version('lsbatch')}, Python {platform.python_version()}, {platform.platform()}",
        *(f"{name} {metadata.version(name)}" for name in ("label-studio-sdk", "dask", "pyarrow", "click")),
        "",
        *traceback.format_exception(error),
    ]
    try:
        handle, name = tempfile.mkstemp(prefix="lsbatch-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_masked("\n".join(lines), secrets))
    except OSError as fault:
        return f"Details cannot be written: {fault.strerror or fault}"
    return f"Details are in {name}"
