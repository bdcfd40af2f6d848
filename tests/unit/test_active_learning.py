"""Which tasks are chosen, and that chance, duplicates and failures change nothing but what they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_support import TEXT_CONFIG, TOPICS, topic_region
from lsbatch.active_learning import cluster_margin, coreset, disagreement, distinct, spread, uncertain
from lsbatch.entities import Task
from lsbatch.errors import ConfigError, ExitCode, PipelineError, StoppedError
from lsbatch.label_config import LabelConfig
from lsbatch.operations.queueing import Pool, check_features, choose_tasks, read_pool
from lsbatch.ports import Selection, TaskFailure
from lsbatch.predictor import Predictor
from lsbatch.progress import Silent
from lsbatch.stopping import Stop
from lsbatch.strategies import STRATEGIES
from lsbatch.testing import MemoryProject

CHANCE = np.random.default_rng(0)
#: Five far clusters of a hundred tasks each.
CENTERS = np.eye(8, dtype=np.float32)[:5] * 10
FEATURES = np.repeat(CENTERS, 100, axis=0) + CHANCE.standard_normal((500, 8)).astype(np.float32) * 0.3


def test_the_least_certain_come_first() -> None:
    assert list(uncertain(np.array([0.5, 0.1, 0.9, 0.1]))) == [1, 3, 0, 2]


def test_coreset_takes_one_of_each_cluster_first() -> None:
    assert sorted(place // 100 for place in coreset(FEATURES, 5)) == [0, 1, 2, 3, 4]
    picked = coreset(FEATURES, 50)
    assert len(set(picked)) == 50
    # The definition: each next one is the farthest from all before.
    distances = np.linalg.norm(FEATURES[:, None] - FEATURES[picked[:10]][None], axis=2)
    for number in range(1, 10):
        nearest = distances[:, :number].min(axis=1)
        assert nearest[picked[number]] == pytest.approx(nearest.max(), abs=1e-3)


def test_coreset_ends_where_only_duplicates_are_left() -> None:
    assert len(coreset(np.repeat(CENTERS, 10, axis=0), 20)) == 5
    assert coreset(np.zeros((0, 3), dtype=np.float32), 5) == []


def test_cluster_margin_takes_unsure_tasks_that_differ() -> None:
    margin = np.linspace(0, 1, 500)
    margin[[10, 110, 210, 310, 410]] = 0.0
    # Of the fifty least certain, most are of the first cluster: all clusters come all the same.
    chosen = cluster_margin(FEATURES, margin, 5)[:5]
    assert set(np.array(chosen) // 100) == {0, 1, 2, 3, 4}
    assert set(chosen) >= {110, 210, 310, 410}
    assert cluster_margin(FEATURES[:3], np.array([0.3, 0.1, 0.2]), 5) == [1, 2, 0]


def test_disagreement_of_a_committee() -> None:
    votes = [np.array([0, 0, 0]), np.array([0, 0, 1]), np.array([0, 1, 2])]
    agree, two, none = disagreement(votes)
    assert agree == pytest.approx(1)
    assert none == pytest.approx(0)
    assert 0 < two < 1


@given(st.integers(0, 40), st.integers(1, 60), st.floats(0, 1))
def test_the_control_is_as_large_as_asked_and_nobody_is_taken_twice(pool: int, count: int, fraction: float) -> None:
    order = list(np.random.default_rng(1).permutation(pool))
    places, control = spread(order, pool, count, fraction, seed=3)
    assert len(places) == len(set(places))
    assert control <= set(places)
    assert len(control) == min(round(count * fraction), pool - len(set(places) - control))
    assert spread(order, pool, count, fraction, seed=3) == (places, control)


def test_near_duplicates_are_taken_once() -> None:
    rows = CHANCE.standard_normal((20, 8)).astype(np.float32)
    doubled = np.concatenate([rows, rows * np.float32(1.0001)])
    order = [place for pair in zip(range(20), range(20, 40), strict=True) for place in pair]
    assert distinct(order, doubled, 40) == list(range(20))
    assert distinct(order, None, 3) == [0, 20, 1]


def pool(count: int = 500) -> Pool:
    """Of tasks 1 to 500."""
    sure = list(CHANCE.random(count))
    return Pool(list(range(1, count + 1)), sure, [[0, 1] * (count // 2), [0] * count], FEATURES[:count])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_gives_as_many_as_asked_and_always_the_same(strategy: Any) -> None:
    known = pool()
    picked = choose_tasks(known, strategy, 40, random_fraction=0.25, seed=1)
    assert len({pick.task_id for pick in picked.picks}) == 40
    assert Counter(pick.control for pick in picked.picks) == {False: 30, True: 10}
    assert choose_tasks(known, strategy, 40, random_fraction=0.25, seed=1) == picked
    assert all((pick.certainty is None) == (strategy in ("random", "coreset")) for pick in picked.picks)
    assert choose_tasks(Pool(), "random", 40, random_fraction=0.25, seed=1).picks == ()


@pytest.mark.parametrize("strategy", ["coreset", "cluster-margin"])
def test_without_features_the_message_says_what_else_there_is(strategy: Any) -> None:
    with pytest.raises(ConfigError, match="needs features") as caught:
        check_features(strategy, [Predictor(Plain(), LabelConfig(TEXT_CONFIG), "m")])
    assert "margin" in caught.value.hint


class Model:
    """Sure by the task's id; has no answer to every tenth, and no features of every seventh."""

    model_version = "m"

    def __init__(self, width: int = 3) -> None:
        self.width = width

    def predict(self, tasks: Sequence[Task]) -> list[Any]:
        """See ``Pipeline.predict``."""
        return [
            TaskFailure("no")
            if task.id % 10 == 0
            else {"result": [topic_region(TOPICS[task.id % 3])], "score": task.id / 1000}
            for task in tasks
        ]

    def embed(self, tasks: Sequence[Task]) -> list[Any]:
        """See ``Pipeline``."""
        return [TaskFailure("no") if task.id % 7 == 0 else np.full(self.width, task.id) for task in tasks]


class Plain:
    """Has no features."""

    model_version = "m"
    predict = Model.predict


def read(tmp_path: Path, *models: Any, stop: Stop | None = None) -> Pool:
    """A pool of 600 tasks."""
    project = MemoryProject()
    for number in range(1, 601):
        project.tasks[number] = Task(number, {"text": str(number)})  # type: ignore[arg-type]
    label_config = LabelConfig(TEXT_CONFIG)
    predictors = [Predictor(model, label_config, "m") for model in models]
    return read_pool(project, Selection(), predictors, tmp_path, Silent(), stop or Stop(), total=600)


def test_the_pool_is_read_once_and_failures_are_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, Model(), Model())
    expected = [number for number in range(1, 601) if number % 10 and number % 7]
    assert found.ids == expected
    assert found.failed == 600 - len(expected)
    assert found.certainty == [number / 1000 for number in expected]
    assert found.votes[0] == found.votes[1]
    assert len(set(found.votes[0])) == 3
    assert found.features is not None
    assert found.features[:, 2].tolist() == expected


def test_one_model_has_no_votes(tmp_path: Path) -> None:
    found = read(tmp_path, Model())
    assert (found.votes, len(found.certainty)) == ([[]], len(found.ids))


def test_without_a_model_only_ids_are_read(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.ids, found.certainty, found.features, found.failed) == (list(range(1, 601)), [], None, 0)


class Odd(Model):
    """Gives vectors of its own."""

    def __init__(self, embed: Any) -> None:
        super().__init__()
        self._embed = embed

    def embed(self, tasks: Sequence[Task]) -> list[Any]:
        """See ``Pipeline``."""
        result: list[Any] = self._embed(tasks)
        return result


@pytest.mark.parametrize(
    ("embed", "words"),
    [
        (lambda tasks: [[1.0]], "1 vectors for 7 tasks"),
        (lambda tasks: [[float("nan")]] * len(tasks), "with NaN"),
        (lambda tasks: [[1.0] * (1 + task.id % 2) for task in tasks], "not of 2 numbers"),
        (lambda tasks: 1 / 0, r"embed\(\) raised ZeroDivisionError"),
    ],
)
def test_an_embed_that_breaks_its_contract_is_named(embed: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=words):
        read(tmp_path, Odd(embed))


def test_it_can_be_stopped(tmp_path: Path) -> None:
    stop = Stop()
    stop.ask("Interrupted.", ExitCode.INTERRUPTED)
    with pytest.raises(StoppedError):
        read(tmp_path, Model(), stop=stop)
