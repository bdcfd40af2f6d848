"""Grows boosted trees, in this process or on a Dask cluster, and finds out how many rounds of them are best."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lsbatch.ports import TrainingCluster
from lsbatch_pipelines.choices import Answer

if TYPE_CHECKING:
    # Seconds to import: they are loaded where they are used.
    import xgboost
    from scipy.sparse import csr_matrix

__all__ = ["Growing", "HeadOptions", "Matrix", "client_of", "deal", "outputs_of", "weights_of"]

#: Features: one row a task, float32. What a sparse matrix leaves out counts as missing, in training as in prediction.
Matrix: TypeAlias = "NDArray[np.float32] | csr_matrix"


SHARE_OF_ROWS = 0.8  # that each tree is grown on
LIGHTEST_LEAF = 0.1  # XGBoost's own 1.0 never splits on a word that only a few of a hundred texts hold
#: Parts that the training tasks are dealt into; of more tasks than the second number, one part tells enough.
PARTS, ALL_PARTS_UP_TO = 4, 2_000
#: Numbers of a matrix from which a cluster pays: half a gigabyte, several times of which training takes.
LARGE = 125_000_000
#: Numbers times labels from which more than one thread pays. With less to do, threads mostly wait for each other: on
#: a busy machine a training of 3 s took 25 s.
MANY = 50_000_000
#: Rounds without a better result after which no more trees are grown.
PATIENCE = 15


@dataclass(frozen=True)
class HeadOptions:
    """How the trees are grown."""

    #: Most rounds of boosting; each grows one tree a label.
    trees: int
    #: Most splits from a tree's root to a leaf.
    max_depth: int
    #: How much each tree corrects of what the trees before it left, in (0, 1].
    learning_rate: float
    #: Share of the features that each split chooses from, in (0, 1].
    share_of_features: float
    #: How far rare labels weigh more: 0 not at all, 1 until all labels weigh the same.
    balance: float = 0.5
    #: Of all that is left to chance.
    seed: int = 0


class Growing:
    """Trees from rows of a matrix.

    Args:
        matrix: features, shape (tasks, features).
        truth: shape (tasks, labels), 1 for what was chosen.
        weights: shape (tasks,).
        options: how to grow.
        multiple: each label is a yes or no of its own.
        client: of a Dask cluster to grow them on; None for this process.
    """

    def __init__(
        self,
        matrix: Matrix,
        truth: NDArray[np.float64],
        weights: NDArray[np.float64],
        options: HeadOptions,
        *,
        multiple: bool,
        client: Any = None,
    ) -> None:
        self._client = client
        self._matrix = matrix
        self._labels = truth.shape[1]
        self._target = truth if multiple else truth.argmax(axis=1)
        self._weights = weights
        self._rounds = options.trees
        self._settings: dict[str, Any] = {
            "tree_method": "hist",
            "seed": options.seed,
            "nthread": _cores() if _numbers(matrix) * truth.shape[1] >= MANY else 1,
            "max_depth": options.max_depth,
            "learning_rate": options.learning_rate,
            "subsample": SHARE_OF_ROWS,
            "colsample_bynode": options.share_of_features,
            "min_child_weight": LIGHTEST_LEAF,
            **(
                {"objective": "binary:logistic", "base_score": 0.5, "eval_metric": "logloss"}
                if multiple
                else {"objective": "multi:softprob", "num_class": self._labels, "eval_metric": "mlogloss"}
            ),
        }

    def ondeal(self, parts: NDArray[np.int64]) -> tuple[int, NDArray[np.float64], NDArray[np.int64]]:
        """How many rounds are best, the outputs for rows that the trees were not grown on, and the places of those."""
        rounds, outputs, places = [], [], []
        for part in range(PARTS if len(parts) <= ALL_PARTS_UP_TO else 1):
            told = np.flatnonzero(parts == part)
            if not len(told):
                continue
            booster, best = self.grow(np.flatnonzero(parts != part), self._rounds, told)
            rounds.append(best)
            outputs.append(
                outputs_of(booster, self._matrix[told], self._labels, cores=self._settings["nthread"], rounds=best)
            )
            places.append(told)
        return round(float(np.mean(rounds))), np.concatenate(outputs), np.concatenate(places)

    def grow(
        self, rows: NDArray[np.int64], rounds: int, told: NDArray[np.int64] | None = None
    ) -> tuple[xgboost.Booster, int]:
        """Trees from these rows and how many rounds of them are best; those of ``told`` tell when to stop."""
        # Threads that wait must not keep the cores from those that work, on a machine that has something else to do.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import xgboost

        if self._client is not None:
            with self._client.as_current():
                return self._grow_on_cluster(rows, rounds, told)
        watched = {} if told is None else {"evals": [(self._data(told), "told")], "early_stopping_rounds": PATIENCE}
        booster = xgboost.train(self._settings, self._data(rows), num_boost_round=rounds, verbose_eval=False, **watched)
        return booster, rounds if told is None else booster.best_iteration + 1

    def _grow_on_cluster(
        self, rows: NDArray[np.int64], rounds: int, told: NDArray[np.int64] | None
    ) -> tuple[xgboost.Booster, int]:
        from xgboost import dask as xgboost_dask

        # Each worker uses the threads that it has.
        settings = {name: value for name, value in self._settings.items() if name != "nthread"} | {"verbosity": 0}
        watched: dict[str, Any] = {}
        if told is not None:
            watched = {"evals": [(self._spread(told), "told")], "early_stopping_rounds": PATIENCE}
        booster: xgboost.Booster = xgboost_dask.train(
            self._client, settings, self._spread(rows), num_boost_round=rounds, verbose_eval=False, **watched
        )["booster"]
        return booster, rounds if told is None else booster.best_iteration + 1

    def _spread(self, rows: NDArray[np.int64]) -> Any:
        """These rows on the workers, about equally many on each."""
        from dask import array
        from xgboost import dask as xgboost_dask

        workers = max(1, len(self._client.scheduler_info()["workers"]))
        parts = [part for part in np.array_split(rows, workers) if len(part)]

        def laid_out(values: Any) -> Any:
            held = self._client.scatter([values[part] for part in parts])
            shapes = [(len(part), *values.shape[1:]) for part in parts]
            pairs = zip(held, shapes, strict=True)
            pieces = [array.from_delayed(one, shape, dtype=values.dtype, meta=values[:0]) for one, shape in pairs]
            return array.concatenate(pieces, axis=0)

        return xgboost_dask.DaskDMatrix(
            self._client, laid_out(self._matrix), laid_out(self._target), weight=laid_out(self._weights)
        )

    def _data(self, rows: NDArray[np.int64]) -> xgboost.DMatrix:
        import xgboost

        cores = self._settings["nthread"]
        return xgboost.DMatrix(self._matrix[rows], self._target[rows], weight=self._weights[rows], nthread=cores)


def client_of(cluster: TrainingCluster | None, matrix: Matrix) -> AbstractContextManager[Any]:
    """Of the cluster, where training on it pays or is wanted."""
    if cluster is None:
        return nullcontext()
    return cluster.open() if cluster.always or _numbers(matrix) >= LARGE else nullcontext()


def _numbers(matrix: Matrix) -> int:
    return int(matrix.size if isinstance(matrix, np.ndarray) else matrix.nnz)


def outputs_of(
    booster: xgboost.Booster, matrix: Matrix, labels: int, *, cores: int, rounds: int = 0
) -> NDArray[np.float64]:
    """Log odds, shape (tasks, labels), of so many rounds; 0 for all."""
    import xgboost

    found = booster.predict(xgboost.DMatrix(matrix, nthread=cores), output_margin=True, iteration_range=(0, rounds))
    return np.asarray(found, dtype=np.float64).reshape(matrix.shape[0], labels)


def deal(answers: Sequence[Answer], seed: int) -> NDArray[np.int64]:
    """The part of each task, so that each answer is dealt to all parts in turn, however rare it is."""
    order = np.random.default_rng(seed).permutation(len(answers))
    following: dict[Answer, int] = {}
    parts = np.zeros(len(answers), dtype=np.int64)
    for place in order:
        # Answers begin with different parts, or the rare ones would all be in the first.
        part = following.get(answers[place], len(following))
        parts[place] = part % PARTS
        following[answers[place]] = part + 1
    return parts


def weights_of(truth: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Of each task, by how rare its one label is; 1 in the mean over all tasks."""
    counts = truth.sum(axis=0)
    weights = np.asarray(((len(truth) / (len(counts) * counts)) ** power)[truth.argmax(axis=1)], dtype=np.float64)
    return np.asarray(weights / weights.mean())


def _cores() -> int:
    """How many cores this process may use: as OMP_NUM_THREADS says, which XGBoost's own setting would overrule."""
    if (wanted := os.environ.get("OMP_NUM_THREADS", "")).isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
