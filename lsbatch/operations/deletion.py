"""A deletion from its plan to its proof: what should be gone is gone, everything else is still there."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lsbatch.deletion_report import DeletionProof, DeletionReport
from lsbatch.entities import TaskId
from lsbatch.errors import ConfigError, LsbatchError, PermanentError
from lsbatch.operations.counters import Recount, repaired
from lsbatch.operations.deleting import DeleteOptions, Deleter
from lsbatch.operations.deletion_plan import PlannedTask, Preview, planned_groups, planned_tasks
from lsbatch.operations.runs import began_at, runs
from lsbatch.ports import PredictionStore, TaskSource
from lsbatch.progress import Progress
from lsbatch.run_dir import RunDir, write_json
from lsbatch.stopping import Stop

__all__ = ["Begun", "DeletionSetup", "carry_out", "counted", "deleted_tasks"]

#: Tasks whose predictions are compared at a time.
GROUP_TASKS = 2_000
MOST_NAMED = 20


@dataclass(frozen=True)
class Begun:
    """What is known of a deletion when the first prediction goes; it is on disk before.

    Attributes:
        preview: what goes.
        before: predictions of the project by version.
        active_version: what annotators saw; empty for none.
        alike: all of these versions go, wherever they are on the tasks.
        backup: where the backup is; empty for none.
    """

    preview: Preview
    before: Mapping[str, int]
    active_version: str
    alike: bool
    backup: str

    @classmethod
    def read(cls, run: RunDir) -> Begun | None:
        """That of a run; None where nothing of it has been deleted yet.

        Raises:
            ConfigError: damaged.
        """
        if not run.begun.is_file():
            return None
        try:
            value = json.loads(run.begun.read_bytes())
            return cls(**{**value, "preview": Preview.from_json(value["preview"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{run.begun} is damaged: {error}", hint="Start over with --no-resume: what is gone stays gone."
            ) from error

    def write(self, run: RunDir) -> None:
        """Note that it begins now."""
        write_json(run.begun, {**self.__dict__, "before": dict(self.before), "preview": self.preview.to_json()})

    @property
    def whole(self) -> dict[str, int]:
        """Versions of which nothing stays anywhere, with how many of their predictions are on tasks with others."""
        every = self.preview.versions
        return {
            version: self.preview.mixed[version]
            for version, count in every.items()
            if self.alike and count == self.before.get(version)
        }


def counted(store: PredictionStore) -> dict[str, int]:
    """Predictions of the project by version."""
    return {entry.model_version: entry.predictions for entry in store.versions()}


@dataclass(frozen=True)
class DeletionSetup:
    """What a deletion works with.

    Attributes:
        source: says what annotators see.
        store: what is deleted from.
        run: the deletion's files.
        options: limits.
        recount: what may be done about counters.
        progress: told how far it is.
        stop: asked before a request leaves.
    """

    source: TaskSource
    store: PredictionStore
    run: RunDir
    options: DeleteOptions
    recount: Recount
    progress: Progress
    stop: Stop


def carry_out(setup: DeletionSetup, begun: Begun, report: DeletionReport, *, resumed: bool) -> None:
    """Delete what the run's plan says, put the active version back, repair counters, and prove it. May be repeated.

    Raises:
        TransientError, AmbiguousError: not everything could be done now; repeat later.
        PermanentError: refused.
        StoppedError: somebody asked to stop.
    """
    store, run, progress = setup.store, setup.run, setup.progress

    def put_back() -> None:
        report.put_back = _put_back(setup, begun.active_version) or report.put_back

    before = begun.before if begun.alike and not resumed else None
    deleter = Deleter(store, run, setup.options, progress, setup.stop, put_back, before=before)
    began = time.monotonic()
    try:
        deleter.run(begun.preview.predictions, begun.whole, resumed=resumed)
    finally:
        report.requests = {"bulk": deleter.bulk, "by version": deleter.by_version, "single": deleter.single}
        report.deleted = sum(report.requests.values())
        report.ambiguous = deleter.ambiguous
        report.spared += len(deleter.spared)
        report.seconds["delete"] = round(time.monotonic() - began, 3)
    # An earlier process may have ended before it could.
    put_back()
    began = time.monotonic()
    report.audit = _prove(setup, begun, deleter.spared)
    report.deleted = begun.preview.predictions - len(deleter.spared) - report.audit.left_count
    report.stale_counters = repaired(store, lambda: _stale(run, store), setup.recount, progress)
    report.shown = setup.source.project().active_version
    if report.shown in begun.preview.versions and report.shown not in counted(store):
        report.shown = ""
    if begun.active_version and not report.shown:
        progress.say(f"annotators see no predictions any more: nothing carries {begun.active_version}")
    report.seconds["audit"] = round(time.monotonic() - began, 3)


def _put_back(setup: DeletionSetup, active: str) -> bool:
    """Set what annotators saw before again, where the server has dropped it; whether that was needed and done."""
    try:
        if not active or setup.source.project().active_version:
            return False
        setup.store.activate(active)
    except PermanentError:
        # Nothing carries it any more.
        return False
    except LsbatchError as error:
        setup.progress.say(f"whether annotators still see {active} is not known ({error}): lsbatch activate {active}")
        return False
    return True


# ------------------------------------------------------------------------------------------------ the proof


def _prove(setup: DeletionSetup, begun: Begun, spared: Collection[int]) -> DeletionProof:
    """Compare what is there with the plan.

    What a version that nothing carries any more lost is gone. Everything else of these tasks is there where no version
    has fewer predictions than it should; only where one has are they looked for one by one.
    """
    store = setup.store
    after = counted(store)
    planned = begun.preview.versions
    read = {version for version in planned if version in after}
    fewer = any(after.get(version, 0) < count - planned[version] for version, count in begun.before.items())
    left, lost = _Named(), _Named()
    if read or fewer:
        with setup.progress.stage("audit", begun.preview.tasks) as meter:
            for group in planned_groups(setup.run.plan, GROUP_TASKS):
                gone = [prediction for task in group for version, prediction in task.gone if version in read]
                kept = [prediction for task in group for _, prediction in task.kept] if fewer else []
                there = _there(store, group, {*gone, *kept})
                left.add([prediction for prediction in gone if prediction in there and prediction not in spared])
                lost.add(_lost(store, group, there) if fewer else [])
                meter.advance(len(group))
    return DeletionProof(tuple(left.ids), left.count, tuple(lost.ids), lost.count)


@dataclass
class _Named:
    """A number of predictions, and the first ids of them."""

    ids: list[int] = field(default_factory=list)
    count: int = 0

    def add(self, ids: Sequence[int]) -> None:
        self.ids += ids[: MOST_NAMED - len(self.ids)]
        self.count += len(ids)


def _there(store: PredictionStore, group: Sequence[PlannedTask], ids: Collection[int]) -> set[int]:
    return store.remaining(ids, [task.task_id for task in group]) if ids else set()


def _lost(store: PredictionStore, group: Sequence[PlannedTask], there: Collection[int]) -> list[int]:
    """Predictions that should have stayed and are gone, but for those of tasks that are gone themselves."""
    lacking = [task for task in group if any(prediction not in there for _, prediction in task.kept)]
    if not lacking:
        return []
    alive = set(store.existing(lacking[0].task_id, lacking[-1].task_id))
    return [
        prediction
        for task in lacking
        if task.task_id in alive
        for _, prediction in task.kept
        if prediction not in there
    ]


def _stale(run: RunDir, store: PredictionStore) -> int:
    """Tasks of the plan that the server shows with a wrong number of predictions.

    First those are counted that have not the number which the plan leaves them: none, as a rule. Only where there are
    some, which others may have given predictions since, it is found out which number would be right.
    """
    suspect, first, last = 0, 0, 0
    for group in planned_groups(run.plan, 10 * GROUP_TASKS):
        first, last = first or group[0].task_id, group[-1].task_id
        by_number: dict[int, list[TaskId]] = {}
        for task in group:
            by_number.setdefault(len(task.kept), []).append(task.task_id)
        suspect += sum(store.counters_off(ids, number) for number, ids in by_number.items())
    return store.stale_counters(first, last) if suspect else 0


def deleted_tasks(folder: Path, model_version: str, after: RunDir) -> set[TaskId]:
    """Tasks whose prediction of this version a deletion on this disk took that began after a run did.

    Args:
        folder: of the project's runs.
        model_version: compared exactly.
        after: the run.
    """
    found: set[TaskId] = set()
    begin = began_at(after)
    for run in runs(folder):
        if run.begun.is_file() and began_at(run) > begin:
            tasks = planned_tasks(run.plan)
            found.update(task.task_id for task in tasks if any(version == model_version for version, _ in task.gone))
    return found
