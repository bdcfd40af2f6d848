"""Whether a new model may take the place of the one in use: both predict the tasks that neither was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lsbatch.entities import Outcome, Prediction
from lsbatch.label_config import LabelConfig
from lsbatch.ports import TrainingTask
from lsbatch.predictor import Predictor
from lsbatch.progress import Progress
from lsbatch.quality.agreement import agreement, controls_of
from lsbatch.quality.intervals import Interval, calibration_error, difference, mean

__all__ = ["Gate", "judge", "predicted"]

#: Tasks that are predicted in one call.
TASKS = 64


@dataclass(frozen=True)
class Gate:
    """A comparison on the same held-out tasks.

    Attributes:
        champion: the version in use; empty where there is none, and the most frequent answer stands for it.
        tasks: on so many tasks.
        challenger_score: mean agreement of the new model with people, in [0, 1].
        champion_score: of the one in use.
        difference: challenger minus champion, with its 95% interval.
        most_regression: how much worse it may be.
        calibration_error: of the new model's scores, in [0, 1]; None where it gives none.
    """

    champion: str
    tasks: int
    challenger_score: float
    champion_score: float
    difference: Interval
    most_regression: float
    calibration_error: float | None

    @property
    def passed(self) -> bool:
        """Whether the new model may be used: not worse than allowed; the first one must be better than no model."""
        if not self.champion:
            return self.difference.value > 0
        # What is exactly allowed must not fail by the last bit.
        return self.difference.value >= -self.most_regression - 1e-9

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        against = self.champion or "always the most frequent answer"
        words = "not worse" if self.passed else "worse"
        if not self.champion:
            words = "better" if self.passed else "not better"
        return (
            f"{words} than {against}: {self.challenger_score:.3f} against {self.champion_score:.3f} on {self.tasks:,}"
            f" held-out tasks, difference {self.difference}"
        )

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "champion": self.champion or None,
            "tasks": self.tasks,
            "challenger_score": self.challenger_score,
            "champion_score": self.champion_score,
            "difference": self.difference.to_json(),
            "max_regression": self.most_regression,
            "passed": self.passed,
        }


def predicted(predictor: Predictor, tasks: Sequence[TrainingTask], progress: Progress, name: str) -> list[Outcome]:
    """What a model says of each task, in their order."""
    found: list[Outcome] = []
    with progress.stage(name, len(tasks)) as meter:
        for start in range(0, len(tasks), TASKS):
            part = tasks[start : start + TASKS]
            found += predictor.predict_chunk([entry.task for entry in part])
            meter.advance(len(part))
    return found


def judge(
    label_config: LabelConfig,
    tasks: Sequence[TrainingTask],
    challenger: Sequence[Outcome],
    champion: Sequence[Outcome] | float,
    *,
    version: str,
    most_regression: float,
) -> Gate:
    """Compare two models. A task that a model cannot predict counts as wrong.

    Args:
        label_config: of the project.
        tasks: what people said; at least one.
        challenger: what the new model says of each.
        champion: what the one in use says of each; or how often the most frequent answer is right, in [0, 1].
        version: of the one in use; empty if there is none.
        most_regression: how much worse the new one may be.
    """
    known = champion if not isinstance(champion, float) else []
    results = [entry.result for entry in [*challenger, *known] if isinstance(entry, Prediction)]
    controls = controls_of(label_config, results) or label_config.controls

    def scores(outcomes: Sequence[Outcome]) -> list[float]:
        return [
            agreement(controls, entry.result, task.result) if isinstance(entry, Prediction) else 0.0
            for entry, task in zip(outcomes, tasks, strict=True)
        ]

    ours = scores(challenger)
    theirs = [champion] * len(ours) if isinstance(champion, float) else scores(champion)
    scored = [
        (entry.score, float(score == 1.0))
        for entry, score in zip(challenger, ours, strict=True)
        if isinstance(entry, Prediction) and entry.score is not None
    ]
    return Gate(
        champion=version,
        tasks=len(ours),
        challenger_score=mean(ours).value,
        champion_score=mean(theirs).value,
        difference=difference(ours, theirs),
        most_regression=most_regression,
        calibration_error=calibration_error([score for score, _ in scored], [right for _, right in scored]),
    )
