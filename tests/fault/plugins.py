"""What a run's process can be told to suffer: see ``fault.driver``."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

__all__ = ["ClockJump", "CountWrites", "KillAtWrite", "LimitFileSize", "Moment", "Write"]

T = TypeVar("T")

#: How a state reaches the disk: a transaction that ends, or a whole file that takes its name.
Write = Literal["commit", "rename"]
Moment = Literal["before", "after"]
Told = Callable[[Write, Moment], None]

#: Statements that write at once where no transaction is open.
STATEMENTS = {"INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER"}


class _Watched(sqlite3.Connection):
    """A connection that tells of each commit just before and just after it."""

    tell: ClassVar[Told]

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """See ``sqlite3.Connection``."""
        return self._told(_commits(sql, self), super().execute, sql, *values)

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """See ``sqlite3.Connection``."""
        return self._told(_commits(sql, self), super().executemany, sql, *values)

    def executescript(self, sql: str) -> sqlite3.Cursor:
        """See ``sqlite3.Connection``."""
        return self._told(True, super().executescript, sql)

    def commit(self) -> None:
        """See ``sqlite3.Connection``."""
        self._told(self.in_transaction, super().commit)

    def __exit__(self, *error: Any) -> Any:
        """See ``sqlite3.Connection``."""
        return self._told(self.in_transaction, super().__exit__, *error)

    def _told(self, commits: bool, call: Callable[..., T], *values: Any) -> T:
        if commits:
            type(self).tell("commit", "before")
        answer = call(*values)
        if commits:
            type(self).tell("commit", "after")
        return answer


def _commits(sql: str, connection: sqlite3.Connection) -> bool:
    word = sql.split(None, 1)[0].upper()
    return word in {"COMMIT", "END"} or (word in STATEMENTS and not connection.in_transaction)


def _watch(tell: Told) -> None:
    """Be told of every commit and every rename of this process from now on."""
    connect, replace = sqlite3.connect, os.replace
    _Watched.tell = staticmethod(tell)

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **{"factory": _Watched, **options})
        return connection

    def replaced(*arguments: Any, **options: Any) -> None:
        tell("rename", "before")
        replace(*arguments, **options)
        tell("rename", "after")

    sqlite3.connect = connected  # type: ignore[assignment]
    os.replace = replaced


@dataclass(frozen=True)
class CountWrites:
    """Note every write of a run in a file."""

    file: Path

    def __call__(self) -> None:
        """See ``fault.driver.Plugin``."""

        def tell(write: Write, moment: Moment) -> None:
            if moment == "before":
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(f"{write}\n")

        _watch(tell)

    def counted(self) -> Counter[str]:
        """How many there were of each kind."""
        return Counter(self.file.read_text(encoding="utf-8").splitlines())


@dataclass(frozen=True)
class KillAtWrite:
    """SIGKILL just before or just after a write of the run.

    Attributes:
        write: of which kind.
        at: which one of them, from 1.
        moment: on which side of it.
    """

    write: Write
    at: int
    moment: Moment

    def __call__(self) -> None:
        """See ``fault.driver.Plugin``."""
        seen: Counter[tuple[Write, Moment]] = Counter()

        def tell(write: Write, moment: Moment) -> None:
            seen[write, moment] += 1
            if (write, moment) == (self.write, self.moment) and seen[write, moment] == self.at:
                os.kill(os.getpid(), signal.SIGKILL)

        _watch(tell)


@dataclass(frozen=True)
class LimitFileSize:
    """No file may grow beyond this size: a write beyond it fails, as on a full disk.

    Attributes:
        most_bytes: the limit.
    """

    most_bytes: int

    def __call__(self) -> None:
        """See ``fault.driver.Plugin``."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most_bytes, self.most_bytes))


@dataclass(frozen=True)
class ClockJump:
    """The wall clock jumps in the middle of the run; the monotonic one does not.

    Attributes:
        seconds: by how much, back when negative.
        reads: after so many readings of the clock; 0 for a clock that is wrong from the start.
    """

    seconds: float
    reads: int = 0

    def __call__(self) -> None:
        """See ``fault.driver.Plugin``."""
        real, left = time.time, iter(range(self.reads))

        def jumped() -> float:
            return real() + (self.seconds if next(left, None) is None else 0.0)

        time.time = jumped
