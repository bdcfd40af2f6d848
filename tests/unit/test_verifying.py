"""What counts as the same prediction, and which tasks are compared."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lsbatch.entities import Prediction, StoredPrediction, Task, TaskId
from lsbatch.errors import ConfigError, ExitCode
from lsbatch.operations.comparing import difference
from lsbatch.operations.verifying import FEW_TASKS, PLACES, Verification, sample, verify
from lsbatch.ports import LiveAnswer
from lsbatch.progress import Silent
from lsbatch.testing.memory import MemoryProject
from lsbatch.testing.memory_backends import MemoryLive

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def region(**more: Any) -> dict[str, Any]:
    """A region."""
    return {"from_name": "c", "to_name": "t", "type": "choices", "value": {"choices": ["a"]}, **more}


def compared(stored: Any, live: Any, *scores: float | None, version: str = "v1") -> str:
    """What differs between two results."""
    one, other = scores or (0.5, 0.5)
    row = StoredPrediction(1, TaskId(1), stored, one, "v1", NOW)
    return difference(row, LiveAnswer(live, other, version))


@pytest.mark.parametrize(
    ("stored", "live"),
    [
        ([], []),
        ([], ()),
        ([region(score=0.5)], [region(score=0.5 + 1e-9)]),
        ([region(id="x")], [region(id="y")]),
        ([region()], [region(id="y")]),
        ([region(value={"x": 1})], [region(value={"x": 1.0})]),
        ([region(id="a"), region(id="b", parentID="a")], [region(id="c"), region(id="d", parentID="c")]),
        (
            [region(id="a"), region(id="b"), {"type": "relation", "from_id": "b", "to_id": "a"}],
            [region(id="1"), region(id="2"), {"type": "relation", "from_id": "2", "to_id": "1"}],
        ),
    ],
)
def test_what_is_the_same(stored: Any, live: Any) -> None:
    assert compared(stored, live) == ""


@pytest.mark.parametrize(
    ("stored", "live", "words"),
    [
        ([region()], [], "result: 1 stored, 0 live"),
        ([region()], [region(value={"choices": ["b"]})], 'result[0].value.choices[0]: "a" stored, "b" live'),
        ([region(value={"x": 1.5})], [region(value={"x": 1.5000001})], "result[0].value.x: 1.5 stored, 1.5000001 live"),
        ([region(score=0.5)], [region(score=0.51)], "result[0].score: 0.5 stored, 0.51 live"),
        ([region(score=0.5)], [region()], "result[0].score: only stored"),
        ([region()], [region(hidden=False)], "result[0].hidden: only live"),
        ([region(value={"x": 1})], [region(value={"x": True})], "result[0].value.x: 1 stored, true live"),
        ([region(id="a"), region(id="a")], [region(id="a"), region(id="b")], "result[1].id: 0 stored, 1 live"),
        (
            [region(id="a"), region(id="b"), {"from_id": "b", "to_id": "a"}],
            [region(id="a"), region(id="b"), {"from_id": "a", "to_id": "b"}],
            "result[2].from_id: 1 stored, 0 live",
        ),
        ("text", [region()], 'result: "text" stored'),
    ],
)
def test_what_differs(stored: Any, live: Any, words: str) -> None:
    assert compared(stored, live).startswith(words)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ((0.5, 0.5 + 9e-7), ""),
        ((0.5, 0.501), "score: 0.5 stored, 0.501 live"),
        ((None, None), ""),
        ((None, 0.0), "score: None stored, 0.0 live"),
        ((0.0, None), "score: 0.0 stored, None live"),
    ],
)
def test_scores(scores: tuple[float | None, float | None], words: str) -> None:
    assert compared([], [], *scores) == words


def test_another_version() -> None:
    assert compared([], [], version="v2") == "model_version: 'v1' stored, 'v2' live"


# ------------------------------------------------------------------------------------------------ which tasks


def project(tasks: int, *, carrying: int | None = None, version: str = "v1") -> MemoryProject:
    """Tasks, of which the first carry a prediction of the version."""
    made = MemoryProject(page_tasks=50)
    # Ids with gaps, as where other projects have tasks in between.
    ids = [TaskId(3 * number + 1) for number in range(tasks)]
    made.tasks = {key: Task(key, {"text": str(key)}) for key in ids}
    made.predictions = [Prediction(key, [region()], 0.5, version) for key in ids[:carrying]]
    return made


@pytest.mark.parametrize("tasks", [90, FEW_TASKS + 1500])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_the_sample_is_spread_and_the_same_for_the_same_seed(tasks: int, count: int) -> None:
    made = project(tasks)
    chosen = [task.id for task in sample(made, made, "v1", count, 3)]
    assert len(chosen) == len(set(chosen)) == count
    assert chosen == sorted(chosen) == [task.id for task in sample(made, made, "v1", count, 3)]
    assert count == 1 or chosen != [task.id for task in sample(made, made, "v1", count, 4)]
    if count > PLACES:
        highest = max(made.tasks)
        assert all(any(share <= task / highest < share + 0.2 for task in chosen) for share in (0, 0.2, 0.4, 0.6, 0.8))


def test_only_tasks_of_the_version_are_drawn_and_no_more_than_there_are() -> None:
    made = project(60, carrying=20)
    made.predictions += [Prediction(task, [], 0.5, "v10") for task in made.tasks if task > 100]  # type: ignore[arg-type]
    assert [task.id for task in sample(made, made, "v1", 200, 0)] == list(made.tasks)[:20]


def verified(made: MemoryProject, live: MemoryLive, count: int = 200) -> Verification:
    """Compare."""
    return verify(made, made, live, made.project(), Silent(), count=count)


def test_each_task_is_counted_once() -> None:
    made = project(100)
    made.predictions[3] = Prediction(made.predictions[3].task_id, [], 0.5, "v1")
    answers: dict[int, dict[str, Any]] = {
        task: {"result": [region()], "score": 0.5, "model_version": "v1"} for task in made.tasks
    }
    failing, other = list(made.tasks)[5], list(made.tasks)[6]
    answers[failing] = {"error": "no"}
    answers[other] = {"result": [region()], "score": 0.5, "model_version": "v2"}
    live = MemoryLive(answers)
    found = verified(made, live)
    assert (found.sampled, found.equal, found.different_count, found.failed_count) == (100, 97, 2, 1)
    assert found.exit_code is ExitCode.AUDIT_FAILED
    assert [entry.task for entry in found.different] == [list(made.tasks)[3], other]
    assert [len(request) for request in live.requests] == [32, 32, 32, 4]


def test_ten_are_named_and_all_are_counted() -> None:
    made = project(40)
    found = verified(made, MemoryLive({task: {"error": "no"} for task in made.tasks}))
    assert (len(found.failed), found.failed_count, found.compared) == (10, 40, 0)


def test_of_doubles_the_newest_counts() -> None:
    made = project(1)
    made.predictions.append(Prediction(TaskId(1), [], 0.9, "v1"))
    live = MemoryLive({1: {"result": [], "score": 0.9, "model_version": "v1"}})
    assert verified(made, live).exit_code is ExitCode.DONE


def test_no_task_of_that_version_is_no_success() -> None:
    with pytest.raises(ConfigError, match="no task") as caught:
        verified(project(5, version="v2"), MemoryLive({}))
    assert "lsbatch predict" in caught.value.hint
