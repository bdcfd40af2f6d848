"""What can be said of a mean, and of the difference of two, from a few hundred tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Interval", "calibration_error", "difference", "mean"]

#: Standard errors to either side of a 95% interval.
Z = 1.959964
BINS = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval. It has a width even where all tasks agree: a few tasks prove little."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean(values: Sequence[float]) -> Interval:
    """The mean of values in [0, 1] with the score interval (Wilson, 1927).

    It is that of a share of right answers; for values between 0 and 1 it is a little too wide, never too narrow.

    Raises:
        ValueError: no values.
    """
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        raise ValueError("no values")
    count, value = len(data), float(data.mean())
    center = (value + Z**2 / (2 * count)) / (1 + Z**2 / count)
    spread = Z / (1 + Z**2 / count) * float(np.sqrt(value * (1 - value) / count + Z**2 / (4 * count**2)))
    return Interval(value, min(value, center - spread), max(value, center + spread))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The mean of ``ours - theirs``, both in [0, 1], on the same tasks.

    The interval is the adjusted one for matched pairs (Agresti and Min, 2005): as if half a task more had been won,
    half a task lost, and one had ended even.

    Raises:
        ValueError: no values, or not equally many.
    """
    data = np.array([one - other for one, other in zip(ours, theirs, strict=True)], dtype=np.float64)
    if not len(data):
        raise ValueError("no values")
    value, count = float(data.mean()), len(data) + 2
    center = float(data.sum()) / count
    variance = (float(data @ data) + 1) / count - center**2
    spread = Z * float(np.sqrt(variance / count))
    return Interval(value, max(-1.0, min(value, center - spread)), min(1.0, max(value, center + spread)))


def calibration_error(scores: Sequence[float], right: Sequence[float]) -> float | None:
    """How far scores are from the share of right answers: the expected calibration error, in [0, 1]; None of nothing.

    The mean over ten equal bands of scores of the distance between mean score and share of right answers, weighted by
    the tasks of a band (Naeini, Cooper and Hauskrecht, 2015).
    """
    given, truth = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not len(given):
        return None
    band = np.minimum((given * BINS).astype(int), BINS - 1)
    off = np.bincount(band, given - truth, BINS)
    return float(np.abs(off).sum() / len(given))
