"""Which Choices the built-in pipelines serve, what an annotation says, and a model whose label config has changed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ls_support import TEXT_CONFIG, TOPICS, WORDS, topic_region, unscored
from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.label_config import LabelConfig
from lsbatch.ports import PipelineContext, TaskFailure, TrainingTask
from lsbatch.testing import MemoryMedia
from lsbatch_pipelines.choices import Answer, find_control, read_answer, why_not
from lsbatch_pipelines.text_classification import TextClassification

TOPIC = TEXT_CONFIG.split('value="$text"/>')[1].removesuffix("</View>")
MOOD = '<Choices name="mood" toName="text"><Choice value="good"/><Choice value="bad"/></Choices>'


def config(*controls: str, text: str = '<Text name="text" value="$text"/>') -> LabelConfig:
    """A label config of these controls on one text."""
    return LabelConfig(f"<View>{text}{''.join(controls)}</View>")


# ------------------------------------------------------------------------------------------------ the control


@pytest.mark.parametrize(
    ("label_config", "words"),
    [
        (config(TOPIC), None),
        (config(TOPIC, text='<HyperText name="text" value="$text"/>'), None),
        (config(TOPIC.replace("<Choices", '<Choices perRegion="true"'), MOOD), None),
        (config(), "it has no Choices on Text or HyperText"),
        (config(TOPIC, text='<Image name="text" value="$text"/>'), "it has no Choices on Text or HyperText"),
        (config(TOPIC, text='<Text name="text" value="Hello"/>'), "shows no single key of the task's data"),
        (config(TOPIC, text='<Text name="text" value="$a" valueType="url"/>'), "shows what is behind an address"),
        (config(TOPIC.replace("<Choices", '<Choices perRegion="true"')), "about single regions or items"),
        (config(TOPIC.replace("<Choices", '<Choices perItem="true"')), "about single regions or items"),
        (config(TOPIC.replace("<Choices", '<Choices allowNested="true"')), "choices within choices"),
        (config('<Choices name="c" toName="text" value="$options"/>'), "fewer than 2 choices of its own"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_which_label_configs_can_be_served(label_config: LabelConfig, words: str | None) -> None:
    why = why_not(label_config, "Text", "HyperText")
    if words is None:
        assert why is None
        assert find_control(label_config, "Text", "HyperText").labels
        return
    assert words in (why or "")
    with pytest.raises(ConfigError, match=re.escape(words)):
        find_control(label_config, "Text", "HyperText")


def test_of_several_choices_the_first_is_served_or_the_one_that_is_named() -> None:
    both = config(MOOD, TOPIC)
    assert find_control(both, "Text").name == "mood"
    assert find_control(both, "Text", name="topic").name == "topic"
    with pytest.raises(
        ConfigError, match="there is no Choices 'topc' that can be predicted; there are 'mood', 'topic'"
    ):
        find_control(both, "Text", name="topc")


# ------------------------------------------------------------------------------------------------ annotations

MANY = TOPIC.replace("<Choices", '<Choices choice="multiple"')


def chosen(*labels: Any, control: str = "topic") -> dict[str, Any]:
    """A region with these choices."""
    return {**topic_region("food"), "from_name": control, "value": {"choices": list(labels)}}


@pytest.mark.parametrize(
    ("control", "result", "answer"),
    [
        (TOPIC, [chosen("food")], {"food"}),
        (TOPIC, [chosen("good", control="mood"), chosen("food")], {"food"}),
        (MANY, [chosen("food", "music")], {"food", "music"}),
        (MANY, [chosen("food"), chosen("music")], {"food", "music"}),
        (MANY, [], set()),
        (TOPIC, [], "0 choices for 'topic', exactly 1"),
        (TOPIC, [chosen("food", "music")], "2 choices for 'topic', exactly 1"),
        (TOPIC, [chosen("gone")], "no choice 'gone' in 'topic'"),
        (TOPIC, [chosen(["food", "soup"])], "holds no list of choices"),
        (TOPIC, [{"from_name": "topic", "value": {"text": "food"}}], "holds no list of choices"),
        (TOPIC, [{"from_name": "topic", "value": None}], "holds no list of choices"),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value)[:40],
)
def test_what_an_annotation_says(control: str, result: list[dict[str, Any]], answer: set[str] | str) -> None:
    found: Answer | TaskFailure = read_answer(find_control(config(control), "Text"), result)
    if isinstance(answer, str):
        assert isinstance(found, TaskFailure)
        assert answer in found.cause
    else:
        assert found == frozenset(answer)


# ------------------------------------------------------------------------------------------------ a trained model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ``topic``, where ``mood`` comes first."""
    folder = tmp_path_factory.mktemp("model")
    context = PipelineContext(config(MOOD, TOPIC), {"control": "topic", "trees": 5}, MemoryMedia())
    tasks = [
        TrainingTask(Task(TaskId(number), {"text": WORDS[topic]}), [topic_region(topic)], number % 5 == 0)
        for number in range(1, 61)
        for topic in [TOPICS[number % 3]]
    ]
    assert TextClassification.fit(context, tasks, folder).accuracy == 1.0
    return folder


def built(model: Path, label_config: LabelConfig, **params: Any) -> TextClassification:
    """The model in a project of this label config."""
    return TextClassification.build(PipelineContext(label_config, params, MemoryMedia(), "v", model))


def test_a_model_fills_the_control_that_it_was_trained_for(model: Path) -> None:
    for params in ({}, {"control": "topic"}):
        [result] = built(model, config(MOOD, TOPIC), **params).predict([Task(TaskId(1), {"text": WORDS["food"]})])
        assert isinstance(result, dict)
        assert unscored(result) == [topic_region("food")]


@pytest.mark.parametrize(
    ("label_config", "params", "words"),
    [
        (config(MOOD, TOPIC), {"control": "mood"}, "was trained for 'topic', not for 'mood'"),
        (config(MOOD), {}, "it has no Choices 'topic' that can be predicted"),
        (config(TOPIC.replace("food", "meal")), {}, "'topic' has no choice 'food'"),
        (config(MANY), {}, "'topic' now says otherwise of choice="),
    ],
    ids=["other control", "control gone", "label gone", "multiple now"],
)
def test_a_model_that_does_not_fit_the_label_config_any_more(
    model: Path, label_config: LabelConfig, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        built(model, label_config, **params)
    assert "lsbatch retrain" in caught.value.hint


def test_a_label_that_is_new_does_not_matter(model: Path) -> None:
    more = config(TOPIC.replace("<Choice ", '<Choice value="art"/><Choice ', 1))
    [result] = built(model, more).predict([Task(TaskId(1), {"text": WORDS["music"]})])
    assert isinstance(result, dict)
    assert unscored(result) == [topic_region("music")]


@pytest.mark.parametrize("name", ["model.ubj", "labels.json", "vocabulary.json", "idf.npy"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\x00" * 100], ids=["missing", "empty", "torn", "zeros"])
def test_a_damaged_model_says_so_in_one_line(name: str, content: bytes | None, model: Path, tmp_path: Path) -> None:
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="missing or damaged") as caught:
        built(tmp_path, config(TOPIC))
    assert len(str(caught.value).splitlines()) == 1


def test_the_model_is_data(model: Path) -> None:
    stored = json.loads((model / "labels.json").read_text(encoding="utf-8"))
    calibration = stored.pop("calibration")
    assert stored == {"control": "topic", "labels": list(TOPICS), "multiple": False}
    assert calibration["temperature"] > 0
    assert len(calibration["bias"]) == len(TOPICS)
    assert {path.suffix for path in model.iterdir()} == {".ubj", ".json", ".npy"}
