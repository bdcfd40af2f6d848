"""``delete-predictions``, ``import`` of its backup, ``accept`` and ``--replace`` as verbs, on a project in memory."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ls_support import TEXT_CONFIG, topic_region
from lsbatch.acceptance import Acceptance, Bar
from lsbatch.config import load
from lsbatch.deletion_report import DeletionReport
from lsbatch.entities import AnnotatedTask, Annotation, Prediction, Task, TaskId
from lsbatch.errors import ConfigError, ExitCode, LockedError, StoppedError
from lsbatch.lock import hold
from lsbatch.operations.deleting import Deleter
from lsbatch.operations.deletion_plan import Preview
from lsbatch.operations.runs import run_state, runs
from lsbatch.operations.stored import read_predictions
from lsbatch.progress import Silent
from lsbatch.report import RunReport
from lsbatch.stopping import Stop
from lsbatch.testing import MemoryProject
from lsbatch.verbs import (
    AcceptRequest,
    DeleteRequest,
    accept_predictions,
    audit_project,
    delete_predictions,
    import_stored,
    replace_versions,
)
from lsbatch.verbs import deleting as deleting_verb
from lsbatch.version_choice import Which
from lsbatch.wiring import Bench

TASKS = 12
V1 = DeleteRequest(Which(model_versions=("v1",)), "v1")


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Heard(Silent):
    """What a command said; shows nothing."""

    said: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        """See ``Progress.say``."""
        self.said.append(message)


@dataclass
class Place:
    """A project with v1 on all tasks and v2 on the first half, which annotators see; and a working directory."""

    folder: Path
    project: MemoryProject = field(default_factory=MemoryProject)
    settings: dict[str, Any] = field(default_factory=dict)
    asked: list[Preview] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)
    answer: bool = True

    def __post_init__(self) -> None:
        self.project.label_config = TEXT_CONFIG
        self.project.tasks = {number: Task(TaskId(number), {"text": "words"}) for number in range(1, TASKS + 1)}
        self.add("v1", range(1, TASKS + 1))
        self.add("v2", range(1, TASKS // 2 + 1))
        self.project.active = "v2"

    def add(self, version: str, tasks: Any, *, score: float | None = 0.5, result: Any = None) -> None:
        """Store a prediction of this version on each of the tasks."""
        regions = [topic_region("food")] if result is None else result
        self.project.predictions += [Prediction(TaskId(task), regions, score, version) for task in tasks]

    def bench(self) -> Bench:
        """A new process's."""
        environ = {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "LABEL_STUDIO_API_KEY": "0123456789"}
        flags = {"project": 1, **self.settings}
        loaded = load(None, environ=environ, flags=flags, cwd=self.folder, flag_names={})
        bench = Bench(loaded)
        bench.__dict__["project"] = self.project
        return bench

    def delete(self, request: DeleteRequest = V1, **more: Any) -> list[DeletionReport]:
        """Delete; the answer to the question is ``answer``."""

        def confirm(preview: Preview) -> bool:
            self.asked.append(preview)
            return self.answer

        return delete_predictions(self.bench(), request, self.heard, confirm=confirm, **more)

    def killed(self, monkeypatch: pytest.MonkeyPatch, request: DeleteRequest = V1) -> None:
        """A deletion that dies after its first predictions went."""

        def dies(deleter: Deleter, *_: object, **__: object) -> None:
            for row in [row for row in self.project.predictions if row.model_version == "v1"][:3]:
                self.project.delete(id(row))
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(Deleter, "run", dies)
            # Killed, it writes no report.
            patched.setattr(deleting_verb, "state_recorded", lambda *_: nullcontext())
            with pytest.raises(Killed):
                self.delete(request)

    def held(self) -> Counter[str]:
        """Predictions of each version."""
        return Counter(row.model_version for row in self.project.predictions)

    def backups(self) -> list[Path]:
        """All backups."""
        return sorted(self.folder.rglob("backups/*"))

    def runs(self) -> list[str]:
        """The state of each run, newest first."""
        return [run_state(run) for run in runs(self.bench().runs)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ------------------------------------------------------------------------------------------------ delete


def test_what_was_asked_for_goes_and_comes_back(place: Place) -> None:
    before = Counter((row.task_id, row.model_version, row.score) for row in place.project.predictions)
    [report] = place.delete()
    assert place.held() == {"v2": 6}
    assert (report.deleted, report.exit_code) == (TASKS, ExitCode.DONE)
    assert place.asked[0].versions == {"v1": TASKS}
    assert place.backups() == [Path(report.backup)]
    [imported] = import_stored(place.bench(), report.backup, place.heard)
    assert imported.exit_code is ExitCode.DONE
    assert Counter((row.task_id, row.model_version, row.score) for row in place.project.predictions) == before
    # By the name of the run, too.
    place.delete()
    import_stored(place.bench(), report.run, place.heard)
    assert Counter((row.task_id, row.model_version, row.score) for row in place.project.predictions) == before


def test_no_for_an_answer_leaves_nothing_behind(place: Place) -> None:
    place.answer = False
    [report] = place.delete()
    assert (report.state, report.exit_code) == ("declined", ExitCode.DONE)
    assert place.held() == {"v1": TASKS, "v2": 6}
    assert (place.runs(), place.backups()) == ([], [])


def test_a_stop_while_it_asks_deletes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()

    def confirm(_: Preview) -> bool:
        stop.ask("told to", ExitCode.INTERRUPTED)
        return True

    with pytest.raises(StoppedError):
        delete_predictions(place.bench(), V1, place.heard, confirm=confirm, stop=stop)
    assert place.held() == {"v1": TASKS, "v2": 6}
    assert (place.runs(), place.backups()) == ([], [])


def test_killed_in_the_middle_the_same_command_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.killed(monkeypatch)
    assert place.runs() == ["running"]
    [report] = place.delete()
    assert place.held() == {"v2": 6}
    assert report.deleted == TASKS
    assert len(place.backups()) == 1
    assert place.runs() == ["finished"]


def test_killed_when_all_was_gone_the_same_command_ends_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.killed(monkeypatch)
    place.project.predictions = [row for row in place.project.predictions if row.model_version != "v1"]
    place.project.active = ""
    [report] = place.delete()
    assert (report.exit_code, report.put_back, place.project.active) == (ExitCode.DONE, True, "v2")
    assert place.runs() == ["finished"]
    with pytest.raises(ConfigError, match="no prediction carries version 'v1'"):
        place.delete()


def test_what_was_predicted_again_since_goes_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.killed(monkeypatch)
    place.add("v1", [1, 2])
    first, second = place.delete()
    assert place.held() == {"v2": 6}
    assert (first.planned, second.planned) == (TASKS, 2)
    assert sorted(Path(report.backup) for report in (first, second)) == place.backups()


def test_one_without_a_backup_is_not_continued_by_who_wants_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.killed(monkeypatch, DeleteRequest(V1.which, V1.asked, backup=False))
    assert place.backups() == []
    [report] = place.delete()
    assert place.held() == {"v2": 6}
    rows = list(read_predictions(Path(report.backup)))
    assert len(rows) == TASKS - 3
    assert sorted(place.runs()) == ["finished", "superseded"]


def test_started_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.killed(monkeypatch)
    [report] = place.delete(resume=False)
    assert report.planned == TASKS - 3
    assert sorted(place.runs()) == ["finished", "superseded"]


def test_what_annotators_see_by_now_is_not_continued(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.killed(monkeypatch)
    place.project.active = "v1"
    with pytest.raises(ConfigError, match="annotators see v1 now"):
        place.delete()
    assert place.held()["v1"] == TASKS - 3


def test_a_folder_of_one_that_was_killed_while_it_read_is_cleared(place: Place) -> None:
    left = place.bench().runs / "20260101T000000Z-dead"
    left.mkdir(parents=True)
    (left / ".plan.parquet.7.partial").touch()
    backups = place.bench().folder / "backups"
    backups.mkdir()
    (backups / f".{left.name}.parquet.7.partial").touch()
    [report] = place.delete()
    assert place.backups() == [Path(report.backup)]
    assert not left.exists()


def test_one_deletion_at_a_time(place: Place) -> None:
    folder = place.bench().folder / "locks"
    with (
        hold(folder, deleting_verb.LOCK, wait_seconds=0, stop=Stop()),
        pytest.raises(LockedError, match="another deletion works on this project"),
    ):
        place.delete()
    with hold(folder, "v1", wait_seconds=0, stop=Stop()), pytest.raises(LockedError, match="version v1"):
        place.delete()
    assert place.held() == {"v1": TASKS, "v2": 6}


def test_a_limit_of_the_configuration_is_no_limit_here(place: Place) -> None:
    place.settings = {"selection.limit": 2, "selection.since": "2020-01-01"}
    place.delete()
    assert place.held() == {"v2": 6}
    assert any("created since" in words for words in place.heard.said)


def test_what_annotators_see_needs_force(place: Place) -> None:
    request = DeleteRequest(Which(all_versions=True), "all")
    with pytest.raises(ConfigError, match="annotators see v2 now"):
        place.delete(request)
    [counted] = place.delete(request, dry_run=True)
    assert counted.planned == TASKS + 6
    assert any("needs --force" in words for words in place.heard.said)
    [report] = place.delete(DeleteRequest(request.which, "all", force=True))
    assert (report.shown, place.held()) == ("", {})
    assert any("annotators see no predictions any more" in words for words in place.heard.said)


# ------------------------------------------------------------------------------------------------ backups


def test_a_backup_with_odd_rows_comes_back_as_far_as_it_can(place: Place) -> None:
    place.add(" lead", [7])
    place.add("", [8])
    place.add("undefined", [9])
    place.add("a, \"b\" 'c'", [10])
    place.project.predictions.append(Prediction(TaskId(11), None, 0.5, "null"))  # type: ignore[arg-type]
    place.add("v1", [1])
    [report] = place.delete(DeleteRequest(Which(all_versions=True), "all", force=True))
    assert (report.deleted, place.held()) == (TASKS + 12, {})
    reports = import_stored(place.bench(), report.backup, place.heard)
    assert [entry.model_version for entry in reports] == ["a, \"b\" 'c'", "null", "v1", "v2"]
    assert place.held() == {"a, \"b\" 'c'": 1, "null": 1, "v1": TASKS, "v2": 6}
    assert any("' lead'" in words for words in place.heard.said)
    assert any("2 predictions have no version" in words for words in place.heard.said)
    reports = import_stored(place.bench(), report.backup, place.heard, versionless_as="found")
    assert place.held()["found"] == 2


def test_the_audit_does_not_miss_what_was_deleted_on_purpose(place: Place) -> None:
    [report] = place.delete()
    import_stored(place.bench(), report.backup, place.heard)
    (place.folder / "ids").write_text("1\n2\n")
    place.settings = {"selection.task_ids": str(place.folder / "ids")}
    place.delete()
    place.settings = {}
    found = audit_project(place.bench(), "v1", place.heard)
    [proof] = found.proofs.values()
    assert (proof.confirmed, proof.gone, found.missing, found.exit_code) == (TASKS - 2, 2, 0, ExitCode.DONE)
    # What somebody else deleted is missing still, and comes back alone.
    third = next(row for row in place.project.predictions if (row.task_id, row.model_version) == (3, "v1"))
    place.project.delete(id(third))
    assert audit_project(place.bench(), "v1", place.heard).missing == 1
    audit_project(place.bench(), "v1", place.heard, repair=True)
    assert place.held()["v1"] == TASKS - 2


def test_a_backup_of_nothing_that_can_come_back(place: Place) -> None:
    place.project.predictions.clear()
    place.add("undefined", [1])
    [report] = place.delete(DeleteRequest(Which(versionless=True), "versionless"))
    with pytest.raises(ConfigError, match=r"nothing of .* can be imported"):
        import_stored(place.bench(), report.backup, place.heard)


def test_a_deletion_without_a_backup_cannot_be_imported(place: Place) -> None:
    [report] = place.delete(DeleteRequest(V1.which, V1.asked, backup=False))
    with pytest.raises(ConfigError, match="wrote no backup"):
        import_stored(place.bench(), report.run, place.heard)


# ------------------------------------------------------------------------------------------------ accept, replace


def test_the_review_list_is_written_even_if_nothing_is_accepted(place: Place) -> None:
    request = AcceptRequest(Bar("v1", 0.5, review_share=0.999999999))
    asked: list[Acceptance] = []

    def confirm(found: Acceptance) -> bool:
        asked.append(found)
        return True

    report = accept_predictions(place.bench(), request, place.heard, confirm=confirm)
    assert [int(line) for line in Path(report.review).read_text().split()] == list(range(1, TASKS + 1))
    assert (asked, report.accepted, report.state) == ([], 0, "finished")
    with pytest.raises(ConfigError, match="holds no predictions"):
        import_stored(place.bench(), report.run, place.heard)


def test_to_look_at_what_would_be_accepted_needs_no_lock(place: Place) -> None:
    request = AcceptRequest(Bar("v1", 0.5))
    with hold(place.bench().folder / "locks", "v1", wait_seconds=0, stop=Stop()):
        report = accept_predictions(place.bench(), request, place.heard, confirm=lambda _: True, dry_run=True)
        assert report.verdicts == {"sure enough": TASKS}
        with pytest.raises(LockedError):
            accept_predictions(place.bench(), request, place.heard, confirm=lambda _: True)
    assert place.project.annotations == {}


def test_an_acceptance_waits_for_a_request_of_one_that_was_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = AcceptRequest(Bar("v1", 0.5))

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MemoryProject, "accept", dies)
        with pytest.raises(Killed):
            accept_predictions(place.bench(), request, place.heard, confirm=lambda _: True)
    waited: list[float] = []

    def sleep(_: Stop, seconds: float) -> None:
        # The server carries out what the dead process had sent.
        if seconds > 1:
            waited.append(seconds)
            place.project.accept("v1", [TaskId(task) for task in place.project.tasks])

    monkeypatch.setattr(Stop, "sleep", sleep)
    report = accept_predictions(place.bench(), request, place.heard, confirm=lambda _: True)
    assert len(waited) == 1
    assert report.accepted == 0
    assert {len(entry.annotations) for entry in place.project.annotations.values()} == {1}
    assert not list(place.folder.rglob("in_flight.json"))


@pytest.mark.parametrize("version", ["", "undefined"])
def test_what_has_no_version_is_not_accepted(place: Place, version: str) -> None:
    place.add(version, [1])
    with pytest.raises(ConfigError, match="without a version cannot be accepted"):
        accept_predictions(place.bench(), AcceptRequest(Bar(version, 0.5)), place.heard, confirm=lambda _: True)


def finished(version: str, **more: Any) -> RunReport:
    """A run that went well."""
    return RunReport("run", 1, version, state="finished", **more)


def test_a_new_version_replaces_the_others_on_its_tasks(place: Place) -> None:
    place.add("new", range(1, 11))
    made = Annotation(1, [], "2026-03-01T00:00:00Z")
    place.project.annotations[1] = AnnotatedTask(place.project.tasks[1], [made])
    [report] = replace_versions(place.bench(), finished("new"), place.heard)
    assert place.held() == {"new": 10, "v1": 2}
    assert place.project.active == "new"
    assert report.backup
    assert any("2 tasks of the project have no prediction of new" in words for words in place.heard.said)


def test_only_selected_tasks_lose_others(place: Place) -> None:
    place.add("new", range(1, 11))
    (place.folder / "ids").write_text("1\n2\n")
    place.settings = {"selection.task_ids": str(place.folder / "ids")}
    replace_versions(place.bench(), finished("new"), place.heard)
    assert place.held() == {"new": 10, "v1": 10, "v2": 4}


def test_the_newest_others_may_stay(place: Place) -> None:
    place.add("new", range(1, 13))
    replace_versions(place.bench(), finished("new"), place.heard, keep=1)
    assert place.held() == {"new": 12, "v2": 6}
    # Again: that one is the newest of the others still.
    reports = replace_versions(place.bench(), finished("new"), place.heard, keep=1)
    assert [report.planned for report in reports] == [0]


@pytest.mark.parametrize(
    "report",
    [finished("new", dry_run=True), finished("new", quarantined=3), finished("never")],
    ids=["dry run", "over budget", "nothing carries it"],
)
def test_a_run_that_did_not_go_well_replaces_nothing(place: Place, report: RunReport) -> None:
    place.add("new", range(1, 13))
    assert replace_versions(place.bench(), report, place.heard) == []
    assert (place.held(), place.project.active) == ({"new": 12, "v1": 12, "v2": 6}, "v2")
