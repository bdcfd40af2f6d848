"""How predictions are compared with annotations, and what may be said of a mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsbatch.label_config import LabelConfig
from lsbatch.quality.agreement import agreement, answer, labels_of
from lsbatch.quality.intervals import calibration_error, difference, mean
from lsbatch.quality.shapes import matched, overlap

CONFIG = LabelConfig(
    """<View>
    <Text name="text" value="$text"/><Image name="image" value="$image"/>
    <Choices name="topic" toName="text" choice="multiple"><Choice value="a"/><Choice value="b"/></Choices>
    <Labels name="span" toName="text"><Label value="a"/><Label value="b"/></Labels>
    <RectangleLabels name="box" toName="image"><Label value="a"/><Label value="b"/></RectangleLabels>
    <TextArea name="words" toName="text"/>
    <Number name="many" toName="text"/>
    </View>"""
)
CONTROLS = {control.name: control for control in CONFIG.controls}


def region(name: str, kind: str, **value: Any) -> dict[str, Any]:
    """A region of a control."""
    return {"from_name": name, "type": kind, "value": value}


def choices(*labels: str) -> dict[str, Any]:
    """Labels of the task."""
    return region("topic", "choices", choices=list(labels))


def span(start: int, end: int, label: str = "a") -> dict[str, Any]:
    """A span of the text."""
    return region("span", "labels", start=start, end=end, labels=[label])


def box(x: float, y: float, width: float, height: float, label: str = "a", rotation: float = 0) -> dict[str, Any]:
    """A rectangle."""
    return region(
        "box", "rectanglelabels", x=x, y=y, width=width, height=height, rotation=rotation, rectanglelabels=[label]
    )


def text(*lines: str) -> dict[str, Any]:
    """What somebody wrote."""
    return region("words", "textarea", text=list(lines))


def number(value: float) -> dict[str, Any]:
    """A number."""
    return region("many", "number", number=value)


@pytest.mark.parametrize(
    ("name", "predicted", "said", "score"),
    [
        ("topic", [choices("a", "b")], [choices("b", "a")], 1),
        ("topic", [choices("a")], [choices("a", "b")], 0),
        ("topic", [], [], 1),
        ("topic", [], [choices("a")], 0),
        ("span", [span(0, 4), span(6, 9)], [span(0, 4), span(6, 8)], 0.5),
        ("span", [span(0, 4)], [span(0, 4, "b")], 0),
        ("span", [span(0, 4), span(0, 4)], [span(0, 4)], 2 / 3),
        ("box", [box(10, 10, 20, 20)], [box(11, 11, 20, 20)], 1),
        ("box", [box(10, 10, 20, 20)], [box(50, 50, 20, 20)], 0),
        ("box", [box(10, 10, 20, 20), box(60, 60, 10, 10)], [box(10, 10, 20, 20)], 2 / 3),
        ("words", [text("kitten")], [text("sitting")], 1 - 3 / 7),
        ("words", [text("a", "b")], [text("a", "b")], 1),
        ("words", [text("much too long")], [text("x")], 0),
        ("many", [number(8)], [number(10)], 0.8),
        ("many", [], [number(10)], 0),
    ],
)
def test_agreement(name: str, predicted: list[Any], said: list[Any], score: float) -> None:
    assert agreement([CONTROLS[name]], predicted, said) == pytest.approx(score)


def test_each_control_counts_the_same() -> None:
    both = [CONTROLS["topic"], CONTROLS["many"]]
    assert agreement(both, [choices("a"), number(3)], [choices("a"), number(0)]) == 0.5


def test_what_a_region_is_called_does_not_matter() -> None:
    one, other = {**choices("a", "b"), "id": "x", "score": 0.9}, {**choices("b", "a"), "id": "y"}
    assert answer([one]) == answer([other]) != answer([choices("a")])
    assert labels_of(box(0, 0, 1, 1, "b")) == ("b",)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (box(0, 0, 20, 20), box(10, 0, 20, 20), 1 / 3),
        (box(0, 0, 50, 50), box(0, 0, 50, 50), 1),
        # A quarter turn about the upper left corner.
        (box(40, 40, 20, 10, rotation=90), box(30, 40, 10, 20), 1),
        (region("box", "x", x=50, y=50, radiusX=20, radiusY=20), box(30, 30, 40, 40), 3.14159 / 4),
        (region("box", "x", points=[[0, 0], [40, 0], [0, 40]]), box(0, 0, 40, 40), 0.5),
        (span(0, 10), span(5, 15), 1 / 3),
        (span(0, 10), span(10, 15), 0),
        (box(0, 0, 20, 20), span(0, 20), 0),
        (region("box", "x", x="?", y=1, width=2, height=2), box(0, 0, 1, 1), 0),
        ({"value": None}, box(0, 0, 1, 1), 0),
    ],
)
def test_overlap(one: dict[str, Any], other: dict[str, Any], shared: float) -> None:
    assert overlap(one, other) == pytest.approx(shared, abs=0.03)
    assert overlap(other, one) == pytest.approx(shared, abs=0.03)


def test_each_region_is_matched_at_most_once_and_best_in_sum() -> None:
    ours, theirs = [span(0, 10), span(2, 10)], [span(0, 10), span(20, 30)]
    assert matched(ours, theirs) == [1.0]
    assert matched(ours, [span(0, 10), span(2, 10)]) == [1.0, 1.0]
    assert matched([], theirs) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_a_mean_lies_within_its_interval(values: list[float]) -> None:
    found = mean(values)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert mean(values) == found


def test_the_interval_narrows_with_more_tasks() -> None:
    few, many = mean([0.0, 1.0] * 10), mean([0.0, 1.0] * 1000)
    assert few.high - few.low > 5 * (many.high - many.low) > 0
    assert mean([1.0] * 12).low == pytest.approx(0.757, abs=0.001), "Wilson's interval of 12 of 12"
    # 1.96 standard errors to either side.
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.5 / 2000**0.5, rel=0.1)


def test_a_difference_is_taken_task_by_task() -> None:
    found = difference([1.0, 0.0, 1.0], [0.0, 0.0, 1.0])
    assert found.value == pytest.approx(1 / 3)
    # A few ties prove little.
    few, many = difference([0.3] * 10, [0.3] * 10), difference([0.3] * 1000, [0.3] * 1000)
    assert few.value == 0
    assert 0.1 < few.high == -few.low < 0.2
    assert many.high < 0.005
    with pytest.raises(ValueError, match="argument"):
        difference([1.0], [1.0, 0.0])


def test_scores_that_are_the_share_of_right_answers_have_no_error() -> None:
    assert calibration_error([0.75] * 4, [1, 1, 1, 0]) == 0
    assert calibration_error([0.9] * 4, [1, 0, 1, 0]) == pytest.approx(0.4)
    assert calibration_error([1.0, 1.0, 0.0], [1, 1, 1]) == pytest.approx(1 / 3)
    assert calibration_error([], []) is None
    chance = np.random.default_rng(0)
    scores = chance.random(20_000)
    error = calibration_error(list(scores), list((chance.random(20_000) < scores).astype(float)))
    assert error is not None
    assert error < 0.02
