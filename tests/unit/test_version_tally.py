"""What the versions of a project look like, and what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lsbatch.entities import StoredPrediction, TaskId, TaskPredictions
from lsbatch.ports import Backend, VersionCount
from lsbatch.version_tally import ProjectVersions, Tally, VersionSummary

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BACKEND = Backend("detector", "v1", "http://backend:9090")


def held(task: int, *versions: str, score: float | None = 0.5) -> TaskPredictions:
    """A task with predictions of these versions; the time of one is that of its task."""
    when = NOW + timedelta(hours=task)
    rows = [StoredPrediction(number, TaskId(task), [], score, version, when) for number, version in enumerate(versions)]
    return TaskPredictions(TaskId(task), rows)


def versions(*summaries: VersionSummary, active: str = "v1", shows: bool = True) -> ProjectVersions:
    """A project with these."""
    return ProjectVersions(summaries, active, [BACKEND], shows)


def summary(version: str, predictions: int = 5, tasks: int = 5) -> VersionSummary:
    """A version with so many predictions."""
    return VersionSummary(version, predictions, tasks, NOW, NOW, 0.5)


def test_predictions_tasks_times_and_scores_of_each_version() -> None:
    tally = Tally()
    for task in (held(3, "v1", "v1", "v2", score=0.2), held(1, "v1", score=0.8), held(2, "v2", score=None)):
        tally.add(task)
    v1, v2 = sorted(tally.summaries(), key=lambda entry: entry.model_version)
    assert (v1.predictions, v1.tasks, v1.first, v1.last) == (3, 2, NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    assert v1.mean_score is not None
    assert abs(v1.mean_score - 0.4) < 1e-9
    assert (v2.predictions, v2.tasks, v2.mean_score) == (2, 2, 0.2)


def test_a_version_without_scores_has_no_mean() -> None:
    tally = Tally()
    tally.add(held(1, "v1", score=None))
    assert tally.summaries()[0].mean_score is None


def test_the_newest_version_comes_first() -> None:
    tally = Tally()
    for task in (held(5, "old"), held(9, "new"), held(7, "middle")):
        tally.add(task)
    assert [entry.model_version for entry in tally.summaries()] == ["new", "middle", "old"]


def test_nothing_is_wrong_with_one_active_version() -> None:
    assert list(versions(summary("v1")).problems()) == []
    assert list(versions(summary("v1"), active="detector").problems()) == []
    assert list(versions(active="").problems()) == []


def test_each_thing_that_is_wrong_is_said_with_the_way_out() -> None:
    found = versions(summary("v2", 7, 5), summary(""), summary("undefined"), active="gone", shows=False)
    words = list(found.problems())
    assert len(words) == 5
    assert "v2: 2 predictions more than tasks" in words[0]
    assert "--duplicates" in words[0]
    assert "5 predictions have no version ((none))" in words[1]
    assert "(undefined)" in words[2]
    assert "'gone', which no prediction carries" in words[3]
    assert "--show-predictions" in words[4]


def test_no_active_version_is_said() -> None:
    assert any("annotators see no version" in words for words in versions(summary("v1"), active="").problems())


def test_counted_alone_there_are_neither_first_times_nor_scores() -> None:
    counts = [VersionCount("v1", 7, NOW), VersionCount("", 2, NOW)]
    found = ProjectVersions.counted(counts, {"v1": 3}, active="v1", backends=[BACKEND], shows_predictions=True)
    assert [(entry.model_version, entry.predictions, entry.tasks) for entry in found.versions] == [
        ("v1", 7, 4),
        ("", 2, 2),
    ]
    assert found.versions[0].first is None
    assert found.live("v1") == "detector"
    assert found.to_json()["versions"][0]["live"] == "detector"
