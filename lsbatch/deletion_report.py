"""What a deletion did, for people and machines; picks the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lsbatch.errors import ExitCode
from lsbatch.run_states import RUNNING
from lsbatch.version_choice import name_of

__all__ = ["DeletionProof", "DeletionReport"]


@dataclass(frozen=True, slots=True)
class DeletionProof:
    """What was read back from Label Studio.

    Attributes:
        left: predictions that should be gone and are still there; up to 20 ids.
        left_count: how many those are.
        lost: predictions that should have stayed on the same tasks and are gone; up to 20 ids.
        lost_count: how many those are.
    """

    left: tuple[int, ...] = ()
    left_count: int = 0
    lost: tuple[int, ...] = ()
    lost_count: int = 0

    @property
    def passed(self) -> bool:
        """What should be gone is gone, and the rest of these tasks' predictions is there."""
        return not (self.left_count or self.lost_count)


@dataclass
class DeletionReport:
    """A deletion's report.

    Attributes:
        state: as ``RunReport.state``, or ``declined`` when the person who was asked said no.
        versions: predictions to be deleted, by version; the empty text is none.
        tasks: tasks that lose at least one.
        spared: predictions that stay because annotations came from them.
        deleted: predictions of these that are gone now.
        requests: predictions by the way in which they went: ``bulk`` with all of their task, ``by version`` with all of
            their version, ``single`` by their id.
        backup: the file with what was deleted; empty for none.
        active_version: what annotators saw before.
        shown: what annotators see now; empty for none.
        put_back: the server had dropped the active version, and it was set again.
        stale_counters: tasks whose number of predictions Label Studio shows wrong, after what could be repaired was.
        seconds: by stage.
        error: what ended it, in words.
        error_code: what the process ended with then.
    """

    run: str
    project: int
    state: str = RUNNING
    dry_run: bool = False
    versions: Mapping[str, int] = field(default_factory=dict)
    tasks: int = 0
    spared: int = 0
    deleted: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    ambiguous: int = 0
    backup: str = ""
    active_version: str = ""
    shown: str = ""
    put_back: bool = False
    stale_counters: int = 0
    audit: DeletionProof | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""
    error_code: ExitCode | None = None

    @property
    def planned(self) -> int:
        """How many predictions are to be deleted."""
        return sum(self.versions.values())

    @property
    def exit_code(self) -> ExitCode:
        """What the process should end with."""
        if self.error_code is not None:
            return self.error_code
        return ExitCode.DONE if self.audit is None or self.audit.passed else ExitCode.AUDIT_FAILED

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's types; ``exit_code`` is null while it goes."""
        value = asdict(self)
        if self.audit is not None:
            value["audit"]["passed"] = self.audit.passed
        del value["error_code"]
        value["versions"] = dict(self.versions)
        value["exit_code"] = None if self.state == RUNNING else int(self.exit_code)
        return value

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the table for people."""
        rows = [("run", self.run)] if self.run else []
        rows += [(f"of {name_of(version)}", f"{count:,}") for version, count in sorted(self.versions.items())]
        rows += [("together", f"{self.planned:,} on {self.tasks:,} tasks")]
        if self.spared:
            rows.append(("kept", f"{self.spared:,} that annotations came from (--include-referenced takes them too)"))
        rows.append(("deleted", "0 (dry run)" if self.dry_run else f"{self.deleted:,}"))
        if self.audit is not None:
            verdict = "all of it is gone, and nothing else" if self.audit.passed else "AUDIT FAILED"
            rows.append(("read back", verdict))
            rows += [
                (name, f"{count:,}: predictions {', '.join(map(str, ids))}{', ...' if count > len(ids) else ''}")
                for name, count, ids in (
                    ("still there", self.audit.left_count, self.audit.left),
                    ("lost besides", self.audit.lost_count, self.audit.lost),
                )
                if count
            ]
        if self.backup:
            rows.append(("backup", self.backup))
        if self.shown or self.active_version:
            rows.append(("annotators see", f"{self.shown or 'nothing'}{', put back' if self.put_back else ''}"))
        if self.stale_counters:
            rows.append(("stale counters", f"{self.stale_counters:,}"))
        return rows + [(f"seconds {stage}", f"{seconds:.1f}") for stage, seconds in self.seconds.items()]
