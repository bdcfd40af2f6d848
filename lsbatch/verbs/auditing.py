"""``audit`` on a configured project: what the runs on this disk imported, against what Label Studio holds now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial

from lsbatch.entities import TaskId
from lsbatch.errors import ExitCode
from lsbatch.ledger import Ledger
from lsbatch.operations.auditing import audit
from lsbatch.operations.deletion import deleted_tasks
from lsbatch.operations.finishing import finish
from lsbatch.operations.recording import recorded
from lsbatch.operations.runs import close_others, new_run, runs
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.report import AuditProof, RunReport
from lsbatch.run_dir import RunDir, predictions_table
from lsbatch.stopping import Stop
from lsbatch.verbs.composing import composed, held
from lsbatch.wiring import Bench

__all__ = ["VersionAudit", "audit_project"]


@dataclass
class VersionAudit:
    """What an audit of a version found.

    Attributes:
        model_version: what was audited.
        proofs: what was found of each run on this disk that imported it, newest first.
        surplus: predictions beyond one on each task that are left.
        removed: surplus predictions that were deleted.
        repaired: the run that sent what was missing, if one did.
    """

    model_version: str
    proofs: dict[str, AuditProof] = field(default_factory=dict)
    surplus: int = 0
    removed: int = 0
    repaired: RunReport | None = None

    @property
    def missing(self) -> int:
        """Predictions that are not on the server any more and should be."""
        return 0 if self.repaired is not None else sum(proof.missing_count for proof in self.proofs.values())

    @property
    def exit_code(self) -> ExitCode:
        """What the process should end with."""
        if self.repaired is not None and self.repaired.exit_code is not ExitCode.DONE:
            return self.repaired.exit_code
        return ExitCode.AUDIT_FAILED if self.missing or self.surplus else ExitCode.DONE


def audit_project(
    bench: Bench, model_version: str, progress: Progress, *, repair: bool = False, stop: Stop | None = None
) -> VersionAudit:
    """Compare what the runs on this disk imported of a version with what Label Studio holds now.

    Args:
        bench: the configuration.
        model_version: compared exactly.
        progress: told of every prediction.
        repair: delete surplus predictions, the newest of a task first, and send again what is missing.
        stop: asked before anything new begins.

    Raises:
        LockedError: a run works on this version now.
        TransientError: the server could not be read.
    """
    stop = stop or Stop()
    found = VersionAudit(model_version)
    with held(bench, model_version, stop):
        lacking: list[tuple[RunDir, int, Sequence[TaskId]]] = []
        for run in _imported(bench, model_version):
            stop.check()
            with closing(Ledger(run.ledger)) as ledger:
                found.proofs[run.id] = audit(
                    bench.project,
                    run,
                    ledger,
                    model_version,
                    progress,
                    missed=lambda chunk, tasks, run=run: lacking.append((run, chunk, tasks)),  # type: ignore[misc]
                    remove=False,
                    deleted=cache(partial(deleted_tasks, bench.runs, model_version, run)),
                )
        found.surplus = bench.project.surplus(model_version)
        if repair and found.surplus:
            found.removed = bench.project.remove_surplus(model_version)
            found.surplus = bench.project.surplus(model_version)
        if repair and lacking:
            found.repaired = _send_again(bench, model_version, lacking, progress, stop)
    return found


def _imported(bench: Bench, model_version: str) -> Iterator[RunDir]:
    """Runs on this disk that imported something of the version, newest first."""
    for run in runs(bench.runs):
        manifest = run.manifest()
        if manifest.get("model_version") == model_version and not manifest.get("dry_run") and run.ledger.is_file():
            yield run


def _send_again(
    bench: Bench,
    model_version: str,
    lacking: Sequence[tuple[RunDir, int, Sequence[TaskId]]],
    progress: Progress,
    stop: Stop,
) -> RunReport:
    """A run of its own that imports the missing predictions from the disk; of several for a task, the newest run's."""
    options = bench.run_options(Selection(without_version=model_version), replace=False, dry_run=False)
    close_others(bench.runs, model_version, bench.project, options.importing, stop=stop)
    origin = ", ".join(sorted({run.id for run, _, _ in lacking}))
    again = new_run(bench.runs, bench.manifest("repair", model_version, origin=origin, dry_run=False))
    with composed(bench, again, options, model_version, progress, stop, resumed=True) as setup:
        done: set[TaskId] = set()
        for run, number, tasks in lacking:
            wanted = set(tasks) - done
            done |= wanted
            rows = [row for row in run.read_predictions(number) if row.task_id in wanted]
            if rows:
                chunk = setup.ledger.plan(rows[0].task_id, rows[-1].task_id, len(rows))
                again.write_predictions(chunk.number, predictions_table(rows))
                setup.ledger.exported(chunk)
                setup.ledger.predicted(chunk.number, len(rows), ())
        setup.ledger.state_fact("exported", str(setup.ledger.totals()[0]))
        report = RunReport(again.id, bench.project_id, model_version)
        importer = setup.importer()
        with recorded(setup, report, importer):
            importer.run()
            finish(setup, report, importer)
        return report
