"""``predict --replace``: show annotators a new version that is complete and proved, then delete those it replaces."""

from __future__ import annotations

from dataclasses import replace

from lsbatch.deletion_report import DeletionReport
from lsbatch.errors import ExitCode
from lsbatch.progress import Progress
from lsbatch.report import RunReport
from lsbatch.stopping import Stop
from lsbatch.verbs.deleting import DeleteRequest, delete_predictions
from lsbatch.version_choice import VERSIONLESS, Which
from lsbatch.wiring import Bench

__all__ = ["replace_versions"]


def replace_versions(
    bench: Bench, report: RunReport, progress: Progress, *, keep: int = 0, stop: Stop | None = None
) -> list[DeletionReport]:
    """Show annotators the version of a run that went well, and delete what its tasks carry of others. May be repeated.

    Only selected tasks that carry the new version lose others: one whose prediction failed keeps what it has. So do
    predictions that annotations came from. What is deleted is written to a file first.

    Args:
        bench: the configuration.
        report: of the run.
        progress: told how far it is.
        keep: so many of the other versions stay, the newest.
        stop: asked before anything new begins.

    Returns:
        What was deleted; none where the run did not go well, nothing carries the version, or there is no other.

    Raises:
        LsbatchError: as ``delete_predictions``.
    """
    if report.dry_run or report.exit_code not in (ExitCode.DONE, ExitCode.QUARANTINED):
        return []
    version, store = report.model_version, bench.project
    counts = {entry.model_version: entry.predictions for entry in store.versions()}
    if version not in counts:
        return []
    before = store.activate(version)
    report.activated = True
    if before not in ("", version):
        progress.say(f"annotators saw {before} before")
    lacking = store.project().task_count - counts[version] + store.surplus(version)
    if lacking > 0:
        progress.say(f"{lacking:,} tasks of the project have no prediction of {version}: annotators see none on them")
    named = [other for other in counts if other != version and other not in VERSIONLESS]
    return delete_predictions(
        bench,
        DeleteRequest(Which(all_but=(version, *named[:keep])), asked=f"replaced by {version}, {keep} kept"),
        progress,
        confirm=lambda preview: True,
        selection=replace(bench.selection, with_version=version),
        stop=stop,
    )
