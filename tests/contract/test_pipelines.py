"""Every built-in pipeline learns, keeps the rules of the port, and says what is wrong with a task."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ls_support import TEXT_CONFIG, TOPICS, WORDS, topic_region
from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.label_config import LabelConfig
from lsbatch.ports import PipelineContext, TaskFailure, Trainable, TrainingTask
from lsbatch.testing import MemoryMedia, check_pipeline
from lsbatch_pipelines.image_classification import ImageClassification
from lsbatch_pipelines.text_classification import TextClassification

IMAGE_CONFIG = (
    '<View><Image name="text" value="$image"/><Choices name="topic" toName="text">'
    '<Choice value="upright"/><Choice value="level"/></Choices></View>'
)


def picture(label: str, number: int) -> bytes:
    """Stripes that stand or lie."""
    image = Image.new("L", (40, 40), 255)
    for place in range(40):
        if (place + number) % 10 < 4:
            image.paste(0, (place, 0, place + 1, 40) if label == "upright" else (0, place, 40, place + 1))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


PICTURES = {f"/data/{label}-{number}": picture(label, number) for label in ("upright", "level") for number in range(30)}
TEXTS = [
    (Task(TaskId(number + 1), {"text": f"{WORDS[TOPICS[number % 3]]} {number}"}), TOPICS[number % 3])
    for number in range(60)
]
IMAGES = [
    (Task(TaskId(number + 1), {"image": uri}), uri.split("/")[2].split("-")[0]) for number, uri in enumerate(PICTURES)
]
CASES = [
    pytest.param(TextClassification, TEXT_CONFIG, TEXTS, id="text"),
    pytest.param(ImageClassification, IMAGE_CONFIG, IMAGES, id="image"),
]
Examples = list[tuple[Task, str]]


def training(examples: Examples) -> list[TrainingTask]:
    """Every fifth is held out."""
    return [TrainingTask(task, [topic_region(label)], task.id % 5 == 0) for task, label in examples]


def context(config: str, params: Mapping[str, Any] | None = None) -> PipelineContext:
    """What a pipeline is trained with."""
    return PipelineContext(LabelConfig(config), params or {}, MemoryMedia(PICTURES))


@pytest.mark.parametrize(("pipeline", "config", "examples"), CASES)
def test_it_learns_and_keeps_the_rules(
    pipeline: type[Trainable], config: str, examples: Examples, tmp_path: Path
) -> None:
    evaluation = pipeline.fit(context(config), iter(training(examples)), tmp_path)
    assert evaluation.trained_on + evaluation.held_out == len(examples)
    assert evaluation.accuracy > 0.9 > evaluation.baseline
    assert not list(tmp_path.glob("*.pkl"))
    tasks = [task for task, _ in examples[:12]]
    media = MemoryMedia(PICTURES)
    check_pipeline(pipeline, label_config=config, tasks=tasks, model_dir=tmp_path, media=media)


@pytest.mark.parametrize(("pipeline", "config", "examples"), CASES)
def test_the_same_tasks_give_the_same_model(
    pipeline: type[Trainable], config: str, examples: Examples, tmp_path: Path
) -> None:
    models = []
    for name, tasks in (("one", training(examples)), ("two", training(examples)[::-1])):
        (tmp_path / name).mkdir()
        pipeline.fit(context(config), iter(tasks), tmp_path / name)
        models.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert models[0] == models[1]


@pytest.mark.parametrize(("pipeline", "config", "examples"), CASES)
def test_what_it_cannot_learn_from(pipeline: type[Trainable], config: str, examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few annotations"):
        pipeline.fit(context(config), iter(training(examples[:6])), tmp_path)
    with pytest.raises(ConfigError, match="have the same answer"):
        pipeline.fit(context(config), iter(training([(task, examples[0][1]) for task, _ in examples])), tmp_path)
    with pytest.raises(ConfigError, match=r"pipeline.params.tres: unknown; did you mean trees\?"):
        pipeline.fit(context(config, {"tres": 5}), iter(training(examples)), tmp_path)
    with pytest.raises(ConfigError, match="no model is trained yet"):
        pipeline.build(context(config))


def test_bad_texts_and_images_are_failures_of_their_own(tmp_path: Path) -> None:
    for name in ("text", "image"):
        (tmp_path / name).mkdir()
    TextClassification.fit(context(TEXT_CONFIG), iter(training(TEXTS)), tmp_path / "text")
    ImageClassification.fit(context(IMAGE_CONFIG), iter(training(IMAGES)), tmp_path / "image")
    bad: list[dict[str, Any]] = [{"text": None}, {"other": "x"}, {"text": 3}, {"text": "soup " * 300_000}]
    text = TextClassification.build(
        PipelineContext(LabelConfig(TEXT_CONFIG), {}, MemoryMedia(), "v", tmp_path / "text")
    )
    results = text.predict([Task(TaskId(number), data) for number, data in enumerate(bad, start=1)])
    assert [result.cause for result in results if isinstance(result, TaskFailure)] == [
        "the task's 'text' is null, not a text",
        "the task's data has no key 'text'; it has other",
        "the task's 'text' is int, not a text",
    ]
    media = MemoryMedia({**PICTURES, "broken": b"no image", "torn": PICTURES["/data/level-1"][:60]})
    image = ImageClassification.build(PipelineContext(LabelConfig(IMAGE_CONFIG), {}, media, "v", tmp_path / "image"))
    uris = ["/data/level-1", "broken", "torn", "gone", None]
    outcomes = image.predict([Task(TaskId(number), {"image": uri}) for number, uri in enumerate(uris, start=1)])
    assert not isinstance(outcomes[0], TaskFailure)
    causes = [outcome.cause for outcome in outcomes[1:] if isinstance(outcome, TaskFailure)]
    assert len(causes) == 4
    assert "cannot be read" in causes[0]
    assert "not found" in causes[2]
