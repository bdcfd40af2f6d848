"""``import`` on a configured project."""

from __future__ import annotations

import time
from pathlib import Path

from lsbatch.entities import check_model_version
from lsbatch.errors import ConfigError
from lsbatch.operations.deletion import Begun
from lsbatch.operations.finishing import finish
from lsbatch.operations.recording import recorded
from lsbatch.operations.run_setup import RunSetup
from lsbatch.operations.runs import close_others, new_run
from lsbatch.operations.stored import Staged, stage, summarize
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.report import RunReport
from lsbatch.run_dir import RunDir
from lsbatch.stopping import Stop
from lsbatch.verbs.composing import composed, held, same_label_config
from lsbatch.wiring import Bench

__all__ = ["import_stored"]


def import_stored(
    bench: Bench,
    origin: str,
    progress: Progress,
    *,
    dry_run: bool = False,
    versionless_as: str | None = None,
    stop: Stop | None = None,
) -> list[RunReport]:
    """Send predictions that are stored in a run of this project, or in a file, one version after the other.

    Args:
        bench: the configuration.
        origin: a run's id or folder, or a file; also the backup of a deletion.
        progress: told how far it is.
        dry_run: write nothing to Label Studio.
        versionless_as: version for predictions of a backup that have none, which are left out otherwise.
        stop: asked before anything new begins.

    Returns:
        A report for each version.

    Raises:
        ConfigError: no such run or file; the run is of another project, or of another label config.
        LsbatchError: as ``lsbatch.operations.predict.predict``.
    """
    stop = stop or Stop()
    stored = _stored_run(bench, origin)
    if stored is not None and stored.begun.is_file():
        # A deletion: what it took.
        begun = Begun.read(stored)
        origin, stored = ("" if begun is None else begun.backup), None
        if not origin:
            raise ConfigError("that deletion wrote no backup", hint="It was given --no-backup.")
    if stored is not None:
        _check_run(bench, stored)
        return [_import_run(bench, str(stored.manifest()["model_version"]), progress, stop, dry_run, stored=stored)]
    parts = _parts(Path(origin), versionless_as, progress)
    return [_import_run(bench, part.model_version, progress, stop, dry_run, part=part) for part in parts]


def _parts(path: Path, versionless_as: str | None, progress: Progress) -> list[Staged]:
    """What is imported of a file, one version after the other."""
    summary = summarize(path)
    for why in summary.refused.values():
        progress.say(f"left out: {why}")
    names = sorted(summary.versions)
    if summary.versionless and versionless_as:
        check_model_version(versionless_as, setting="--versionless-as")
        names = sorted({*names, versionless_as})
    elif summary.versionless:
        progress.say(
            f"{summary.versionless:,} predictions have no version and are left out: give --versionless-as NAME"
        )
    if not names:
        raise ConfigError(f"nothing of {path} can be imported", hint="What is left out, and why, is said above.")
    return [Staged(path, name, name == versionless_as, summary.backup) for name in names]


def _import_run(
    bench: Bench,
    version: str,
    progress: Progress,
    stop: Stop,
    dry_run: bool,
    *,
    stored: RunDir | None = None,
    part: Staged | None = None,
) -> RunReport:
    """Import one version: of a run on this disk, or of a file."""
    options = bench.run_options(Selection(without_version=version), replace=False, dry_run=dry_run)
    with held(bench, version, stop):
        if not dry_run:
            close_others(bench.runs, version, bench.project, options.importing, keep=stored, stop=stop)
        run = stored
        if run is None:
            assert part is not None
            origin = str(part.path.resolve())
            run = new_run(bench.runs, bench.manifest("import", version, origin=origin, dry_run=dry_run))
        with composed(bench, run, options, version, progress, stop, resumed=True) as setup:
            return _import(bench, setup, part)


def _import(bench: Bench, setup: RunSetup, part: Staged | None) -> RunReport:
    """Import what a run has on disk, after it was brought there from a file if there is one."""
    if part is None and setup.ledger.fact("exported") is None:
        raise ConfigError(
            f"run {setup.run.id} was interrupted before everything was predicted",
            hint=f"Continue it: lsbatch resume {setup.run.id}",
        )
    report = RunReport(setup.run.id, setup.project, setup.model_version, dry_run=setup.options.dry_run)
    importer = setup.importer()
    with recorded(setup, report, importer) as recording:
        if part is not None:
            stage(part, setup.run, setup.ledger, bench.project, bench.label_config)
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
    if not run.ledger.is_file():
        raise ConfigError(
            f"run {run.id} is one of lsbatch {manifest.get('operation')}: it holds no predictions",
            hint="lsbatch runs shows what each run is.",
        )
    here = {"server": bench.connection.url.rstrip("/"), "project": bench.project_id}
    if other := [f"{key} {manifest.get(key)}" for key, value in here.items() if manifest.get(key) != value]:
        raise ConfigError(f"run {run.id} is of {', '.join(other)}", hint="Task ids mean nothing in another project.")
    same_label_config(bench, run)
