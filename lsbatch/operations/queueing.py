"""Which tasks people should label next: the pool is read and predicted once, then a strategy chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsbatch.active_learning import (
    cluster_margin,
    coreset,
    disagreement,
    distinct,
    spread,
    uncertain,
)
from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import ConfigError, PipelineError
from lsbatch.ports import Selection, TaskFailure, TaskSource
from lsbatch.predictor import Predictor, printing_aside, raised
from lsbatch.progress import Progress
from lsbatch.quality.agreement import answer
from lsbatch.stopping import Stop
from lsbatch.strategies import FEATURES_NEEDED, Strategy

__all__ = ["Pick", "Picked", "Pool", "check_features", "choose_tasks", "read_pool"]

#: Tasks that are predicted in one call.
TASKS = 256


@dataclass(frozen=True, slots=True)
class Pick:
    """A task to label.

    Attributes:
        task_id: the task.
        certainty: how sure the model is, in [0, 1]; None where the strategy does not ask.
        control: taken by chance, to compare with.
    """

    task_id: TaskId
    certainty: float | None
    control: bool


@dataclass(frozen=True)
class Picked:
    """Tasks in the order in which they should be labeled.

    Attributes:
        strategy: how they were chosen.
        pool: so many tasks were chosen from.
        failed: so many could not be predicted, and were left out.
        picks: the tasks.
    """

    strategy: Strategy
    pool: int
    failed: int
    picks: tuple[Pick, ...]

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "strategy": self.strategy,
            "pool": self.pool,
            "failed": self.failed,
            "tasks": [
                {"task_id": pick.task_id, "certainty": pick.certainty, "control": pick.control} for pick in self.picks
            ],
        }


@dataclass
class Pool:
    """What is known of the tasks to choose from, in equal order: a few bytes each in memory, features on disk.

    Attributes:
        ids: of the tasks.
        certainty: of the first model, in [0, 1].
        votes: of each of several models, a number for each different answer.
        features: shape (tasks, features); None where they were not asked for or the pipeline gives none.
        failed: tasks left out.
    """

    ids: list[int] = field(default_factory=list)
    certainty: list[float] = field(default_factory=list)
    votes: list[list[int]] = field(default_factory=list)
    features: NDArray[np.float32] | None = None
    failed: int = 0


def read_pool(
    source: TaskSource,
    selection: Selection,
    predictors: Sequence[Predictor],
    folder: Path,
    progress: Progress,
    stop: Stop,
    *,
    total: int,
) -> Pool:
    """Read and predict the selected tasks. Writes nothing to the source.

    Args:
        source: where the tasks are.
        selection: which.
        predictors: the models, of which each answers; none where nothing is to be predicted. The first one's
            pipeline gives features, if it has ``embed(tasks)``: a vector or a ``TaskFailure`` for each task.
        folder: where features are kept meanwhile.
        progress: told of every task.
        stop: asked before each page.
        total: about how many tasks there are, for the progress bar.

    Raises:
        TransientError: the source did not answer.
        PipelineError: ``embed`` raised, or gave something else.
        StoppedError: asked to stop.
    """
    pool = Pool(votes=[[] for _ in predictors])
    embed = getattr(predictors[0].pipeline, "embed", None) if predictors else None
    numbers: dict[str, int] = {}
    path = folder / "features.f32"
    width = 0
    with path.open("wb") as file, progress.stage("pool", total) as meter:
        for tasks in _groups(source, selection, stop):
            known, rows = _embedded(embed, tasks)
            answered = [predictor.predict_chunk(known) for predictor in predictors]
            for place, task in enumerate(known):
                said = [entry for row in answered if isinstance(entry := row[place], Prediction)]
                if len(said) < len(predictors):
                    continue
                pool.ids.append(int(task.id))
                # One model has nobody to disagree with.
                for votes, entry in zip(pool.votes, said, strict=True) if len(predictors) > 1 else ():
                    votes.append(numbers.setdefault(answer(entry.result), len(numbers)))
                if said:
                    pool.certainty.append(1.0 if said[0].score is None else said[0].score)
                if embed is not None:
                    width = width or len(rows[place])
                    file.write(_checked(rows[place], width).tobytes())
            meter.advance(len(tasks))
            pool.failed += len(tasks)
    pool.failed -= len(pool.ids)
    if embed is not None and pool.ids:
        pool.features = np.memmap(path, dtype=np.float32, mode="r", shape=(len(pool.ids), width))
    return pool


def check_features(strategy: Strategy, predictors: Sequence[Predictor]) -> None:
    """Return if the strategy has what it needs; better known before a pool is read.

    Raises:
        ConfigError: it needs features, and the pipeline gives none.
    """
    if strategy in FEATURES_NEEDED and not hasattr(predictors[0].pipeline, "embed"):
        raise ConfigError(
            f"strategy {strategy} needs features of the tasks, and the pipeline has no embed()",
            hint="Choose margin or entropy, or give the pipeline an embed(): lsbatch.ports.Pipeline.",
        )


def _groups(source: TaskSource, selection: Selection, stop: Stop) -> Iterator[Sequence[Task]]:
    for page in source.pages(selection):
        stop.check()
        for start in range(0, len(page.tasks), TASKS):
            yield page.tasks[start : start + TASKS]


def _embedded(embed: Callable[..., Iterable[Any]] | None, tasks: Sequence[Task]) -> tuple[list[Task], list[Any]]:
    """Tasks that have features, and these."""
    if embed is None:
        return list(tasks), []
    try:
        with printing_aside():
            rows = list(embed(tuple(tasks)))
    except (Exception, SystemExit) as error:  # somebody else's code
        raise PipelineError(f"embed() raised {raised(error)}") from error
    if len(rows) != len(tasks):
        raise PipelineError(f"embed() returned {len(rows)} vectors for {len(tasks)} tasks")
    kept = [(task, row) for task, row in zip(tasks, rows, strict=True) if not isinstance(row, TaskFailure)]
    return [task for task, _ in kept], [row for _, row in kept]


def _checked(row: Any, width: int) -> NDArray[np.float32]:
    found = np.asarray(row, dtype=np.float32)
    if found.shape != (width,) or not np.isfinite(found).all():
        raise PipelineError(f"embed() returned a vector of shape {found.shape} with NaN, or not of {width} numbers")
    return found


def choose_tasks(pool: Pool, strategy: Strategy, count: int, *, random_fraction: float, seed: int) -> Picked:
    """Choose tasks from a pool; the same pool and seed give the same tasks.

    Args:
        pool: what is known of them.
        strategy: how.
        count: at most so many.
        random_fraction: share that is taken by chance, to compare with, in [0, 1].
        seed: of what is left to chance.
    """
    certainty = np.asarray(pool.certainty, dtype=np.float64)
    if strategy == "committee":
        certainty = disagreement([np.asarray(votes, dtype=np.int64) for votes in pool.votes])
    # What the control takes away must not be missing.
    order = _order(pool, strategy, certainty, count, seed)
    chosen = distinct(order, pool.features, count)
    places, control = spread(chosen, len(pool.ids), count, random_fraction, seed)
    asked = strategy not in ("random", "coreset")
    picks = tuple(
        Pick(TaskId(pool.ids[place]), float(certainty[place]) if asked else None, place in control) for place in places
    )
    return Picked(strategy, len(pool.ids), pool.failed, picks)


def _order(pool: Pool, strategy: Strategy, certainty: NDArray[np.float64], count: int, seed: int) -> Iterable[int]:
    if strategy == "random":
        return (int(place) for place in np.random.default_rng(seed).permutation(len(pool.ids)))
    if strategy == "coreset" and pool.features is not None:
        return coreset(pool.features, count)
    if strategy == "cluster-margin" and pool.features is not None:
        return cluster_margin(pool.features, certainty, count)
    return uncertain(certainty)
