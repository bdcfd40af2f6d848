"""``predict``, ``resume`` and ``retry`` on a configured project."""

from __future__ import annotations

import dataclasses
from contextlib import closing

from lsbatch.errors import ConfigError
from lsbatch.ledger import Ledger
from lsbatch.operations.predict import predict
from lsbatch.operations.runs import close_others, new_run, run_state, unfinished
from lsbatch.operations.selecting import known_failures
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.report import RunReport
from lsbatch.run_dir import RunDir
from lsbatch.run_states import FINISHED, SUPERSEDED
from lsbatch.stopping import Stop
from lsbatch.verbs.composing import composed, held, same_label_config, warn
from lsbatch.wiring import Bench

__all__ = ["continue_run", "predict_project", "retry_run"]


def predict_project(
    bench: Bench, progress: Progress, *, dry_run: bool = False, resume: bool | None = None, stop: Stop | None = None
) -> RunReport:
    """Predict the configured project.

    Args:
        bench: the configuration.
        progress: told how far it is.
        dry_run: write nothing to Label Studio.
        resume: True needs a run to continue, False starts over, None continues one if there is one.
        stop: asked before anything new begins.

    Raises:
        LsbatchError: as ``lsbatch.operations.predict.predict``; ConfigError when there is nothing to continue.
    """
    stop = stop or Stop()
    warn(bench, progress)
    version = bench.model_version
    manifest = bench.manifest("predict", version, origin=bench.pipeline_name, dry_run=dry_run)
    with held(bench, version, stop):
        run = None if resume is False or dry_run else unfinished(bench.runs, manifest)
        if resume and run is None:
            raise ConfigError(
                f"no unfinished run of version {version} with these settings in {bench.runs}",
                hint="Run lsbatch predict without --resume, or see lsbatch runs.",
            )
        resumed = run is not None
        if run is None:
            resolved = bench.resolved_selection(version)
            for note in resolved.notes:
                progress.say(note)
            run = new_run(bench.runs, manifest, resolved.selection, replace=resolved.replace)
        return _run(bench, progress, run, stop, resumed=resumed)


def continue_run(bench: Bench, run: RunDir, progress: Progress, *, stop: Stop | None = None) -> RunReport:
    """Continue a run of ``predict`` by name. ``bench`` has the settings of its manifest.

    Raises:
        ConfigError: the run is finished, or only tried out.
        RefusedError: the label config has changed since.
        LsbatchError: as ``lsbatch.operations.predict.predict``.
    """
    stop = stop or Stop()
    manifest = run.manifest()
    state = "a dry run" if manifest.get("dry_run") else run_state(run)
    if state in (FINISHED, SUPERSEDED, "a dry run"):
        raise ConfigError(
            f"run {run.id} is {state}: there is nothing to continue",
            hint=f"lsbatch retry {run.id} tries its failed tasks again; lsbatch predict starts a new run.",
        )
    same_label_config(bench, run)
    with held(bench, str(manifest["model_version"]), stop):
        return _run(bench, progress, run, stop, resumed=True)


def retry_run(
    bench: Bench, failed: RunDir, progress: Progress, *, dry_run: bool = False, stop: Stop | None = None
) -> RunReport:
    """Predict the quarantined tasks of a run again, in a run of their own. ``bench`` has the settings of its manifest.

    Raises:
        ConfigError: no task of the run is in quarantine.
        RefusedError: the label config has changed since.
        LsbatchError: as ``lsbatch.operations.predict.predict``.
    """
    stop = stop or Stop()
    same_label_config(bench, failed)
    with closing(Ledger(failed.ledger)) as ledger:
        ids = tuple(int(letter.task_id) for letter in ledger.dead_letters())
    if not ids:
        raise ConfigError(f"no task of run {failed.id} is in quarantine", hint="There is nothing to try again.")
    version = str(failed.manifest()["model_version"])
    selection = Selection(without_version=version, task_ids=ids)
    manifest = bench.manifest("predict", version, origin=bench.pipeline_name, dry_run=dry_run)
    manifest["selection"] = {"retry_of": failed.id}
    with held(bench, version, stop):
        run = None if dry_run else unfinished(bench.runs, manifest)
        resumed = run is not None
        if run is None:
            run = new_run(bench.runs, manifest, selection)
        return _run(bench, progress, run, stop, resumed=resumed)


def _run(bench: Bench, progress: Progress, run: RunDir, stop: Stop, *, resumed: bool) -> RunReport:
    """Carry out a run, under the lock of its version."""
    manifest = run.manifest()
    version, dry_run = str(manifest["model_version"]), bool(manifest.get("dry_run"))
    selection, replace = run.selection()
    options = dataclasses.replace(
        bench.run_options(selection, replace=replace, dry_run=dry_run),
        known_failures=known_failures(version, bench.runs),
    )
    if not dry_run:
        close_others(bench.runs, version, bench.project, options.importing, keep=run, stop=stop)
    progress.say(f"{'continuing' if resumed else 'starting'} run {run.id} with {version}")
    with composed(bench, run, options, version, progress, stop, resumed=resumed) as setup:
        return predict(setup)
