"""Honest probabilities: of the answers given with 0.9, nine in ten should be right.

Temperature scaling (Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017) with a bias for
each label, which takes back what weights of the labels did to the probabilities. Both are found on outputs for tasks
that the trees were not grown on, and drawn towards 1 and 0 where there are few of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCORES", "Calibration", "certainty"]

Floats = NDArray[np.float64]

#: What a score can be made of; each is low where the model is unsure, as Label Studio's uncertainty sampling expects.
SCORES = ("confidence", "margin", "entropy", "least-confidence")


@dataclass(frozen=True)
class Calibration:
    """From the outputs of a model to probabilities.

    Attributes:
        temperature: outputs are divided by it, above 0.
        bias: shape (labels,), added afterwards.
        multiple: each label is a yes or no of its own; otherwise the probabilities of a row sum to 1.
    """

    temperature: float
    bias: Floats
    multiple: bool

    @classmethod
    def fit(cls, outputs: Floats, truth: Floats, *, multiple: bool) -> Self:
        """Find temperature and bias with the highest likelihood times a normal prior (log temperature and bias, sd 1).

        Args:
            outputs: shape (tasks, labels), in log odds.
            truth: the same shape, 1 for a label that a person chose, else 0.
            multiple: as the attribute.
        """
        from scipy.optimize import minimize

        def loss(values: Floats) -> tuple[float, Floats]:
            found = cls(float(np.exp(values[0])), values[1:], multiple)
            probabilities = np.clip(found.probabilities(outputs), 1e-12, 1 - 1e-12)
            likely = truth * np.log(probabilities)
            if multiple:
                likely = likely + (1 - truth) * np.log1p(-probabilities)
            wrong = probabilities - truth
            slope = np.concatenate([[-(wrong * outputs).sum() / found.temperature], wrong.sum(axis=0)])
            return float(-likely.sum() + values @ values / 2), slope + values

        best = minimize(loss, np.zeros(1 + outputs.shape[1]), jac=True, method="L-BFGS-B").x
        return cls(float(np.exp(best[0])), best[1:], multiple)

    def probabilities(self, outputs: Floats) -> Floats:
        """Probabilities, shape (tasks, labels), in [0, 1]."""
        from scipy.special import expit, softmax

        scaled = outputs / self.temperature + self.bias
        return np.asarray(expit(scaled) if self.multiple else softmax(scaled, axis=1), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {"temperature": self.temperature, "bias": self.bias.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], labels: int, *, multiple: bool) -> Self:
        """What ``to_json`` gave.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        temperature, bias = float(value["temperature"]), np.asarray(value["bias"], dtype=np.float64)
        if not temperature > 0 or bias.shape != (labels,):
            raise ValueError("its calibration does not fit its labels")
        return cls(temperature, bias, multiple)


def certainty(probabilities: Floats, how: str, *, multiple: bool) -> Floats:
    """How sure a model is of its answers: shape (tasks,), in [0, 1], low where it is unsure.

    - ``confidence``: the probability of the answer; of several yes and no, the mean of max(p, 1 - p).
    - ``least-confidence``: the same, stretched so that a guess among equals is 0.
    - ``margin``: how far the best label is ahead of the second; of several yes and no, the narrowest of them.
    - ``entropy``: 1 minus the entropy as a share of the greatest possible; of several yes and no, the mean.

    Args:
        probabilities: shape (tasks, labels).
        how: one of ``SCORES``.
        multiple: each label is a yes or no of its own.
    """
    if multiple:
        pairs = np.stack([probabilities, 1 - probabilities], axis=2)
        each = np.stack([certainty(row, how, multiple=False) for row in pairs])
        return np.asarray(each.min(axis=1) if how == "margin" else each.mean(axis=1))
    count = probabilities.shape[1]
    if how == "confidence":
        found = probabilities.max(axis=1)
    elif count < 2:
        found = np.ones(len(probabilities))
    elif how == "least-confidence":
        found = (probabilities.max(axis=1) - 1 / count) / (1 - 1 / count)
    elif how == "margin":
        best = np.partition(probabilities, count - 2, axis=1)
        found = best[:, -1] - best[:, -2]
    else:
        likely = np.clip(probabilities, 1e-12, 1)
        found = 1 + (likely * np.log(likely)).sum(axis=1) / np.log(count)
    return np.asarray(np.clip(found, 0, 1), dtype=np.float64)
