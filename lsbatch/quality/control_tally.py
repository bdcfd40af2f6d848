"""Counts of right and wrong by label, for each kind of control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from lsbatch.entities import Region
from lsbatch.label_config import Control
from lsbatch.ports import LabelMetrics
from lsbatch.quality.agreement import (
    Kind,
    character_error_rate,
    kind_of,
    labels_of,
    number_of,
    shared_by_label,
    text_of,
)
from lsbatch.quality.shapes import ENOUGH

__all__ = ["ControlQuality", "ControlTally", "tally_of"]

#: Most labels of a confusion matrix; of more, nobody could read it.
MOST_CONFUSED = 60


@dataclass(frozen=True)
class ControlQuality:
    """What was measured of one control.

    Attributes:
        control: its name.
        kind: how it was compared.
        per_label: quality by label; for spans, of exact matches; for shapes, of those that overlap by a half.
        confusion: by label that people chose, how often each label was predicted; for single choices.
        numbers: what else is measured: ``accuracy``; ``f1_exact``, ``f1_overlapping`` (spans); ``f1``, ``mean_iou``
            (shapes); ``character_error_rate`` (texts); ``mean_absolute_error`` (numbers).
    """

    control: str
    kind: Kind
    per_label: tuple[LabelMetrics, ...] = ()
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)


class ControlTally(Protocol):
    """Takes what was predicted and said of one control, task by task."""

    def add(self, ours: Sequence[Region], theirs: Sequence[Region]) -> None:
        """The regions of the prediction and of the annotation."""
        ...

    def result(self) -> ControlQuality:
        """What was measured so far."""
        ...


def tally_of(control: Control) -> ControlTally:
    """An empty tally for the control's kind."""
    kind = kind_of(control)
    if kind == "text":
        return _Texts(control)
    if kind == "number":
        return _Numbers(control)
    return _Regions(control, kind) if kind in ("spans", "shapes") else _Labels(control)


class _Labels(ControlTally):
    def __init__(self, control: Control) -> None:
        self._control = control
        self._ours: list[tuple[str, ...]] = []
        self._theirs: list[tuple[str, ...]] = []

    def add(self, ours: Sequence[Region], theirs: Sequence[Region]) -> None:
        self._ours.append(_chosen(ours))
        self._theirs.append(_chosen(theirs))

    def result(self) -> ControlQuality:
        from sklearn.metrics import accuracy_score, precision_recall_fscore_support
        from sklearn.preprocessing import MultiLabelBinarizer

        seen = {label for labels in (*self._ours, *self._theirs) for label in labels}
        labels = [label for label in self._control.labels if label in seen]
        labels += sorted(seen.difference(labels))
        if not labels:
            return ControlQuality(self._control.name, "labels")
        binarizer = MultiLabelBinarizer(classes=labels)
        truth, guess = binarizer.fit_transform(self._theirs), binarizer.transform(self._ours)
        rows = zip(labels, *precision_recall_fscore_support(truth, guess, average=None, zero_division=0.0), strict=True)
        return ControlQuality(
            self._control.name,
            "labels",
            tuple(LabelMetrics(label, float(p), float(r), float(f), int(s)) for label, p, r, f, s in rows),
            self._confusion(labels),
            {"accuracy": float(accuracy_score(truth, guess))},
        )

    def _confusion(self, labels: Sequence[str]) -> dict[str, dict[str, int]]:
        if any(len(chosen) > 1 for chosen in (*self._ours, *self._theirs)) or len(labels) > MOST_CONFUSED:
            return {}
        pairs = Counter(
            (theirs[0] if theirs else "", ours[0] if ours else "")
            for ours, theirs in zip(self._ours, self._theirs, strict=True)
        )
        names = [*labels, *([""] if any("" in pair for pair in pairs) else [])]
        return {row: {column: pairs[row, column] for column in names} for row in names}


class _Regions(ControlTally):
    """Spans and shapes: found by label and by what they cover."""

    def __init__(self, control: Control, kind: Kind) -> None:
        self._control = control
        self._kind = kind
        self._given: Counter[str] = Counter()
        self._there: Counter[str] = Counter()
        self._exact: Counter[str] = Counter()
        self._overlapping: Counter[str] = Counter()
        self._shared: list[float] = []

    def add(self, ours: Sequence[Region], theirs: Sequence[Region]) -> None:
        self._given.update(map(_label, ours))
        self._there.update(map(_label, theirs))
        for labels, shares in shared_by_label(ours, theirs).items():
            label = ", ".join(labels)
            self._exact[label] += sum(shared >= 1 for shared in shares)
            self._overlapping[label] += sum(shared >= (ENOUGH if self._kind == "shapes" else 1e-9) for shared in shares)
            self._shared += shares

    def result(self) -> ControlQuality:
        counted = self._exact if self._kind == "spans" else self._overlapping
        labels = [label for label in self._control.labels if self._given[label] or self._there[label]]
        labels += sorted({*self._given, *self._there}.difference(labels))
        per_label = tuple(
            LabelMetrics(
                label,
                _ratio(counted[label], self._given[label]),
                _ratio(counted[label], self._there[label]),
                _ratio(2 * counted[label], self._given[label] + self._there[label]),
                self._there[label],
            )
            for label in labels
        )
        regions = self._given.total() + self._there.total()
        exact, overlapping = (_ratio(2 * count.total(), regions) for count in (self._exact, self._overlapping))
        if self._kind == "spans":
            numbers = {"f1_exact": exact, "f1_overlapping": overlapping}
        else:
            mean_iou = sum(self._shared) / len(self._shared) if self._shared else 0.0
            numbers = {"f1": overlapping, "mean_iou": mean_iou}
        return ControlQuality(self._control.name, self._kind, per_label, numbers=numbers)


class _Texts(ControlTally):
    def __init__(self, control: Control) -> None:
        self._control = control
        self._rates: list[float] = []

    def add(self, ours: Sequence[Region], theirs: Sequence[Region]) -> None:
        self._rates.append(character_error_rate(text_of(ours), text_of(theirs)))

    def result(self) -> ControlQuality:
        numbers = {"character_error_rate": sum(self._rates) / len(self._rates)} if self._rates else {}
        return ControlQuality(self._control.name, "text", numbers=numbers)


class _Numbers(ControlTally):
    def __init__(self, control: Control) -> None:
        self._control = control
        self._guesses: list[float] = []
        self._truths: list[float] = []

    def add(self, ours: Sequence[Region], theirs: Sequence[Region]) -> None:
        guess, truth = number_of(ours), number_of(theirs)
        if guess is not None and truth is not None:
            self._guesses.append(guess)
            self._truths.append(truth)

    def result(self) -> ControlQuality:
        from sklearn.metrics import mean_absolute_error

        numbers = {"compared": float(len(self._truths))}
        if self._truths:
            numbers["mean_absolute_error"] = float(mean_absolute_error(self._truths, self._guesses))
        return ControlQuality(self._control.name, "number", numbers=numbers)


def _chosen(regions: Sequence[Region]) -> tuple[str, ...]:
    return tuple(sorted({name for region in regions for name in _names(region)}))


def _names(region: Region) -> list[str]:
    """Labels of a region of the whole task; those of a taxonomy are paths."""
    value = region.get("value")
    found = value.get(str(region.get("type", ""))) if isinstance(value, Mapping) else None
    if isinstance(found, list):
        return [" / ".join(map(str, entry)) if isinstance(entry, list) else str(entry) for entry in found]
    return [] if found is None else [str(found)]


def _label(region: Region) -> str:
    return ", ".join(labels_of(region))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
