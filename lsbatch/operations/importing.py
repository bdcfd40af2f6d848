"""Send predictions so that each is stored exactly once, whatever an answer hides.

The intent is in the ledger before a request leaves. An answer that may hide a commit is settled by reading back which
tasks carry the version, until that is stable; only the missing rows are sent again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lsbatch.chunks import Chunk, ChunkState, plan_batches
from lsbatch.entities import DeadLetter, Prediction
from lsbatch.errors import AmbiguousError, PermanentError, TransientError
from lsbatch.ledger import ImportBatch, Ledger
from lsbatch.ports import PredictionSink
from lsbatch.progress import Progress
from lsbatch.retry import retry_transient
from lsbatch.run_dir import RunDir

__all__ = ["ImportOptions", "Importer"]

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0
#: Ambiguous answers in a row without one more row on the server, after which the run gives up for now.
MOST_STALLS = 4


@dataclass(frozen=True)
class ImportOptions:
    """How predictions are sent.

    Attributes:
        batch_rows: most predictions in one request.
        max_body_bytes: most bytes in one request.
        write_seconds: how long the server may work on a request that it did not answer.
        settle_seconds: how long a read-back must stay the same before it is believed.
        retry_seconds: how long a request that the server surely did not take is tried again.
    """

    batch_rows: int = 20_000
    max_body_bytes: int = 100_000_000
    write_seconds: float = 120.0
    settle_seconds: float = 30.0
    retry_seconds: float = 120.0


class Importer:
    """Imports what a run predicted.

    Args:
        sink: takes the predictions.
        run: where the predictions lie.
        ledger: the run's ledger.
        model_version: carried by every prediction of the run.
        options: limits.
        progress: told of every prediction that the server holds.
        check_first: leave out predictions whose task carries the version already; for predictions that were stored
            some time ago, when others may have been sent since.
        sleep: waits between two read-backs, in seconds.
    """

    def __init__(
        self,
        sink: PredictionSink,
        run: RunDir,
        ledger: Ledger,
        model_version: str,
        options: ImportOptions,
        progress: Progress,
        *,
        check_first: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sink = sink
        self._run = run
        self._ledger = ledger
        self._version = model_version
        self._options = options
        self._progress = progress
        self._check_first = check_first
        self._sleep = sleep
        self._most_rows = options.batch_rows
        self._left_at = 0.0
        self.imported = 0
        self.requests = 0

    def run(self) -> None:
        """Import every predicted chunk. May be repeated, also after a crash.

        Raises:
            TransientError, AmbiguousError: not everything could be settled now; repeat later.
            PermanentError: refused.
        """
        batches = self._ledger.unsettled()
        chunks = self._ledger.chunks(ChunkState.PREDICTED)
        total = sum(chunk.predicted for batch in batches for chunk in batch.chunks)
        total += sum(chunk.predicted for chunk in chunks)
        with self._progress.stage("import", total) as meter:
            for batch in batches:
                rows = self._rows(batch.chunks)
                missing = self._missing(rows, self._settle_interrupted(batch, rows))
                self._deliver(self._ledger.intend_again(batch) if missing else batch, missing)
                meter.advance(len(rows))
            for group in plan_batches(chunks, self._options.batch_rows):
                rows = self._rows(group)
                missing = self._missing(rows, self._carriers(rows)) if self._check_first else rows
                self._deliver(self._ledger.intend(group), missing)
                meter.advance(len(rows))

    def settle(self) -> None:
        """Wait until requests that were under way when the run ended can store nothing more. Sends nothing."""
        for batch in self._ledger.unsettled():
            self._settle_interrupted(batch, self._rows(batch.chunks))

    def _settle_interrupted(self, batch: ImportBatch, rows: Sequence[Prediction]) -> set[int]:
        logger.warning("import batch %d was under way when the run ended; reading back", batch.number)
        # The wall clock may have jumped back since.
        waited = max(0.0, time.time() - batch.sent_at)
        return self._settle(rows, max(0.0, self._options.write_seconds - waited))

    @staticmethod
    def _missing(rows: Sequence[Prediction], present: set[int]) -> list[Prediction]:
        return [row for row in rows if row.task_id not in present]

    def _rows(self, chunks: Sequence[Chunk]) -> list[Prediction]:
        return [row for chunk in chunks for row in self._run.read_predictions(chunk.number)]

    def _deliver(self, batch: ImportBatch, rows: list[Prediction]) -> None:
        """Bring these rows of the batch, none of which is on the server, to it."""
        before = self.imported
        letters: list[DeadLetter] = []
        try:
            for part in self._requests(rows):
                letters += self._send(batch, part)
        except (TransientError, PermanentError):
            if batch.attempts == 1 and self.imported == before:
                self._ledger.not_taken(batch)
            raise
        self._ledger.imported(batch, letters)

    def _requests(self, rows: Sequence[Prediction]) -> Iterator[list[Prediction]]:
        """The rows in parts that keep the limits of one request."""
        part: list[Prediction] = []
        size = 0
        for row in rows:
            # 100 bytes for the field names and the version's text around the result.
            bytes_ = len(json.dumps(list(row.result))) + len(row.model_version) + 100
            if part and (len(part) >= self._most_rows or size + bytes_ > self._options.max_body_bytes):
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
            try:
                created = self._create(batch, rows)
            except PermanentError as error:
                return self._refused(batch, rows, error)
            except AmbiguousError as error:
                logger.warning("%s; reading back which predictions arrived", error)
                self._sleep(error.retry_after or 0.0)
                working = 0.0 if error.finished else self._options.write_seconds - (time.monotonic() - self._left_at)
                present = self._settle(rows, max(0.0, working), stable=not error.finished)
                last_error: AmbiguousError | None = error
            else:
                if created == len(rows):
                    self.imported += created
                    return []
                logger.warning("the server created %d of %d predictions; reading back", created, len(rows))
                present = self._settle(rows, 0.0, stable=False)
                last_error = None
            self.imported += len(present)
            rows = self._missing(rows, present)
            stalls = 0 if present else stalls + 1
            if rows and stalls >= MOST_STALLS:
                if last_error is not None:
                    raise last_error
                return [_letter(row, "Label Studio answers the import but stores nothing") for row in rows]
            if stalls:
                self._sleep(min(2.0**stalls, 30.0))
        return []

    def _create(self, batch: ImportBatch, rows: list[Prediction]) -> int:
        def once() -> int:
            self.requests += 1
            self._ledger.leaving(batch)
            self._left_at = time.monotonic()
            return self._sink.create(rows)

        return retry_transient(once, seconds=self._options.retry_seconds)

    def _refused(self, batch: ImportBatch, rows: list[Prediction], error: PermanentError) -> list[DeadLetter]:
        """Send what can be sent of a refused request; the tasks at fault become dead letters."""
        if error.status == 413 and len(rows) > 1:
            self._most_rows = max(1, len(rows) // 2)
            logger.warning("a request of %d predictions is too large; %d from now on", len(rows), self._most_rows)
            return [letter for part in self._requests(rows) for letter in self._send(batch, part)]
        if error.status not in (400, 413):
            raise error
        existing = set(self._sink.existing(rows[0].task_id, rows[-1].task_id))
        letters = [_letter(row, "the task was deleted after the export") for row in rows if row.task_id not in existing]
        rest = [row for row in rows if row.task_id in existing]
        if letters:
            return letters + self._send(batch, rest)
        if len(rest) == 1:
            return [_letter(rest[0], f"Label Studio refuses the prediction: {error}")]
        middle = len(rest) // 2
        return self._send(batch, rest[:middle]) + self._send(batch, rest[middle:])

    def _settle(self, rows: Sequence[Prediction], working_seconds: float, *, stable: bool = True) -> set[int]:
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
        present: set[int] = set()
        while True:
            found = self._carriers(rows)
            now = time.monotonic()
            if len(found) != len(present):
                present, changed = found, now
            quiet = max(changed, started + working_seconds)
            if len(found) == wanted or not stable or now - quiet >= self._options.settle_seconds:
                return found
            self._sleep(min(POLL_SECONDS, max(0.05, quiet + self._options.settle_seconds - now)))

    def _carriers(self, rows: Sequence[Prediction]) -> set[int]:
        """The tasks of these rows that carry the version now."""
        if not rows:
            return set()
        wanted = {int(row.task_id) for row in rows}
        return wanted.intersection(self._sink.carriers(self._version, min(wanted), max(wanted)))


def _letter(row: Prediction, cause: str) -> DeadLetter:
    return DeadLetter(row.task_id, "import", cause)
