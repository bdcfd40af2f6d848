"""The tree of errors; the type says what happens next.

LsbatchError
├── ConfigError      the user's settings or data; nothing was done          exit 2
├── RefusedError     Label Studio said no: token, permission, no project    exit 5
├── GateError        a quality gate failed; nothing imported or promoted    exit 6
├── AuditError       the server does not hold what the run sent             exit 7
├── BudgetError      too many tasks failed                                  exit 4
├── LockedError      another run works on this project and version          exit 75
├── StoppedError     a signal or a clock asked for the end; resumable       exit 75, 130, 143
├── TransientError   the request was surely not carried out; try it again   exit 75
├── AmbiguousError   the request may have been carried out; read back first exit 75
├── PermanentError   refused for good; sending it again changes nothing     exit 5
└── PipelineError    a pipeline broke its contract or raised                exit 1
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

__all__ = [
    "AmbiguousError",
    "AuditError",
    "BudgetError",
    "ConfigError",
    "ExitCode",
    "GateError",
    "LockedError",
    "LsbatchError",
    "PermanentError",
    "PipelineError",
    "RefusedError",
    "StoppedError",
    "TransientError",
]


class ExitCode(IntEnum):
    """What a process of lsbatch ends with. The numbers are an interface: they never change."""

    DONE = 0
    BUG = 1
    USAGE = 2
    QUARANTINED = 3
    BUDGET_SPENT = 4
    REFUSED = 5
    GATE_FAILED = 6
    AUDIT_FAILED = 7
    TEMPORARY = 75
    INTERRUPTED = 130
    TERMINATED = 143


class LsbatchError(Exception):
    """Something that lsbatch expected to be able to go wrong.

    Args:
        message: what failed, and on which task, chunk or setting.
        hint: the command or setting that helps.

    Attributes:
        report: of the run that it ended, in JSON's types; None where none was under way.
    """

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.report: dict[str, Any] | None = None

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword arguments are lost by the default reduction, and errors cross processes.
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


def _rebuild(kind: type[LsbatchError], message: str, state: dict[str, Any]) -> LsbatchError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class ConfigError(LsbatchError):
    """The settings, or the data they point at, cannot be used. Nothing was written."""

    exit_code = ExitCode.USAGE


class RefusedError(LsbatchError):
    """Label Studio refused: token, permission, no such project, a label config that does not fit."""

    exit_code = ExitCode.REFUSED


class GateError(LsbatchError):
    """A quality gate failed. Nothing was imported or promoted."""

    exit_code = ExitCode.GATE_FAILED


class AuditError(LsbatchError):
    """The server does not hold exactly one prediction for each task that the run predicted."""

    exit_code = ExitCode.AUDIT_FAILED


class BudgetError(LsbatchError):
    """More tasks failed than the error budget allows."""

    exit_code = ExitCode.BUDGET_SPENT


class LockedError(LsbatchError):
    """Another run holds the lock of this server, project and version."""

    exit_code = ExitCode.TEMPORARY


class StoppedError(LsbatchError):
    """The run was asked to stop and did so in order; the same command continues.

    Args:
        exit_code: what the process ends with: 130 or 143 after a signal, 75 when its time was up.
    """

    exit_code = ExitCode.TEMPORARY

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode = ExitCode.TEMPORARY) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class TransientError(LsbatchError):
    """The request was surely not carried out. Repeating it is safe.

    Args:
        retry_after: seconds that the server asked to wait, or None.
    """

    exit_code = ExitCode.TEMPORARY

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class AmbiguousError(LsbatchError):
    """The request may have been carried out. A write must be read back before it is repeated.

    Args:
        finished: Label Studio itself answered, so it no longer works on the request; else its rows may still appear.
        retry_after: seconds that the server asked to wait, or None.
    """

    exit_code = ExitCode.TEMPORARY

    def __init__(
        self, message: str, *, hint: str = "", finished: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.finished = finished
        self.retry_after = retry_after

    def as_transient(self) -> TransientError:
        """The same for a write that may be repeated, such as a deletion by id."""
        return TransientError(self.message, hint=self.hint, retry_after=self.retry_after)


class PermanentError(LsbatchError):
    """Refused for good; repeating it changes nothing.

    Args:
        status: the HTTP status, or None when the refusal did not come over HTTP.
    """

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class PipelineError(LsbatchError):
    """A pipeline raised, or broke its contract."""
