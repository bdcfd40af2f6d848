"""Keep what is known of a run true on disk while it goes: the report, the error budget, the dead letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from lsbatch.errors import BudgetError, ExitCode, LsbatchError, StoppedError
from lsbatch.operations.importing import Importer
from lsbatch.operations.run_setup import RunSetup
from lsbatch.report import RunReport
from lsbatch.run_dir import RunDir, write_json
from lsbatch.run_states import FAILED, FINISHED, INTERRUPTED, OVER_BUDGET, STOPPED

__all__ = ["Recording", "StateReport", "recorded", "state_recorded"]

logger = logging.getLogger(__name__)
MOST_CAUSES = 10
#: The report is written at most this often while the run goes, in seconds.
WRITE_SECONDS = 2.0


class Recording:
    """One run's report while it goes.

    Args:
        setup: the run.
        report: is kept up to date.
        importer: knows what was sent.
    """

    def __init__(self, setup: RunSetup, report: RunReport, importer: Importer) -> None:
        self.setup = setup
        self.report = report
        self.importer = importer
        self._written_at = 0.0

    def tick(self) -> None:
        """Note how far it is; called often, writes seldom."""
        if time.monotonic() - self._written_at >= WRITE_SECONDS:
            self.count()
            self.write()
        self.setup.progress.refresh()

    def check_budget(self, selected: int) -> None:
        """Return if no more of the selected tasks failed than may.

        Tasks that failed in the last finished run too are selected again each time; they spend nothing, or else the
        same few bad tasks would stop every run after the first.

        Raises:
            BudgetError: more did.
        """
        failed = self.setup.ledger.quarantined()
        known = self.setup.options.known_failures
        again = sum(letter.task_id in known for letter in self.setup.ledger.dead_letters()) if known else 0
        allowed = self.report.allowed = self.setup.options.budget.allowed(selected) + again
        if failed > allowed:
            letters = self.setup.run.path / "dead_letters.jsonl"
            causes = "; ".join(f"{count:,} x {cause}" for cause, count in self.setup.ledger.causes(3).items())
            raise BudgetError(
                f"{failed:,} of {selected:,} tasks failed, {allowed:,} may (run.max_failures): {causes}",
                hint=f"Nothing more is sent. What failed is in {letters}. Mend it and run the same command again, or "
                "allow more with --max-failures.",
            )

    def count(self) -> None:
        """Bring the report's counts up to date."""
        ledger, sent = self.setup.ledger, self.importer.sent
        self.report.selected, self.report.predicted = ledger.totals()
        self.report.quarantined = ledger.quarantined()
        self.report.causes = ledger.causes(MOST_CAUSES)
        self.report.imported, self.report.requests, self.report.ambiguous = sent.imported, sent.requests, sent.ambiguous
        self.report.replaced = ledger.replaced_count()

    def write(self) -> None:
        """Write ``run_results.json``."""
        self._written_at = time.monotonic()
        write_json(self.setup.run.results, self.report.to_json())


@contextmanager
def recorded(setup: RunSetup, report: RunReport, importer: Importer) -> Iterator[Recording]:
    """Keep ``run_results.json`` true: that the run is under way, and how it ended, whatever ends it.

    Raises:
        LsbatchError: what ended it; its ``hint`` stays.
    """
    recording = Recording(setup, report, importer)
    recording.count()
    recording.write()
    try:
        yield recording
    except BaseException as error:
        _note_end(report, error)
        try:
            _write_all(recording)
        except LsbatchError as second:
            # The first error is the one to show; without a report the run counts as unfinished, which it is.
            logger.debug("the report of run %s could not be written: %s", setup.run.id, second)
        if isinstance(error, LsbatchError):
            error.report = report.to_json()
        raise
    report.state = FINISHED
    _write_all(recording)


class StateReport(Protocol):
    """A report that knows its state."""

    state: str
    error: str
    error_code: ExitCode | None

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        ...


@contextmanager
def state_recorded(run: RunDir, report: StateReport) -> Iterator[None]:
    """As ``recorded``, for a run that predicts nothing."""
    write_json(run.results, report.to_json())
    try:
        yield
    except BaseException as error:
        _note_end(report, error)
        try:
            write_json(run.results, report.to_json())
        except LsbatchError as second:
            logger.debug("the report of run %s could not be written: %s", run.id, second)
        if isinstance(error, LsbatchError):
            error.report = report.to_json()
        raise
    report.state = FINISHED
    write_json(run.results, report.to_json())


def _write_all(recording: Recording) -> None:
    recording.count()
    recording.setup.run.write_dead_letters(recording.setup.ledger.dead_letters())
    recording.write()


def _note_end(report: StateReport, error: BaseException) -> None:
    report.state, report.error_code = _ended_by(error)
    report.error = str(error)


def _ended_by(error: BaseException) -> tuple[str, ExitCode]:
    """The state of a run that this ended, and what the process will end with; an error that ends it may say so, too."""
    otherwise = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.BUG
    code = ExitCode(getattr(error, "exit_code", otherwise))
    if isinstance(error, StoppedError):
        return STOPPED, code
    if isinstance(error, BudgetError):
        return OVER_BUDGET, code
    return (FAILED if isinstance(error, LsbatchError) else INTERRUPTED), code
