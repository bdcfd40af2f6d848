"""The learning part of the pipelines for choices: gradient-boosted trees from features to labels.

Stored as ``model.ubj`` (XGBoost's own format) and ``labels.json``: the control that is filled, its labels in the order
of the model's outputs, whether several may be chosen, and the options that the features were made with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lsbatch.errors import ConfigError
from lsbatch.label_config import Control, LabelConfig
from lsbatch_pipelines.choices import Answer, Guess, find_control

if TYPE_CHECKING:
    # Seconds to import, and the driver only asks whether a pipeline fits: they are loaded where they are used.
    import xgboost
    from scipy.sparse import csr_matrix

__all__ = ["Head", "HeadOptions", "Matrix", "damaged", "no_model"]

#: Features: one row a task, float32. What a sparse matrix leaves out counts as missing, in training as in prediction.
Matrix: TypeAlias = "NDArray[np.float32] | csr_matrix"

MODEL, LABELS = "model.ubj", "labels.json"
SHARE_OF_ROWS = 0.8  # that each tree is grown on
LIGHTEST_LEAF = 0.1  # XGBoost's own 1.0 never splits on a word that only a few of a hundred texts hold


@dataclass(frozen=True)
class HeadOptions:
    """How the trees are grown."""

    #: Rounds of boosting; each grows one tree a label.
    trees: int
    #: Most splits from a tree's root to a leaf.
    max_depth: int
    #: How much each tree corrects of what the trees before it left, in (0, 1].
    learning_rate: float
    #: Share of the features that each split chooses from, in (0, 1].
    share_of_features: float


class Head:
    """Trees for the labels of one control.

    Args:
        booster: one output for each label: probabilities that sum to 1, or one each where several may be chosen.
        control: what the guesses are for.
        labels: in the order of the outputs, which is the label config's.
        extra: what the pipeline stored beside the labels.
    """

    def __init__(
        self, booster: xgboost.Booster, control: Control, labels: Sequence[str], *, extra: Mapping[str, Any]
    ) -> None:
        self.control = control
        self.labels = tuple(labels)
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
    ) -> Head:
        """Grow the trees. The same arguments give the same trees, on any number of cores.

        Args:
            matrix: features, shape (tasks, features).
            answers: one a row; at least two different ones.
            control: gives the order of the labels; those that no answer holds are left out.
            options: how to grow.
            extra: JSON to store with the model.
        """
        import xgboost

        seen = frozenset().union(*answers)
        labels = [label for label in control.labels if label in seen]
        chosen = np.array([[label in answer for label in labels] for answer in answers], dtype=np.float32)
        settings: dict[str, Any] = {
            "tree_method": "hist",
            "seed": 0,
            "nthread": _cores(),
            "max_depth": options.max_depth,
            "learning_rate": options.learning_rate,
            "subsample": SHARE_OF_ROWS,
            "colsample_bynode": options.share_of_features,
            "min_child_weight": LIGHTEST_LEAF,
        }
        if control.multiple:
            settings |= {"objective": "binary:logistic", "base_score": 0.5}
            target = chosen
        else:
            settings |= {"objective": "multi:softprob", "num_class": len(labels)}
            target = chosen.argmax(axis=1)
        data = xgboost.DMatrix(matrix, target, nthread=settings["nthread"])
        booster = xgboost.train(settings, data, num_boost_round=options.trees)
        return cls(booster, control, labels, extra=extra)

    def predict(self, matrix: Matrix) -> list[Guess]:
        """One guess a row, each by itself, on one core.

        The score of a single choice is its probability. Where several labels may be chosen, those with a probability
        of at least 0.5 are; the score is the mean over all labels of how sure that yes or no is, max(p, 1 - p).

        Args:
            matrix: features, shape (tasks, features); may have no rows.
        """
        import xgboost

        if not matrix.shape[0]:
            return []
        outputs = self._booster.predict(xgboost.DMatrix(matrix, nthread=1))
        probabilities = np.asarray(outputs, dtype=np.float64).reshape(matrix.shape[0], len(self.labels))
        if not self.control.multiple:
            return [Guess((self.labels[int(row.argmax())],), _score(row.max())) for row in probabilities]
        sure = np.maximum(probabilities, 1 - probabilities).mean(axis=1)
        return [
            Guess(tuple(label for label, p in zip(self.labels, row, strict=True) if p >= 0.5), _score(score))
            for row, score in zip(probabilities, sure, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write ``model.ubj`` and ``labels.json``."""
        self._booster.save_model(folder / MODEL)
        control = {"control": self.control.name, "labels": self.labels, "multiple": self.control.multiple}
        content = {**control, **self.extra}
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
        return cls(booster, control, labels, extra=stored)


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


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _score(value: float) -> float:
    """In [0, 1] and short: float32 sums may be a hair above 1."""
    return round(min(1.0, float(value)), 6)
