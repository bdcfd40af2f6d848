"""Which tasks a run takes: what ``--select`` means here and now, as one selection."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lsbatch.errors import ConfigError
from lsbatch.operations.runs import run_state, runs
from lsbatch.operations.staleness import Predicted
from lsbatch.ports import Selection, TaskSource
from lsbatch.run_dir import RunDir
from lsbatch.run_states import FINISHED, OVER_BUDGET

__all__ = ["Resolved", "Select", "known_failures", "known_ids", "resolve", "selection_json"]

Select = Literal["missing", "all", "stale", "failed"]
MOST_NAMED = 5


@dataclass(frozen=True)
class Resolved:
    """Which tasks a run takes.

    Attributes:
        selection: the tasks.
        replace: the predictions of the run's version that they carry are deleted in favour of the new ones.
        notes: what the person who asked should know, in words.
    """

    selection: Selection
    replace: bool
    notes: tuple[str, ...]


def resolve(
    select: Select,
    base: Selection,
    *,
    version: str,
    runs_folder: Path,
    source: TaskSource,
    label_config_hash: str,
    data_keys: Sequence[str],
) -> Resolved:
    """The selection of a run, resolved once when it begins. Changes nothing; memory grows with lists of ids alone.

    Args:
        select: ``missing``, the tasks without a prediction of the version; ``all``; ``failed``, those in the
            quarantine of the newest finished run of the version that have none; ``stale``, those that carry one which
            an earlier run on this disk made from other data or for another label config.
        base: what narrows the choice; all of it holds as well.
        version: the model version, compared exactly.
        runs_folder: of the project.
        source: the project's tasks.
        label_config_hash: of the project's label config as it is now.
        data_keys: keys of the tasks' data that the pipeline reads; empty for all data.

    Raises:
        ConfigError: ``failed`` without a finished run of the version.
        TransientError: the source did not answer.
    """
    base, notes = known_ids(source, base)
    if select == "missing":
        return Resolved(replace(base, without_version=version), False, notes)
    if select == "all":
        return Resolved(base, True, notes)
    if select == "failed":
        ids, more = _failed(version, runs_folder, base)
        return Resolved(replace(base, without_version=version, task_ids=ids), False, (*notes, *more))
    ids, more = _stale(base, Predicted(runs_folder, version, label_config_hash, data_keys), source, version)
    return Resolved(replace(base, task_ids=ids), True, (*notes, *more))


def known_ids(source: TaskSource, selection: Selection) -> tuple[Selection, tuple[str, ...]]:
    """The selection without ids that are no tasks of the project, and a note that says which they are."""
    if selection.task_ids is None:
        return selection, ()
    absent = array("q", source.absent(selection.task_ids))
    if not absent:
        return selection, ()
    gone = set(absent)
    kept = tuple(task for task in selection.task_ids if task not in gone)
    named = ", ".join(map(str, absent[:MOST_NAMED])) + (", ..." if len(absent) > MOST_NAMED else "")
    note = f"{len(absent):,} of {len(selection.task_ids):,} task ids are not in the project: {named}"
    return replace(selection, task_ids=kept), (note,)


def selection_json(selection: Selection) -> dict[str, Any]:
    """The selection for a manifest: equal for equal selections, and small however many ids there are."""
    value = asdict(selection)
    if selection.task_ids is not None:
        content = array("q", selection.task_ids).tobytes()
        value["task_ids"] = {"count": len(selection.task_ids), "sha256": hashlib.sha256(content).hexdigest()}
    return {name: entry.isoformat() if isinstance(entry, datetime) else entry for name, entry in value.items()}


# ------------------------------------------------------------------------------------------------ failed


def _failed(version: str, runs_folder: Path, base: Selection) -> tuple[tuple[int, ...], tuple[str, ...]]:
    for run in runs(runs_folder):
        manifest = run.manifest()
        if manifest.get("model_version") != version or manifest.get("dry_run"):
            continue
        if run_state(run) in (FINISHED, OVER_BUDGET):
            ids = set(_quarantined(run))
            if base.task_ids is not None:
                ids.intersection_update(base.task_ids)
            return tuple(sorted(ids)), (f"{len(ids):,} tasks are in the quarantine of run {run.id}",)
    raise ConfigError(
        f"selection.select: failed: no finished run of {version} in {runs_folder}",
        hint="Run lsbatch predict without --select, or see lsbatch runs.",
    )


def known_failures(version: str, runs_folder: Path) -> frozenset[int]:
    """Tasks in the quarantine of the newest finished run of this version; none where there is none to be read."""
    for run in runs(runs_folder):
        manifest = run.manifest()
        if manifest.get("model_version") == version and not manifest.get("dry_run") and run_state(run) == FINISHED:
            with suppress(ConfigError):
                return frozenset(_quarantined(run))
            break
    return frozenset()


def _quarantined(run: RunDir) -> Iterator[int]:
    path = run.path / "dead_letters.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            yield from (int(json.loads(line)["task"]) for line in lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is missing or damaged: {error}", hint=f"lsbatch retry {run.id} reads its ledger instead."
        ) from error


# ------------------------------------------------------------------------------------------------ stale


def _stale(
    base: Selection, predicted: Predicted, source: TaskSource, version: str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Both sides come in ascending order of id and are compared as they stream."""
    found = array("q")
    carrying = unknown = 0
    for page in source.pages(replace(base, with_version=version, limit=None)):
        for task in page.tasks:
            carrying += 1
            stale = predicted.is_stale(task)
            unknown += stale is None
            if stale and (base.limit is None or len(found) < base.limit):
                found.append(task.id)
    notes = [f"{len(found):,} of {carrying:,} tasks that carry {version} are stale", *predicted.notes]
    if unknown:
        notes.append(
            f"{unknown:,} tasks that carry {version} were predicted by no run on this disk, so that nobody can tell "
            "whether they are stale; --select all predicts them again"
        )
    return tuple(found), tuple(notes)
