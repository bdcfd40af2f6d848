"""The learning part of the pipelines for choices: gradient-boosted trees from features to labels.

The training tasks are dealt into parts. Trees grown without a part tell on it after how many rounds more trees stop
helping, and how far their probabilities can be trusted; the stored trees are then grown on all.

Stored as ``model.ubj`` (XGBoost's own format) and ``labels.json``: the control that is filled, its labels in the order
of the model's outputs, whether several may be chosen, the calibration, and the options that the features were made
with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lsbatch.errors import ConfigError
from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import TrainingCluster
from lsbatch_pipelines.calibration import Calibration, certainty
from lsbatch_pipelines.choices import Answer, Guess, find_control
from lsbatch_pipelines.growing import Growing, HeadOptions, Matrix, client_of, deal, outputs_of, weights_of

if TYPE_CHECKING:
    # Seconds to import, and the driver only asks whether a pipeline fits: they are loaded where they are used.
    import xgboost

__all__ = ["SEARCH_SPACE", "Head", "HeadOptions", "Matrix", "damaged", "no_model"]

MODEL, LABELS = "model.ubj", "labels.json"
#: Values of the pipelines' parameters that are worth trying.
SEARCH_SPACE: Mapping[str, Sequence[Any]] = {
    "max_depth": (3, 4, 6, 8),
    "learning_rate": (0.05, 0.1, 0.2, 0.3),
    "trees": (100, 200, 400),
    "balance": (0.0, 0.5, 1.0),
}


class Head:
    """Trees for the labels of one control.

    Args:
        booster: one output for each label, in log odds.
        control: what the guesses are for.
        labels: in the order of the outputs, which is the label config's.
        calibration: from outputs to probabilities.
        extra: what the pipeline stored beside the labels.
    """

    def __init__(
        self,
        booster: xgboost.Booster,
        control: Control,
        labels: Sequence[str],
        calibration: Calibration,
        *,
        extra: Mapping[str, Any],
    ) -> None:
        self.control = control
        self.labels = tuple(labels)
        self.calibration = calibration
        self.extra = extra
        self._booster = booster

    @classmethod
    def fit(
        cls,
        matrix: Matrix,
        answers: Sequence[Answer],
        control: Control,
        options: HeadOptions,
        *,
        extra: Mapping[str, Any],
        cluster: TrainingCluster | None = None,
    ) -> Head:
        """Grow the trees. The same arguments give the same trees, on any number of cores.

        Args:
            matrix: features, shape (tasks, features).
            answers: one a row; at least two different ones.
            control: gives the order of the labels; those that no answer holds are left out.
            options: how to grow.
            extra: JSON to store with the model.
            cluster: where a large matrix is trained on; the trees then depend on how many workers it has.
        """
        seen = frozenset().union(*answers)
        labels = [label for label in control.labels if label in seen]
        truth = np.array([[label in answer for label in labels] for answer in answers], dtype=np.float64)
        weights = weights_of(truth, options.balance) if not control.multiple else np.ones(len(truth))
        with client_of(cluster, matrix) as client:
            growing = Growing(matrix, truth, weights, options, multiple=control.multiple, client=client)
            rounds, outputs, told = growing.ondeal(deal(answers, options.seed))
            booster, _ = growing.grow(np.arange(len(truth)), rounds)
        calibration = Calibration.fit(outputs, truth[told], multiple=control.multiple)
        return cls(booster, control, labels, calibration, extra=extra)

    def probabilities(self, matrix: Matrix) -> NDArray[np.float64]:
        """The probability of each label for each row, shape (tasks, labels), on one core.

        Args:
            matrix: features, shape (tasks, features); may have no rows.
        """
        if not matrix.shape[0]:
            return np.zeros((0, len(self.labels)))
        return self.calibration.probabilities(outputs_of(self._booster, matrix, len(self.labels), cores=1))

    def predict(self, matrix: Matrix, how: str = "confidence") -> list[Guess]:
        """One guess a row, each by itself, on one core.

        Where several labels may be chosen, those with a probability of at least 0.5 are.

        Args:
            matrix: features, shape (tasks, features); may have no rows.
            how: what the score is, one of ``lsbatch_pipelines.calibration.SCORES``.
        """
        probabilities = self.probabilities(matrix)
        multiple = self.control.multiple
        chosen = (
            probabilities >= 0.5 if multiple else probabilities.argmax(axis=1)[:, None] == np.arange(len(self.labels))
        )
        return [
            Guess(tuple(label for label, taken in zip(self.labels, row, strict=True) if taken), _score(score))
            for row, score in zip(chosen, certainty(probabilities, how, multiple=multiple), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write ``model.ubj`` and ``labels.json``."""
        self._booster.save_model(folder / MODEL)
        control = {"control": self.control.name, "labels": self.labels, "multiple": self.control.multiple}
        content = {**control, "calibration": self.calibration.to_json(), **self.extra}
        (folder / LABELS).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | None, label_config: LabelConfig, *object_tags: str, name: str = "") -> Head:
        """Read what ``save`` wrote.

        Args:
            folder: with the model's files; None where nothing is trained.
            label_config: of the project.
            object_tags: on one of which the control must be.
            name: of the control that the configuration wants; empty for that of the training.

        Raises:
            ConfigError: no model, a damaged one, or one that does not fit the label config or ``name``.
        """
        import xgboost

        if folder is None:
            raise no_model()
        try:
            stored = json.loads((folder / LABELS).read_text(encoding="utf-8"))
            trained_for, multiple = str(stored.pop("control")), bool(stored.pop("multiple"))
            labels = [str(label) for label in stored.pop("labels")]
            calibration = Calibration.from_json(stored.pop("calibration"), len(labels), multiple=multiple)
            booster = xgboost.Booster({"nthread": 1}, model_file=_existing(folder / MODEL))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, xgboost.core.XGBoostError) as error:
            raise damaged(folder, error) from error
        if name and name != trained_for:
            raise ConfigError(
                f"the model in {folder} was trained for '{trained_for}', not for '{name}'",
                hint="Correct pipeline.params.control, or run lsbatch retrain --project N again.",
            )
        control = _still_fits(folder, label_config, object_tags, trained_for)
        unknown = [label for label in labels if label not in control.labels]
        if unknown or multiple != control.multiple:
            why = f"has no choice {', '.join(map(repr, unknown))}" if unknown else "now says otherwise of choice="
            raise _unfit(folder, f"'{control.name}' {why}")
        return cls(booster, control, labels, calibration, extra=stored)


def _still_fits(folder: Path, label_config: LabelConfig, object_tags: Sequence[str], name: str) -> Control:
    try:
        return find_control(label_config, *object_tags, name=name)
    except ConfigError as error:
        raise _unfit(folder, f"it has no Choices '{name}' that can be predicted") from error


def _unfit(folder: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the model in {folder} does not fit the label config: {why}",
        hint="The label config changed since the training: run lsbatch retrain --project N again.",
    )


def no_model() -> ConfigError:
    """The error of a pipeline that is built without a model."""
    return ConfigError("no model is trained yet", hint="Run lsbatch retrain --project N first.")


def damaged(folder: Path, error: Exception) -> ConfigError:
    """The error of a model whose files are missing or cannot be read."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    return ConfigError(
        f"the model in {folder} is missing or damaged: {words[0]}", hint="Run lsbatch retrain --project N again."
    )


def _existing(path: Path) -> Path:
    """The path; XGBoost's own message for a missing file is of many lines."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.name}")
    return path


def _score(value: float) -> float:
    """In [0, 1] and short: float32 sums may be a hair above 1."""
    return round(min(1.0, float(value)), 6)
