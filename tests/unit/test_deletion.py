"""A deletion from its plan to its proof, on a project in memory whose faults are scripted."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lsbatch.deletion_report import DeletionReport
from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import AmbiguousError, ConfigError, ExitCode, PermanentError, StoppedError
from lsbatch.operations import deleting
from lsbatch.operations.counters import Recount
from lsbatch.operations.deleting import MOST_STALLS, DeleteOptions, Deleter
from lsbatch.operations.deletion import Begun, DeletionSetup, carry_out, counted
from lsbatch.operations.deletion_plan import planned_tasks, write_plan
from lsbatch.operations.stored import read_predictions
from lsbatch.ports import Backend, Selection
from lsbatch.progress import Silent
from lsbatch.run_dir import RunDir
from lsbatch.testing import Fault, MemoryProject
from lsbatch.version_choice import Doomed
from run_support import Clock, ClockStop

TASKS = 30
OPTIONS = DeleteOptions(request_seconds=45.0, write_seconds=10.0, retry_seconds=1.0, writers=2)
RECOUNT = Recount(allowed=True, seconds=1.0, most_seconds=45.0)


@dataclass
class Scene:
    """A project with v1 on all tasks, v2 on the first third, and one v1 twice; and a deletion of some of it."""

    folder: Path
    clock: Clock
    project: MemoryProject = field(default_factory=MemoryProject)
    doomed: Doomed = field(default_factory=lambda: Doomed(frozenset({"v1"})))
    resumed: bool = False

    def __post_init__(self) -> None:
        self.project.tasks = {number: Task(TaskId(number), {}) for number in range(1, TASKS + 1)}
        self.add("v1", range(1, TASKS + 1))
        self.add("v2", range(1, TASKS // 3 + 1))
        self.add("v1", [2])

    def add(self, version: str, tasks: Any) -> None:
        """Store a prediction of this version on each of the tasks."""
        self.project.predictions += [Prediction(TaskId(task), [{"n": task}], task / 100, version) for task in tasks]

    @property
    def run(self) -> RunDir:
        """The deletion's folder."""
        return RunDir(self.folder / "run")

    @property
    def backup(self) -> Path:
        """The deletion's backup."""
        return self.folder / "backups" / "run.parquet"

    def plan(self, selection: Selection | None = None) -> Begun:
        """Write plan and backup."""
        preview = write_plan(
            self.project,
            selection or Selection(),
            self.doomed,
            self.run.plan,
            self.backup,
            Silent(),
            ClockStop(self.clock),
            expected=TASKS,
        )
        return Begun(preview, counted(self.project), self.project.active, self.doomed.whole_versions, str(self.backup))

    def carry_out(self, begun: Begun, *, options: DeleteOptions = OPTIONS) -> DeletionReport:
        """Delete what was planned."""
        report = DeletionReport("run", 1)
        stop = ClockStop(self.clock)
        setup = DeletionSetup(self.project, self.project, self.run, options, RECOUNT, Silent(), stop)
        carry_out(setup, begun, report, resumed=self.resumed)
        return report

    def held(self) -> Counter[tuple[int, str]]:
        """How many predictions of each version each task holds."""
        return Counter((row.task_id, row.model_version) for row in self.project.predictions)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    clock = Clock()
    monkeypatch.setattr(deleting.time, "monotonic", clock)
    return Scene(tmp_path, clock)


def without_v1(held: Counter[tuple[int, str]]) -> Counter[tuple[int, str]]:
    """The same without one version."""
    return Counter({key: count for key, count in held.items() if key[1] != "v1"})


def test_each_task_by_the_cheapest_exact_way(scene: Scene) -> None:
    before = scene.held()
    report = scene.carry_out(scene.plan())
    assert scene.held() == without_v1(before)
    # Twenty tasks held nothing else; of the others the version was deleted at once.
    assert report.requests == {"bulk": 20, "by version": 11, "single": 0}
    assert report.deleted == 31
    assert report.exit_code is ExitCode.DONE


def test_what_does_not_fit_a_request_for_the_version_goes_one_by_one(scene: Scene) -> None:
    before = scene.held()
    report = scene.carry_out(scene.plan(), options=replace(OPTIONS, request_seconds=0.05))
    assert scene.held() == without_v1(before)
    # 0.05 s x 0.85 / 10 ms are four.
    assert report.requests == {"bulk": 20, "by version": 4, "single": 7}


def test_a_part_of_the_tasks(scene: Scene) -> None:
    before = scene.held()
    report = scene.carry_out(scene.plan(Selection(task_ids=(1, 2, 25))))
    gone = before - scene.held()
    assert gone == Counter({(1, "v1"): 1, (2, "v1"): 2, (25, "v1"): 1})
    assert report.requests == {"bulk": 1, "by version": 0, "single": 3}


def test_duplicates_leave_one_each(scene: Scene) -> None:
    scene.doomed = Doomed(frozenset({"v1", "v2"}), duplicates=True)
    oldest = {id(row) for row in scene.project.predictions} - {id(scene.project.predictions[-1])}
    report = scene.carry_out(scene.plan())
    assert {id(row) for row in scene.project.predictions} == oldest
    assert report.requests == {"bulk": 0, "by version": 0, "single": 1}


def test_the_backup_holds_what_goes_and_nothing_else(scene: Scene) -> None:
    scene.plan()
    rows = [row for _, row in read_predictions(scene.backup)]
    assert Counter(row.task_id for row in rows) == Counter({**dict.fromkeys(range(1, TASKS + 1), 1), 2: 2})
    assert {row.model_version for row in rows} == {"v1"}
    assert all(row.score == row.task_id / 100 and list(row.result) == [{"n": row.task_id}] for row in rows)
    assert "created_at" in pq.read_schema(scene.backup).names


def test_a_disk_that_is_full_leaves_neither_plan_nor_backup(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(ConfigError, match="No space left"):
        scene.plan()
    assert [path for path in scene.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("fault", ["refuse", "lose before", "lose after", "half"])
@pytest.mark.parametrize("request_number", [0, 1], ids=["bulk", "by version"])
def test_a_fault_changes_nothing_of_the_end(scene: Scene, fault: Fault, request_number: int) -> None:
    before = scene.held()
    scene.project.act_faults = [*[""] * request_number, fault]  # type: ignore[list-item]
    report = scene.carry_out(scene.plan())
    assert scene.held() == without_v1(before)
    assert report.exit_code is ExitCode.DONE
    assert report.ambiguous == (fault != "refuse")


def test_a_request_that_is_never_answered_is_given_up(scene: Scene) -> None:
    scene.project.act_faults = ["lose before"] * 50
    with pytest.raises(AmbiguousError):
        scene.carry_out(scene.plan())
    assert len(scene.project.act_faults) == 50 - MOST_STALLS


def test_a_given_up_request_that_arrives_late_finds_nothing_new(scene: Scene) -> None:
    scene.project.act_faults = ["lose after"]
    began = scene.clock.now
    scene.carry_out(scene.plan())
    assert scene.clock.now >= began + OPTIONS.write_seconds


@pytest.mark.parametrize("request_seconds", [45.0, 0.001], ids=["by version", "single"])
def test_what_an_annotation_came_from_meanwhile_stays(scene: Scene, request_seconds: float) -> None:
    begun = scene.plan()
    rows = [row for row in scene.project.predictions if row.model_version == "v1" and row.task_id in (2, 25)]
    chosen = [rows[1], rows[0]]
    for row in chosen:
        scene.project.accept_one(row)
    report = scene.carry_out(begun, options=replace(OPTIONS, request_seconds=request_seconds))
    assert {id(row) for row in scene.project.predictions if row.model_version == "v1"} == {id(row) for row in chosen}
    assert (report.spared, report.deleted, report.exit_code) == (2, 29, ExitCode.DONE)


def test_new_predictions_on_the_same_tasks_are_no_stale_counters(scene: Scene) -> None:
    scene.doomed = Doomed(frozenset({"v2"}))
    begun = scene.plan()
    scene.add("v3", [3])
    assert scene.carry_out(begun).stale_counters == 0


def test_a_prediction_that_comes_meanwhile_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = scene.plan()
    scene.add("v3", [25])
    report = scene.carry_out(begun)
    assert scene.held() == Counter({**{(task, "v2"): 1 for task in range(1, 11)}, (25, "v3"): 1})
    assert report.requests["single"] == 20
    assert report.exit_code is ExitCode.DONE


def test_a_prediction_of_the_version_that_comes_meanwhile_stays(scene: Scene) -> None:
    begun = scene.plan()
    scene.add("v1", [25])
    report = scene.carry_out(begun)
    # It is in no backup.
    assert scene.held() == Counter({**{(task, "v2"): 1 for task in range(1, 11)}, (25, "v1"): 1})
    assert report.exit_code is ExitCode.DONE


def test_more_of_the_version_meanwhile_is_left_by_the_request_for_the_version(scene: Scene) -> None:
    begun = scene.plan()
    scene.add("v1", [5])
    report = scene.carry_out(begun)
    # The newer one was not planned, and is in no backup.
    assert scene.held()[5, "v1"] == 1
    assert report.requests["by version"] == 0
    assert report.exit_code is ExitCode.DONE


@pytest.mark.parametrize("stops_after", range(1, 8))
def test_it_goes_on_where_it_was_interrupted(scene: Scene, monkeypatch: pytest.MonkeyPatch, stops_after: int) -> None:
    before = scene.held()
    monkeypatch.setattr(deleting, "FIRST_PIECE", 5)
    monkeypatch.setattr(deleting, "SINGLES_TASKS", 3)
    begun = scene.plan()
    checks = itertools.count(1)

    def check(stop: ClockStop) -> None:
        if next(checks) > stops_after:
            raise StoppedError("Stopped")

    with monkeypatch.context() as patched:
        patched.setattr(ClockStop, "check", check)
        with pytest.raises(StoppedError):
            scene.carry_out(begun, options=replace(OPTIONS, request_seconds=0.03))
    assert scene.held() != without_v1(before)
    scene.resumed = True
    report = scene.carry_out(begun, options=replace(OPTIONS, request_seconds=0.03))
    assert scene.held() == without_v1(before)
    assert report.deleted == 31


def test_what_annotators_see_is_put_back(scene: Scene) -> None:
    scene.project.connected = [Backend("live", "v9", "http://backend")]
    scene.project.active = "live"
    report = scene.carry_out(scene.plan())
    assert (scene.project.active, report.put_back) == ("live", True)


def test_what_nothing_carries_any_more_cannot_be_put_back(scene: Scene) -> None:
    scene.project.active = "v1"
    report = scene.carry_out(scene.plan())
    assert (scene.project.active, report.put_back) == ("", False)
    assert report.exit_code is ExitCode.DONE


def test_counters_are_repaired(scene: Scene) -> None:
    scene.project.stale = {3}
    assert scene.carry_out(scene.plan()).stale_counters == 0
    assert scene.project.stale == set()


def test_what_a_request_took_besides_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = scene.plan()
    victim = next(row for row in scene.project.predictions if row.model_version == "v2")
    scene.project.predictions.remove(victim)
    report = scene.carry_out(begun)
    assert report.audit is not None
    assert report.audit.lost == (id(victim),)
    assert report.exit_code is ExitCode.AUDIT_FAILED


def test_what_is_still_there_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = scene.plan()
    monkeypatch.setattr(Deleter, "run", lambda *_, **__: None)
    report = scene.carry_out(begun)
    assert report.audit is not None
    assert (report.audit.left_count, len(report.audit.left), report.deleted) == (31, 20, 0)
    assert report.exit_code is ExitCode.AUDIT_FAILED


def test_tasks_that_somebody_deletes_meanwhile_are_no_loss(scene: Scene) -> None:
    begun = scene.plan()
    for task in (1, 2, 25):
        scene.project.delete_task(task)
    report = scene.carry_out(begun)
    assert report.exit_code is ExitCode.DONE
    assert {version for _, version in scene.held()} == {"v2"}


def test_a_refusal_deletes_nothing_more(scene: Scene) -> None:
    scene.project.act_faults = ["denied"]
    before = scene.held()
    with pytest.raises(PermanentError):
        scene.carry_out(scene.plan())
    assert scene.held() == before


def test_what_was_begun_is_known_again(scene: Scene) -> None:
    begun = scene.plan()
    assert Begun.read(scene.run) is None
    begun.write(scene.run)
    assert Begun.read(scene.run) == begun
    assert [task.task_id for task in planned_tasks(scene.run.plan)] == list(range(1, TASKS + 1))
    scene.run.begun.write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        Begun.read(scene.run)
    scene.run.plan.write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="missing or damaged"):
        list(planned_tasks(scene.run.plan))
