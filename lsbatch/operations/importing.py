"""Import what a run predicts while it predicts: gather as many predictions as a request is worth, note it, send it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lsbatch.chunks import Chunk, ChunkState
from lsbatch.entities import DeadLetter, Prediction, TaskId
from lsbatch.errors import PermanentError, StoppedError, TransientError
from lsbatch.import_plan import CostModel, Limits, Plan, Standing, plan
from lsbatch.ledger import ImportBatch, Ledger
from lsbatch.operations.sending import Sender, SendOptions, missing
from lsbatch.ports import PredictionSink
from lsbatch.progress import Meter, Progress
from lsbatch.run_dir import RunDir
from lsbatch.stopping import Stop

__all__ = ["ImportOptions", "ImportSetup", "Importer"]

logger = logging.getLogger(__name__)
#: A request is planned to end within this share of its time limit.
MARGIN = 0.85
#: Nothing in front of a server gives a request less time than this, in seconds.
SHORTEST_LIMIT = 5.0
#: How often something can be shown and noted while a request is waited for, in seconds.
TICK_SECONDS = 1.0
#: Single creates of one import batch; a crash makes no more than these be read back.
SINGLES_BATCH = 500
#: What an administrator sets where Label Studio runs, so that an import costs what it brings.
SERVER_SETTING = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short=true"
#: Said when the server's own part of a request is longer than this, in seconds.
TELL_SECONDS = 10.0


@dataclass(frozen=True)
class ImportOptions:
    """How predictions are sent.

    Attributes:
        batch_rows: most predictions in one request.
        request_seconds: how long a request should take at most.
        sending: limits of each request.
    """

    batch_rows: int = 50_000
    request_seconds: float = 45.0
    sending: SendOptions = field(default_factory=SendOptions)


@dataclass
class ImportSetup:
    """What an import works on.

    Attributes:
        sink: takes the predictions.
        run: where the predictions lie.
        ledger: the run's ledger.
        model_version: carried by every prediction of the run.
        options: limits.
        progress: told of every prediction that the server holds.
        standing: what the project holds already.
        model: what requests cost here, as far as it is known.
        stop: asked before anything new begins.
        check_first: leave out predictions whose task carries the version already; for predictions that were stored
            some time ago, when others may have been sent since.
        replace: delete what the tasks carry of this version before theirs is sent.
    """

    sink: PredictionSink
    run: RunDir
    ledger: Ledger
    model_version: str
    options: ImportOptions
    progress: Progress
    standing: Standing = field(default_factory=lambda: Standing(0, 0))
    model: CostModel = field(default_factory=CostModel)
    stop: Stop = field(default_factory=Stop)
    check_first: bool = False
    replace: bool = False


class Importer:
    """Imports what a run has predicted, and goes on while it predicts more.

    Args:
        setup: what to import.
    """

    def __init__(self, setup: ImportSetup) -> None:
        self._setup = setup
        self._ledger = setup.ledger
        self._sender = Sender(setup.sink, setup.ledger, setup.model_version, setup.options.sending, setup.stop)
        self._waiting: deque[Chunk] = deque()
        self._rows_waiting = 0
        #: Predictions that are still to be sent, as far as is known; more than ``_rows_waiting`` while inference runs.
        self._expected = 0
        self._changed = threading.Condition()
        self._open = False
        self._said = ""
        self._limit = setup.options.request_seconds * MARGIN
        self.standing = setup.standing
        self.model = setup.model
        self.sent = self._sender.sent
        self.error: BaseException | None = None

    # -------------------------------------------------------------------------------------------- while it predicts

    @contextmanager
    def alongside(self, expected: int, meanwhile: Callable[[], None] = lambda: None) -> Iterator[Importer]:
        """Import in a thread what is offered inside the context, and end with everything sent that was offered.

        Args:
            expected: about how many predictions there will be.
            meanwhile: called now and then while the end is waited for.

        Raises:
            LsbatchError: as ``run``, on leaving.
        """
        # Before inference begins: what it predicts from now on is offered, and would be found twice.
        self._load(expected)
        self._open = True
        # A daemon: a process that must end at once does not wait for the answer to a request.
        thread = threading.Thread(target=self._guarded, name="import", daemon=True)
        thread.start()
        try:
            yield self
        except Exception:
            # What is under way is finished; nothing more is begun.
            self._close(forget=True)
            thread.join()
            raise
        except BaseException:
            self._close(forget=True)
            raise
        self._close()
        while thread.is_alive():
            thread.join(TICK_SECONDS)
            meanwhile()
        if self.error is not None:
            raise self.error

    def _close(self, *, forget: bool = False) -> None:
        with self._changed:
            self._open = False
            # What was expected and did not come will not come any more.
            self._expected = 0
            if forget:
                self._waiting.clear()
                self._rows_waiting = 0
            self._changed.notify_all()

    def _load(self, expected: int) -> None:
        for chunk in self._ledger.chunks(ChunkState.PREDICTED):
            self._add(chunk)
        self._expected = expected + self._rows_waiting

    def offer(self, chunk: Chunk) -> None:
        """One more chunk is predicted; called inside ``alongside``.

        Raises:
            LsbatchError: importing has failed meanwhile.
        """
        with self._changed:
            if isinstance(self.error, StoppedError):
                # Inference ends in order, too: what is in flight is kept.
                return
            if self.error is not None:
                raise self.error
            self._add(chunk)
            # Its failed tasks will not come.
            self._expected -= chunk.tasks - chunk.predicted
            self._changed.notify_all()

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # raised again in the thread that waits
            with self._changed:
                self.error = error

    def _add(self, chunk: Chunk) -> None:
        self._waiting.append(chunk)
        self._rows_waiting += chunk.predicted

    # -------------------------------------------------------------------------------------------- sending

    def run(self) -> None:
        """Import every predicted chunk. May be repeated, also after a crash.

        Raises:
            TransientError, AmbiguousError: not everything could be settled now; repeat later.
            PermanentError: refused.
            StoppedError: somebody asked to stop.
        """
        self._load(0)
        self._run()

    def _run(self) -> None:
        batches = self._ledger.unsettled()
        total = self._expected + sum(chunk.predicted for batch in batches for chunk in batch.chunks)
        with self._setup.progress.stage("import", total) as meter:
            for batch in batches:
                self._take_up(batch, meter)
            while (planned := self._next()) is not None:
                self._begin(*planned, meter)

    def settle(self) -> None:
        """Wait until requests that were under way when the run ended can store nothing more. Sends nothing."""
        for batch in self._ledger.unsettled():
            self._sender.settle_interrupted(batch, self._rows(batch.chunks))

    def _next(self) -> tuple[list[Chunk], Plan] | None:
        """The chunks of the next batch once there are as many as a request is worth, and how to send them."""
        with self._changed:
            while True:
                self._setup.stop.check()
                chosen = self._plan(max(self._expected, self._rows_waiting))
                if self._waiting and (not self._open or self._rows_waiting >= chosen.wait_for):
                    return self._group(chosen.bulks[0] if chosen.bulks else SINGLES_BATCH), chosen
                if not self._open and not self._waiting:
                    return None
                # Woken by each chunk and by the end; the time limit is for a stop that somebody asks for.
                self._changed.wait(1.0)

    def _group(self, most_rows: int) -> list[Chunk]:
        """Whole chunks of at most so many predictions, or one chunk that has more."""
        chunks: list[Chunk] = []
        rows = 0
        while self._waiting and (not chunks or rows + self._waiting[0].predicted <= most_rows):
            chunk = self._waiting.popleft()
            chunks.append(chunk)
            rows += chunk.predicted
        self._rows_waiting -= rows
        return sorted(chunks, key=lambda chunk: chunk.first_task)

    def _plan(self, rows: int) -> Plan:
        most = min(self._setup.options.batch_rows, self._sender.most_rows or self._setup.options.batch_rows)
        return plan(rows, self.model, self.standing, Limits(self._limit, most))

    def _begin(self, chunks: list[Chunk], chosen: Plan, meter: Meter) -> None:
        rows = wanted = self._rows(chunks)
        replaced: Mapping[TaskId, Sequence[int]] = {}
        if self._setup.replace:
            # Nothing of this batch was ever sent: whatever its tasks carry is older.
            replaced = self._carried(rows)
        elif self._setup.check_first:
            wanted = missing(rows, self._sender.carriers(rows))
        batch = self._ledger.intend(chunks, replaced)
        self._say(chosen)
        self._deliver(batch, wanted, chosen)
        self._done(len(rows), meter)

    def _take_up(self, batch: ImportBatch, meter: Meter) -> None:
        """A batch that was under way when an earlier process ended."""
        rows = self._rows(batch.chunks)
        # Before reading back: until then, the predictions to be replaced look like those that were sent.
        self._delete(self._ledger.replaced(batch))
        wanted = missing(rows, self._sender.settle_interrupted(batch, rows))
        self._deliver(self._ledger.intend_again(batch) if wanted else batch, wanted, self._plan(len(wanted)))
        self._done(len(rows), meter)

    def _done(self, rows: int, meter: Meter) -> None:
        with self._changed:
            self._expected = max(0, self._expected - rows)
        self.standing = self.standing.more(rows)
        meter.advance(rows)

    def _deliver(self, batch: ImportBatch, rows: list[Prediction], chosen: Plan) -> None:
        """Bring these rows of the batch, none of which is on the server, to it."""
        before = self.sent.imported, self.sent.ambiguous
        letters: list[DeadLetter] = []
        try:
            self._delete(self._ledger.replaced(batch))
            if rows:
                letters = self._send(batch, rows, chosen)
        except (TransientError, PermanentError, StoppedError):
            if batch.attempts == 1 and before == (self.sent.imported, self.sent.ambiguous):
                self._ledger.not_taken(batch)
            raise
        self._ledger.imported(batch, letters)

    def _send(self, batch: ImportBatch, rows: list[Prediction], chosen: Plan) -> list[DeadLetter]:
        if chosen.bulks:
            letters = self._sender.bulk(batch, rows, chosen.bulks[0])
            self._learn()
            return letters
        ambiguous, began = self.sent.ambiguous, time.monotonic()
        letters = self._sender.singles(batch, rows)
        if self.sent.ambiguous == ambiguous:
            self.model = self.model.learn_single(len(rows), time.monotonic() - began)
        return letters

    def _learn(self) -> None:
        for rows, seconds in self.sent.timings:
            self.model = self.model.learn(rows, self.standing, seconds)
        self.sent.timings.clear()
        cut = self.sent.cut_seconds
        if cut is not None and cut >= SHORTEST_LIMIT:
            # Something between gives up sooner than we do. Sooner than that it is no limit: a server that restarts.
            self._limit = min(self._limit, MARGIN * cut)

    def _say(self, chosen: Plan) -> None:
        kind = "bulk" if chosen.bulks else "singles"
        if kind == self._said:
            logger.debug("import plan: %s", chosen.reason)
            return
        self._said = kind
        logger.info("import plan: %s", chosen.reason)
        if self.model.recounts and self.model.fixed * self.standing.seconds > TELL_SECONDS:
            self._setup.progress.say(
                "the server recounts the whole project at each import. Its administrator can end that: start Label "
                f"Studio with {SERVER_SETTING} in its environment"
            )

    # -------------------------------------------------------------------------------------------- rows

    def _rows(self, chunks: Sequence[Chunk]) -> list[Prediction]:
        return [row for chunk in chunks for row in self._setup.run.read_predictions(chunk.number)]

    def _carried(self, rows: Sequence[Prediction]) -> Mapping[TaskId, Sequence[int]]:
        """Ids of the predictions of this version that the tasks of these rows carry now."""
        if not rows:
            return {}
        tasks = {row.task_id for row in rows}
        found = self._setup.sink.prediction_ids(self._setup.model_version, rows[0].task_id, rows[-1].task_id)
        return {task: ids for task, ids in found if task in tasks}

    def _delete(self, prediction_ids: Sequence[int]) -> None:
        for prediction_id in prediction_ids:
            self._setup.stop.check()
            self._setup.sink.delete(prediction_id)
