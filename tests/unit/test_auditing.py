"""The audit tells what Label Studio really holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsbatch.chunks import Chunk, ChunkState
from lsbatch.entities import Task, TaskId
from lsbatch.errors import TransientError
from lsbatch.operations.auditing import MOST_NAMED
from lsbatch.report import AuditProof
from lsbatch.run_dir import predictions_table
from lsbatch.testing import MemoryProject
from run_support import ALL, CHUNK_TASKS, Scene, chunk_ids, predicted_run, prediction


@pytest.fixture
def imported(scene: Scene) -> Scene:
    """A run whose predictions are all on the server."""
    scene.importer().run()
    return scene


def test_what_is_whole_passes(imported: Scene) -> None:
    assert imported.audit() == AuditProof(ALL, ALL, 0, (), 0, 0, 0)
    assert imported.audit().passed


def test_quarantined_tasks_are_not_expected(tmp_path: Path) -> None:
    with predicted_run(tmp_path, dead=(*map(int, chunk_ids(1)), 21)) as scene:
        scene.importer().run()
        assert scene.audit() == AuditProof(ALL - 5, ALL - 5, 0, (), 0, 0, 0)


@pytest.mark.parametrize("lost", [1, 4, 12, 21, 24])
def test_a_missing_prediction_is_named_and_fails(imported: Scene, lost: int) -> None:
    imported.project.predictions = [row for row in imported.project.predictions if row.task_id != lost]
    assert imported.audit() == AuditProof(ALL, ALL - 1, 0, (TaskId(lost),), 1, 0, 0)
    assert not imported.audit().passed


def test_a_task_deleted_since_is_gone_and_not_missing(imported: Scene) -> None:
    imported.project.delete_task(12)
    assert imported.audit() == AuditProof(ALL, ALL - 1, 1, (), 0, 0, 0)
    assert imported.audit().passed


def test_of_doubles_the_oldest_stays(imported: Scene) -> None:
    imported.project.predictions += [prediction(1, 0.9), prediction(1, 0.8), prediction(1, 0.7, "v10")]
    assert imported.audit() == AuditProof(ALL, ALL, 0, (), 0, removed=2, surplus=0)
    assert imported.one_each()
    assert [row.score for row in imported.project.predictions if row.task_id == 1] == [0.5, 0.7]


def test_doubles_that_cannot_be_removed_fail(imported: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    imported.project.predictions.append(prediction(1))
    monkeypatch.setattr(MemoryProject, "remove_surplus", lambda *_: 0)
    assert (imported.audit().surplus, imported.audit().passed) == (1, False)


def test_another_version_proves_nothing(imported: Scene) -> None:
    imported.project.predictions = [prediction(int(row.task_id), version="v10") for row in imported.project.predictions]
    proof = imported.audit()
    assert (proof.confirmed, proof.missing_count, proof.passed) == (0, ALL, False)


def test_chunks_that_are_not_imported_are_not_expected(scene: Scene) -> None:
    scene.project.faults = ["", "denied"]
    with pytest.raises(Exception, match="401"):
        scene.importer().run()
    assert scene.audit() == AuditProof(CHUNK_TASKS, CHUNK_TASKS, 0, (), 0, 0, 0)


def test_a_server_that_cannot_be_read_proves_nothing(imported: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> int:
        raise TransientError("no answer")

    monkeypatch.setattr(MemoryProject, "surplus", silent)
    with pytest.raises(TransientError, match="no answer"):
        imported.audit()


def test_the_predictions_on_disk_are_what_is_expected(imported: Scene) -> None:
    imported.run.write_predictions(0, predictions_table([prediction(1)]))
    assert imported.audit().expected == ALL - CHUNK_TASKS + 1


def test_thousands_of_chunks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """One generator more for each chunk would end at Python's limit of recursion."""
    count = 3_000
    chunks = [Chunk(number, ChunkState.IMPORTED, number + 1, number + 1, 1, 1) for number in range(count)]
    monkeypatch.setattr(scene.ledger, "chunks", lambda *_: chunks)
    monkeypatch.setattr(scene.run, "predicted_ids", lambda number: [TaskId(number + 1)])
    scene.project.tasks = {number: Task(TaskId(number), {}) for number in range(1, count + 1)}
    scene.project.predictions = [prediction(number) for number in range(1, count + 1) if number % 100]
    proof = scene.audit()
    assert (proof.confirmed, proof.missing_count) == (count - 30, 30)
    assert proof.missing == tuple(range(100, 100 * MOST_NAMED + 1, 100))
