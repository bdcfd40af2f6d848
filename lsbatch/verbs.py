"""The verbs on a configured project: what the command line and the demo both call."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from lsbatch.entities import ModelVersion
from lsbatch.errors import ConfigError, RefusedError
from lsbatch.executor import DaskOptions, Executor, InProcessExecutor, open_dask
from lsbatch.ledger import Ledger
from lsbatch.lock import hold
from lsbatch.operations.check import Finding, check, try_tasks
from lsbatch.operations.predict import PredictOptions, PredictRun, finish, predict, recorded
from lsbatch.operations.retrain import RetrainReport, retrain
from lsbatch.operations.runs import FINISHED, close_others, new_run, unfinished
from lsbatch.operations.stored import stage, summarize
from lsbatch.progress import Progress
from lsbatch.report import RunReport
from lsbatch.run_dir import RunDir
from lsbatch.wiring import Bench

__all__ = ["check_project", "import_stored", "predict_project", "retrain_project"]

logger = logging.getLogger(__name__)

#: A retry of ``check`` would only make a person wait for the same answer.
CHECK_RETRY_SECONDS = 0.0


def predict_project(
    bench: Bench, progress: Progress, *, dry_run: bool = False, resume: bool | None = None
) -> RunReport:
    """Predict the configured project.

    Args:
        bench: the configuration.
        progress: told how far it is.
        dry_run: write nothing to Label Studio.
        resume: True needs a run to continue, False starts over, None continues one if there is one.

    Raises:
        LsbatchError: as ``lsbatch.operations.predict.predict``; ConfigError when there is nothing to continue.
    """
    _warn(bench, progress)
    version = bench.model_version
    options = bench.predict_options(version, dry_run=dry_run)
    manifest = bench.manifest("predict", options, origin=bench.pipeline_name)
    with hold(bench.folder / "locks", version):
        run = None if resume is False or dry_run else unfinished(bench.runs, manifest)
        if resume and run is None:
            raise ConfigError(
                f"no unfinished run of version {version} with these settings in {bench.runs}",
                hint="Run lsbatch predict without --resume.",
            )
        if not dry_run:
            close_others(bench.runs, version, bench.project, options.importing, keep=run)
        resumed = run is not None
        if run is None:
            run = new_run(bench.runs, manifest)
        progress.say(f"{'continuing' if resumed else 'starting'} run {run.id} with {version}")
        with closing(Ledger(run.ledger)) as ledger:
            return predict(_job(bench, run, ledger, options, progress, resumed=resumed))


def _job(
    bench: Bench, run: RunDir, ledger: Ledger, options: PredictOptions, progress: Progress, *, resumed: bool
) -> PredictRun:
    return PredictRun(
        source=bench.project,
        sink=bench.project,
        run=run,
        ledger=ledger,
        model_version=options.selection.without_version,
        project=bench.project_id,
        options=options,
        open_executor=_executors(bench, run, progress),
        progress=progress,
        resumed=resumed,
    )


def _executors(bench: Bench, run: RunDir, progress: Progress) -> Callable[[int], AbstractContextManager[Executor]]:
    options = bench.config.dask
    workers = os.cpu_count() or 1 if options.workers is None else options.workers

    @contextmanager
    def open_executor(tasks: int) -> Iterator[Executor]:
        small = options.workers is None and tasks < bench.config.inference.in_process_below
        if options.scheduler is None and (workers == 0 or small):
            yield InProcessExecutor(bench.spec)
            return
        dask = DaskOptions(
            workers=workers,
            scheduler=options.scheduler,
            memory_limit=options.memory_limit,
            dashboard_address=options.dashboard_address,
            worker_seconds=options.worker_seconds,
        )
        with open_dask(dask, bench.spec, run.id, say=progress.say) as executor:
            yield executor

    return open_executor


def _warn(bench: Bench, progress: Progress) -> None:
    for warning in bench.info.warnings:
        progress.say(f"warning: {warning}")


def import_stored(bench: Bench, origin: str, progress: Progress, *, dry_run: bool = False) -> RunReport:
    """Send predictions that are stored in a run of this project, or in a file.

    Raises:
        ConfigError: no such run or file; the run is of another project, or of another label config.
        LsbatchError: as ``lsbatch.operations.predict.predict``.
    """
    run = _stored_run(bench, origin)
    if run is not None:
        return _import_run(bench, run, progress, dry_run=dry_run)
    path = Path(origin)
    version = summarize(path).model_version
    options = bench.predict_options(version, dry_run=dry_run)
    manifest = bench.manifest("import", options, origin=str(path.resolve()))
    with hold(bench.folder / "locks", version):
        if not dry_run:
            close_others(bench.runs, version, bench.project, options.importing)
        run = new_run(bench.runs, manifest)
        with closing(Ledger(run.ledger)) as ledger:
            job = _job(bench, run, ledger, options, progress, resumed=True)
            report = RunReport(run.id, job.project, version, dry_run=dry_run)
            with recorded(run, ledger, report):
                stage(path, run, ledger, bench.label_config)
                if not dry_run:
                    finish(job, report)
                report.state = FINISHED
            return report


def _stored_run(bench: Bench, origin: str) -> RunDir | None:
    for path in (bench.runs / origin, Path(origin)):
        run = RunDir(path)
        if origin and path.is_dir() and run.exists():
            return run
    return None


def _import_run(bench: Bench, run: RunDir, progress: Progress, *, dry_run: bool) -> RunReport:
    manifest = run.manifest()
    here = {"server": bench.connection.url.rstrip("/"), "project": bench.project_id}
    if other := [f"{key} {manifest.get(key)}" for key, value in here.items() if manifest.get(key) != value]:
        raise ConfigError(f"run {run.id} is of {', '.join(other)}", hint="Task ids mean nothing in another project.")
    if manifest.get("label_config_hash") != bench.label_config.hash:
        raise RefusedError(
            f"the project's label config has changed since run {run.id}",
            hint=f"Predict again: lsbatch predict --project {bench.project_id}",
        )
    version = str(manifest["model_version"])
    options = bench.predict_options(version, dry_run=dry_run)
    with hold(bench.folder / "locks", version):
        if not dry_run:
            close_others(bench.runs, version, bench.project, options.importing, keep=run)
        with closing(Ledger(run.ledger)) as ledger:
            if ledger.fact("exported") is None:
                raise ConfigError(
                    f"run {run.id} was interrupted before everything was predicted",
                    hint=f"Continue it: lsbatch predict --project {bench.project_id} --resume",
                )
            report = RunReport(run.id, bench.project_id, version, dry_run=dry_run)
            job = _job(bench, run, ledger, options, progress, resumed=True)
            with recorded(run, ledger, report):
                if not dry_run:
                    finish(job, report)
                report.state = FINISHED
            return report


def retrain_project(bench: Bench, progress: Progress) -> RetrainReport:
    """Train the configured pipeline from the project's annotations and store the version."""
    return retrain(
        bench.project,
        bench.store,
        bench.trainable,
        bench.training_context,
        bench.retrain_options,
        progress,
        annotated_tasks=bench.info.annotated_count,
    )


def check_project(bench: Bench) -> Iterator[Finding]:
    """Look at everything that a run of ``predict`` needs, in the order in which it would need it."""
    return check(
        iter(
            [
                ("configuration", lambda: str(bench.loaded.file or "no file; environment, flags and defaults")),
                ("Label Studio", lambda: _connection(bench)),
                ("project", lambda: f"{bench.info.id} {bench.info.title!r}, {bench.info.task_count:,} tasks"),
                ("settings", lambda: "; ".join(bench.info.warnings) or "nothing that will surprise"),
                ("permission to write predictions", lambda: _may_write(bench)),
                ("label config", lambda: _controls(bench)),
                ("pipeline", lambda: _pipeline(bench)),
                ("model", lambda: _model(bench)),
                ("prediction without writing", lambda: try_tasks(bench.project, bench.spec())),
            ]
        )
    )


def _connection(bench: Bench) -> str:
    bench.client.authorization()
    # A legacy token is sent as it is: only a request shows that it works, and that a Label Studio answers.
    bench.client.get("/api/current-user/whoami")
    return f"{bench.connection.url}, {bench.client.token_kind}"


def _may_write(bench: Bench) -> str:
    if not bench.project.may_write():
        raise RefusedError(
            "this token may not import predictions", hint="Ask for a role that may, or use another user's token."
        )
    return "yes"


def _controls(bench: Bench) -> str:
    return ", ".join(
        f"{control.tag} {control.name!r} on {control.object_tag} (data key {control.data_key!r}, "
        f"{len(control.labels)} labels)"
        for control in bench.label_config.controls
    )


def _pipeline(bench: Bench) -> str:
    trained = "trainable" if hasattr(bench.pipeline_class, "fit") else "without training"
    return f"{bench.pipeline_name}, {trained}"


def _model(bench: Bench) -> str:
    version = bench.model_version
    if not hasattr(bench.pipeline_class, "fit"):
        return f"{version}, without a trained model"
    stored: ModelVersion = bench.store.get(version)
    accuracy = stored.manifest.get("metrics", {}).get("accuracy")
    return version if accuracy is None else f"{version}, accuracy {accuracy:.3f} on held-out tasks"
