"""Pipelines whose cost is known: one answers at once, one is busy for a fixed amount of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from benchmarks.burn import burn
from benchmarks.projects import LABELS, region
from lsbatch.entities import Task
from lsbatch.label_config import LabelConfig
from lsbatch.ports import Pipeline, PipelineContext, TaskFailure, TaskResult

__all__ = ["Busy", "Constant"]


class Constant(Pipeline):
    """Answers at once."""

    model_version = "constant-1"

    @classmethod
    def why_not(cls, label_config: LabelConfig) -> str | None:
        """See ``Pipeline.why_not``."""
        return None

    @classmethod
    def build(cls, context: PipelineContext) -> Self:
        """See ``Pipeline.build``."""
        return cls()

    def predict(self, tasks: Sequence[Task]) -> Sequence[TaskResult | TaskFailure]:
        """See ``Pipeline.predict``."""
        return [{"result": [region(LABELS[task.id % len(LABELS)])], "score": 0.5} for task in tasks]


class Busy(Constant):
    """Burns a fixed amount of one core's time for each task.

    Args:
        rounds: how much; see ``benchmarks.burn``.
    """

    model_version = "busy-1"

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    @classmethod
    def build(cls, context: PipelineContext) -> Self:
        """See ``Pipeline.build``; ``params`` must hold ``rounds``."""
        return cls(int(context.params["rounds"]))

    def predict(self, tasks: Sequence[Task]) -> Sequence[TaskResult | TaskFailure]:
        """See ``Pipeline.predict``."""
        for task in tasks:
            burn(str(task.id), self._rounds)
        return super().predict(tasks)
