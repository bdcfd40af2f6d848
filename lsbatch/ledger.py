"""The durable record of a run: chunk states, send intents, dead letters. SQLite, reopened after a crash."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsbatch.chunks import Chunk, ChunkState, check_transition
from lsbatch.entities import DeadLetter, TaskId
from lsbatch.errors import ConfigError

__all__ = ["ImportBatch", "Ledger", "age_seconds", "boot_id"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, first_task INTEGER NOT NULL, last_task INTEGER NOT NULL,
    tasks INTEGER NOT NULL, predicted INTEGER NOT NULL DEFAULT 0, batch INTEGER);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT, sent_at REAL NOT NULL, uptime REAL NOT NULL, boot TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1, settled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS dead_letters (
    task_id INTEGER PRIMARY KEY, stage TEXT NOT NULL, cause TEXT NOT NULL, attempts INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS replaced (prediction_id INTEGER PRIMARY KEY, task_id INTEGER NOT NULL, batch INTEGER);
"""
#: Raised when a table changes, so that a ledger of another lsbatch is not misread.
_FORMAT = 2
_CHUNK = "SELECT number, state, first_task, last_task, tasks, predicted FROM chunks"


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """Chunks sent together.

    Attributes:
        number: unique in the run.
        age_seconds: how long ago the last request of it had left when it was read from the ledger.
        attempts: how often it was taken up.
        chunks: whole ones, ascending.
    """

    number: int
    age_seconds: float
    attempts: int
    chunks: tuple[Chunk, ...]


def boot_id() -> str:
    """Differs from one start of this machine to the next, where the system tells (Linux)."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def age_seconds(sent_at: float, uptime: float, boot: str) -> float:
    """Seconds since then: by the clock that never jumps if the machine has run since, else by the wall clock."""
    if boot and boot == boot_id() and time.monotonic() >= uptime:
        return time.monotonic() - uptime
    return max(0.0, time.time() - sent_at)


class Ledger:
    """One run's ledger. Every method that changes it has committed to the disk when it returns. Threads may share it.

    Args:
        path: the file; made when missing.

    Raises:
        ConfigError: the file is damaged or of another lsbatch, or the disk is full or read-only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        self._db.execute("PRAGMA synchronous = FULL")
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and found != _FORMAT:
            raise ConfigError(
                f"the ledger {self.path} was written by another version of lsbatch",
                hint="Start over with --no-resume: tasks that Label Studio already holds are left out.",
            )
        # The number comes last: a ledger that lacks it has no state yet, or is of another version.
        self._db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version = {_FORMAT};COMMIT;")

    def close(self) -> None:
        """Close the file, once no other thread is at work in it; who comes later is told that it cannot be used."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"the ledger {self.path} cannot be used: {error}",
                hint="If the disk is full or read-only, mend that and run the same command again. If the file is "
                "damaged, start over with --no-resume: tasks that Label Studio already holds are left out.",
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite may have rolled back itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._guarded():
            return self._db.execute(sql, values).fetchall()

    # -------------------------------------------------------------------------------------------- facts

    def fact(self, name: str) -> str | None:
        """A single fact about the run, or None."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def state_fact(self, name: str, value: str) -> None:
        """State a fact; a later statement of the same name replaces it."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # -------------------------------------------------------------------------------------------- chunks

    def chunks(self, *states: ChunkState) -> list[Chunk]:
        """Chunks in one of these states (any, when none is given), in ascending order of their tasks."""
        wanted = states or tuple(ChunkState)
        marks = ",".join("?" * len(wanted))
        rows = self._rows(f"{_CHUNK} WHERE state IN ({marks}) ORDER BY first_task", *wanted)
        return [_chunk(row) for row in rows]

    def plan(self, first_task: int, last_task: int, tasks: int) -> Chunk:
        """Add the next chunk, ``PLANNED``."""
        with self._transaction() as db:
            (number,) = db.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM chunks").fetchone()
            db.execute(
                "INSERT INTO chunks (number, state, first_task, last_task, tasks) VALUES (?, ?, ?, ?, ?)",
                (number, ChunkState.PLANNED, first_task, last_task, tasks),
            )
        return Chunk(number, ChunkState.PLANNED, first_task, last_task, tasks)

    def forget_planned(self) -> None:
        """Drop chunks whose tasks never reached the disk; they are exported again."""
        with self._transaction() as db:
            db.execute("DELETE FROM chunks WHERE state = ?", (ChunkState.PLANNED,))

    def exported(self, chunk: Chunk) -> None:
        """The chunk's tasks are on the disk."""
        with self._transaction() as db:
            _move(db, chunk.number, ChunkState.EXPORTED)

    def predicted(self, chunk: int, predicted: int, letters: Iterable[DeadLetter]) -> Chunk:
        """The chunk's predictions are on the disk; its other tasks are these dead letters. Returns it as it is now."""
        with self._transaction() as db:
            _move(db, chunk, ChunkState.PREDICTED)
            db.execute("UPDATE chunks SET predicted = ? WHERE number = ?", (predicted, chunk))
            _bury(db, letters)
            return _chunk(db.execute(f"{_CHUNK} WHERE number = ?", (chunk,)).fetchone())

    def totals(self, *states: ChunkState) -> tuple[int, int]:
        """Tasks and predictions of all chunks, or of those in one of these states."""
        wanted = states or tuple(ChunkState)
        marks = ",".join("?" * len(wanted))
        query = "SELECT SUM(tasks), SUM(predicted) FROM chunks WHERE state IN"
        [(tasks, predicted)] = self._rows(f"{query} ({marks})", *wanted)
        return int(tasks or 0), int(predicted or 0)

    def last_exported(self, first_task: int, last_task: int) -> int:
        """The highest task id of the chunks that begin within this range of ids; before the range if none does."""
        rows = self._rows("SELECT MAX(last_task) FROM chunks WHERE first_task BETWEEN ? AND ?", first_task, last_task)
        return int(first_task - 1 if rows[0][0] is None else rows[0][0])

    # -------------------------------------------------------------------------------------------- import batches

    def intend(self, chunks: Sequence[Chunk], replaced: Mapping[TaskId, Sequence[int]] | None = None) -> ImportBatch:
        """Note, before the request leaves, that these chunks are being sent.

        Args:
            chunks: what is sent.
            replaced: ids of the predictions that these tasks carry and that are deleted first, by task.
        """
        with self._transaction() as db:
            now = (time.time(), time.monotonic(), boot_id())
            number = db.execute("INSERT INTO batches (sent_at, uptime, boot) VALUES (?, ?, ?)", now).lastrowid or 0
            for chunk in chunks:
                _move(db, chunk.number, ChunkState.SENDING)
                db.execute("UPDATE chunks SET batch = ? WHERE number = ?", (number, chunk.number))
            db.executemany(
                "INSERT OR REPLACE INTO replaced VALUES (?, ?, ?)",
                [(prediction, task, number) for task, ids in (replaced or {}).items() for prediction in ids],
            )
        return ImportBatch(number, 0.0, 1, tuple(chunks))

    def replaced(self, batch: ImportBatch) -> list[int]:
        """Ids of the predictions that this batch replaces."""
        rows = self._rows("SELECT prediction_id FROM replaced WHERE batch = ? ORDER BY prediction_id", batch.number)
        return [int(row[0]) for row in rows]

    def replaced_count(self) -> int:
        """How many predictions all batches so far replace."""
        return int(self._rows("SELECT count(*) FROM replaced")[0][0])

    def intend_again(self, batch: ImportBatch) -> ImportBatch:
        """Note, before the request leaves, that what is missing of this batch is being sent."""
        with self._transaction() as db:
            _leaves(db, batch)
            db.execute("UPDATE batches SET attempts = attempts + 1 WHERE number = ?", (batch.number,))
        return ImportBatch(batch.number, 0.0, batch.attempts + 1, batch.chunks)

    def leaving(self, batch: ImportBatch) -> None:
        """Note that one more request of this batch leaves now: what a resumed run must wait for counts from here."""
        with self._transaction() as db:
            _leaves(db, batch)

    def imported(self, batch: ImportBatch, letters: Iterable[DeadLetter] = ()) -> None:
        """The server holds the predictions of these chunks, but for these dead letters."""
        self._settle(batch, ChunkState.IMPORTED, letters)

    def not_taken(self, batch: ImportBatch) -> None:
        """The server surely took nothing of this batch."""
        self._settle(batch, ChunkState.PREDICTED, ())

    def _settle(self, batch: ImportBatch, state: ChunkState, letters: Iterable[DeadLetter]) -> None:
        with self._transaction() as db:
            for chunk in batch.chunks:
                _move(db, chunk.number, state)
            db.execute("UPDATE batches SET settled = 1 WHERE number = ?", (batch.number,))
            _bury(db, letters)

    def unsettled(self) -> list[ImportBatch]:
        """Batches whose fate is unknown: the run ended while they were being sent."""
        rows = self._rows(
            "SELECT number, sent_at, uptime, boot, attempts FROM batches WHERE settled = 0 ORDER BY number"
        )
        found = []
        for number, sent_at, uptime, boot, attempts in rows:
            chunks = self._rows(
                f"{_CHUNK} WHERE batch = ? AND state = ? ORDER BY first_task", number, ChunkState.SENDING
            )
            found.append(
                ImportBatch(number, age_seconds(sent_at, uptime, boot), attempts, tuple(_chunk(row) for row in chunks))
            )
        return found

    # -------------------------------------------------------------------------------------------- quarantine

    def dead_letters(self) -> Iterator[DeadLetter]:
        """All that was quarantined, in ascending order of task id; read a few at a time."""
        last = -1
        while rows := self._rows(
            "SELECT task_id, stage, cause, attempts FROM dead_letters WHERE task_id > ? ORDER BY task_id LIMIT 1000",
            last,
        ):
            yield from (DeadLetter(TaskId(task), stage, cause, attempts) for task, stage, cause, attempts in rows)
            last = rows[-1][0]

    def quarantined(self) -> int:
        """How many tasks were."""
        return int(self._rows("SELECT count(*) FROM dead_letters")[0][0])

    def causes(self, most: int) -> dict[str, int]:
        """The most frequent stages and causes with their number of tasks, most first."""
        rows = self._rows(
            "SELECT stage || ': ' || cause, count(*) FROM dead_letters GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?", most
        )
        return {str(cause): int(count) for cause, count in rows}


def _chunk(row: Sequence[Any]) -> Chunk:
    number, state, first, last, tasks, predicted = row
    return Chunk(number, ChunkState(state), first, last, tasks, predicted)


def _leaves(db: sqlite3.Connection, batch: ImportBatch) -> None:
    now = (time.time(), time.monotonic(), boot_id(), batch.number)
    db.execute("UPDATE batches SET sent_at = ?, uptime = ?, boot = ? WHERE number = ?", now)


def _move(db: sqlite3.Connection, number: int, state: ChunkState) -> None:
    (old,) = db.execute("SELECT state FROM chunks WHERE number = ?", (number,)).fetchone()
    check_transition(ChunkState(old), state)
    db.execute("UPDATE chunks SET state = ? WHERE number = ?", (state, number))


def _bury(db: sqlite3.Connection, letters: Iterable[DeadLetter]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?)",
        [(letter.task_id, letter.stage, letter.cause, letter.attempts) for letter in letters],
    )
