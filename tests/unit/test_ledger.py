"""The ledger: another format, how old a request is, and totals."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsbatch import ledger as module
from lsbatch.chunks import ChunkState
from lsbatch.entities import DeadLetter, TaskId
from lsbatch.errors import ConfigError
from lsbatch.ledger import ImportBatch, Ledger


class Clocks:
    """The two clocks of a machine, and which start of it they belong to."""

    def __init__(self) -> None:
        self.wall, self.uptime, self.boot = 1_700_000_000.0, 5_000.0, "one"

    def passes(self, seconds: float) -> None:
        """Time passes, on both."""
        self.wall += seconds
        self.uptime += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Clocks that only the test moves."""
    clocks = Clocks()
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: clocks.wall, monotonic=lambda: clocks.uptime))
    monkeypatch.setattr(module, "boot_id", lambda: clocks.boot)
    return clocks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger may be."""
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """A new ledger."""
    with closing(Ledger(path)) as ledger:
        yield ledger


def sent(ledger: Ledger) -> ImportBatch:
    """One predicted chunk, of which it is noted that it is sent."""
    ledger.exported(ledger.plan(1, 5, 5))
    return ledger.intend([ledger.predicted(0, 4, [DeadLetter(TaskId(3), "predict", "told to")])])


def age(path: Path) -> float:
    """How old the request is to a process that opens the ledger now, in seconds."""
    with closing(Ledger(path)) as ledger:
        [batch] = ledger.unsettled()
    return batch.age_seconds


# ------------------------------------------------------------------------------------------------ ages


def test_a_request_grows_older(ledger: Ledger, path: Path, clocks: Clocks) -> None:
    assert sent(ledger).age_seconds == 0
    clocks.passes(30)
    assert age(path) == 30


@pytest.mark.parametrize("jump", [-1e9, -60, 60, 1e9])
def test_a_wall_clock_that_jumps_changes_no_age(ledger: Ledger, path: Path, clocks: Clocks, jump: float) -> None:
    sent(ledger)
    clocks.passes(30)
    clocks.wall += jump
    assert age(path) == 30


def test_after_a_new_start_of_the_machine_the_wall_clock_counts(ledger: Ledger, path: Path, clocks: Clocks) -> None:
    sent(ledger)
    clocks.wall += 90
    clocks.uptime, clocks.boot = 20.0, "two"
    assert age(path) == 90


def test_after_a_new_start_a_long_uptime_is_not_taken_for_the_same_one(
    ledger: Ledger, path: Path, clocks: Clocks
) -> None:
    sent(ledger)
    clocks.wall += 90
    clocks.uptime, clocks.boot = 10_000.0, "two"
    assert age(path) == 90


def test_where_the_system_does_not_tell_its_starts_the_wall_clock_counts(
    ledger: Ledger, path: Path, clocks: Clocks
) -> None:
    clocks.boot = ""
    sent(ledger)
    clocks.wall += 90
    clocks.uptime += 1_000
    assert age(path) == 90


def test_no_age_is_negative(ledger: Ledger, path: Path, clocks: Clocks) -> None:
    sent(ledger)
    clocks.wall -= 1_000
    clocks.boot = "two"
    assert age(path) == 0


def test_an_age_counts_from_the_last_request_of_a_batch(ledger: Ledger, path: Path, clocks: Clocks) -> None:
    batch = sent(ledger)
    clocks.passes(30)
    ledger.leaving(batch)
    clocks.passes(7)
    assert age(path) == 7
    again = ledger.intend_again(batch)
    assert (again.age_seconds, again.attempts) == (0, 2)
    clocks.passes(2)
    assert age(path) == 2


def test_this_machine_tells_its_starts_apart() -> None:
    assert module.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# ------------------------------------------------------------------------------------------------ files


def test_a_ledger_of_another_format_is_not_read(ledger: Ledger, path: Path) -> None:
    sent(ledger)
    ledger.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another version of lsbatch") as caught:
        Ledger(path)
    assert "--no-resume" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("kept", [0, 1, 100, 4_096, 10_000])
def test_a_ledger_that_was_torn_is_an_error_or_an_empty_one(ledger: Ledger, path: Path, kept: int) -> None:
    sent(ledger)
    ledger.close()
    content = path.read_bytes()
    assert len(content) > kept
    path.write_bytes(content[:kept])
    if kept < 2:
        # To SQLite that is a database without tables: the same as none.
        with closing(Ledger(path)) as empty:
            assert empty.chunks() == []
        return
    with pytest.raises(ConfigError) as caught:
        age(path)
    assert "--no-resume" in caught.value.hint


def test_a_ledger_that_was_closed_says_so(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(ConfigError, match="cannot be used"):
        ledger.totals()


def test_what_was_committed_is_there_after_a_new_start(ledger: Ledger, path: Path) -> None:
    batch = sent(ledger)
    ledger.state_fact("exported", "5")
    with closing(Ledger(path)) as again:
        assert again.fact("exported") == "5"
        assert again.fact("nothing") is None
        [found] = again.unsettled()
        assert (found.number, list(found.chunks)) == (batch.number, again.chunks(ChunkState.SENDING))
        assert again.totals() == (5, 4)
        assert again.totals(ChunkState.IMPORTED) == (0, 0)
        assert [letter.cause for letter in again.dead_letters()] == ["told to"]
        again.imported(found)
        assert again.unsettled() == []
        assert again.totals(ChunkState.IMPORTED) == (5, 4)


def test_the_most_frequent_causes_come_first(ledger: Ledger) -> None:
    ledger.exported(ledger.plan(1, 6, 6))
    causes = ["rare", "often", "often", "sometimes", "sometimes", "often"]
    ledger.predicted(0, 0, [DeadLetter(TaskId(task), "predict", cause) for task, cause in enumerate(causes, start=1)])
    assert ledger.causes(2) == {"predict: often": 3, "predict: sometimes": 2}
    assert ledger.quarantined() == 6


def test_dead_letters_come_in_order_however_many_there_are(ledger: Ledger) -> None:
    count = 2_500
    ledger.exported(ledger.plan(1, count, count))
    ledger.predicted(0, 0, [DeadLetter(TaskId(task), "predict", "x") for task in range(count, 0, -1)])
    assert [letter.task_id for letter in ledger.dead_letters()] == list(range(1, count + 1))
