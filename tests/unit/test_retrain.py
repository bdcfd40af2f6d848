"""Which annotation counts, which tasks are held out, and what a training that goes wrong leaves: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_support import TEXT_CONFIG, TOPICS, topic_region
from lsbatch.entities import AnnotatedTask, Annotation, Task, TaskId
from lsbatch.errors import ConfigError, ExitCode, LsbatchError, PipelineError, TransientError
from lsbatch.label_config import LabelConfig
from lsbatch.operations import models
from lsbatch.operations.retrain import RetrainOptions, RetrainReport, RetrainSetup, retrain
from lsbatch.operations.training_data import Consensus, choose, is_held_out
from lsbatch.ports import AnnotationSource, Evaluation, PipelineContext, Selection, Trainable, TrainingTask
from lsbatch.progress import Silent
from lsbatch.promotions import Lineage, Promotion
from lsbatch.testing import MemoryMedia, MemoryProject
from lsbatch_connectors.model_store import FsspecModelStore

LINEAGE = Lineage("mine:Learner", "studio", 3)
OPTIONS = RetrainOptions(name="model", lineage=LINEAGE)
CONTEXT = PipelineContext(LabelConfig(TEXT_CONFIG), {"depth": 3}, MemoryMedia())
Fit = Callable[[Iterable[TrainingTask], Path], Any]
HELD_OUT = [number for number in range(1, 41) if number % 10 and is_held_out(number, 0.2)]


def annotation(number: int, time: str, *, cancelled: bool = False, truth: bool = False) -> Annotation:
    """An annotation of the topic that its number tells."""
    return Annotation(number, (topic_region(TOPICS[number % 3]),), f"2026-01-01T{time}:00Z", cancelled, truth)


def learner(fit: Fit) -> type[Trainable]:
    """A pipeline that learns like this, and answers as the file ``right`` of its model says: rightly or never so."""

    class Learner:
        def __init__(self, right: bool) -> None:
            self.right = right

        @classmethod
        def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Any:
            return fit(tasks, model_dir)

        @classmethod
        def build(cls, context: PipelineContext) -> Any:
            assert context.model_dir is not None
            return cls((context.model_dir / "right").read_text() == "yes")

        def predict(self, tasks: Sequence[Task]) -> list[Any]:
            topics = [TOPICS[(task.id + (not self.right)) % 3] for task in tasks]
            return [{"result": [topic_region(topic)], "score": 0.75} for topic in topics]

    return cast("type[Trainable]", Learner)


def knows(right: bool, **more: float) -> Fit:
    """Stores a model that answers rightly, or never so."""

    def fit(tasks: Iterable[TrainingTask], folder: Path) -> Evaluation:
        held_out = sum(task.held_out for task in tasks)
        (folder / "right").write_text("yes" if right else "no")
        return Evaluation(29, held_out, more.get("accuracy", float(right)), more.get("baseline", 0.5), ())

    return fit


def trained(
    project: AnnotationSource,
    store: FsspecModelStore,
    fit: Fit,
    options: RetrainOptions = OPTIONS,
    label_config: LabelConfig = CONTEXT.label_config,
) -> RetrainReport:
    """A training as the command does it."""
    versions = models.trained(store, LINEAGE)
    setup = RetrainSetup(
        source=project,
        store=store,
        pipeline=learner(fit),
        context=replace(CONTEXT, label_config=label_config),
        options=options,
        champion=models.champion(store, LINEAGE),
        last=versions[-1] if versions else None,
        annotated_tasks=40,
    )
    return retrain(setup, Silent())


@pytest.fixture
def project() -> MemoryProject:
    """Forty tasks with an annotation each; that of every tenth was cancelled."""
    project = MemoryProject()
    for number in range(1, 41):
        task = Task(TaskId(number), {"text": str(number)})
        project.annotations[number] = AnnotatedTask(task, [annotation(number, "10:00", cancelled=number % 10 == 0)])
    return project


@pytest.fixture
def store(tmp_path: Path) -> FsspecModelStore:
    """An empty store."""
    return FsspecModelStore(str(tmp_path / "models"), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("which", "annotations", "chosen"),
    [
        ("latest", [annotation(1, "10:00"), annotation(2, "09:00")], 1),
        ("first", [annotation(1, "10:00"), annotation(2, "09:00")], 2),
        ("latest", [annotation(1, "10:00"), annotation(2, "10:00")], 2),
        ("latest", [annotation(1, "10:00"), annotation(2, "11:00", cancelled=True)], 1),
        ("ground-truth", [annotation(1, "10:00", truth=True), annotation(2, "11:00")], 1),
        ("ground-truth", [annotation(1, "10:00", truth=True), annotation(2, "11:00", truth=True)], 2),
        ("ground-truth", [annotation(1, "10:00")], None),
        ("latest", [annotation(1, "10:00", cancelled=True)], None),
        ("latest", [], None),
        # Annotations 1, 4 and 7 say the same.
        ("majority", [annotation(1, "10:00"), annotation(2, "12:00"), annotation(4, "11:00")], 4),
        ("majority", [annotation(1, "10:00"), annotation(2, "12:00")], 2),
        ("majority", [annotation(1, "10:00"), annotation(4, "09:00", cancelled=True), annotation(2, "11:00")], 2),
    ],
)
def test_the_annotation_that_counts(which: Consensus, annotations: list[Annotation], chosen: int | None) -> None:
    found = choose(annotations, which)
    assert (found and found.id) == chosen


@given(task=st.integers(1, 2**31), share=st.floats(0.01, 0.5))
def test_a_task_stays_held_out_when_more_are(task: int, share: float) -> None:
    assert is_held_out(task, min(1.0, share * 2)) or not is_held_out(task, share)


def test_about_the_share_is_held_out() -> None:
    assert 1_900 < sum(is_held_out(task, 0.2) for task in range(10_000)) < 2_100


def test_the_manifest_says_what_was_learned_from(project: MemoryProject, store: FsspecModelStore) -> None:
    seen: list[TrainingTask] = []

    def fit(tasks: Iterable[TrainingTask], folder: Path) -> Evaluation:
        seen.extend(tasks)
        (folder / "right").write_text("yes")
        return Evaluation(29, 7, 0.75, 0.5, (), ((TaskId(5), "null"),))

    report = trained(project, store, fit)
    assert report.version is not None
    manifest = store.get(report.version.name).manifest
    used = [number for number in range(1, 41) if number % 10]
    assert [task.task.id for task in seen] == used
    assert [task.held_out for task in seen] == [is_held_out(number, 0.2) for number in used]
    assert manifest["annotations"]["tasks"] == [[number, number, "2026-01-01T10:00:00Z"] for number in used]
    assert manifest["annotations"]["held_out_share"] == 0.2
    assert manifest["metrics"]["accuracy"] == 0.75
    assert manifest["metrics"]["unread"] == [{"task": 5, "cause": "null"}]
    assert manifest["metrics"]["calibration_error"] == pytest.approx(0.25)
    assert {"pipeline": "mine:Learner", "server": "studio", "project": 3}.items() <= manifest.items()
    assert (report.skipped, report.to_json()["skipped"]) == (4, 4)


def test_the_first_version_must_be_better_than_the_most_frequent_answer(
    project: MemoryProject, store: FsspecModelStore
) -> None:
    refused = trained(project, store, knows(right=False))
    assert (refused.promoted, refused.exit_code) == (False, ExitCode.GATE_FAILED)
    assert models.champion(store, LINEAGE) is None
    assert len(store.versions()) == 1, "it stays stored"
    report = trained(project, store, knows(right=True))
    assert (report.promoted, report.exit_code) == (True, ExitCode.DONE)
    assert report.gate is not None
    assert (report.gate.champion, report.gate.champion_score, report.gate.tasks) == ("", 0.5, len(HELD_OUT))
    assert models.promoted(store, LINEAGE) == [report.version and report.version.name]


def test_a_worse_version_is_stored_and_not_used(project: MemoryProject, store: FsspecModelStore) -> None:
    good = trained(project, store, knows(right=True))
    bad = trained(project, store, knows(right=False))
    assert good.version is not None
    assert bad.version is not None
    assert bad.gate is not None
    assert (bad.gate.champion, bad.gate.difference.value, bad.exit_code) == (good.version.name, -1, 6)
    assert models.promoted(store, LINEAGE) == [good.version.name]
    assert bad.version.manifest["parent"] == good.version.name
    assert bad.version.manifest["gate"]["passed"] is False
    allowed = trained(project, store, knows(right=False), replace(OPTIONS, most_regression=1.0))
    assert allowed.promoted
    same = trained(project, store, knows(right=False))
    assert same.promoted, "one that is as good takes its place"


def test_a_champion_that_cannot_be_used_any_more_is_no_measure(
    project: MemoryProject, store: FsspecModelStore, tmp_path: Path
) -> None:
    first = trained(project, store, knows(right=True))
    assert first.version is not None
    (tmp_path / "models" / first.version.name / "right").write_text("damaged")
    second = trained(project, store, knows(right=True))
    assert second.gate is not None
    assert (second.gate.champion, second.promoted) == ("", True)


def test_only_what_neither_was_trained_on_is_compared(project: MemoryProject, store: FsspecModelStore) -> None:
    trained(project, store, knows(right=True), replace(OPTIONS, holdout=0.1))
    second = trained(project, store, knows(right=True))
    assert second.gate is not None
    assert second.gate.tasks == sum(is_held_out(number, 0.1) for number in HELD_OUT) < len(HELD_OUT)


def test_without_a_change_nothing_is_trained_again(project: MemoryProject, store: FsspecModelStore) -> None:
    since_last = replace(OPTIONS, since_last=True)
    first = trained(project, store, knows(right=True), since_last)
    assert first.version is not None
    again = trained(project, store, bug, since_last)
    assert (again.version, again.last, again.exit_code) == (None, first.version.name, ExitCode.DONE)
    assert again.to_json()["nothing_new_since"] == first.version.name
    other = LabelConfig(TEXT_CONFIG + " ")
    assert trained(project, store, knows(right=True), since_last, other).version is not None, "another label config"
    entry = project.annotations[3]
    project.annotations[3] = replace(entry, annotations=[annotation(3, "11:00")])
    assert trained(project, store, knows(right=True), since_last).version is not None


class Killed(BaseException):
    """The process dies."""


def test_a_training_that_died_before_its_promotion_is_promoted_by_the_next(
    project: MemoryProject, store: FsspecModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    since_last = replace(OPTIONS, since_last=True)

    def die(_: Promotion) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(store, "note", die)
        with pytest.raises(Killed):
            trained(project, store, knows(right=True), since_last)
    [version] = store.versions()
    assert models.promoted(store, LINEAGE) == []
    again = trained(project, store, bug, since_last)
    assert (again.version, again.in_use) == (None, version.name)
    assert models.promoted(store, LINEAGE) == [version.name]
    # What a person took back stays back.
    better = trained(project, store, knows(right=True))
    models.rollback(store, LINEAGE)
    third = trained(project, store, bug, since_last)
    assert better.version is not None
    assert (third.last, third.in_use) == (better.version.name, version.name)


def test_what_was_refused_is_not_promoted_later(project: MemoryProject, store: FsspecModelStore) -> None:
    since_last = replace(OPTIONS, since_last=True)
    trained(project, store, knows(right=False), since_last)
    assert trained(project, store, bug, since_last).in_use == ""
    assert models.promoted(store, LINEAGE) == []


def test_too_few_annotations_are_refused(project: MemoryProject, store: FsspecModelStore) -> None:
    with pytest.raises(ConfigError, match="36 annotated tasks, at least 37 are wanted"):
        trained(project, store, bug, replace(OPTIONS, min_annotations=37))
    assert store.versions() == []


def test_where_a_model_cannot_be_stored_nothing_is_trained(project: MemoryProject, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    store = FsspecModelStore(str(tmp_path / "models"), cache_dir=tmp_path / "cache")
    with pytest.raises(ConfigError, match="cannot be stored"):
        trained(project, store, bug)


def bug(_: Iterable[TrainingTask], folder: Path) -> Any:
    """Stores something and breaks."""
    (folder / "half.json").write_text("{")
    raise KeyError("topic")


def leave(_tasks: Iterable[TrainingTask], _folder: Path) -> Any:
    """Ends the process."""
    raise SystemExit(2)


def too_few(_tasks: Iterable[TrainingTask], _folder: Path) -> Any:
    """Says what is wrong."""
    raise ConfigError("too few annotations")


@pytest.mark.parametrize(
    ("fit", "kind", "words"),
    [
        (
            bug,
            PipelineError,
            r"mine:Learner cannot be trained: fit\(\) raised KeyError: 'topic' \(test_retrain",
        ),
        (leave, PipelineError, r"fit\(\) raised SystemExit: 2"),
        (lambda *_: None, PipelineError, r"fit\(\) returned NoneType instead of an Evaluation"),
        (too_few, ConfigError, "too few annotations"),
    ],
    ids=["raises", "exits", "returns nothing", "refuses"],
)
def test_a_training_that_goes_wrong_leaves_nothing(
    fit: Fit, kind: type[LsbatchError], words: str, project: MemoryProject, store: FsspecModelStore
) -> None:
    with pytest.raises(kind, match=words) as caught:
        trained(project, store, fit)
    assert caught.value.exit_code is (ExitCode.BUG if kind is PipelineError else ExitCode.USAGE)
    assert store.versions() == []


def test_a_source_that_breaks_is_not_the_pipelines_fault(store: FsspecModelStore) -> None:
    class Broken(MemoryProject):
        def annotated(self, selection: Selection) -> Any:
            raise TransientError("the server went away")
            yield

    def fit(tasks: Iterable[TrainingTask], _: Path) -> Any:
        return list(tasks)

    with pytest.raises(TransientError):
        trained(Broken(), store, fit)
    assert store.versions() == []
