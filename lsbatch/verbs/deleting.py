"""``delete-predictions`` on a configured project."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lsbatch.deletion_report import DeletionReport
from lsbatch.errors import ConfigError, ExitCode
from lsbatch.operations.deleting import DeleteOptions
from lsbatch.operations.deletion import Begun, DeletionSetup, carry_out, counted
from lsbatch.operations.deletion_plan import Preview, preview_of, write_plan
from lsbatch.operations.recording import state_recorded
from lsbatch.operations.runs import make_run, supersede, unfinished, unmade_run
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.run_dir import RunDir, disk_errors
from lsbatch.run_log import logged
from lsbatch.run_states import DECLINED, FINISHED, RUNNING
from lsbatch.stopping import Stop
from lsbatch.verbs.composing import chosen_tasks, held, recount
from lsbatch.version_choice import Doomed, Which
from lsbatch.wiring import Bench

__all__ = ["Confirm", "DeleteRequest", "delete_predictions"]

#: Asked with what will go; whether it may.
Confirm = Callable[[Preview], bool]
#: One deletion at a time in a project: what one takes must not look like another's loss. No version has this name.
LOCK = "\n"


@dataclass(frozen=True)
class DeleteRequest:
    """What is to be deleted, and how.

    Attributes:
        which: which predictions.
        asked: the same as it was asked for, for the manifest: an age such as 30d stays what it is.
        include_referenced: also predictions that annotations came from.
        force: also what annotators see now.
        backup: write what is deleted to a file before.
    """

    which: Which
    asked: str
    include_referenced: bool = False
    force: bool = False
    backup: bool = True


def delete_predictions(
    bench: Bench,
    request: DeleteRequest,
    progress: Progress,
    *,
    confirm: Confirm,
    selection: Selection | None = None,
    dry_run: bool = False,
    resume: bool = True,
    stop: Stop | None = None,
) -> list[DeletionReport]:
    """Delete predictions of the configured project, exactly those that the request means. May be repeated.

    Args:
        bench: the configuration.
        request: which predictions.
        progress: told how far it is.
        confirm: asked with what will go before anything does; not for a dry run.
        selection: of which tasks; those of the configuration by default.
        dry_run: only count.
        resume: continue an interrupted deletion of the same request first, if there is one.
        stop: asked before anything new begins.

    Returns:
        The report of what was continued, if something was, and of what the request meant besides.

    Raises:
        ConfigError: no such version, annotators see it, or the backup cannot be written; nothing was deleted.
        LockedError: a run works on one of the versions, or another deletion on the project.
        LsbatchError: as ``lsbatch.operations.deletion.carry_out``.
    """
    deletion = _Deletion(bench, request, progress, confirm, stop or Stop())
    if dry_run:
        return [deletion.counted(selection)]
    with held(bench, LOCK, deletion.stop, what="another deletion"):
        deletion.clear()
        reports = list(deletion.continued(resume=resume))
        if any(report.state == DECLINED or report.exit_code is not ExitCode.DONE for report in reports):
            return reports
        try:
            reports.append(deletion.begun_anew(selection))
        except ConfigError:
            # Nothing may be left that the request could mean.
            if not reports:
                raise
        # What was continued was all of it.
        return [report for report in reports if report.planned] or reports[:1]


class _Deletion:
    """One call of ``delete_predictions``."""

    def __init__(self, bench: Bench, request: DeleteRequest, progress: Progress, confirm: Confirm, stop: Stop) -> None:
        self.bench, self.request, self.progress, self.confirm, self.stop = bench, request, progress, confirm, stop
        origin = {"which": request.asked, "include_referenced": request.include_referenced}
        self.manifest = bench.action_manifest("delete-predictions", (), origin=origin)

    def counted(self, selection: Selection | None) -> DeletionReport:
        """What would go. Writes nothing."""
        doomed = self._doomed()
        tasks = chosen_tasks(self.bench, self.progress, selection)
        preview = preview_of(self.bench.project, tasks, doomed, self.progress, self.stop, self._expected())
        active = self.bench.info.active_version
        if preview.bared[active] and not self.request.force:
            self.progress.say(f"annotators see {active} now: to delete it needs --force")
        return self._report("", preview, dry_run=True)

    def clear(self) -> None:
        """Remove what deletions left that were killed before they began: their folders are no runs yet."""
        if self.bench.runs.is_dir():
            for path in self.bench.runs.iterdir():
                run = RunDir(path)
                # A run of another kind that is made this moment has no plan.
                if not run.exists() and any(path.glob("*plan.parquet*")):
                    self._forget(run)

    def continued(self, *, resume: bool) -> Iterator[DeletionReport]:
        """Go on with an interrupted deletion of the same request, or end it for good."""
        run = unfinished(self.bench.runs, self.manifest) if resume else None
        begun = None if run is None else Begun.read(run)
        if run is None or begun is None or (self.request.backup and not begun.backup):
            # One without a backup is not continued by who wants one.
            supersede(self.bench.runs, self.manifest)
            return
        with self._held(begun.preview.versions):
            self.progress.say(f"continuing run {run.id}")
            self._not_shown({version for version, tasks in begun.preview.bared.items() if tasks})
            if not self.confirm(begun.preview):
                report = self._report(run.id, begun.preview)
                report.state = DECLINED
                yield report
                return
            yield self._carry_out(run, begun, seconds={}, resumed=True)

    def begun_anew(self, selection: Selection | None) -> DeletionReport:
        """Read what the request means now, ask, and delete it."""
        doomed = self._doomed()
        if doomed.whole_versions:
            self._not_shown(doomed.versions)
        tasks = chosen_tasks(self.bench, self.progress, selection)
        with self._held(doomed.versions):
            run = unmade_run(self.bench.runs)
            try:
                return self._start(run, tasks, doomed)
            finally:
                if not run.exists():
                    # Nothing was deleted, and nothing is left behind.
                    self._forget(run)

    def _start(self, run: RunDir, tasks: Selection, doomed: Doomed) -> DeletionReport:
        store = self.bench.project
        before = counted(store)
        began = time.monotonic()
        backup = self._backup(run) if self.request.backup else None
        preview = write_plan(
            store, tasks, doomed, run.plan, backup, self.progress, self.stop, expected=self._expected()
        )
        seconds = {"read": round(time.monotonic() - began, 3)}
        report = self._report("", preview, seconds=seconds)
        if not preview.predictions:
            return report
        self._not_shown({version for version, tasks in preview.bared.items() if tasks})
        if not self.confirm(preview):
            report.state = DECLINED
            return report
        self.stop.check()
        active = store.project().active_version
        begun = Begun(preview, before, active, doomed.whole_versions, "" if backup is None else str(backup))
        begun.write(run)
        make_run(run, {**self.manifest, "model_versions": sorted(preview.versions)})
        return self._carry_out(run, begun, seconds=seconds, resumed=False)

    def _carry_out(self, run: RunDir, begun: Begun, *, seconds: dict[str, float], resumed: bool) -> DeletionReport:
        bench = self.bench
        report = self._report(run.id, begun.preview, seconds=seconds)
        report.backup, report.active_version = begun.backup, begun.active_version
        sending = bench.import_options.sending
        options = DeleteOptions(
            request_seconds=bench.import_options.request_seconds,
            write_seconds=sending.write_seconds,
            retry_seconds=sending.retry_seconds,
            writers=sending.writers,
            include_referenced=self.request.include_referenced,
        )
        store, progress = bench.project, self.progress
        setup = DeletionSetup(store, store, run, options, recount(bench), progress, self.stop)
        with logged(run.log), state_recorded(run, report), self.stop.after(bench.config.run.max_runtime_seconds):
            carry_out(setup, begun, report, resumed=resumed)
        return report

    # -------------------------------------------------------------------------------------------- small parts

    def _doomed(self) -> Doomed:
        doomed = self.request.which.resolve(self.bench.project.versions())
        return dataclasses.replace(doomed, referenced=self.request.include_referenced)

    def _not_shown(self, versions: Collection[str]) -> None:
        """Return if annotators do not see one of these versions, or that is meant.

        Raises:
            ConfigError: they do.
        """
        active = self.bench.project.project().active_version
        if active and active in versions and not self.request.force:
            raise ConfigError(
                f"annotators see {active} now: its predictions would go",
                hint=f"Show them another version first: lsbatch activate VERSION --project {self.bench.project_id}. "
                "Or give --force.",
            )

    @contextmanager
    def _held(self, versions: Iterable[str]) -> Iterator[None]:
        """The locks of all these versions, always in the same order."""
        with ExitStack() as locks:
            for version in sorted(versions):
                locks.enter_context(held(self.bench, version, self.stop))
            yield

    def _expected(self) -> int:
        return min(self.bench.info.task_count, self.bench.info.prediction_count)

    def _report(
        self, run: str, preview: Preview, *, dry_run: bool = False, seconds: dict[str, float] | None = None
    ) -> DeletionReport:
        return DeletionReport(
            run=run,
            project=self.bench.project_id,
            dry_run=dry_run,
            state=RUNNING if run else FINISHED,
            versions=dict(preview.versions),
            tasks=preview.tasks,
            spared=preview.spared,
            seconds=dict(seconds or {}),
        )

    def _backup(self, run: RunDir) -> Path:
        """Where the backup of a run is: outside of its folder, which may be pruned."""
        return self.bench.folder / "backups" / f"{run.id}.parquet"

    def _forget(self, run: RunDir) -> None:
        """Remove what there is of a run that never became one."""
        with disk_errors(run.path):
            with suppress(FileNotFoundError):
                shutil.rmtree(run.path)
            for left in self._backup(run).parent.glob(f"*{run.id}.parquet*"):
                left.unlink()
