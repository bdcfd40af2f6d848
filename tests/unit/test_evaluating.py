"""Predictions against annotations: what is compared, what is left out, and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from ls_support import TEXT_CONFIG, TOPICS, topic_region
from lsbatch.entities import AnnotatedTask, Annotation, StoredPrediction, Task, TaskId, TaskPredictions
from lsbatch.evaluation_page import evaluation_page
from lsbatch.label_config import LabelConfig
from lsbatch.operations.evaluating import EvaluationReport, evaluate
from lsbatch.ports import Selection
from lsbatch.progress import Silent
from lsbatch.quality.scorecard import Scorecard
from lsbatch.testing import MemoryProject

CONFIG = LabelConfig(TEXT_CONFIG)
START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = 60


def annotation(number: int, label: str, **more: Any) -> Annotation:
    """What a person said of a task."""
    return Annotation(number, (topic_region(label),), "2026-01-02T00:00:00Z", **more)


def stored(
    number: int, task: int, label: str, score: float | None, version: str, result: Any = None
) -> StoredPrediction:
    """A prediction as a project holds it."""
    regions = [topic_region(label)] if result is None else result
    made = START + timedelta(minutes=number)
    return StoredPrediction(number, TaskId(task), regions, score, version, made)


class Project(MemoryProject):
    """A project whose predictions have ids and times."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[StoredPrediction] = []

    def holding(
        self, selection: Selection, versions: Collection[str] | None = None, *, references: bool = False
    ) -> Iterator[Sequence[TaskPredictions]]:
        """See ``PredictionStore.holding``; one page."""
        found = {}
        for task in selection.task_ids or ():
            rows = [row for row in self.held if row.task_id == task]
            if versions is None or {row.model_version for row in rows}.intersection(versions):
                found[task] = TaskPredictions(TaskId(task), rows)
        yield list(found.values())


@pytest.fixture
def project() -> Project:
    """Sixty annotated tasks, the first version wrong on every third, the second on every sixth of the first half."""
    project = Project()
    for task in range(1, TASKS + 1):
        label = TOPICS[task % 3]
        project.annotations[task] = AnnotatedTask(Task(TaskId(task), {}), [annotation(task, label)])
        wrong = TOPICS[(task + 1) % 3]
        project.held.append(stored(task, task, wrong if task % 3 == 0 else label, 0.95, "v1"))
        if task <= TASKS // 2:
            guess = wrong if task % 6 == 0 else label
            project.held.append(stored(1000 + task, task, guess, task / TASKS, "v2"))
    return project


def evaluated(project: Project, *versions: str, **more: Any) -> EvaluationReport:
    """As the command does it."""
    settings = {"trained": {}, **more}
    return evaluate(
        project, project, CONFIG, versions, Selection(), "latest", Silent(), project=3, annotated_tasks=60, **settings
    )


def test_versions_are_measured_and_compared_on_the_same_tasks(project: Project) -> None:
    report = evaluated(project, "v1", "v2")
    first, second = report.versions
    assert (report.annotated, first.tasks, first.without, second.tasks, second.without) == (60, 60, 0, 30, 30)
    assert first.agreement is not None
    assert second.agreement is not None
    assert first.agreement.value == pytest.approx(2 / 3)
    assert second.agreement.value == pytest.approx(5 / 6)
    tasks, interval = report.differences["v2"]
    assert (tasks, interval.value) == (30, pytest.approx(1 / 6))
    assert interval.low > 0
    assert first.calibration_error == pytest.approx(0.95 - 2 / 3)
    [control] = first.controls
    assert control.numbers == {"accuracy": pytest.approx(2 / 3)}
    assert {row.label: row.support for row in control.per_label} == dict.fromkeys(TOPICS, 20)
    # Tasks 3, 6, ... are of the first topic, and all predicted as the second.
    assert control.confusion[TOPICS[0]] == {TOPICS[0]: 0, TOPICS[1]: 20, TOPICS[2]: 0}
    assert [row.recall for row in control.per_label] == [0, 1, 1]
    assert [row.precision for row in control.per_label] == [0, 0.5, 1]
    assert [(band.low, band.tasks) for band in first.bands] == [(0.9, 60)]
    assert [mistake.task_id for mistake in first.mistakes] == list(range(3, 61, 3))
    assert (first.mistakes[0].predicted, first.mistakes[0].said) == (TOPICS[1], TOPICS[0])
    assert [mistake.task_id for mistake in second.mistakes] == [30, 24, 18, 12, 6]


def test_what_a_version_was_trained_on_proves_nothing(project: Project) -> None:
    [found] = evaluated(project, "v1", trained={"v1": range(1, 31)}).versions
    assert (found.tasks, found.trained_on) == (30, 30)


def test_of_duplicates_the_newest_counts(project: Project) -> None:
    project.held.append(stored(2000, 3, TOPICS[0], 0.9, "v1"))
    [found] = evaluated(project, "v1").versions
    assert 3 not in [mistake.task_id for mistake in found.mistakes]
    assert found.tasks == 60


def test_strange_predictions_count_as_wrong(project: Project) -> None:
    project.held = [
        stored(1, 1, "", None, "v1", result={"a": 1}),
        stored(2, 2, "", None, "v1", result=["x", None]),
        stored(3, 3, TOPICS[0], None, "v1"),
    ]
    [found] = evaluated(project, "v1").versions
    assert found.agreement is not None
    assert found.agreement.value == pytest.approx(1 / 3)
    assert (found.calibration_error, found.bands, found.mistakes) == (None, (), ())


def test_what_annotators_did_with_regions() -> None:
    card = Scorecard("v1", CONFIG)

    def named(label: str, name: str) -> dict[str, Any]:
        return {**topic_region(label), "id": name}

    result = [named("sport", "a"), named("food", "b"), named("music", "c")]
    said = (named("sport", "a"), named("music", "b"), named("food", "d"), named("food", "e"))
    card.add(stored(7, 1, "", 0.5, "v1", result), Annotation(1, said, "", parent_prediction=7))
    card.add(stored(8, 2, "", 0.5, "v1", result), Annotation(2, said, "", parent_prediction=6))
    edits = card.result().edits
    assert (edits.annotations, edits.kept, edits.changed, edits.removed, edits.added) == (1, 1, 1, 1, 2)
    card.add(stored(9, 3, "sport", 0.5, "v1"), Annotation(3, (topic_region("sport"),), "", parent_prediction=9))
    assert (card.result().edits.annotations, card.result().edits.kept) == (2, 2)


class Page(HTMLParser):
    """What a page loads and links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.loads += [str(found[name]) for name in ("src", "data") if name in found]
        if tag in ("link", "script"):
            self.loads.append(tag)
        if tag == "a":
            self.links.append(str(found.get("href")))


def test_the_page_is_one_file_with_pictures_and_links(project: Project) -> None:
    text = evaluation_page(evaluated(project, "v1", "v2"), "https://label.example.org/")
    page = Page(text)
    assert page.loads == []
    # Reliability, scores and confusion of each version, and agreement over time.
    assert page.tags.count("figure") == page.tags.count("svg") == 7
    assert page.links[0] == "https://label.example.org/projects/3/data?task=3"
    assert len(page.links) == 20 + 5
    assert "0.667 (" in text


def test_what_people_write_is_text_in_the_page(project: Project) -> None:
    version = "v1 <script>alert(1)</script> & $x_"
    label = "<b>$10^</b>"
    project.held = [stored(1, 1, label, 0.9, version), stored(2, 2, TOPICS[2], 0.3, version)]
    text = evaluation_page(evaluated(project, version), "https://label.example.org")
    assert not {"script", "b"}.intersection(Page(text).tags)
    assert "&lt;b&gt;$10^&lt;/b&gt;" in text


def test_a_page_of_nothing_says_so(project: Project) -> None:
    project.annotations = {}
    text = evaluation_page(evaluated(project, "v1"), "https://label.example.org")
    assert "No annotated task carries a prediction that could be compared" in re.sub(r"\s+", " ", text)
