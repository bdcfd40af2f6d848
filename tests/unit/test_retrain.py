"""Which annotation counts, which tasks are held out, and what a training that goes wrong leaves: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_support import TEXT_CONFIG, TOPICS, topic_region
from lsbatch.entities import AnnotatedTask, Annotation, Task, TaskId
from lsbatch.errors import ConfigError, ExitCode, LsbatchError, PipelineError, TransientError
from lsbatch.label_config import LabelConfig
from lsbatch.operations.retrain import Choice, RetrainOptions, choose, is_held_out, retrain
from lsbatch.ports import Evaluation, PipelineContext, Trainable, TrainingTask
from lsbatch.progress import Silent
from lsbatch.testing import MemoryMedia, MemoryProject
from lsbatch_connectors.model_store import FsspecModelStore

OPTIONS = RetrainOptions(name="model", pipeline="mine:Learner", server="studio", project=3)
CONTEXT = PipelineContext(LabelConfig(TEXT_CONFIG), {"depth": 3}, MemoryMedia())
Fit = Callable[[Iterable[TrainingTask], Path], Any]


def annotation(number: int, time: str, *, cancelled: bool = False, truth: bool = False) -> Annotation:
    """An annotation of the topic that its number tells."""
    return Annotation(number, (topic_region(TOPICS[number % 3]),), f"2026-01-01T{time}:00Z", cancelled, truth)


def learner(fit: Fit) -> type[Trainable]:
    """A pipeline that learns like this."""

    class Learner:
        @classmethod
        def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Any:
            return fit(tasks, model_dir)

    return cast("type[Trainable]", Learner)


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
    ],
)
def test_the_annotation_that_counts(which: Choice, annotations: list[Annotation], chosen: int | None) -> None:
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
        (folder / "model.json").write_text("{}")
        return Evaluation(29, 7, 0.75, 0.5, (), ((TaskId(5), "null"),))

    report = retrain(project, store, learner(fit), CONTEXT, OPTIONS, Silent(), annotated_tasks=40)
    manifest = store.get(report.version.name).manifest
    used = [number for number in range(1, 41) if number % 10]
    assert [task.task.id for task in seen] == used
    assert [task.held_out for task in seen] == [is_held_out(number, 0.2) for number in used]
    assert manifest["annotations"]["tasks"] == [[number, number, "2026-01-01T10:00:00Z"] for number in used]
    assert manifest["metrics"]["accuracy"] == 0.75
    assert manifest["metrics"]["unread"] == [{"task": 5, "cause": "null"}]
    assert {"pipeline": "mine:Learner", "server": "studio", "project": 3}.items() <= manifest.items()
    assert (report.skipped, report.to_json()["skipped"]) == (4, 4)


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
        retrain(project, store, learner(fit), CONTEXT, OPTIONS, Silent(), annotated_tasks=40)
    assert caught.value.exit_code is (ExitCode.BUG if kind is PipelineError else ExitCode.USAGE)
    assert store.versions() == []


def test_a_source_that_breaks_is_not_the_pipelines_fault(store: FsspecModelStore) -> None:
    class Broken(MemoryProject):
        def annotated(self) -> Any:
            raise TransientError("the server went away")
            yield

    def fit(tasks: Iterable[TrainingTask], _: Path) -> Any:
        return list(tasks)

    with pytest.raises(TransientError):
        retrain(Broken(), store, learner(fit), CONTEXT, OPTIONS, Silent(), annotated_tasks=1)
    assert store.versions() == []
