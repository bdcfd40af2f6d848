"""Delete what a plan says, the cheapest exact way for each task. What is gone stays gone: the same call goes on."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from lsbatch.entities import TaskId
from lsbatch.errors import AmbiguousError
from lsbatch.operations.deletion_plan import PlannedTask, planned_tasks
from lsbatch.operations.in_flight import InFlight
from lsbatch.ports import PredictionStore
from lsbatch.progress import Meter, Progress
from lsbatch.retry import retry_transient
from lsbatch.run_dir import RunDir
from lsbatch.stopping import Stop

__all__ = ["DeleteOptions", "Deleter", "in_pieces"]

logger = logging.getLogger(__name__)
#: Tasks of the first request that deletes everything of them, and the fewest and most of one.
FIRST_PIECE, LEAST_PIECE, MOST_PIECE = 500, 20, 4_000
#: What such a request should take, in seconds: long enough to cost little besides, short enough to be watched.
PIECE_SECONDS = 8.0
#: Tasks whose predictions are deleted by id before others are looked at.
SINGLES_TASKS = 500
#: What the deletion of one row takes at most in a request that deletes a whole version (measured: 5 to 9 ms).
ROW_SECONDS = 0.010
#: A request is planned to end within this share of its time limit.
MARGIN = 0.85
#: Answers in a row that hid what was done and after which not one prediction less is there.
MOST_STALLS = 4
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class DeleteOptions:
    """How requests are sent.

    Attributes:
        request_seconds: what one may take by plan.
        write_seconds: how long the server may work on one that it did not answer.
        retry_seconds: how long one that was surely not carried out is tried again.
        writers: single deletes side by side.
        include_referenced: also predictions that annotations came from since they were planned.
    """

    request_seconds: float = 45.0
    write_seconds: float = 120.0
    retry_seconds: float = 120.0
    writers: int = 3
    include_referenced: bool = False

    @property
    def rows_of_a_version(self) -> int:
        """Predictions of a version that one request surely deletes within its time."""
        return int(self.request_seconds * MARGIN / ROW_SECONDS)


class Deleter:
    """Carries out one plan.

    Args:
        store: what is deleted from.
        run: has the plan.
        put_back: called after each request that may have changed what annotators see.
        before: predictions of the project by version, as they were when it was planned; None where what is there
            cannot be told from them: some are gone already, or not all of a version was to go.
        options: limits.
        progress: told of every prediction.
        stop: asked before a request leaves, and while something is waited for.
    """

    def __init__(
        self,
        store: PredictionStore,
        run: RunDir,
        options: DeleteOptions,
        progress: Progress,
        stop: Stop,
        put_back: Callable[[], None],
        *,
        before: Mapping[str, int] | None,
    ) -> None:
        self._store = store
        self._plan = run.plan
        self._in_flight = InFlight(run.in_flight)
        self._left = None if before is None else Counter(before)
        self._options = options
        self._progress = progress
        self._stop = stop
        self._put_back = put_back
        self._piece = FIRST_PIECE
        #: Until then, a request that was not answered may be under way, of this process or an earlier one.
        self._late_until = time.monotonic() + self._in_flight.seconds_left(options.write_seconds)
        #: What is left for a request that deletes a whole version.
        self._reserved: dict[str, list[PlannedTask]] = {}
        self.ambiguous = 0
        #: Predictions that went by each of the three ways.
        self.bulk = self.single = self.by_version = 0
        #: Predictions that annotations came from since they were planned, and that stay.
        self.spared: set[int] = set()

    def run(self, predictions: int, whole: Mapping[str, int], *, resumed: bool) -> None:
        """Delete all that the plan says. May be repeated, also after a crash.

        Args:
            predictions: how many the plan has.
            whole: versions of which nothing but these stays anywhere, with the number of their predictions on tasks
                that keep others: some of these go in one request for the version.
            resumed: some may be gone already.

        Raises:
            TransientError, AmbiguousError: not everything could be deleted now; repeat later.
            PermanentError: refused.
            StoppedError: somebody asked to stop.
        """
        most = self._options.rows_of_a_version
        quotas = {} if resumed else {version: min(rows, most) for version, rows in whole.items() if version and rows}
        with self._progress.stage("delete", predictions) as meter:
            self._walk(quotas, meter, check_first=resumed)
            for version, tasks in self._reserved.items():
                if not self._version(version, tasks, meter):
                    self._deliver(tasks, self._singles, meter, check_first=True)
        # A request that was given up might still arrive, and would take what was stored since.
        self._stop.sleep(self._late_until - time.monotonic())
        self._in_flight.settled()

    def _walk(self, quotas: dict[str, int], meter: Meter, *, check_first: bool) -> None:
        """Delete what the plan says, but for so many predictions of some versions, which are reserved."""
        alone: list[PlannedTask] = []
        mixed: list[PlannedTask] = []
        for task in planned_tasks(self._plan):
            if not task.kept:
                alone.append(task)
            elif (task := self._reserve(task, quotas)).gone:
                mixed.append(task)
            if len(alone) >= self._piece:
                self._deliver(alone, self._bulk, meter, check_first=check_first)
                alone = []
            if len(mixed) >= SINGLES_TASKS:
                self._deliver(mixed, self._singles, meter, check_first=check_first)
                mixed = []
        self._deliver(alone, self._bulk, meter, check_first=check_first)
        self._deliver(mixed, self._singles, meter, check_first=check_first)

    def _reserve(self, task: PlannedTask, quotas: dict[str, int]) -> PlannedTask:
        """The task without what the quotas of its versions take, which shrink by that."""
        gone = []
        for version, prediction in task.gone:
            if quotas.get(version, 0) > 0:
                quotas[version] -= 1
                part = PlannedTask(task.task_id, [(version, prediction)], task.kept)
                self._reserved.setdefault(version, []).append(part)
            else:
                gone.append((version, prediction))
        return PlannedTask(task.task_id, gone, task.kept)

    def _deliver(
        self, tasks: list[PlannedTask], way: Callable[[list[PlannedTask]], None], meter: Meter, *, check_first: bool
    ) -> None:
        if tasks:
            left = self._still_there(tasks) if check_first else tasks
            way(left)
            meter.advance(sum(len(task.gone) for task in tasks))

    def _still_there(self, tasks: Sequence[PlannedTask]) -> list[PlannedTask]:
        there = self._store.remaining(_ids(tasks), _task_ids(tasks))
        return _less(tasks, {prediction for prediction in _ids(tasks) if prediction not in there})

    def _unreferenced(self, tasks: list[PlannedTask]) -> list[PlannedTask]:
        """Without the predictions that annotations came from by now, asked right before the others go."""
        if self._options.include_referenced or not tasks:
            return tasks
        ids = _task_ids(tasks)
        free = self._store.untouched(ids)
        touched = [task for task in ids if task not in free]
        parents = set(self._store.parents(touched)).intersection(_ids(tasks)) if touched else set()
        self.spared |= parents
        return _less(tasks, parents) if parents else tasks

    # -------------------------------------------------------------------------------------------- the three ways

    def _singles(self, tasks: list[PlannedTask]) -> None:
        tasks = self._unreferenced(tasks)
        with ThreadPoolExecutor(self._options.writers, thread_name_prefix="delete") as pool:
            for _ in pool.map(self._delete, _ids(tasks)):
                self.single += 1
        self._gone(tasks)

    def _delete(self, prediction_id: int) -> None:
        self._stop.check()
        self._store.delete(prediction_id)

    def _bulk(self, tasks: list[PlannedTask]) -> None:
        """Delete everything of these tasks, of which all was planned."""
        for piece in in_pieces(tasks, self._piece):
            began = time.monotonic()
            self._bulk_piece(piece)
            per_task = (time.monotonic() - began) / len(piece)
            self._piece = max(LEAST_PIECE, min(int(PIECE_SECONDS / max(per_task, 1e-4)), 2 * self._piece, MOST_PIECE))

    def _bulk_piece(self, tasks: list[PlannedTask], stalls: int = 0) -> None:
        self._stop.check()
        tasks = self._without_annotated(tasks)
        if not tasks:
            return
        if not self._nothing_else(tasks):
            # Somebody stored a prediction on one of them meanwhile: find which.
            if len(tasks) <= LEAST_PIECE:
                self._singles(tasks)
            else:
                self._halves(tasks, stalls)
            return
        began = time.monotonic()
        try:
            self._send(partial(self._store.delete_all, _task_ids(tasks)))
        except AmbiguousError as error:
            left = self._after(error, tasks, began)
            stalled = stalls + 1 if len(_ids(left)) == len(_ids(tasks)) else 0
            if stalled >= MOST_STALLS:
                raise
            # Counted as it is there now, whoever it was.
            self._left = None
            self.bulk += len(_ids(tasks)) - len(_ids(left))
            self._halves(left, stalled)
        else:
            self.bulk += self._gone(tasks)

    def _send(self, call: Callable[[], None]) -> None:
        """A request that deletes whatever it finds when it is carried out."""
        self._in_flight.leaves()
        retry_transient(call, seconds=self._options.retry_seconds, sleep=self._stop.sleep)
        if time.monotonic() >= self._late_until:
            self._in_flight.settled()

    def _halves(self, tasks: list[PlannedTask], stalls: int) -> None:
        for half in in_pieces(tasks, max(1, -(-len(tasks) // 2))):
            self._bulk_piece(half, stalls)

    def _without_annotated(self, tasks: list[PlannedTask]) -> list[PlannedTask]:
        """Without tasks that keep something by now, which lose the rest one by one."""
        planned = {task.task_id: len(task.gone) for task in tasks}
        free = self._unreferenced(tasks)
        if free is tasks:
            return tasks
        self._singles([task for task in free if len(task.gone) < planned[task.task_id]])
        return [task for task in free if len(task.gone) == planned[task.task_id]]

    def _nothing_else(self, tasks: Sequence[PlannedTask]) -> bool:
        """Whether these tasks hold nothing but what was planned, asked right before all of it goes.

        Where their versions have as many predictions as they should, only other versions can be there besides.
        """
        versions = {version for task in tasks for version, _ in task.gone}
        if self._left is not None:
            counts = {entry.model_version: entry.predictions for entry in self._store.versions()}
            if all(counts.get(version) == self._left[version] for version in versions):
                return not self._store.holds_others(_task_ids(tasks), versions)
        return self._store.holds_only(_task_ids(tasks), _ids(tasks))

    def _gone(self, tasks: Iterable[PlannedTask]) -> int:
        """Take note of what went; how many predictions it was."""
        versions = Counter(version for task in tasks for version, _ in task.gone)
        if self._left is not None:
            self._left -= versions
        return versions.total()

    def _version(self, version: str, tasks: list[PlannedTask], meter: Meter) -> bool:
        """Delete the whole version, of which these are left; False where they must go another way."""
        self._stop.check()
        counts = {entry.model_version: entry.predictions for entry in self._store.versions()}
        if counts.get(version) != len(tasks) or self._unreferenced(tasks) is not tasks:
            return False
        began = time.monotonic()
        try:
            self._send(partial(self._store.delete_version, version))
        except AmbiguousError as error:
            logger.warning("%s; what is left of %s goes one by one", error, version)
            self._note(error, began)
            return False
        finally:
            self._put_back()
        self.by_version += len(tasks)
        meter.advance(len(tasks))
        return True

    # -------------------------------------------------------------------------------------------- lost answers

    def _note(self, error: AmbiguousError, began: float) -> None:
        self.ambiguous += 1
        if not error.finished:
            self._late_until = max(self._late_until, began + self._options.write_seconds)

    def _after(self, error: AmbiguousError, tasks: Sequence[PlannedTask], began: float) -> list[PlannedTask]:
        """What is left of these after an answer that may hide what was done.

        The server may still be at work. To ask again is harmless and only makes more work, so that it gets as long
        as it should need.
        """
        logger.warning("%s; reading back what is left", error)
        self._note(error, began)
        self._stop.sleep(error.retry_after or 0.0)
        until = began + (
            0.0 if error.finished else min(2 * ROW_SECONDS * len(_ids(tasks)), self._options.write_seconds)
        )
        while (left := self._still_there(tasks)) and time.monotonic() < until:
            self._stop.sleep(POLL_SECONDS)
        return left


def in_pieces(tasks: Sequence[PlannedTask], size: int) -> Iterator[list[PlannedTask]]:
    """The tasks in lists of about equal length, of at most ``size``."""
    pieces = -(-len(tasks) // size)
    for number in range(pieces):
        yield list(tasks[number * len(tasks) // pieces : (number + 1) * len(tasks) // pieces])


def _ids(tasks: Iterable[PlannedTask]) -> list[int]:
    return [prediction for task in tasks for _, prediction in task.gone]


def _task_ids(tasks: Iterable[PlannedTask]) -> list[TaskId]:
    """Ids of the tasks, each once: of several versions of one, several may be reserved."""
    return list(dict.fromkeys(task.task_id for task in tasks))


def _less(tasks: Iterable[PlannedTask], predictions: Collection[int]) -> list[PlannedTask]:
    """The tasks without these predictions, and only those that lose others."""
    left = [
        PlannedTask(task.task_id, [entry for entry in task.gone if entry[1] not in predictions], task.kept)
        for task in tasks
    ]
    return [task for task in left if task.gone]
