"""Where every error ends: known, interrupted and unknown take three ways out."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType

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
        _say("Interrupted.", "What is done is kept: the same command continues.", ())
        sys.exit(int(ExitCode.INTERRUPTED))
    except Terminated as end:
        _say("Terminated.", "What is done is kept: the same command continues.", ())
        sys.exit(int(end.exit_code))
    except BrokenPipeError:
        # The reader of stdout went away; without this the interpreter complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(ExitCode.BUG))
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        report = _report(error, secrets)
        _say(f"Error: this is a bug in lsbatch: {type(error).__name__}: {error}", f"Details are in {report}", secrets)
        sys.exit(int(ExitCode.BUG))
    finally:
        signal.signal(signal.SIGTERM, before)


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _say(message: str, hint: str, secrets: Sequence[str]) -> None:
    click.echo(_masked(message, secrets), err=True)
    if hint:
        click.echo(_masked(hint, secrets), err=True)


def _report(error: Exception, secrets: Sequence[str]) -> Path:
    """Write versions and the traceback to a file of its own."""
    lines = [
        f"lsbatch {metadata.version('lsbatch')}, Python {platform.python_version()}, {platform.platform()}",
        *(f"{name} {metadata.version(name)}" for name in ("label-studio-sdk", "dask", "pyarrow", "click")),
        "",
        *traceback.format_exception(error),
    ]
    handle, name = tempfile.mkstemp(prefix="lsbatch-error-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_masked("\n".join(lines), secrets))
    return Path(name)
