"""Bring rows to the server so that each is stored exactly once, whatever an answer hides.

An answer that may hide a commit is settled by reading back which tasks carry the version, until that is stable; only
the missing rows are sent again. The caller has noted the intent in the ledger before.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from lsbatch.entities import DeadLetter, Prediction, TaskId
from lsbatch.errors import AmbiguousError, PermanentError
from lsbatch.ledger import ImportBatch, Ledger
from lsbatch.operations.carrying import which_carry
from lsbatch.ports import PredictionSink
from lsbatch.retry import retry_transient
from lsbatch.stopping import Stop

__all__ = ["SendOptions", "Sender", "Sent"]

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0
#: Ambiguous answers in a row without one more row on the server, after which the run gives up for now.
MOST_STALLS = 4
#: Single creates that are given out ahead, for each writer.
AHEAD = 2
#: The ledger is told of single creates that leave at most this often, in seconds.
NOTE_SECONDS = 1.0


@dataclass(frozen=True)
class SendOptions:
    """How predictions are sent.

    Attributes:
        max_body_bytes: most bytes in one request.
        write_seconds: how long the server may work on a request that it did not answer.
        settle_seconds: how long a read-back must stay the same before it is believed.
        retry_seconds: how long a request that the server surely did not take is tried again.
        writers: single creates side by side.
    """

    max_body_bytes: int = 100_000_000
    write_seconds: float = 120.0
    settle_seconds: float = 30.0
    retry_seconds: float = 120.0
    writers: int = 3


@dataclass
class Sent:
    """What the requests so far did.

    Attributes:
        imported: predictions that the server counted or that were read back after a request of ours.
        requests: requests that left.
        ambiguous: answers that may have hidden a commit.
        timings: predictions and seconds of each bulk request that was answered with success, newest last; drained by
            whoever learns from them.
        cut_seconds: how long the shortest bulk request that was not answered had taken; None when all were.
    """

    imported: int = 0
    requests: int = 0
    ambiguous: int = 0
    timings: list[tuple[int, float]] = field(default_factory=list)
    cut_seconds: float | None = None


class Sender:
    """Sends rows of one model version.

    Args:
        sink: takes the predictions.
        ledger: told when a request leaves.
        model_version: carried by every row.
        options: limits.
        stop: asked before a request leaves, and while something is waited for.
    """

    def __init__(
        self, sink: PredictionSink, ledger: Ledger, model_version: str, options: SendOptions, stop: Stop
    ) -> None:
        self._sink = sink
        self._ledger = ledger
        self._version = model_version
        self._options = options
        self._stop = stop
        self._left_at = 0.0
        self._noted_at = -NOTE_SECONDS
        self.most_rows: int | None = None
        self.writers = options.writers
        self.sent = Sent()

    # -------------------------------------------------------------------------------------------- bulk

    def bulk(self, batch: ImportBatch, rows: Sequence[Prediction], most_rows: int) -> list[DeadLetter]:
        """Bring these rows, none of which is on the server, there in requests of at most ``most_rows``.

        Returns:
            The rows that the server refuses for good.

        Raises:
            TransientError, AmbiguousError: not everything could be settled now; the batch stays ``SENDING``.
            PermanentError: refused, whatever the rows.
            StoppedError: somebody asked to stop.
        """
        letters: list[DeadLetter] = []
        for part in self._requests(rows, most_rows):
            letters += self._send(batch, part)
        return letters

    def _requests(self, rows: Sequence[Prediction], most_rows: int) -> Iterator[list[Prediction]]:
        """The rows in parts that keep the limits of one request."""
        part: list[Prediction] = []
        size = 0
        for row in rows:
            # 100 bytes for the field names and the version's text around the result.
            bytes_ = len(json.dumps(list(row.result))) + len(row.model_version) + 100
            # Asked anew for each part: a request that was too large counts at once.
            most = min(most_rows, self.most_rows or most_rows)
            if part and (len(part) >= most or size + bytes_ > self._options.max_body_bytes):
                yield part
                part, size = [], 0
            part.append(row)
            size += bytes_
        if part:
            yield part

    def _send(self, batch: ImportBatch, rows: list[Prediction]) -> list[DeadLetter]:
        """Send until the server holds all of these rows but the returned ones, which it refuses for good."""
        stalls = 0
        while rows:
            self._stop.check()
            try:
                created = self._create(batch, rows)
            except PermanentError as error:
                return self._refused(batch, rows, error)
            except AmbiguousError as error:
                if not error.finished:
                    took = time.monotonic() - self._left_at
                    self.sent.cut_seconds = min(took, self.sent.cut_seconds or took)
                present = self._after(error, rows)
                last_error: AmbiguousError | None = error
            else:
                if created == len(rows):
                    self.sent.imported += created
                    return []
                logger.warning("the server created %d of %d predictions; reading back", created, len(rows))
                present = self.settle(rows, 0.0, stable=False)
                last_error = None
            self.sent.imported += len(present)
            rows = missing(rows, present)
            stalls = 0 if present else stalls + 1
            if rows and stalls >= MOST_STALLS:
                if last_error is not None:
                    raise last_error
                return [_letter(row, "Label Studio answers the import but stores nothing") for row in rows]
            if stalls:
                self._stop.sleep(min(2.0**stalls, 30.0))
        return []

    def _create(self, batch: ImportBatch, rows: list[Prediction]) -> int:
        def once() -> int:
            self.sent.requests += 1
            self._ledger.leaving(batch)
            self._left_at = time.monotonic()
            return self._sink.create(rows)

        created = retry_transient(once, seconds=self._options.retry_seconds, sleep=self._stop.sleep)
        self.sent.timings.append((len(rows), time.monotonic() - self._left_at))
        return created

    def _after(self, error: AmbiguousError, rows: Sequence[Prediction]) -> set[TaskId]:
        """The tasks of these rows that carry the version after an answer that may hide a commit."""
        self.sent.ambiguous += 1
        logger.warning("%s; reading back which predictions arrived", error)
        self._stop.sleep(error.retry_after or 0.0)
        working = 0.0 if error.finished else self._options.write_seconds - (time.monotonic() - self._left_at)
        return self.settle(rows, max(0.0, working), stable=not error.finished)

    def _refused(self, batch: ImportBatch, rows: list[Prediction], error: PermanentError) -> list[DeadLetter]:
        """Send what can be sent of a refused request; the tasks at fault become dead letters."""
        if error.status == 413 and len(rows) > 1:
            self.most_rows = max(1, len(rows) // 2)
            logger.warning("a request of %d predictions is too large; %d from now on", len(rows), self.most_rows)
            return self.bulk(batch, rows, self.most_rows)
        if error.status not in (400, 413):
            raise error
        existing = set(self._sink.existing(rows[0].task_id, rows[-1].task_id))
        letters = [_deleted(row) for row in rows if row.task_id not in existing]
        rest = [row for row in rows if row.task_id in existing]
        if letters:
            return letters + self._send(batch, rest)
        if len(rest) == 1:
            return [_letter(rest[0], f"Label Studio refuses the prediction: {error}")]
        middle = len(rest) // 2
        return self._send(batch, rest[:middle]) + self._send(batch, rest[middle:])

    # -------------------------------------------------------------------------------------------- one by one

    def singles(self, batch: ImportBatch, rows: Sequence[Prediction]) -> list[DeadLetter]:
        """Bring these rows, none of which is on the server, there by single creates, ``writers`` side by side.

        Returns and raises as ``bulk``.
        """
        letters: list[DeadLetter] = []
        stalls = 0
        while rows:
            unsure = self._round(batch, rows, letters)
            if not unsure:
                return letters
            # Of several answers, the one counts after which rows may still appear.
            error = next((error for _, error in unsure if not error.finished), unsure[-1][1])
            before = len(rows)
            rows = sorted((row for row, _ in unsure), key=lambda row: row.task_id)
            present = self._after(error, rows)
            self.sent.imported += len(present)
            rows = missing(rows, present)
            stalls = 0 if len(rows) < before else stalls + 1
            if stalls >= MOST_STALLS:
                raise error
            if stalls:
                self._stop.sleep(min(2.0**stalls, 30.0))
        return letters

    def _round(
        self, batch: ImportBatch, rows: Sequence[Prediction], letters: list[DeadLetter]
    ) -> list[tuple[Prediction, AmbiguousError]]:
        """One attempt at each row; those whose answer may hide a commit, each with it."""
        unsure: list[tuple[Prediction, AmbiguousError]] = []
        waiting = iter(rows)
        pending: dict[Future[None], Prediction] = {}
        with ThreadPoolExecutor(self.writers, thread_name_prefix="create") as pool:
            try:
                while True:
                    # Doubt ends the round: what the server holds is looked at before more is sent.
                    while not unsure and len(pending) < self.writers * AHEAD and (row := next(waiting, None)):
                        self._stop.check()
                        pending[pool.submit(self._create_one, batch, row)] = row
                    if not pending:
                        break
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        self._taken(pending.pop(future), future, letters, unsure)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                # Those that were under way are done now, and count; so do those in doubt.
                self.sent.ambiguous += len(unsure)
                for future in pending:
                    self.sent.imported += not future.cancelled() and future.exception() is None
                    self.sent.ambiguous += not future.cancelled() and isinstance(future.exception(), AmbiguousError)
                raise
        if unsure:
            # What was not tried is as missing as what was not stored.
            unsure += [(row, unsure[-1][1]) for row in waiting]
        return unsure

    def _create_one(self, batch: ImportBatch, row: Prediction) -> None:
        def once() -> None:
            self._note(batch)
            self.sent.requests += 1
            self._sink.create_one(row)

        retry_transient(once, seconds=self._options.retry_seconds, sleep=self._stop.sleep)

    def _note(self, batch: ImportBatch) -> None:
        now = time.monotonic()
        self._left_at = now
        if now - self._noted_at >= NOTE_SECONDS:
            self._noted_at = now
            self._ledger.leaving(batch)

    def _taken(
        self,
        row: Prediction,
        future: Future[None],
        letters: list[DeadLetter],
        unsure: list[tuple[Prediction, AmbiguousError]],
    ) -> None:
        try:
            future.result()
        except AmbiguousError as error:
            if "database is locked" in str(error).lower() and self.writers > 1:
                logger.warning("the server's database takes one write at a time; so do we from now on")
                self.writers = 1
            unsure.append((row, error))
        except PermanentError as error:
            if error.status not in (400, 404, 413):
                raise
            exists = row.task_id in set(self._sink.existing(row.task_id, row.task_id))
            letters.append(_letter(row, f"Label Studio refuses the prediction: {error}") if exists else _deleted(row))
        else:
            self.sent.imported += 1

    # -------------------------------------------------------------------------------------------- reading back

    def settle_interrupted(self, batch: ImportBatch, rows: Sequence[Prediction]) -> set[TaskId]:
        """The tasks of these rows that carry the version, once a request of an earlier process can store no more."""
        logger.warning("import batch %d was under way when the run ended; reading back", batch.number)
        # The ledger may have been told of the request a little before it left.
        waited = batch.age_seconds - NOTE_SECONDS
        return self.settle(rows, min(self._options.write_seconds, max(0.0, self._options.write_seconds - waited)))

    def settle(self, rows: Sequence[Prediction], working_seconds: float, *, stable: bool = True) -> set[TaskId]:
        """The tasks of these rows that carry the version, read until they are all there or the answer is stable.

        Args:
            rows: what was sent, ids ascending.
            working_seconds: how much longer the server may be at work on the request.
            stable: the answer must stay the same for ``settle_seconds`` after that.
        """
        if not rows:
            return set()
        wanted = len({row.task_id for row in rows})
        started = changed = time.monotonic()
        present: set[TaskId] = set()
        while True:
            found = self.carriers(rows)
            now = time.monotonic()
            if len(found) != len(present):
                present, changed = found, now
            quiet = max(changed, started + working_seconds)
            if len(found) == wanted or not stable or now - quiet >= self._options.settle_seconds:
                return found
            self._stop.sleep(min(POLL_SECONDS, max(0.05, quiet + self._options.settle_seconds - now)))

    def carriers(self, rows: Sequence[Prediction]) -> set[TaskId]:
        """The tasks of these rows that carry the version now."""
        return which_carry(self._sink, self._version, sorted({row.task_id for row in rows}))


def missing(rows: Sequence[Prediction], present: set[TaskId]) -> list[Prediction]:
    """The rows whose tasks are not among ``present``."""
    return [row for row in rows if row.task_id not in present]


def _letter(row: Prediction, cause: str) -> DeadLetter:
    return DeadLetter(row.task_id, "import", cause)


def _deleted(row: Prediction) -> DeadLetter:
    return _letter(row, "the task was deleted after the export")
