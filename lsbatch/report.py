"""What a run did: counts, causes, seconds, the audit's proof. JSON for machines; picks the exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from lsbatch.errors import ExitCode
from lsbatch.run_states import RUNNING

__all__ = ["AuditProof", "RunReport"]


@dataclass(frozen=True, slots=True)
class AuditProof:
    """What was read back from Label Studio.

    Attributes:
        expected: predictions that the server must hold.
        confirmed: tasks of these that carry the version.
        gone: tasks of these that were deleted from the project since, or whose prediction was, by lsbatch.
        missing: tasks of these that exist and do not carry it; up to 20 ids.
        missing_count: how many those are.
        removed: surplus predictions that were deleted.
        surplus: surplus predictions that are still there.
    """

    expected: int
    confirmed: int
    gone: int
    missing: tuple[int, ...]
    missing_count: int
    removed: int
    surplus: int

    @property
    def passed(self) -> bool:
        """Exactly one prediction of the version on each task that is still there."""
        return self.missing_count == 0 and self.surplus == 0 and self.confirmed + self.gone == self.expected


@dataclass
class RunReport:
    """A run's report. ``selected = predicted + quarantined``; ``imported`` were sent and counted by the server.

    Attributes:
        state: ``running``, ``finished``, ``failed``, ``interrupted``, ``stopped`` or ``over budget``.
        allowed: most quarantined tasks that the error budget allows.
        replaced: predictions of the version that were deleted in favour of new ones.
        stale_counters: tasks whose number of predictions Label Studio shows wrong, after what could be repaired was.
        seconds: by stage; ``import`` is what came after the last task was predicted.
        error: what ended the run, in words.
        error_code: what the process ended with then; None when no error ended the run.
    """

    run: str
    project: int
    model_version: str
    state: str = RUNNING
    dry_run: bool = False
    selected: int = 0
    predicted: int = 0
    quarantined: int = 0
    allowed: int = 0
    imported: int = 0
    requests: int = 0
    ambiguous: int = 0
    replaced: int = 0
    stale_counters: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    audit: AuditProof | None = None
    activated: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""
    error_code: ExitCode | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to ``seconds[stage]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)

    @property
    def exit_code(self) -> ExitCode:
        """What the process should end with."""
        if self.error_code is not None:
            return self.error_code
        if self.audit is not None and not self.audit.passed:
            return ExitCode.AUDIT_FAILED
        if self.quarantined > self.allowed:
            return ExitCode.BUDGET_SPENT
        return ExitCode.QUARANTINED if self.quarantined else ExitCode.DONE

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's types; ``confirmed`` is what was read back, ``exit_code`` null while the run goes."""
        value = asdict(self)
        value["confirmed"] = None if self.audit is None else self.audit.confirmed
        if self.audit is not None:
            value["audit"]["passed"] = self.audit.passed
        del value["error_code"]
        value["exit_code"] = None if self.state == RUNNING else int(self.exit_code)
        return value

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the table for people."""
        rows = [
            ("run", self.run),
            ("model version", self.model_version),
            ("selected", f"{self.selected:,}"),
            ("predicted", f"{self.predicted:,}"),
            ("quarantined", f"{self.quarantined:,}"),
        ]
        if self.dry_run:
            rows.append(("imported", "0 (dry run)"))
        else:
            rows.append(("imported", f"{self.imported:,}"))
        if self.audit is not None:
            verdict = "" if self.audit.passed else "  AUDIT FAILED"
            rows.append(("confirmed", f"{self.audit.confirmed:,} read back, one each{verdict}"))
            rows += [
                (name, f"{count:,}")
                for name, count in (
                    ("deleted since", self.audit.gone),
                    ("surplus removed", self.audit.removed),
                    ("missing", self.audit.missing_count),
                    ("surplus", self.audit.surplus),
                    ("replaced", self.replaced),
                    ("stale counters", self.stale_counters),
                )
                if count
            ]
        if self.activated:
            rows.append(("shown to annotators", "yes"))
        rows += [(f"seconds {stage}", f"{seconds:.1f}") for stage, seconds in self.seconds.items()]
        rows += [("cause", f"{count:,} x {cause}") for cause, count in self.causes.items()]
        return rows
