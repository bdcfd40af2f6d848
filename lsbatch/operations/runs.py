"""Which run a command continues, and which it replaces. Runs lie side by side in one folder per project."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lsbatch.errors import ConfigError
from lsbatch.ledger import Ledger
from lsbatch.operations.importing import Importer, ImportOptions
from lsbatch.ports import PredictionSink
from lsbatch.progress import Silent
from lsbatch.run_dir import RunDir, write_json

__all__ = ["FINISHED", "close_others", "fingerprint", "new_run", "run_state", "runs", "unfinished"]

logger = logging.getLogger(__name__)

FINISHED = "finished"
SUPERSEDED = "superseded"

#: What must be equal for a run to be continued by the same command: all else may change from call to call.
_IDENTITY = ("operation", "server", "project", "model_version", "origin", "params", "selection", "label_config_hash")


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Equal for two commands of which one may continue the run of the other."""
    return json.dumps({key: manifest.get(key) for key in _IDENTITY}, sort_keys=True)


def new_run(folder: Path, manifest: Mapping[str, Any]) -> RunDir:
    """Make a run's directory, named by the UTC time and four hex digits."""
    run = RunDir(folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")
    run.create({**manifest, "created_at": datetime.now(UTC).isoformat(timespec="seconds")})
    return run


def runs(folder: Path) -> Iterator[RunDir]:
    """All runs of a project, newest first."""
    if folder.is_dir():
        for path in sorted(folder.iterdir(), reverse=True):
            run = RunDir(path)
            if run.exists():
                yield run


def run_state(run: RunDir) -> str:
    """The state that the run's report says, ``running`` when there is no whole report."""
    try:
        return str(json.loads(run.results.read_bytes())["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return "running"


def unfinished(folder: Path, manifest: Mapping[str, Any]) -> RunDir | None:
    """The newest run that the command of this manifest may continue: interrupted, and not a dry run."""
    for run in runs(folder):
        if run_state(run) in (FINISHED, SUPERSEDED):
            continue
        other = run.manifest()
        if not other.get("dry_run") and fingerprint(other) == fingerprint(manifest):
            return run
    return None


def close_others(
    folder: Path, model_version: str, sink: PredictionSink, options: ImportOptions, keep: RunDir | None = None
) -> None:
    """End every other unfinished run of this version, so that nothing of it arrives any more and none is continued.

    A new run selects what the server lacks. That is known only when no request of an older run is still at work.
    The caller holds the lock of this version.
    """
    for run in runs(folder):
        if (keep is not None and run.path == keep.path) or run_state(run) in (FINISHED, SUPERSEDED):
            continue
        manifest = run.manifest()
        if manifest.get("model_version") != model_version or manifest.get("dry_run"):
            continue
        if run.ledger.is_file():
            _settle(run, sink, model_version, options)
        logger.warning("run %s was not finished; this one takes its place", run.id)
        write_json(run.results, {"run": run.id, "model_version": model_version, "state": SUPERSEDED})


def _settle(run: RunDir, sink: PredictionSink, model_version: str, options: ImportOptions) -> None:
    try:
        ledger = Ledger(run.ledger)
    except ConfigError as error:
        # What it sent cannot be known; the audit of the run that follows finds and removes doubles.
        logger.warning("%s", error)
        return
    try:
        Importer(sink, run, ledger, model_version, options, Silent()).settle()
    except ConfigError as error:
        logger.warning("%s", error)
    finally:
        ledger.close()
