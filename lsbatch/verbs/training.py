"""``retrain`` on a configured project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, cast

from lsbatch.config.chosen import chosen
from lsbatch.config.schema import Selection as SelectionSettings
from lsbatch.errors import LsbatchError
from lsbatch.operations.models import champion, trained
from lsbatch.operations.retrain import RetrainOptions, RetrainReport, RetrainSetup, Search, retrain
from lsbatch.operations.searching import Trial, best, draw, run_trial
from lsbatch.pipeline_spec import PipelineSpec
from lsbatch.ports import PipelineContext, Selection, Trainable, TrainingCluster, TrainingTask
from lsbatch.progress import Progress
from lsbatch.stopping import Stop
from lsbatch.verbs.composing import dask_options, held
from lsbatch.wiring import Bench

__all__ = ["retrain_project"]

#: The lock of a project's trainings: a name that no version has.
LOCK = "\n\n"
#: What a model depends on; noted in its manifest.
LIBRARIES = ("lsbatch", "xgboost", "scikit-learn", "numpy", "pillow")


def retrain_project(
    bench: Bench, progress: Progress, *, since_last: bool = False, stop: Stop | None = None
) -> RetrainReport:
    """Train the configured pipeline from the project's annotations, store the version, and use it if it is good.

    Args:
        bench: the configuration.
        progress: told how far it is.
        since_last: do nothing where no annotation changed since the last version was trained.
        stop: ends the wait for another training of the project, of which there is one at a time.

    Raises:
        LockedError: another process trains, and did so for as long as may be waited (run.wait).
        LsbatchError: as ``lsbatch.operations.retrain.retrain``.
    """
    with held(bench, LOCK, stop or Stop(), what="another training"):
        return retrain(_setup(bench, progress, since_last=since_last), progress)


def _setup(bench: Bench, progress: Progress, *, since_last: bool) -> RetrainSetup:
    store, lineage = bench.store, bench.lineage
    versions = trained(store, lineage)
    return RetrainSetup(
        source=bench.project,
        store=store,
        pipeline=bench.trainable,
        context=replace(bench.training_context, cluster=_cluster(bench, progress)),
        options=_options(bench, since_last=since_last),
        selection=_selection(bench),
        champion=champion(store, lineage),
        last=versions[-1] if versions else None,
        search=_search(bench, progress),
        annotated_tasks=bench.info.annotated_count,
    )


def _options(bench: Bench, *, since_last: bool) -> RetrainOptions:
    options = bench.config.retrain
    return RetrainOptions(
        name=bench.pipeline_name.rpartition(":")[2],
        lineage=bench.lineage,
        holdout=options.holdout,
        consensus=options.consensus,
        min_annotations=options.min_annotations,
        most_regression=options.max_regression,
        since_last=since_last,
        libraries={name: metadata.version(name) for name in LIBRARIES},
        selection={"view": options.view, "filter": options.filter},
    )


def _selection(bench: Bench) -> Selection:
    """Which annotated tasks count; ``selection`` of the configuration is about predictions."""
    options = bench.config.retrain
    return chosen(SelectionSettings(view=options.view, filter=options.filter), now=datetime.now(UTC), section="retrain")


def _search(bench: Bench, progress: Progress) -> Search | None:
    """What looks for parameters, if it is asked for and the pipeline says what may be changed."""
    sets = bench.config.retrain.search
    space = getattr(bench.trainable, "search_space", None)
    if sets < 2:
        return None
    if space is None:
        progress.say(f"warning: retrain.search is passed over: {bench.pipeline_name} has no search_space()")
        return None

    def search(context: PipelineContext, tasks: Sequence[TrainingTask]) -> Mapping[str, Any]:
        chosen = draw(space(), context.params, sets)
        return best(chosen, lambda todo: _on_cluster(bench, tasks, todo, progress), progress.say)

    return search


def _cluster(bench: Bench, progress: Progress) -> TrainingCluster | None:
    """Where large sets are trained, if anywhere but in this process."""
    wanted = bench.config.retrain.cluster
    # Workers of this machine would only share its memory and its cores.
    if wanted == "never" or (wanted == "auto" and bench.config.dask.scheduler is None):
        return None

    def open_cluster() -> AbstractContextManager[Any]:
        from lsbatch.dask_cluster import open_client

        progress.say("training on the Dask cluster")
        return open_client(dask_options(bench), bench.untrained, "retrain", say=progress.say)

    return TrainingCluster(open_cluster, always=wanted == "always")


def _on_cluster(
    bench: Bench, tasks: Sequence[TrainingTask], todo: Sequence[Trial], progress: Progress
) -> Iterator[tuple[Trial, float | LsbatchError]]:
    from lsbatch.dask_cluster import map_on_cluster

    done = map_on_cluster(
        dask_options(bench, most_workers=len(todo)), bench.untrained, _tried, todo, tasks, say=progress.say
    )
    with progress.stage("search", len(todo)) as meter:
        for trial, outcome in done:
            meter.advance(1)
            yield trial, outcome


def _tried(recipe: PipelineSpec, tasks: Sequence[TrainingTask], trial: Trial) -> float | LsbatchError:
    """One trial, in a worker; what was expected to go wrong comes back as it is."""
    try:
        pipeline, context = recipe.loaded()
        return run_trial(cast("type[Trainable]", pipeline), context, tasks, trial)
    except LsbatchError as error:
        return error
