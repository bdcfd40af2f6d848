"""How good the predictions of one model version are, measured on annotations that people made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from lsbatch.entities import Annotation, Region, StoredPrediction, TaskId
from lsbatch.label_config import Control, LabelConfig
from lsbatch.quality.agreement import Kind, agreement, answer, kind_of, labels_of, of_control
from lsbatch.quality.control_tally import ControlQuality, tally_of
from lsbatch.quality.intervals import Interval, calibration_error, difference, mean

__all__ = ["Band", "Edits", "Mistake", "Scorecard", "VersionQuality", "compared"]

BANDS = 10
MISTAKES = 20


@dataclass(frozen=True, slots=True)
class Band:
    """Tasks whose score lies from ``low`` (included) to ``high``: how many, their mean score, how many were right."""

    low: float
    high: float
    tasks: int
    mean_score: float
    right: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """A task on which the prediction is not what people said."""

    task_id: TaskId
    score: float
    predicted: str
    said: str


@dataclass
class Edits:
    """What annotators did with the regions of predictions that their annotations were begun from."""

    annotations: int = 0
    kept: int = 0
    changed: int = 0
    removed: int = 0
    added: int = 0


@dataclass(frozen=True)
class VersionQuality:
    """What was measured of one version.

    Attributes:
        model_version: the version.
        tasks: annotated tasks with a prediction of it that were compared.
        without: annotated tasks without one.
        trained_on: annotated tasks left out, since the version was trained on them.
        first: time of the first prediction compared, in UTC.
        agreement: mean agreement with the annotations, with its 95% interval; None of no task.
        calibration_error: of the scores; None where there are none.
        bands: agreement by score.
        controls: by control of the label config.
        edits: what annotators did with its regions.
        mistakes: those with the highest scores.
        by_task: agreement of each task.
    """

    model_version: str
    tasks: int
    without: int
    trained_on: int
    first: datetime | None
    agreement: Interval | None
    calibration_error: float | None
    bands: tuple[Band, ...]
    controls: tuple[ControlQuality, ...]
    edits: Edits
    mistakes: tuple[Mistake, ...]
    by_task: Mapping[TaskId, float] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """In JSON's types, without the single tasks."""
        return {
            "model_version": self.model_version,
            "tasks": self.tasks,
            "without_prediction": self.without,
            "left_out_trained_on": self.trained_on,
            "first": None if self.first is None else self.first.isoformat(),
            "agreement": None if self.agreement is None else self.agreement.to_json(),
            "calibration_error": self.calibration_error,
            "by_score": [asdict(band) for band in self.bands],
            "controls": [control.to_json() for control in self.controls],
            "edits": asdict(self.edits),
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
        }


@dataclass(slots=True)
class _Row:
    task_id: TaskId
    score: float | None
    agreements: tuple[float, ...]
    predicted: str
    said: str


class Scorecard:
    """Takes predictions of one version and annotations, task by task; keeps a few numbers of each.

    Args:
        model_version: the version.
        label_config: of the project.
    """

    def __init__(self, model_version: str, label_config: LabelConfig) -> None:
        self.model_version = model_version
        self.without = 0
        self.trained_on = 0
        self._controls = label_config.controls
        self._tallies = [tally_of(control) for control in self._controls]
        self._filled: set[int] = set()
        self._rows: list[_Row] = []
        self._edits = Edits()
        self._first: datetime | None = None

    def add(self, prediction: StoredPrediction, said: Annotation) -> None:
        """Compare a prediction with the annotation that counts."""
        guess = prediction.result if isinstance(prediction.result, list) else []
        found = []
        for place, (control, tally) in enumerate(zip(self._controls, self._tallies, strict=True)):
            ours, theirs = of_control(control, guess), of_control(control, said.result)
            if ours:
                self._filled.add(place)
            tally.add(ours, theirs)
            found.append(agreement([control], ours, theirs))
        words = [_in_words(self._controls, result) for result in (guess, said.result)]
        self._rows.append(_Row(prediction.task_id, prediction.score, tuple(found), *words))
        if self._first is None or prediction.created_at < self._first:
            self._first = prediction.created_at
        if said.parent_prediction == prediction.id:
            _count_edits(self._edits, guess, said.result)

    def result(self) -> VersionQuality:
        """What was measured; controls that no prediction fills do not count."""
        places = sorted(self._filled) or list(range(len(self._controls)))
        agreements = [sum(row.agreements[place] for place in places) / max(len(places), 1) for row in self._rows]
        scored = [
            (row.score, float(value == 1.0))
            for row, value in zip(self._rows, agreements, strict=True)
            if row.score is not None
        ]
        wrong = [
            Mistake(row.task_id, row.score, row.predicted, row.said)
            for row, value in zip(self._rows, agreements, strict=True)
            if value < 1 and row.score is not None
        ]
        return VersionQuality(
            model_version=self.model_version,
            tasks=len(self._rows),
            without=self.without,
            trained_on=self.trained_on,
            first=self._first,
            agreement=mean(agreements) if agreements else None,
            calibration_error=calibration_error([score for score, _ in scored], [right for _, right in scored]),
            bands=_bands(scored),
            controls=tuple(self._tallies[place].result() for place in places),
            edits=self._edits,
            mistakes=tuple(sorted(wrong, key=lambda row: (-row.score, row.task_id))[:MISTAKES]),
            by_task={row.task_id: value for row, value in zip(self._rows, agreements, strict=True)},
        )


def compared(one: VersionQuality, other: VersionQuality) -> tuple[int, Interval] | None:
    """Tasks that both versions predicted, and by how much the first agrees more on them; None where there are none."""
    common = [task for task in one.by_task if task in other.by_task]
    if not common:
        return None
    return len(common), difference([one.by_task[task] for task in common], [other.by_task[task] for task in common])


def _bands(scored: Sequence[tuple[float, float]]) -> tuple[Band, ...]:
    bands: dict[int, list[tuple[float, float]]] = {}
    for score, right in scored:
        bands.setdefault(min(int(max(score, 0.0) * BANDS), BANDS - 1), []).append((score, right))
    return tuple(
        Band(
            low=number / BANDS,
            high=(number + 1) / BANDS,
            tasks=len(rows),
            mean_score=sum(score for score, _ in rows) / len(rows),
            right=sum(right for _, right in rows) / len(rows),
        )
        for number, rows in sorted(bands.items())
    )


def _count_edits(edits: Edits, guess: Sequence[Region], said: Sequence[Region]) -> None:
    """Regions keep their id when a prediction becomes an annotation; without ids, equal values are the same region."""
    edits.annotations += 1
    ours = {str(region["id"]): answer([region]) for region in guess if region.get("id")}
    if len(ours) < len(guess):
        before, after = Counter(answer([region]) for region in guess), Counter(answer([region]) for region in said)
        kept = sum((before & after).values())
        edits.kept += kept
        edits.removed += len(guess) - kept
        edits.added += len(said) - kept
        return
    there = {str(region.get("id")): answer([region]) for region in said}
    edits.kept += sum(there.get(name) == value for name, value in ours.items())
    edits.changed += sum(name in there and there[name] != value for name, value in ours.items())
    edits.removed += sum(name not in there for name in ours)
    edits.added += sum(name not in ours for name in there)


def _in_words(controls: Sequence[Control], result: Sequence[Region]) -> str:
    """What a result says, in short, for a table."""
    found = []
    for control in controls:
        regions = of_control(control, result)
        if not regions:
            continue
        kind: Kind = kind_of(control)
        if kind in ("spans", "shapes"):
            counts = Counter(", ".join(labels_of(region)) or "?" for region in regions)
            found.append(", ".join(f"{count} x {label}" for label, count in sorted(counts.items())))
        else:
            values = [region.get("value") for region in regions]
            found += [_flat(next(iter(value.values()), "")) for value in values if isinstance(value, Mapping)]
    return "; ".join(found)[:120] or "nothing"


def _flat(value: object) -> str:
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)
