"""What the built-in pipelines promise of their models, on data that scikit-learn ships."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from distributed import Client
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits, load_wine

from lsbatch.dask_cluster import map_on_cluster, open_client
from lsbatch.dask_executor import DaskOptions
from lsbatch.entities import AnnotatedTask, Annotation, Task, TaskId
from lsbatch.label_config import LabelConfig
from lsbatch.operations import models
from lsbatch.operations.retrain import RetrainOptions, RetrainReport, RetrainSetup, retrain
from lsbatch.operations.searching import best, draw, run_trial, trials
from lsbatch.operations.training_data import is_held_out
from lsbatch.ports import PipelineContext, Trainable, TrainingCluster, TrainingTask
from lsbatch.progress import Silent
from lsbatch.promotions import Lineage
from lsbatch.testing import MemoryMedia, MemoryProject
from lsbatch_connectors.model_store import FsspecModelStore
from lsbatch_pipelines.calibration import SCORES, Calibration, certainty
from lsbatch_pipelines.choices import Answer
from lsbatch_pipelines.image_classification import ImageClassification
from lsbatch_pipelines.text_classification import TextClassification
from lsbatch_pipelines.xgboost_head import Head, HeadOptions

LINEAGE = Lineage("p", "studio", 1)


def config(tag: str, labels: Sequence[str]) -> LabelConfig:
    """A single choice about texts or images."""
    choices = "".join(f'<Choice value="{label}"/>' for label in labels)
    return LabelConfig(f'<View><{tag} name="o" value="$o"/><Choices name="c" toName="o">{choices}</Choices></View>')


def digit_tasks() -> tuple[list[Task], list[str], dict[str, bytes]]:
    """The 1,797 digits as images."""
    data = load_digits()
    tasks, files = [], {}
    for number, pixels in enumerate(data.images, 1):
        file = io.BytesIO()
        Image.fromarray((pixels / 16 * 255).astype(np.uint8)).resize((32, 32)).save(file, format="PNG")
        uri = f"digit-{number}"
        files[uri] = file.getvalue()
        tasks.append(Task(TaskId(number), {"o": uri}))
    return tasks, [str(label) for label in data.target], files


class Media(MemoryMedia):
    """Images by name."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self._images = files

    def read(self, uri: str) -> bytes:
        """See ``MediaReader.read``."""
        return self._images[uri]


def project_of(tasks: Sequence[Task], labels: Sequence[str]) -> MemoryProject:
    """A project whose tasks are annotated like this."""
    project = MemoryProject()
    for task, label in zip(tasks, labels, strict=True):
        region = {"from_name": "c", "to_name": "o", "type": "choices", "value": {"choices": [label]}}
        annotation = Annotation(int(task.id), (region,), f"2026-01-01T00:00:00Z {label}")
        project.annotations[int(task.id)] = AnnotatedTask(task, [annotation])
    return project


def trained(project: MemoryProject, store: FsspecModelStore, pipeline: Any, context: PipelineContext) -> RetrainReport:
    """A training as the command does it."""
    setup = RetrainSetup(
        source=project,
        store=store,
        pipeline=cast("type[Trainable]", pipeline),
        context=context,
        options=RetrainOptions(name="m", lineage=LINEAGE),
        champion=models.champion(store, LINEAGE),
    )
    return retrain(setup, Silent())


@pytest.fixture
def store(tmp_path: Path) -> FsspecModelStore:
    """An empty store."""
    return FsspecModelStore(str(tmp_path / "models"), cache_dir=tmp_path / "cache")


def test_scores_on_digits_are_honest(store: FsspecModelStore) -> None:
    tasks, labels, files = digit_tasks()
    context = PipelineContext(config("Image", [str(digit) for digit in range(10)]), {"trees": 60}, Media(files))
    report = trained(project_of(tasks, labels), store, ImageClassification, context)
    assert report.gate is not None
    assert report.evaluation is not None
    assert report.promoted
    assert report.evaluation.accuracy > 0.93
    assert report.gate.calibration_error is not None
    assert report.gate.calibration_error < 0.05


WORDS = {"sport": "ball goal team", "food": "soup bread salt", "music": "song drum chord"}


def texts(count: int) -> tuple[list[Task], list[str]]:
    """Messages of three topics."""
    chance = np.random.default_rng(0)
    tasks, labels = [], []
    for number in range(1, count + 1):
        label = list(WORDS)[number % 3]
        words = [*chance.choice(WORDS[label].split(), 1), *chance.choice(["the", "a", "of", "in", "to", "it"], 5)]
        tasks.append(Task(TaskId(number), {"o": " ".join(map(str, words))}))
        labels.append(label)
    return tasks, labels


def test_the_gate_refuses_shuffled_labels_and_takes_better_ones(store: FsspecModelStore) -> None:
    context = PipelineContext(config("Text", list(WORDS)), {}, MemoryMedia())
    tasks, labels = texts(200)
    # What people say of the held-out tasks is always right.
    truth = project_of(tasks, labels).annotations
    held_out = {key: entry for key, entry in truth.items() if is_held_out(key, 0.2)}
    few = project_of(tasks[:40], [*labels[:10], *(["sport"] * 30)])
    few.annotations |= held_out
    first = trained(few, store, TextClassification, context)
    shuffled = [str(label) for label in np.random.default_rng(1).permutation(labels)]
    noisy = project_of(tasks, shuffled)
    noisy.annotations |= held_out
    second = trained(noisy, store, TextClassification, context)
    third = trained(project_of(tasks, labels), store, TextClassification, context)
    assert first.version is not None
    assert (first.promoted, second.promoted, third.promoted) == (True, False, True)
    assert second.gate is not None
    assert second.gate.champion == first.version.name
    assert third.gate is not None
    assert third.gate.difference.low > 0


def test_the_same_data_and_seed_give_the_same_files(tmp_path: Path) -> None:
    tasks, labels = texts(60)
    annotated = project_of(tasks, labels)
    found = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        context = PipelineContext(config("Text", list(WORDS)), {"seed": seed}, MemoryMedia())
        parted = [
            TrainingTask(entry.task, entry.annotations[0].result, is_held_out(number, 0.2))
            for number, entry in annotated.annotations.items()
        ]
        TextClassification.fit(
            context,
            parted,
            folder,
        )
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert found[0]["model.ubj"] != found[2]["model.ubj"]


def test_rare_labels_are_found_and_probabilities_stay_honest() -> None:
    """Wine, with one kind made rare: weights must help it, and not be believed."""
    data = load_wine()
    keep = np.flatnonzero((data.target != 2) | (np.arange(len(data.target)) % 6 == 0))
    rows, kinds = data.data[keep].astype(np.float32), [f"w{kind}" for kind in data.target[keep]]
    control = config("Text", ["w0", "w1", "w2"]).controls[0]
    answers: list[Answer] = [frozenset([kind]) for kind in kinds]
    even, odd = np.arange(0, len(rows), 2), np.arange(1, len(rows), 2)
    head = Head.fit(
        rows[even], [answers[place] for place in even], control, HeadOptions(100, 3, 0.3, 1.0, 1.0), extra={}
    )
    guesses = head.predict(rows[odd])
    right = [set(guess.labels) == set(answers[place]) for guess, place in zip(guesses, odd, strict=True)]
    assert np.mean(right) > 0.85
    rare = [guess for guess, place in zip(guesses, odd, strict=True) if kinds[place] == "w2"]
    assert rare
    assert np.mean([guess.labels == ("w2",) for guess in rare]) > 0.5
    assert abs(np.mean([guess.score for guess in guesses]) - np.mean(right)) < 0.1


def test_a_search_finds_what_serves_better() -> None:
    tasks, labels = texts(90)
    entries = project_of(tasks, labels).annotations.values()
    known = [TrainingTask(entry.task, entry.annotations[0].result, False) for entry in entries]
    context = PipelineContext(config("Text", list(WORDS)), {}, MemoryMedia())
    sets: list[dict[str, Any]] = [{"max_features": 10, "trees": 1, "learning_rate": 0.001}, {"trees": 40}]
    said: list[str] = []
    pipeline = cast("type[Trainable]", TextClassification)
    won = best(sets, lambda todo: [(trial, run_trial(pipeline, context, known, trial)) for trial in todo], said.append)
    assert won == sets[1]
    assert len(trials(sets)) == 6
    assert "tried 2 sets of parameters" in said[0]


def test_sets_of_parameters_are_drawn_alike_and_each_once() -> None:
    space = TextClassification.search_space()
    drawn = draw(space, {"trees": 7}, 20)
    assert drawn == draw(space, {"trees": 7}, 20)
    assert drawn[0] == {"trees": 7}
    assert all(entry["trees"] == 7 for entry in drawn)
    assert len({str(sorted(entry.items())) for entry in drawn}) == 20
    assert len(draw({"a": [1, 2]}, {}, 50)) == 3


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("how", SCORES)
def test_every_score_is_low_where_the_model_is_unsure(how: str, multiple: bool) -> None:
    sure, unsure, uniform = [0.9, 0.05, 0.05], [0.5, 0.4, 0.1], [0.5] * 3 if multiple else [1 / 3] * 3
    found = certainty(np.array([sure, unsure, uniform]), how, multiple=multiple)
    assert list(found) == sorted(found, reverse=True)
    assert found.min() >= 0
    assert found.max() <= 1
    if how != "confidence" and not multiple:
        assert found[2] == pytest.approx(0, abs=1e-9)


def test_calibration_takes_back_too_much_confidence() -> None:
    chance = np.random.default_rng(0)
    truth = np.eye(3)[chance.integers(0, 3, 3_000)]
    outputs = truth * 1.0 + chance.standard_normal((3_000, 3))
    found = Calibration.fit(outputs * 5, truth, multiple=False)
    # The best divisor of outputs with unit noise that are one apart is the noise's variance: 1, times 5.
    assert found.temperature == pytest.approx(5, rel=0.1)
    assert np.abs(found.bias).max() < 0.2
    again = Calibration.from_json(found.to_json(), 3, multiple=False)
    assert np.array_equal(again.probabilities(outputs), found.probabilities(outputs))
    with pytest.raises(ValueError, match="does not fit"):
        Calibration.from_json(found.to_json(), 2, multiple=False)


def accuracy(head: Head, rows: Any, kinds: Any) -> float:
    """Share of right guesses."""
    right = [guess.labels == (str(kind),) for guess, kind in zip(head.predict(rows), kinds, strict=True)]
    return float(np.mean(right))


def test_a_cluster_trains_as_good_a_model() -> None:
    data = load_digits()
    rows = (data.data / 16).astype(np.float32)
    control = config("Text", [str(digit) for digit in range(10)]).controls[0]
    answers: list[Answer] = [frozenset([str(kind)]) for kind in data.target]
    options = HeadOptions(15, 4, 0.3, 0.5)
    opened = []

    @contextmanager
    def cluster() -> Iterator[Client]:
        dask = DaskOptions(workers=2, worker_seconds=60)
        with open_client(dask, Nothing(), "retrain", say=opened.append) as client:
            opened.append("open")
            yield client

    here = Head.fit(rows[:900], answers[:900], control, options, extra={})
    not_large = Head.fit(rows[:900], answers[:900], control, options, extra={}, cluster=TrainingCluster(cluster))
    assert opened == [], "so few rows do not pay"
    sparse = csr_matrix(rows)
    wanted = TrainingCluster(cluster, always=True)
    there = Head.fit(sparse[:900], answers[:900], control, options, extra={}, cluster=wanted)
    assert opened == ["open"]
    assert accuracy(there, sparse[900:], data.target[900:]) > accuracy(here, rows[900:], data.target[900:]) - 0.05
    assert np.array_equal(here.probabilities(rows[900:]), not_large.probabilities(rows[900:]))


class Nothing:
    """A recipe that sends nothing to workers."""

    key = "nothing"

    def parcels(self) -> dict[str, bytes]:
        """See ``PredictorFactory.parcels``."""
        return {}

    def __call__(self) -> Any:
        """See ``PredictorFactory``."""
        raise AssertionError("nothing is predicted")


def test_trials_run_on_workers_and_each_comes_back() -> None:
    recipe: Any = None  # local workers are sent nothing
    options = DaskOptions(workers=2, worker_seconds=60)
    found = map_on_cluster(options, recipe, lambda _, shared, entry: shared + entry, [1, 2, 3], 10, say=print)
    assert sorted(found) == [(1, 11), (2, 12), (3, 13)]
