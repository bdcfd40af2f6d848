"""Whatever an answer hides: exactly one prediction per task."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsbatch.chunks import ChunkState
from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import AmbiguousError, LsbatchError, PermanentError
from lsbatch.ledger import Ledger
from lsbatch.operations.auditing import audit
from lsbatch.operations.importing import Importer, ImportOptions
from lsbatch.progress import Silent
from lsbatch.run_dir import RunDir, predictions_table
from lsbatch.testing import Fault, MemoryProject

VERSION = "v1"
CHUNKS, CHUNK_TASKS = 3, 4
FAULTS: tuple[Fault, ...] = ("refuse", "lose before", "lose after", "half", "late", "short", "large")
OPTIONS = ImportOptions(batch_rows=CHUNK_TASKS, write_seconds=0, settle_seconds=0.02, retry_seconds=5)


def predicted_run(folder: Path) -> tuple[RunDir, Ledger, MemoryProject]:
    """A run of three predicted chunks, and the project that lacks them."""
    run = RunDir(folder / "run")
    run.create({})
    ledger = Ledger(run.ledger)
    tasks = {}
    for number in range(CHUNKS):
        ids = [TaskId(number * 10 + place) for place in range(1, CHUNK_TASKS + 1)]
        tasks |= {int(task): Task(task, {}) for task in ids}
        chunk = ledger.plan(ids[0], ids[-1], len(ids))
        ledger.exported(chunk)
        run.write_predictions(number, predictions_table([Prediction(task, [], 0.5, VERSION) for task in ids]))
        ledger.predicted(number, len(ids), [])
    return run, ledger, MemoryProject(tasks)


def importer(run: RunDir, ledger: Ledger, project: MemoryProject) -> Importer:
    return Importer(project, run, ledger, VERSION, OPTIONS, Silent(), sleep=lambda _seconds: None)


def held(project: MemoryProject) -> dict[int, int]:
    """How many predictions of the version each task has."""
    return dict(Counter(int(row.task_id) for row in project.predictions if row.model_version == VERSION))


@pytest.mark.parametrize("place", range(CHUNKS))
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_at_each_request(tmp_path: Path, fault: Fault, place: int) -> None:
    run, ledger, project = predicted_run(tmp_path)
    project.faults = ["" for _ in range(place)] + [fault]
    importer(run, ledger, project).run()
    assert held(project) == dict.fromkeys(project.tasks, 1)
    assert project.faults == []
    assert {chunk.state for chunk in ledger.chunks()} == {ChunkState.IMPORTED}
    proof = audit(project, run, ledger, VERSION, Silent())
    assert proof.passed
    assert proof.confirmed == CHUNKS * CHUNK_TASKS


def test_a_refusal_for_good_leaves_the_chunks_to_be_sent_later(tmp_path: Path) -> None:
    run, ledger, project = predicted_run(tmp_path)
    project.faults = ["", "denied"]
    with pytest.raises(PermanentError):
        importer(run, ledger, project).run()
    assert [chunk.state for chunk in ledger.chunks()] == ["imported", "predicted", "predicted"]
    importer(run, ledger, project).run()
    assert held(project) == dict.fromkeys(project.tasks, 1)


def test_a_deleted_task_is_quarantined_alone(tmp_path: Path) -> None:
    run, ledger, project = predicted_run(tmp_path)
    del project.tasks[12]
    importer(run, ledger, project).run()
    assert held(project) == dict.fromkeys(project.tasks, 1)
    assert [(letter.task_id, letter.stage) for letter in ledger.dead_letters()] == [(12, "import")]


def test_the_audit_finds_what_is_missing_gone_or_double(tmp_path: Path) -> None:
    run, ledger, project = predicted_run(tmp_path)
    importer(run, ledger, project).run()
    project.predictions = [row for row in project.predictions if row.task_id not in (3, 21)]
    del project.tasks[21]
    project.predictions.append(Prediction(TaskId(1), [], 0.9, VERSION))
    proof = audit(project, run, ledger, VERSION, Silent())
    assert (proof.missing, proof.gone, proof.removed, proof.surplus, proof.passed) == ((3,), 1, 1, 0, False)
    assert [row.score for row in project.predictions if row.task_id == 1] == [0.5]


class Crash(BaseException):
    """The process dies here."""


@settings(max_examples=60, deadline=None)
@given(
    dies_at=st.integers(min_value=1, max_value=14),
    faults=st.lists(st.sampled_from(["", *FAULTS]), max_size=4),
)
def test_a_crash_anywhere_and_a_resume_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, dies_at: int, faults: list[Fault]
) -> None:
    run, ledger, project = predicted_run(tmp_path_factory.mktemp("crash"))
    project.faults = list(faults)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == dies_at:
            raise Crash

    class Dying(Ledger):
        """Dies before or after a step is on disk."""

        def _transaction(self):  # type: ignore[no-untyped-def]
            step()
            return super()._transaction()

    class DyingProject(MemoryProject):
        """Dies after the server stored the rows and before the answer arrives."""

        def create(self, predictions):  # type: ignore[no-untyped-def]
            created = super().create(predictions)
            step()
            return created

    ledger.close()
    fragile = DyingProject(project.tasks, faults=project.faults)
    died = False
    try:
        importer(run, Dying(run.ledger), fragile).run()
    except Crash:
        died = True
    except AmbiguousError:
        # It gives up for now after several answers in a row that brought nothing.
        assert faults.count("lose before") >= 4
    assert died == (steps >= dies_at)
    fragile.__class__ = MemoryProject  # type: ignore[assignment]
    fragile.faults = []
    reopened = Ledger(run.ledger)
    try:
        importer(run, reopened, fragile).run()
        assert audit(fragile, run, reopened, VERSION, Silent()).passed
        # A single prediction that is too large for the server cannot be sent at all.
        refused = {int(letter.task_id) for letter in reopened.dead_letters()}
    except LsbatchError as error:
        raise AssertionError(f"the resumed run did not finish: {error}") from error
    finally:
        reopened.close()
    assert "large" in faults or not refused
    assert held(fragile) == dict.fromkeys(sorted(set(fragile.tasks) - refused), 1)
