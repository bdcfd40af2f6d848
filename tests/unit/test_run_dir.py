"""Files of a run: whole or absent, and a disk that fails says what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lsbatch.chunks import ChunkState, check_transition
from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.ledger import Ledger
from lsbatch.run_dir import RunDir, predictions_table, table_tasks, tasks_table

TASKS = [Task(TaskId(1), {"text": "é"}), Task(TaskId(4), {"n": None})]


def test_tasks_and_predictions_come_back(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_tasks(0, tasks_table(TASKS))
    assert table_tasks(run.read_tasks(0)) == TASKS
    rows = [Prediction(TaskId(1), [{"type": "choices"}], None, "v"), Prediction(TaskId(4), [], 0.25, "v")]
    run.write_predictions(0, predictions_table(rows))
    assert run.read_predictions(0) == rows
    assert run.predicted_ids(0) == [1, 4]


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path)
    run.write_tasks(0, tasks_table(TASKS))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device") as caught:
        run.write_tasks(0, tasks_table([]))
    assert "LSBATCH_STATE_DIR" in caught.value.hint
    assert table_tasks(run.read_tasks(0)) == TASKS
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["00000.parquet"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Not a directory"):
        RunDir(tmp_path / "file" / "run").create({})
    with pytest.raises(ConfigError, match="cannot be used"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_torn_files_are_never_taken_for_whole_ones(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_tasks(0, tasks_table(TASKS))
    file = tmp_path / "tasks" / "00000.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ConfigError, match="missing or damaged"):
        run.read_tasks(0)
    run.ledger.write_bytes(b"not a database, not a database, not a database")
    with pytest.raises(ConfigError, match="not a database") as caught:
        Ledger(run.ledger)
    assert "--no-resume" in caught.value.hint


def test_a_ledger_opened_again_says_the_same(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first, second = ledger.plan(1, 9, 5), ledger.plan(10, 19, 7)
    ledger.exported(first)
    ledger.state_fact("exported", "12")
    before = ledger.chunks()
    ledger.close()
    again = Ledger(tmp_path / "ledger.sqlite")
    assert again.chunks() == before
    assert [chunk.state for chunk in before] == [ChunkState.EXPORTED, ChunkState.PLANNED]
    assert again.fact("exported") == "12"
    with pytest.raises(ValueError, match="cannot go from planned to sending"):
        again.intend([second])
    again.forget_planned()
    assert again.chunks() == before[:1]
    again.close()


@pytest.mark.parametrize("old", list(ChunkState))
@pytest.mark.parametrize("new", list(ChunkState))
def test_each_transition(old: ChunkState, new: ChunkState) -> None:
    allowed = {
        ("planned", "exported"),
        ("exported", "predicted"),
        ("predicted", "sending"),
        ("sending", "imported"),
        ("sending", "predicted"),
    }
    if (old.value, new.value) in allowed:
        check_transition(old, new)
    else:
        with pytest.raises(ValueError, match="cannot go"):
            check_transition(old, new)
