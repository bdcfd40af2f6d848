"""Which predictions are sure enough to become annotations: pure, and the same however often it is asked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lsbatch.entities import StoredPrediction, TaskPredictions

__all__ = ["Acceptance", "Bar", "Verdict", "labels_of"]

#: Scores are shown in so many steps from the lowest that is accepted to 1.
SCORE_STEPS = 5


class Verdict(StrEnum):
    """What becomes of a task."""

    ACCEPT = "sure enough"
    REVIEW = "left for review"
    DONE = "an annotation came from it"
    TOUCHED = "has annotations or drafts"
    BELOW = "score too low"
    UNSCORED = "no score"
    TWICE = "several predictions of the version"


@dataclass(frozen=True)
class Bar:
    """What a prediction must reach.

    Attributes:
        model_version: its version, exactly.
        min_score: its score at least, in [0, 1].
        even_if_annotated: also on tasks that have annotations or drafts.
        review_share: share of the others that is left for people, in [0, 1).
    """

    model_version: str
    min_score: float
    even_if_annotated: bool = False
    review_share: float = 0.0

    def judge(self, task: TaskPredictions) -> tuple[Verdict, StoredPrediction | None]:
        """What becomes of a task, and its prediction where that is one."""
        rows = [row for row in task.predictions if row.model_version == self.model_version]
        if len(rows) != 1:
            # The server would make an annotation of each.
            return Verdict.TWICE, None
        [row] = rows
        if row.referenced:
            return Verdict.DONE, row
        if task.touched and not self.even_if_annotated:
            return Verdict.TOUCHED, row
        if row.score is None:
            return Verdict.UNSCORED, row
        if row.score < self.min_score:
            return Verdict.BELOW, row
        return (Verdict.REVIEW if self._for_people(task.task_id) else Verdict.ACCEPT), row

    def _for_people(self, task_id: int) -> bool:
        """Whether chance leaves this task for review: the same each time, so that none is accepted at the second."""
        digest = hashlib.sha256(f"{self.model_version}\n{task_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.review_share * 2**64

    def step(self, score: float) -> str:
        """The range of scores that this one is shown in."""
        width = (1.0 - self.min_score) / SCORE_STEPS
        if width <= 0:
            return f"{score:.3f}"
        place = min(int((score - self.min_score) / width + 1e-9), SCORE_STEPS - 1)
        return f"{self.min_score + place * width:.3f}-{self.min_score + (place + 1) * width:.3f}"


@dataclass
class Acceptance:
    """What was judged so far.

    Attributes:
        verdicts: tasks by what becomes of them.
        labels: accepted tasks by label; a task counts for each of its labels.
        scores: accepted tasks by range of scores.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    scores: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict, prediction: StoredPrediction | None, bar: Bar) -> None:
        """Take note of one more task."""
        self.verdicts[verdict.value] += 1
        if verdict is Verdict.ACCEPT and prediction is not None:
            self.labels.update(labels_of(prediction.result))
            if prediction.score is not None:
                self.scores[bar.step(prediction.score)] += 1

    @property
    def accepted(self) -> int:
        """Tasks whose prediction becomes an annotation."""
        return self.verdicts[Verdict.ACCEPT.value]


def labels_of(result: Any) -> set[str]:
    """The labels in a prediction's result; its kinds of regions where these have none, ``(nothing)`` without any."""
    regions = [region for region in result if isinstance(region, Mapping)] if isinstance(result, Sequence) else []
    found = {label for region in regions for label in _region_labels(region)}
    return found or {"(nothing)"}


def _region_labels(region: Mapping[str, Any]) -> Iterator[str]:
    kind, value = str(region.get("type", "")), region.get("value")
    labels = value.get(kind) if isinstance(value, Mapping) else None
    named = [label for label in labels if isinstance(label, str)] if isinstance(labels, list) else []
    # The text of a TextArea is no label.
    yield from named if named and kind != "textarea" else [f"({kind or 'no type'})"]
