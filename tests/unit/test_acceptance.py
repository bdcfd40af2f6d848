"""Which predictions are sure enough to become annotations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lsbatch.acceptance import Acceptance, Bar, Verdict, labels_of
from lsbatch.entities import StoredPrediction, TaskId, TaskPredictions

BAR = Bar("v1", 0.9)


def task(
    *scores: float | None, number: int = 1, version: str = "v1", touched: bool = False, referenced: bool = False
) -> TaskPredictions:
    """A task with predictions of these scores, and one of another version."""
    when = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [StoredPrediction(9, TaskId(number), [], 1.0, "v10", when)]
    rows += [
        StoredPrediction(place, TaskId(number), [choice("food")], score, version, when, referenced)
        for place, score in enumerate(scores)
    ]
    return TaskPredictions(TaskId(number), rows, touched)


def choice(*labels: str) -> dict[str, Any]:
    """A region of choices."""
    return {"type": "choices", "value": {"choices": list(labels)}}


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (task(0.9), Verdict.ACCEPT),
        (task(1.0), Verdict.ACCEPT),
        (task(0.8999), Verdict.BELOW),
        (task(None), Verdict.UNSCORED),
        (task(0.95, 0.95), Verdict.TWICE),
        (task(0.95, touched=True), Verdict.TOUCHED),
        (task(0.95, touched=True, referenced=True), Verdict.DONE),
    ],
)
def test_what_becomes_of_a_task(given: TaskPredictions, verdict: Verdict) -> None:
    assert BAR.judge(given)[0] is verdict


def test_annotated_tasks_only_when_asked_for() -> None:
    bar = Bar("v1", 0.9, even_if_annotated=True)
    assert bar.judge(task(0.95, touched=True))[0] is Verdict.ACCEPT
    assert bar.judge(task(0.95, touched=True, referenced=True))[0] is Verdict.DONE


def test_the_part_for_review_is_the_same_each_time_and_about_as_large_as_asked() -> None:
    bar = Bar("v1", 0.9, review_share=0.1)
    first = [bar.judge(task(0.95, number=number))[0] for number in range(1, 2_001)]
    again = [bar.judge(task(0.95, number=number))[0] for number in range(1, 2_001)]
    assert first == again
    assert 140 <= first.count(Verdict.REVIEW) <= 260
    other = Bar("v2", 0.9, review_share=0.1)
    assert first != [other.judge(task(0.95, number=number, version="v2"))[0] for number in range(1, 2_001)]


def test_a_larger_share_leaves_what_a_smaller_one_left() -> None:
    small, large = Bar("v1", 0.9, review_share=0.05), Bar("v1", 0.9, review_share=0.2)
    tasks = [task(0.95, number=number) for number in range(1, 501)]
    for given in tasks:
        if small.judge(given)[0] is Verdict.REVIEW:
            assert large.judge(given)[0] is Verdict.REVIEW


@pytest.mark.parametrize(
    ("score", "step"), [(0.9, "0.900-0.920"), (0.92, "0.920-0.940"), (0.999, "0.980-1.000"), (1.0, "0.980-1.000")]
)
def test_the_range_of_a_score(score: float, step: str) -> None:
    assert BAR.step(score) == step


def test_the_only_score_that_passes_has_a_range_of_its_own() -> None:
    assert Bar("v1", 1.0).step(1.0) == "1.000"


@pytest.mark.parametrize(
    ("result", "labels"),
    [
        ([choice("food")], {"food"}),
        ([choice("food", "sport"), choice("food")], {"food", "sport"}),
        ([{"type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["Car"]}}], {"Car"}),
        ([{"type": "textarea", "value": {"text": ["free words"]}}], {"(textarea)"}),
        ([{"type": "rating", "value": {"rating": 4}}], {"(rating)"}),
        ([], {"(nothing)"}),
        (None, {"(nothing)"}),
        ({"choices": ["food"]}, {"(nothing)"}),
    ],
)
def test_the_labels_of_a_result(result: Any, labels: set[str]) -> None:
    assert labels_of(result) == labels


def test_what_is_counted() -> None:
    found = Acceptance()
    for given in (task(0.95), task(0.91, number=2), task(0.1, number=3)):
        found.add(*BAR.judge(given), BAR)
    assert found.accepted == 2
    assert found.labels == {"food": 2}
    assert found.verdicts == {"sure enough": 2, "score too low": 1}
    assert found.scores == {"0.940-0.960": 1, "0.900-0.920": 1}
