"""Whatever a pipeline returns or raises, each task ends as one outcome, its own."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ls_support import TEXT_CONFIG, TOPICS, topic_region
from lsbatch.entities import DeadLetter, Outcome, Prediction, Task, TaskId
from lsbatch.label_config import LabelConfig
from lsbatch.ports import Pipeline, TaskFailure
from lsbatch.predictor import CAUSE_LENGTH, MOST_DEPTH, Predictor

CONFIG = LabelConfig(TEXT_CONFIG)
Predict = Callable[[Sequence[Task]], Any]


class Told:
    """A pipeline whose ``predict`` is given; it notes how many tasks each call had."""

    model_version = "v"

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self.calls: list[int] = []

    def predict(self, tasks: Sequence[Task]) -> Any:
        """What it was given."""
        self.calls.append(len(tasks))
        return self._predict(tasks)


def predictor(predict: Predict) -> Predictor:
    """Of a pipeline that does this."""
    return Predictor(cast("Pipeline", Told(predict)), CONFIG, "v1")


def tasks(count: int) -> list[Task]:
    """Tasks 1 to ``count``."""
    return [Task(TaskId(number), {"text": f"text {number}"}) for number in range(1, count + 1)]


def label(task: Task) -> str:
    """The one right label of a task: neighbours have different ones."""
    return TOPICS[task.id % 3]


def good(task: Task) -> dict[str, Any]:
    """The right result of a task."""
    return {"result": [topic_region(label(task))], "score": task.id / 2000}


def outcome(result: object) -> Outcome:
    """What becomes of a task for which this is returned."""
    [found] = predictor(lambda _: [result]).predict_chunk(tasks(1))
    assert found.task_id == 1
    return found


def region(choices: object, **more: object) -> dict[str, object]:
    """A region with these choices."""
    return {**topic_region("food"), "value": {"choices": choices}, **more}


def deep(levels: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


class Topic(StrEnum):
    """Labels as some people write them."""

    FOOD = "food"


class Strange(Mapping[str, Any]):
    """A mapping that breaks when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("the session is closed")

    def __iter__(self) -> Iterator[str]:
        return iter(("result",))

    def __len__(self) -> int:
        return 1

    def __contains__(self, key: object) -> bool:
        return True


# ------------------------------------------------------------------------------------------------ one result


@pytest.mark.parametrize(
    ("result", "score"),
    [
        ({"result": [region(["food"])], "score": 1}, 1.0),
        ({"result": [region(["food"])]}, None),
        ({"result": [region(["food"])], "score": None}, None),
        ({"result": (region(("food",)),), "score": np.float32(0.5)}, 0.5),
        ({"result": [region(np.array(["food"]))], "score": np.float64(0.25)}, 0.25),
        ({"result": np.array([region([np.str_("food")])]), "score": np.array(0.5)}, 0.5),
        ({"result": [region([Topic.FOOD], count=np.int64(3))], "score": 0.5}, 0.5),
        ({"result": [region(["food"], meta={1: [np.bool_(True)]})], "score": 0.5, "more": object()}, 0.5),
    ],
    ids=["int score", "no score", "null score", "tuples", "numpy array", "numpy of regions", "enum", "extra keys"],
)
def test_what_can_be_read_is_a_prediction_in_plain_types(result: object, score: float | None) -> None:
    found = outcome(result)
    assert isinstance(found, Prediction), found
    assert (found.score, type(found.score)) == (score, type(score))
    stored = json.loads(json.dumps(found.result))
    assert stored[0]["value"] == {"choices": ["food"]}
    assert found.model_version == "v1"


def test_an_empty_result_is_a_prediction() -> None:
    assert outcome({"result": [], "score": 0.9}) == Prediction(TaskId(1), [], 0.9, "v1")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "returned NoneType without a 'result'"),
        ({}, "returned dict without a 'result'"),
        ([region(["food"])], "returned list without a 'result'"),
        ({"result": region(["food"])}, "'result' must be a list"),
        ({"result": None}, "'result' must be a list"),
        ({"result": [], "score": "0.5"}, "'score' a number"),
        ({"result": [], "score": True}, "'score' a number"),
        ({"result": [], "score": math.nan}, "the number nan"),
        ({"result": [], "score": np.float32("inf")}, "the number inf"),
        ({"result": [], "score": 1.01}, "does not fit"),
        ({"result": [], "score": 10**400}, "does not fit"),
        ({"result": [region(["food"], x=math.nan)]}, "the number nan"),
        ({"result": [region(["no such label"])]}, "no such label"),
        ({"result": [region("food")]}, "does not fit"),
        ({"result": [region(["food"], from_name="mood")]}, "'mood' not found"),
        ({"result": [{"value": {"choices": ["food"]}}]}, "Missing required field"),
        ({"result": [7]}, "does not fit"),
        ({"result": [region(["food"], type=7)]}, "does not fit"),
        ({"result": deep(MOST_DEPTH + 1)}, f"nested more than {MOST_DEPTH} deep"),
        ({"result": [region({"food"})]}, "a set, which is not JSON"),
        ({"result": [region([b"food"])]}, "a bytes, which is not JSON"),
        ({"result": [region(["food"], note="\ud800")]}, "not Unicode"),
        (Strange(), "cannot be read: RuntimeError: the session is closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_a_dead_letter_that_says_why(result: object, words: str) -> None:
    found = outcome(result)
    assert isinstance(found, DeadLetter), found
    assert found.stage == "validate"
    assert words in found.cause
    assert len(found.cause) <= CAUSE_LENGTH + len("...")


def test_a_result_that_contains_itself_is_a_dead_letter() -> None:
    endless: list[Any] = []
    endless.append(endless)
    found = outcome({"result": endless})
    assert isinstance(found, DeadLetter)
    assert "deep" in found.cause


def test_a_failure_keeps_its_words() -> None:
    assert outcome(TaskFailure("the image is torn")) == DeadLetter(TaskId(1), "predict", "the image is torn")
    long = outcome(TaskFailure("\udcff" + "x" * 10_000))
    assert isinstance(long, DeadLetter)
    assert long.cause.startswith("\\udcffxxx")
    assert len(long.cause) == CAUSE_LENGTH + len("...")


# ------------------------------------------------------------------------------------------------ one call


class WordlessError(Exception):
    """An error that cannot say its words."""

    def __str__(self) -> str:
        raise AttributeError("detail")


def raising(error: BaseException) -> Predict:
    """A pipeline that only raises."""

    def predict(_: Sequence[Task]) -> Any:
        raise error

    return predict


def half_way(given: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Gives one result and breaks."""
    yield good(given[0])
    raise OSError("no space left")


@pytest.mark.parametrize(
    ("predict", "words"),
    [
        (raising(ValueError("told to")), "raised ValueError: told to"),
        (raising(SystemExit(3)), "raised SystemExit: 3"),
        (raising(MemoryError()), "raised MemoryError"),
        (raising(RecursionError("deep")), "raised RecursionError"),
        (raising(WordlessError()), "raised WordlessError"),
        (lambda _: sys.exit(), "raised SystemExit"),
        (half_way, "raised OSError: no space left"),
        (lambda _: None, "returned NoneType instead of a list"),
        (lambda _: 5, "returned int instead of a list"),
        (lambda _: [], "returned 0 results for 1 task"),
        (lambda given: [good(given[0])] * 5, "returned 5 results for 1 task"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_call_that_fails_for_every_task(predict: Predict, words: str) -> None:
    found = predictor(predict).predict_chunk(tasks(3))
    assert [entry.task_id for entry in found] == [1, 2, 3]
    assert all(isinstance(entry, DeadLetter) and entry.stage == "predict" and words in entry.cause for entry in found)


def test_ctrl_c_is_not_the_pipelines_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        predictor(raising(KeyboardInterrupt())).predict_chunk(tasks(2))


def test_what_a_pipeline_prints_is_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    def predict(given: Sequence[Task]) -> Iterator[dict[str, Any]]:
        for task in given:
            print(f"predicting {task.id}")  # noqa: T201 - as people do
            yield good(task)

    predictor(predict).predict_chunk(tasks(2))
    assert capsys.readouterr() == ("", "predicting 1\npredicting 2\n")


def test_no_tasks_ask_nothing() -> None:
    assert predictor(raising(AssertionError())).predict_chunk([]) == []


def test_a_generator_is_as_good_as_a_list() -> None:
    found = predictor(lambda given: (good(task) for task in given)).predict_chunk(tasks(5))
    results = [entry.result for entry in found if isinstance(entry, Prediction)]
    assert results == [good(task)["result"] for task in tasks(5)]


def test_one_bad_task_among_many_costs_a_few_calls() -> None:
    def predict(given: Sequence[Task]) -> Any:
        if any(task.id == 700 for task in given):
            raise ValueError("told to")
        return [good(task) for task in given]

    pipeline = Told(predict)
    found = Predictor(cast("Pipeline", pipeline), CONFIG, "v1").predict_chunk(tasks(1024))
    assert [entry.task_id for entry in found if isinstance(entry, DeadLetter)] == [700]
    assert len(pipeline.calls) == 1 + 2 * math.log2(1024)


# ------------------------------------------------------------------------------------------------ marks


class Marked:
    """A pipeline that takes what an annotator marks, and says what it got."""

    model_version = "v"

    def __init__(self) -> None:
        self.got: list[Any] = []

    def predict(self, given: Sequence[Task], context: Mapping[str, Any] | None = None) -> Any:
        """Empties what it was given, as somebody's code may."""
        self.got.append(None if context is None else list(context["result"]))
        if context is not None:
            cast("list[Any]", context["result"]).clear()
            if len(given) > 1:
                raise ValueError("only one at a time")
        return [good(task) for task in given]


def test_a_mark_comes_to_every_attempt_unspoilt() -> None:
    pipeline, context = Marked(), {"result": [topic_region("food")]}
    machine = Predictor(cast("Pipeline", pipeline), CONFIG, "v1")
    found = machine.predict_chunk(tasks(2), context)
    assert all(isinstance(entry, Prediction) for entry in found)
    assert pipeline.got == [[topic_region("food")]] * 3
    machine.predict_chunk(tasks(2))
    assert pipeline.got[3:] == [None]


def test_a_pipeline_that_takes_no_mark_is_called_plainly() -> None:
    class Plain(Marked):
        def predict(self, given: Sequence[Task]) -> Any:  # type: ignore[override]
            return [good(task) for task in given]

    class Open(Marked):
        def predict(self, given: Sequence[Task], **more: Any) -> Any:
            self.got.append(more)
            return [good(task) for task in given]

    machines = [Predictor(cast("Pipeline", kind()), CONFIG, "v1") for kind in (Plain, Open)]
    assert [machine.takes_context for machine in machines] == [False, True]
    for machine in machines:
        assert isinstance(machine.predict_chunk(tasks(1), {"result": []})[0], Prediction)
    assert cast("Any", machines[1].pipeline).got == [{"context": {"result": []}}]


# ------------------------------------------------------------------------------------------------ shared state


def test_a_pipeline_that_spoils_its_tasks_spoils_only_its_copies() -> None:
    def predict(given: Sequence[Task]) -> Any:
        texts = [cast("dict[str, Any]", task.data).pop("text") for task in given]
        if len(given) > 1:
            raise ValueError("only one at a time")
        return [{"result": [topic_region(label(given[0]))], "score": int(texts[0].split()[1]) / 1000}]

    mine = tasks(4)
    found = predictor(predict).predict_chunk(mine)
    assert [isinstance(entry, Prediction) and entry.score for entry in found] == [0.001, 0.002, 0.003, 0.004]
    assert mine == tasks(4)


def test_a_result_that_is_changed_later_stays_as_it_was_returned() -> None:
    shared = {"result": [topic_region("food")], "score": 0.5}
    machine = predictor(lambda given: [shared] * len(given))
    first = machine.predict_chunk(tasks(2))
    cast("Any", shared["result"])[0]["value"]["choices"][0] = "music"
    machine.predict_chunk(tasks(2))
    assert [entry.result for entry in first if isinstance(entry, Prediction)] == [[topic_region("food")]] * 2


# ------------------------------------------------------------------------------------------------ any mixture

#: What a pipeline can do with a task, and the stage at which that task then fails; None for a prediction.
WAYS: dict[str, str | None] = {
    "good": None,
    "empty": None,
    "numpy": None,
    "failure": "predict",
    "raise": "predict",
    "exit": "predict",
    "nan": "validate",
    "unknown": "validate",
    "nothing": "validate",
    "miscount": "predict",
}


def act(way: str, task: Task, *, twice: bool) -> list[Any]:
    """The results that a pipeline adds to its list for a task."""
    if way == "raise":
        raise ValueError(f"told to by task {task.id}")
    if way == "exit":
        sys.exit(1)
    if way == "miscount":
        # Only one of the two in a run: one result too few and one too many in the same call would look right.
        return [good(task), good(task)] if twice else []
    results: dict[str, Any] = {
        "good": good(task),
        "empty": {"result": [], "score": task.id / 2000},
        "numpy": {"result": np.array(good(task)["result"]), "score": np.float64(task.id / 2000)},
        "failure": TaskFailure(f"told to by task {task.id}"),
        "nan": {**good(task), "score": math.nan},
        "unknown": {"result": [topic_region("no such label")]},
        "nothing": None,
    }
    return [results[way]]


@settings(deadline=None, max_examples=150)
@given(ways=st.lists(st.sampled_from(sorted(WAYS)), max_size=40), twice=st.booleans())
def test_each_task_gives_exactly_one_outcome_its_own(ways: list[str], twice: bool) -> None:
    def predict(given: Sequence[Task]) -> Any:
        return [result for task in given for result in act(ways[task.id - 1], task, twice=twice)]

    mine = tasks(len(ways))
    found = predictor(predict).predict_chunk(mine)
    assert [entry.task_id for entry in found] == [task.id for task in mine]
    for task, way, entry in zip(mine, ways, found, strict=True):
        if WAYS[way] is None:
            result = [] if way == "empty" else good(task)["result"]
            assert entry == Prediction(task.id, result, task.id / 2000, "v1")
        else:
            assert isinstance(entry, DeadLetter)
            assert entry.stage == WAYS[way]
            if way in ("raise", "failure"):
                assert f"told to by task {task.id}" in entry.cause
