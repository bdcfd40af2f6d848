"""Predictions become annotations once each, whatever an answer hides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsbatch.acceptance import Bar
from lsbatch.entities import AnnotatedTask, Annotation, Prediction, Task, TaskId
from lsbatch.errors import AmbiguousError, ExitCode, PermanentError
from lsbatch.operations import accepting
from lsbatch.operations.accepting import MOST_STALLS, AcceptOptions, AcceptReport, Chosen, accept, choose
from lsbatch.operations.in_flight import InFlight
from lsbatch.ports import Selection
from lsbatch.progress import Silent
from lsbatch.testing import Fault, MemoryProject
from run_support import Clock, ClockStop

TASKS = 20
OPTIONS = AcceptOptions(write_seconds=10.0, settle_seconds=3.0, retry_seconds=1.0)


@dataclass
class Scene:
    """A project with v1 and v10 on all tasks, scores rising with their ids; task 20 is annotated by a person."""

    clock: Clock
    in_flight: InFlight
    project: MemoryProject = field(default_factory=MemoryProject)
    bar: Bar = field(default_factory=lambda: Bar("v1", 0.5))

    def __post_init__(self) -> None:
        self.project.tasks = {number: Task(TaskId(number), {}) for number in range(1, TASKS + 1)}
        for version in ("v1", "v10"):
            self.project.predictions += [
                Prediction(TaskId(task), [], task / TASKS, version) for task in range(1, TASKS + 1)
            ]
        self.annotate(20)

    def annotate(self, task: int) -> None:
        """A person annotates a task."""
        made = Annotation(1, [], "2026-03-01T00:00:00Z")
        self.project.annotations[task] = AnnotatedTask(self.project.tasks[task], [made])

    def choose(self, limit: int | None = None) -> Chosen:
        """What is sure enough."""
        stop = ClockStop(self.clock)
        return choose(self.project, Selection(), self.bar, limit, Silent(), stop, expected=TASKS)

    def accept(self, chosen: Chosen | None = None) -> AcceptReport:
        """Accept it."""
        report = AcceptReport("run", 1, "v1")
        accept(
            self.project,
            chosen or self.choose(),
            self.bar,
            report,
            OPTIONS,
            self.in_flight,
            Silent(),
            ClockStop(self.clock),
        )
        return report

    def annotations(self) -> Counter[int]:
        """How many annotations each task has."""
        return Counter({task: len(entry.annotations) for task, entry in self.project.annotations.items()})


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    clock = Clock()
    monkeypatch.setattr(accepting, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(accepting, "FIRST_PIECE", 4)
    monkeypatch.setattr(accepting, "MOST_PIECE", 4)
    return Scene(clock, InFlight(tmp_path / "in_flight.json"))


ONCE = Counter(dict.fromkeys(range(10, 21), 1))


def test_sure_predictions_of_untouched_tasks_alone(scene: Scene) -> None:
    report = scene.accept()
    assert scene.annotations() == ONCE
    assert (report.accepted, report.exit_code) == (10, ExitCode.DONE)


def test_twice_makes_no_second_annotation(scene: Scene) -> None:
    scene.accept()
    again = scene.accept()
    assert scene.annotations() == ONCE
    assert again.accepted == 0


@pytest.mark.parametrize("fault", ["refuse", "lose before", "lose after", "half"])
@pytest.mark.parametrize("request_number", [0, 1, 2])
def test_a_fault_changes_nothing_of_the_end(scene: Scene, fault: Fault, request_number: int) -> None:
    scene.project.act_faults = [*[""] * request_number, fault]  # type: ignore[list-item]
    report = scene.accept()
    assert scene.annotations() == ONCE
    assert (report.accepted, report.missing, report.twice) == (10, 0, 0)
    assert report.ambiguous == (fault != "refuse")


def test_a_request_that_may_be_at_work_is_waited_for(scene: Scene) -> None:
    scene.project.act_faults = ["lose before"]
    began = scene.clock.now
    scene.accept()
    assert scene.clock.now >= began + OPTIONS.write_seconds


def test_a_server_that_never_answers_is_given_up(scene: Scene) -> None:
    scene.project.act_faults = ["lose before"] * 50
    with pytest.raises(AmbiguousError):
        scene.accept()
    assert len(scene.project.act_faults) == 50 - MOST_STALLS


def test_a_task_that_a_person_annotates_meanwhile_is_left_alone(scene: Scene) -> None:
    chosen = scene.choose()
    scene.annotate(12)
    report = scene.accept(chosen)
    assert scene.annotations() == ONCE
    assert (report.accepted, report.overtaken) == (9, 1)


def test_a_task_that_is_deleted_meanwhile_is_not_missing(scene: Scene) -> None:
    chosen = scene.choose()
    scene.project.delete_task(12)
    report = scene.accept(chosen)
    assert (report.missing, report.accepted, report.exit_code) == (0, 9, ExitCode.DONE)


def test_even_if_annotated(scene: Scene) -> None:
    scene.bar = Bar("v1", 0.5, even_if_annotated=True)
    scene.accept()
    report = scene.accept()
    assert scene.annotations() == ONCE + Counter({20: 1})
    assert report.accepted == 0


def test_a_limit_takes_the_lowest_ids(scene: Scene) -> None:
    chosen = scene.choose(limit=3)
    assert list(chosen.tasks) == [10, 11, 12]
    assert chosen.found.accepted == 3


def test_what_is_left_for_review_is_named(scene: Scene) -> None:
    scene.bar = Bar("v1", 0.5, review_share=0.5)
    chosen = scene.choose()
    scene.accept(chosen)
    assert chosen.review
    assert set(chosen.review).isdisjoint(chosen.tasks)
    assert sorted([*chosen.review, *chosen.tasks]) == list(range(10, 20))
    assert set(scene.annotations()) == {*chosen.tasks, 20}


def test_a_refusal_ends_it(scene: Scene) -> None:
    scene.project.act_faults = ["denied"]
    with pytest.raises(PermanentError):
        scene.accept()
    assert set(scene.annotations()) == {20}


def test_annotations_that_do_not_come_about_are_missing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryProject, "accept", lambda *_: None)
    report = scene.accept()
    assert (report.missing, report.accepted, report.exit_code) == (10, 0, ExitCode.AUDIT_FAILED)


class Killed(BaseException):
    """The process dies here."""


def test_a_request_that_was_under_way_when_the_process_died_is_known(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MemoryProject, "accept", dies)
        with pytest.raises(Killed):
            scene.accept()
    assert 9.0 < scene.in_flight.seconds_left(10.0) <= 10.0
    scene.accept()
    assert scene.in_flight.seconds_left(10.0) == 0.0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sent_at": "x", "uptime": 1, "boot": ""}'])
def test_a_note_that_cannot_be_read_means_the_longest_wait(scene: Scene, tmp_path: Path, content: str) -> None:
    (tmp_path / "in_flight.json").write_text(content)
    assert scene.in_flight.seconds_left(10.0) == 10.0
