"""Runs on disk: which one a command continues, which it replaces, what there is. One folder for each project."""

from __future__ import annotations

import difflib
import json
import logging
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lsbatch.errors import ConfigError
from lsbatch.ledger import Ledger
from lsbatch.operations.importing import Importer, ImportOptions, ImportSetup
from lsbatch.ports import PredictionSink, Selection
from lsbatch.progress import Silent
from lsbatch.run_dir import RunDir, disk_errors, write_json
from lsbatch.run_states import CLOSED, FINISHED, RUNNING, SUPERSEDED
from lsbatch.stopping import Stop

__all__ = [
    "began_at",
    "close_others",
    "find_run",
    "fingerprint",
    "make_run",
    "new_run",
    "prune",
    "run_report",
    "run_state",
    "runs",
    "supersede",
    "unfinished",
    "unmade_run",
]

logger = logging.getLogger(__name__)

#: What must be equal for a run to be continued by the same command: all else may change from call to call.
_IDENTITY = (
    *("operation", "server", "project", "model_version", "origin", "params", "score", "selection", "label_config_hash"),
)


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Equal for two commands of which one may continue the run of the other."""
    return json.dumps({key: manifest.get(key) for key in _IDENTITY}, sort_keys=True)


def new_run(
    folder: Path, manifest: Mapping[str, Any], selection: Selection | None = None, *, replace: bool = False
) -> RunDir:
    """Make a run's directory, named by the UTC time to the millisecond and four hex digits.

    Args:
        folder: of the project's runs.
        manifest: what the run is asked to do.
        selection: which tasks it takes, for a run that predicts.
        replace: what these carry of the version is replaced.
    """
    run = unmade_run(folder)
    if selection is not None:
        run.write_selection(selection, replace=replace)
    make_run(run, manifest)
    return run


def unmade_run(folder: Path) -> RunDir:
    """The directory of a run that is to be; it is none before ``make_run``."""
    now = datetime.now(UTC)
    return RunDir(folder / f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{secrets.token_hex(2)}")


def make_run(run: RunDir, manifest: Mapping[str, Any]) -> None:
    """Write the manifest: it makes a folder a run, and a run must be whole, so that it comes last."""
    run.create({**manifest, "created_at": datetime.now(UTC).isoformat(timespec="milliseconds")})


def runs(folder: Path) -> Iterator[RunDir]:
    """All runs of a project, newest first."""
    if folder.is_dir():
        for path in sorted(folder.iterdir(), reverse=True):
            run = RunDir(path)
            if run.exists():
                yield run


def began_at(run: RunDir) -> datetime:
    """When a run was made, in UTC.

    Raises:
        ConfigError: the manifest is missing or damaged.
    """
    return datetime.fromisoformat(str(run.manifest()["created_at"]))


def run_report(run: RunDir) -> dict[str, Any]:
    """The run's report as it was last written; empty when there is no whole one."""
    try:
        value = json.loads(run.results.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def run_state(run: RunDir) -> str:
    """The state that the run's report says, ``running`` when there is no whole report."""
    return str(run_report(run).get("state", RUNNING))


def find_run(folders: Iterable[Path], name: str) -> RunDir:
    """The run of this id in one of these folders of runs.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    known = []
    for folder in folders:
        for run in runs(folder):
            if run.id == name:
                return run
            known.append(run.id)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known, reverse=True)[:3]
    there = f"there are {', '.join(near)}" if near else "there are none yet"
    raise ConfigError(
        f"no run {name!r}: {there}", hint="lsbatch runs lists those of the configured project, server and state folder."
    )


def unfinished(folder: Path, manifest: Mapping[str, Any]) -> RunDir | None:
    """The newest run that the command of this manifest may continue: interrupted, and not a dry run."""
    for run in runs(folder):
        if run_state(run) in CLOSED:
            continue
        other = run.manifest()
        if not other.get("dry_run") and fingerprint(other) == fingerprint(manifest):
            return run
    return None


def supersede(folder: Path, manifest: Mapping[str, Any]) -> None:
    """End every run that the command of this manifest might continue: it begins anew."""
    while (run := unfinished(folder, manifest)) is not None:
        write_json(run.results, {**run_report(run), "run": run.id, "state": SUPERSEDED})


def close_others(
    folder: Path,
    model_version: str,
    sink: PredictionSink,
    options: ImportOptions,
    *,
    keep: RunDir | None = None,
    stop: Stop | None = None,
) -> None:
    """End every other unfinished run of this version, so that nothing of it arrives any more and none is continued.

    A new run selects what the server lacks. That is known only when no request of an older run is still at work.
    The caller holds the lock of this version.

    Raises:
        StoppedError: somebody asked to stop.
    """
    for run in runs(folder):
        if (keep is not None and run.path == keep.path) or run_state(run) in (FINISHED, SUPERSEDED):
            continue
        manifest = run.manifest()
        if manifest.get("model_version") != model_version or manifest.get("dry_run"):
            continue
        if run.ledger.is_file():
            _settle(run, sink, model_version, options, stop or Stop())
        logger.warning("run %s was not finished; this one takes its place", run.id)
        write_json(run.results, {**run_report(run), "run": run.id, "model_version": model_version, "state": SUPERSEDED})


def _settle(run: RunDir, sink: PredictionSink, model_version: str, options: ImportOptions, stop: Stop) -> None:
    try:
        ledger = Ledger(run.ledger)
    except ConfigError as error:
        # What it sent cannot be known; the audit of the run that follows finds and removes doubles.
        logger.warning("%s", error)
        return
    try:
        Importer(ImportSetup(sink, run, ledger, model_version, options, Silent(), stop=stop)).settle()
    except ConfigError as error:
        logger.warning("%s", error)
    finally:
        ledger.close()


def prune(folder: Path, keep: int, *, busy: Callable[[str], bool]) -> list[str]:
    """Delete all but the newest ``keep`` runs; one that may still be continued is never deleted. May be repeated.

    Args:
        folder: of the project's runs.
        keep: how many runs stay, counted from the newest, those that cannot be deleted included.
        busy: whether a process works on this model version now.

    Returns:
        Ids of the deleted runs, newest first.

    Raises:
        ConfigError: the folder cannot be written.
    """
    deleted = []
    for run in list(runs(folder))[keep:]:
        manifest = run.manifest()
        done = run_state(run) in CLOSED or manifest.get("dry_run")
        if not done or busy(str(manifest.get("model_version"))):
            continue
        # First what makes the folder a run, so that half of one is never taken for one.
        with disk_errors(run.path):
            (run.path / "manifest.json").unlink()
            shutil.rmtree(run.path)
        deleted.append(run.id)
    return deleted
