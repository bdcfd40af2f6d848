"""``pipeline.params`` of the built-in pipelines: what is taken, what is refused, and what the documents say of it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from lsbatch.errors import ConfigError
from lsbatch_pipelines.image_classification import ImageOptions
from lsbatch_pipelines.interactive_segmentation import InteractiveSegmentationOptions
from lsbatch_pipelines.params import read_params
from lsbatch_pipelines.text_classification import TextOptions
from lsbatch_pipelines.text_spans import SpanOptions

README = Path(__file__).parents[2] / "pipelines" / "README.md"


@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({}, TextOptions()),
        ({"trees": 5, "control": "topic"}, TextOptions(trees=5, control="topic")),
        ({"learning_rate": 1}, TextOptions(learning_rate=1.0)),
        ({"max_depth": 20, "max_features": 10}, TextOptions(max_depth=20, max_features=10)),
    ],
)
def test_what_is_taken(params: dict[str, Any], options: TextOptions) -> None:
    read = read_params(TextOptions, params)
    assert read == options
    assert type(read.learning_rate) is float


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"tres": 5}, "pipeline.params.tres: unknown; did you mean trees?"),
        (
            {"quux": 5},
            "pipeline.params.quux: unknown; known are control, trees, max_depth, learning_rate, balance, seed, size",
        ),
        ({"trees": 0}, "pipeline.params.trees: must be a whole number from 1 to 10000, got 0"),
        ({"trees": 2.0}, "pipeline.params.trees: must be a whole number"),
        ({"trees": "5"}, "pipeline.params.trees: must be a whole number from 1 to 10000, got '5'"),
        ({"trees": True}, "pipeline.params.trees: must be a whole number"),
        ({"trees": None}, "pipeline.params.trees: must be a whole number"),
        ({"learning_rate": float("nan")}, "pipeline.params.learning_rate: must be a number from 0.001 to 1, got nan"),
        ({"size": 33}, "pipeline.params.size: must be a whole number from 16 to 256, a multiple of 8, got 33"),
        ({"control": ""}, "pipeline.params.control: must be a name, got ''"),
        ({"control": ["topic"]}, "pipeline.params.control: must be a name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_params(ImageOptions, params)


def test_every_mistake_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_params(TextOptions, {"tres": 1, "trees": -1, "max_depth": 3, "learning_rate": "fast"})
    assert [line.split(":")[0].rpartition(".")[2] for line in str(caught.value).splitlines()] == [
        "tres",
        "trees",
        "learning_rate",
    ]


def test_the_readme_names_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    told = {key: re.findall(r"[\d.]+", default) for key, default in rows}
    expected: dict[str, list[str]] = {}
    for options in (TextOptions(), ImageOptions(), InteractiveSegmentationOptions(), SpanOptions()):
        for field in dataclasses.fields(options):
            value = getattr(options, field.name)
            expected.setdefault(field.name, []).extend([f"{value:g}"] if value != "" else [])
    assert told == expected
