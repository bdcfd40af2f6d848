"""``runs``: what lies on this disk, without asking Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lsbatch.config import Loaded
from lsbatch.lock import is_held
from lsbatch.operations.runs import find_run, prune, run_report, run_state, runs
from lsbatch.run_dir import RunDir
from lsbatch.run_states import RUNNING
from lsbatch.server_key import server_key

__all__ = ["describe", "details", "located_run", "project_runs", "prune_project_runs"]

#: A run that says it is running while nobody holds its lock.
KILLED = "killed"


def _project_folders(loaded: Loaded) -> list[Path]:
    """State folders of the configured project, or of all projects of the configured server, or of all servers."""
    url, project = loaded.config.label_studio.url, loaded.config.project
    server = "*" if url is None else server_key(url)
    return sorted(loaded.state_dir.glob(f"{server}/project-{'*' if project is None else project}"))


def project_runs(loaded: Loaded) -> Iterator[tuple[Path, RunDir]]:
    """Every run with its project's state folder, newest first within a project."""
    for folder in _project_folders(loaded):
        yield from ((folder, run) for run in runs(folder / "runs"))


def located_run(loaded: Loaded, name: str) -> tuple[Path, RunDir]:
    """The run of this id, wherever it is, and its project's state folder.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    run = find_run((folder / "runs" for folder in _project_folders(loaded)), name)
    return run.path.parent.parent, run


def describe(folder: Path, run: RunDir) -> dict[str, Any]:
    """A run in one line's worth: id, project, state, version, counts, when it started, seconds it took."""
    manifest, report = run.manifest(), run_report(run)
    state = run_state(run)
    # A deletion has several.
    versions = manifest.get("model_versions") or [str(manifest.get("model_version"))]
    if state == RUNNING and not is_held(folder / "locks", versions[0]):
        state = KILLED
    return {
        "run": run.id,
        "operation": manifest.get("operation"),
        "project": manifest.get("project"),
        "state": "dry run" if manifest.get("dry_run") and state == "finished" else state,
        "model_version": ", ".join(versions),
        "selected": report.get("selected"),
        "predicted": report.get("predicted"),
        "quarantined": report.get("quarantined"),
        "imported": report.get("imported"),
        "confirmed": report.get("confirmed"),
        "started": manifest.get("created_at"),
        "seconds": round(sum(report.get("seconds", {}).values())),
    }


def details(folder: Path, run: RunDir) -> dict[str, Any]:
    """All that is known of a run: its line, its manifest, its report, and where it lies."""
    return {**describe(folder, run), "folder": str(run.path), "manifest": run.manifest(), "report": run_report(run)}


def prune_project_runs(loaded: Loaded, keep: int) -> list[str]:
    """Delete all but the newest ``keep`` runs of each project; see ``lsbatch.operations.runs.prune``."""
    deleted = []
    for folder in _project_folders(loaded):
        deleted += prune(folder / "runs", keep, busy=partial(is_held, folder / "locks"))
    return deleted
