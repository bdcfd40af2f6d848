"""``select`` on a configured project."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lsbatch.errors import ConfigError
from lsbatch.operations.models import promoted
from lsbatch.operations.queueing import Picked, check_features, choose_tasks, read_pool
from lsbatch.ports import Selection
from lsbatch.predictor import Predictor
from lsbatch.progress import Progress
from lsbatch.stopping import Stop
from lsbatch.strategies import Strategy
from lsbatch.verbs.composing import warn
from lsbatch.wiring import Bench

__all__ = ["SelectRequest", "put_in_order", "select_tasks"]

#: What the score of a prediction must be for a strategy; for others it does not matter.
SCORES = {"least-confidence": "least-confidence", "margin": "margin", "entropy": "entropy", "cluster-margin": "margin"}
#: Most versions of a committee.
MEMBERS = 5


@dataclass(frozen=True)
class SelectRequest:
    """Which tasks are wanted.

    Attributes:
        strategy: how to choose.
        count: how many.
        random_fraction: share that is taken by chance, in [0, 1].
        seed: of what is left to chance.
    """

    strategy: Strategy
    count: int
    random_fraction: float = 0.0
    seed: int = 0


def select_tasks(bench: Bench, request: SelectRequest, progress: Progress, *, stop: Stop | None = None) -> Picked:
    """Choose tasks that nobody labeled yet. Reads only; predicts in this process.

    Args:
        bench: the configuration; its selection narrows the pool.
        request: what is wanted.
        progress: told how far it is.
        stop: asked between pages.

    Raises:
        ConfigError: no model, no features where they are needed, or fewer than two versions for a committee.
        LsbatchError: as ``lsbatch.operations.queueing.read_pool``.
    """
    warn(bench, progress)
    selection = dataclasses.replace(bench.selection, untouched_only=True)
    predictors = _predictors(bench, request.strategy)
    check_features(request.strategy, predictors)
    with tempfile.TemporaryDirectory(prefix="lsbatch-pool-") as folder:
        pool = read_pool(
            bench.project,
            selection,
            predictors,
            Path(folder),
            progress,
            stop or Stop(),
            total=max(0, bench.info.task_count - bench.info.annotated_count),
        )
        fraction = request.random_fraction
        return choose_tasks(pool, request.strategy, request.count, random_fraction=fraction, seed=request.seed)


def _predictors(bench: Bench, strategy: Strategy) -> list[Predictor]:
    if strategy == "random":
        return []
    score = SCORES.get(strategy, bench.spec.score)
    if strategy != "committee":
        return [dataclasses.replace(bench.spec, score=score)()]
    versions = promoted(bench.store, bench.lineage)[-MEMBERS:]
    if len(versions) < 2:
        raise ConfigError(
            f"a committee needs two promoted model versions, project {bench.project_id} has {len(versions)}",
            hint="Choose margin or cluster-margin; lsbatch models lists the versions.",
        )
    return [
        dataclasses.replace(bench.spec, model_version=version, model_dir=str(bench.store.fetch(version)))()
        for version in reversed(versions)
    ]


def put_in_order(bench: Bench, picked: Picked, title: str, key: str, progress: Progress) -> int | None:
    """Make a tab of the picked tasks in Label Studio, in their order where it may be written into the tasks' data.

    Args:
        bench: the configuration.
        picked: the tasks.
        title: of the tab.
        key: of the tasks' data that takes the place in the order, as text that sorts; empty to leave the data alone,
            and order the tab by id.
        progress: told how far it is.

    Returns:
        The tab's id; None where there is no task.

    Raises:
        LsbatchError: as ``lsbatch.ports.LabelQueue``.
    """
    ids = sorted(int(pick.task_id) for pick in picked.picks)
    if not ids:
        return None
    if key:
        ranks = {pick.task_id: number for number, pick in enumerate(picked.picks, 1)}
        with progress.stage("order", len(ids)) as meter:
            for page in bench.project.pages(Selection(task_ids=tuple(ids))):
                for task in page.tasks:
                    bench.project.put_data(task, key, f"{ranks[task.id]:06d}")
                    meter.advance(1)
    return bench.project.make_tab(title, ids, order_by=key)
