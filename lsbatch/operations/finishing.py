"""The end of a run: prove what the server holds, mend what can be mended, show the version to annotators."""

from __future__ import annotations

from lsbatch.chunks import ChunkState
from lsbatch.operations.auditing import audit
from lsbatch.operations.counters import Recount, repaired
from lsbatch.operations.importing import Importer
from lsbatch.operations.run_setup import RunSetup
from lsbatch.report import RunReport

__all__ = ["finish"]


def finish(setup: RunSetup, report: RunReport, importer: Importer) -> None:
    """Audit what was imported, repair counters that a lost answer left wrong, and activate the version if asked to.

    Raises:
        TransientError: the server could not be read; nothing is proved then.
    """
    with report.timed("audit"):
        report.audit = audit(setup.sink, setup.run, setup.ledger, setup.model_version, setup.progress)
    if importer.sent.ambiguous or setup.resumed or report.audit.removed:
        with report.timed("counters"):
            report.stale_counters = _counters(setup, importer)
    if setup.options.activate and report.audit.passed and report.audit.confirmed:
        before = setup.sink.activate(setup.model_version)
        report.activated = True
        if before and before != setup.model_version:
            setup.progress.say(f"annotators saw {before} before")


def _counters(setup: RunSetup, importer: Importer) -> int:
    """Tasks of the run whose number of predictions Label Studio shows wrong, after what could be repaired was."""
    chunks = setup.ledger.chunks(ChunkState.IMPORTED)
    if not chunks:
        return 0
    first, last = chunks[0].first_task, max(chunk.last_task for chunk in chunks)
    recount = Recount(
        allowed=setup.options.repair_counters,
        seconds=importer.model.seconds(0, importer.standing),
        most_seconds=setup.options.importing.request_seconds,
    )
    return repaired(setup.sink, lambda: setup.sink.stale_counters(first, last), recount, setup.progress)
