"""Turn sure predictions into annotations, once each, whatever an answer hides."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from lsbatch.acceptance import Acceptance, Bar, Verdict
from lsbatch.entities import TaskId
from lsbatch.errors import AmbiguousError, ExitCode
from lsbatch.operations.in_flight import InFlight
from lsbatch.ports import PredictionStore, Selection
from lsbatch.progress import Progress
from lsbatch.retry import retry_transient
from lsbatch.run_states import RUNNING
from lsbatch.stopping import Stop

__all__ = ["AcceptOptions", "AcceptReport", "Chosen", "accept", "choose"]

logger = logging.getLogger(__name__)
#: Tasks of the first request, and most of one (measured: 2 to 4 ms a task on Label Studio 1.23).
FIRST_PIECE, MOST_PIECE = 200, 2_000
PIECE_SECONDS = 8.0
POLL_SECONDS = 2.0
#: Answers in a row that hid what was done, after which the command gives up for now.
MOST_STALLS = 4


@dataclass(frozen=True)
class AcceptOptions:
    """How requests are sent: as ``SendOptions`` of an import."""

    write_seconds: float = 120.0
    settle_seconds: float = 30.0
    retry_seconds: float = 120.0


@dataclass
class Chosen:
    """Which tasks are accepted and which are left for people, ids ascending; eight or sixteen bytes each in memory.

    Attributes:
        found: counts.
        tasks: to be accepted.
        predictions: theirs, in the same order.
        review: left for people.
    """

    found: Acceptance = field(default_factory=Acceptance)
    tasks: array[int] = field(default_factory=lambda: array("q"))
    predictions: array[int] = field(default_factory=lambda: array("q"))
    review: array[int] = field(default_factory=lambda: array("q"))


@dataclass
class AcceptReport:
    """What was accepted.

    Attributes:
        verdicts: tasks that carry the version by what becomes of them.
        labels: tasks to be accepted by label.
        scores: tasks to be accepted by range of scores.
        accepted: annotations that were read back, one from each prediction.
        overtaken: tasks that somebody annotated while the command ran, and that were left alone.
        missing: predictions that did not become an annotation.
        twice: predictions that more than one annotation came from.
        review: the file with the ids of the tasks that are left for people; empty for none.
    """

    run: str
    project: int
    model_version: str
    state: str = RUNNING
    dry_run: bool = False
    verdicts: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    scores: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    overtaken: int = 0
    missing: int = 0
    twice: int = 0
    ambiguous: int = 0
    review: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""
    error_code: ExitCode | None = None

    @property
    def exit_code(self) -> ExitCode:
        """What the process should end with."""
        if self.error_code is not None:
            return self.error_code
        return ExitCode.AUDIT_FAILED if self.missing or self.twice else ExitCode.DONE

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's types; ``exit_code`` is null while it goes."""
        value = asdict(self)
        del value["error_code"]
        value["exit_code"] = None if self.state == RUNNING else int(self.exit_code)
        return value

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the table for people."""
        rows = [("run", self.run)] if self.run else []
        rows += [("model version", self.model_version)]
        rows += [(name, f"{count:,}") for name, count in self.verdicts.items()]
        rows += [(f"label {name}", f"{count:,}") for name, count in sorted(self.labels.items())]
        rows += [(f"score {name}", f"{count:,}") for name, count in sorted(self.scores.items())]
        rows.append(
            ("accepted", "0 (dry run)" if self.dry_run else f"{self.accepted:,} read back, one annotation each")
        )
        rows += [
            (name, f"{count:,}")
            for name, count in (
                ("annotated meanwhile", self.overtaken),
                ("missing", self.missing),
                ("annotated twice", self.twice),
            )
            if count
        ]
        if self.review:
            rows.append(("for review", self.review))
        return rows + [(f"seconds {stage}", f"{seconds:.1f}") for stage, seconds in self.seconds.items()]


def choose(
    store: PredictionStore,
    selection: Selection,
    bar: Bar,
    limit: int | None,
    progress: Progress,
    stop: Stop,
    *,
    expected: int,
) -> Chosen:
    """Judge every selected task that carries the version. Changes nothing.

    Args:
        store: is only read.
        selection: which tasks.
        bar: what a prediction must reach.
        limit: accept at most so many, lowest task ids first; None for all.
        progress: told of every task.
        stop: asked between pages.
        expected: about how many tasks are read.

    Raises:
        TransientError: the server did not answer, or not completely.
    """
    chosen = Chosen()
    with progress.stage("read", expected) as meter:
        # Where touched tasks are left alone, it does not matter where their annotations came from.
        for page in store.holding(selection, [bar.model_version], references=bar.even_if_annotated):
            stop.check()
            for task in page:
                verdict, prediction = bar.judge(task)
                if verdict is Verdict.ACCEPT and limit is not None and len(chosen.tasks) >= limit:
                    return chosen
                chosen.found.add(verdict, prediction, bar)
                if verdict is Verdict.ACCEPT and prediction is not None:
                    chosen.tasks.append(task.task_id)
                    chosen.predictions.append(prediction.id)
                if verdict is Verdict.REVIEW:
                    chosen.review.append(task.task_id)
            meter.advance(len(page))
    return chosen


def accept(
    store: PredictionStore,
    chosen: Chosen,
    bar: Bar,
    report: AcceptReport,
    options: AcceptOptions,
    in_flight: InFlight,
    progress: Progress,
    stop: Stop,
) -> None:
    """Make an annotation of each chosen prediction, and read back that there is one. May be repeated.

    Who repeats it waits before until nothing of an earlier one can be under way, and chooses anew.

    Raises:
        TransientError, AmbiguousError: not everything could be done now; repeat later.
        PermanentError: refused.
        StoppedError: somebody asked to stop.
    """
    size, done, total = FIRST_PIECE, 0, len(chosen.tasks)
    accepter = _Accepter(store, bar, report, options, in_flight, stop)
    with progress.stage("accept", total) as meter:
        while done < total:
            tasks = [TaskId(task) for task in chosen.tasks[done : done + size]]
            piece = list(zip(tasks, chosen.predictions[done : done + size], strict=True))
            began = time.monotonic()
            accepter.accept(piece)
            per_task = max((time.monotonic() - began) / len(piece), 1e-4)
            size = max(1, min(int(PIECE_SECONDS / per_task), 2 * size, MOST_PIECE))
            done += len(piece)
            meter.advance(len(piece))


class _Accepter:
    """Sends pieces, and settles those whose answer was lost."""

    def __init__(
        self,
        store: PredictionStore,
        bar: Bar,
        report: AcceptReport,
        options: AcceptOptions,
        in_flight: InFlight,
        stop: Stop,
    ) -> None:
        self._store, self._bar, self._report, self._options, self._stop = store, bar, report, options, stop
        self._in_flight = in_flight

    def accept(self, rows: Sequence[tuple[TaskId, int]]) -> None:
        stalls = 0
        left = self._free(rows)
        # Whoever was annotated by a person meanwhile is that person's.
        self._report.overtaken += len(rows) - len(left)
        wanted = left
        while left:
            self._stop.check()
            call = partial(self._store.accept, self._bar.model_version, [task for task, _ in left])
            began = time.monotonic()
            self._in_flight.leaves()
            try:
                retry_transient(call, seconds=self._options.retry_seconds, sleep=self._stop.sleep)
                self._in_flight.settled()
                break
            except AmbiguousError as error:
                self._report.ambiguous += 1
                logger.warning("%s; reading back what was accepted", error)
                still = self._settled(left, error, began)
                self._in_flight.settled()
                stalls = stalls + 1 if len(still) == len(left) else 0
                if stalls >= MOST_STALLS:
                    raise
                left = still
        self._prove(wanted)

    def _free(self, rows: Sequence[tuple[TaskId, int]]) -> list[tuple[TaskId, int]]:
        if self._bar.even_if_annotated:
            return list(rows)
        free = self._store.untouched([task for task, _ in rows])
        return [row for row in rows if row[0] in free]

    def _settled(
        self, rows: Sequence[tuple[TaskId, int]], error: AmbiguousError, began: float
    ) -> list[tuple[TaskId, int]]:
        """Rows without an annotation once nothing more can come of a request.

        A request that is still at work and a second one would both make an annotation.
        """
        self._stop.sleep(error.retry_after or 0.0)
        if error.finished:
            return self._lacking(rows)
        left = self._lacking(rows)
        same_since = time.monotonic()
        while left:
            now = time.monotonic()
            if now >= began + self._options.write_seconds and now >= same_since + self._options.settle_seconds:
                break
            self._stop.sleep(POLL_SECONDS)
            before, left = left, self._lacking(rows)
            same_since = same_since if len(left) == len(before) else time.monotonic()
        return left

    def _lacking(self, rows: Sequence[tuple[TaskId, int]]) -> list[tuple[TaskId, int]]:
        parents = self._store.parents([task for task, _ in rows])
        return [row for row in rows if row[1] not in parents]

    def _prove(self, rows: Sequence[tuple[TaskId, int]]) -> None:
        parents = self._store.parents([task for task, _ in rows])
        self._report.accepted += sum(prediction in parents for _, prediction in rows)
        self._report.twice += sum(parents.get(prediction, 0) > 1 for _, prediction in rows)
        lacking = [task for task, prediction in rows if prediction not in parents]
        if lacking:
            # Of tasks that are gone, nothing is missing.
            alive = set(self._store.existing(lacking[0], lacking[-1]))
            self._report.missing += sum(task in alive for task in lacking)
