"""``check``: in order, up to the first thing that is wrong, and the first tasks predicted without writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from ls_support import TEXT_CONFIG, topic_region
from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError, ExitCode, LsbatchError
from lsbatch.label_config import LabelConfig
from lsbatch.operations.check import Finding, check, try_tasks
from lsbatch.ports import Pipeline
from lsbatch.predictor import Predictor
from lsbatch.testing import MemoryProject


class Rules:
    """Chooses food, and refuses tasks whose text says so."""

    model_version = "rules-1"

    def predict(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """One region a task."""
        if any("bad" in task.data["text"] for task in tasks):
            raise ValueError("told to")
        return [{"result": [topic_region("food")], "score": 0.25 if task.id == 1 else None} for task in tasks]


def tried(*texts: str) -> str:
    """What is said of a project of these texts; nothing is written to it."""
    project = MemoryProject(
        {number: Task(TaskId(number), {"text": text}) for number, text in enumerate(texts, start=1)}
    )
    predictor = Predictor(cast("Pipeline", Rules()), LabelConfig(TEXT_CONFIG), "rules-1")
    try:
        return try_tasks(project, predictor)
    finally:
        assert project.predictions == []


def test_what_comes_after_a_failure_is_not_looked_at() -> None:
    asked: list[str] = []

    def passes() -> str:
        asked.append("passes")
        return "fine"

    def fails() -> str:
        asked.append("fails")
        raise ConfigError("wrong", hint="mend it")

    assert list(check(iter([("one", passes), ("two", fails), ("three", passes)]))) == [
        Finding("one", True, "fine"),
        Finding("two", False, "wrong", "mend it", ExitCode.USAGE),
    ]
    assert asked == ["passes", "fails"]


def test_a_bug_in_a_check_is_no_finding() -> None:
    def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(check(iter([("one", broken)])))


def test_three_tasks_are_tried() -> None:
    said = tried("a", "b", "c", "d")
    assert said == "task 1: 1 region(s), score 0.25; task 2: 1 region(s), no score; task 3: 1 region(s), no score"


def test_one_good_task_is_enough() -> None:
    assert "task 2: predict: the pipeline raised ValueError: told to" in tried("a", "bad", "bad")


def test_when_all_fail_the_pipeline_does_not_fit() -> None:
    with pytest.raises(LsbatchError, match=r"task 1: predict: .*; task 2: predict: ") as caught:
        tried("bad", "bad")
    assert caught.value.exit_code is ExitCode.REFUSED


def test_an_empty_project_is_no_failure() -> None:
    assert tried() == "the project has no tasks yet"
