"""``import`` on a configured project."""

from __future__ import annotations

import time
from pathlib import Path

from lsbatch.errors import ConfigError
from lsbatch.operations.finishing import finish
from lsbatch.operations.recording import recorded
from lsbatch.operations.run_setup import RunSetup
from lsbatch.operations.runs import close_others, new_run
from lsbatch.operations.stored import stage, summarize
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.report import RunReport
from lsbatch.run_dir import RunDir
from lsbatch.stopping import Stop
from lsbatch.verbs.composing import composed, held, same_label_config
from lsbatch.wiring import Bench

__all__ = ["import_stored"]


def import_stored(
    bench: Bench, origin: str, progress: Progress, *, dry_run: bool = False, stop: Stop | None = None
) -> RunReport:
    """Send predictions that are stored in a run of this project, or in a file.

    Raises:
        ConfigError: no such run or file; the run is of another project, or of another label config.
        LsbatchError: as ``lsbatch.operations.predict.predict``.
    """
    stop = stop or Stop()
    stored = _stored_run(bench, origin)
    version = str(stored.manifest()["model_version"]) if stored is not None else summarize(Path(origin)).model_version
    if stored is not None:
        _check_run(bench, stored)
    options = bench.run_options(Selection(without_version=version), replace=False, dry_run=dry_run)
    with held(bench, version, stop):
        if not dry_run:
            close_others(bench.runs, version, bench.project, options.importing, keep=stored, stop=stop)
        run = stored
        if run is None:
            path = str(Path(origin).resolve())
            run = new_run(bench.runs, bench.manifest("import", version, origin=path, dry_run=dry_run))
        with composed(bench, run, options, version, progress, stop, resumed=True) as setup:
            return _import(bench, setup, None if stored is not None else Path(origin))


def _import(bench: Bench, setup: RunSetup, path: Path | None) -> RunReport:
    """Import what a run has on disk, after it was brought there from a file if there is one."""
    if path is None and setup.ledger.fact("exported") is None:
        raise ConfigError(
            f"run {setup.run.id} was interrupted before everything was predicted",
            hint=f"Continue it: lsbatch resume {setup.run.id}",
        )
    report = RunReport(setup.run.id, setup.project, setup.model_version, dry_run=setup.options.dry_run)
    importer = setup.importer()
    with recorded(setup, report, importer) as recording:
        if path is not None:
            stage(path, setup.run, setup.ledger, bench.project, bench.label_config)
        recording.check_budget(setup.ledger.totals()[0])
        if not setup.options.dry_run:
            began = time.perf_counter()
            importer.run()
            report.seconds["import"] = round(time.perf_counter() - began, 3)
            finish(setup, report, importer)
    setup.model = importer.model
    return report


def _stored_run(bench: Bench, origin: str) -> RunDir | None:
    for path in (bench.runs / origin, Path(origin)):
        run = RunDir(path)
        if origin and path.is_dir() and run.exists():
            return run
    return None


def _check_run(bench: Bench, run: RunDir) -> None:
    manifest = run.manifest()
    here = {"server": bench.connection.url.rstrip("/"), "project": bench.project_id}
    if other := [f"{key} {manifest.get(key)}" for key, value in here.items() if manifest.get(key) != value]:
        raise ConfigError(f"run {run.id} is of {', '.join(other)}", hint="Task ids mean nothing in another project.")
    same_label_config(bench, run)
