"""One training at a time, each in a process of its own: whatever happens to it, serving goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Literal

__all__ = ["Trainer", "Training"]

logger = logging.getLogger(__name__)

#: The words of the ML-backend protocol.
Status = Literal["queued", "started", "finished", "failed"]
#: Trainings that are remembered.
REMEMBERED = 100
#: Of what a training said last, this much is kept, in bytes.
TOLD = 2_000
#: Of its report, this much is read, in bytes.
REPORT = 10_000_000
#: Label Studio was away, or another training holds the lock; it may work the next time.
TEMPORARY = 75
#: ``retrain`` stored a version that is not better; nothing failed.
NOT_BETTER = 6


@dataclass
class Training:
    """One training.

    Attributes:
        id: its name.
        why: who asked for it.
        since_last: it does nothing where no annotation changed since the last one.
        status: how far it is.
        error: why it failed, in words.
        outcome: what came of it, in words.
        times: ISO 8601 times in UTC, by the status that began then.
    """

    id: str
    why: str
    since_last: bool
    status: Status = "queued"
    error: str = ""
    outcome: str = ""
    times: dict[Status, str] = field(default_factory=dict)

    def become(self, status: Status) -> None:
        """Note the status and the time."""
        self.status = status
        self.times[status] = datetime.now(UTC).isoformat(timespec="milliseconds")

    def to_json(self) -> dict[str, Any]:
        """As ``/job_status`` answers."""
        return {
            "job": self.id,
            "job_status": self.status,
            "why": self.why,
            "error": self.error or None,
            "outcome": self.outcome or None,
            "created_at": self.times.get("queued"),
            "enqueued_at": self.times.get("queued"),
            "started_at": self.times.get("started"),
            "ended_at": self.times.get("finished") or self.times.get("failed"),
        }


class Trainer:
    """Starts trainings when asked, and after every so many annotations.

    Args:
        command: the training's command line, without ``--since-last``.
        environ: its environment.
        every: annotations after which a training starts; None for never.
        min_seconds: shortest time from the start of one training to the start of the next that annotations ask for.
        most_seconds: longest time of a training; None for no limit.
        done: called after each training that may have changed the version in use.
        counted: told the status of each training that ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        every: int | None,
        min_seconds: float,
        most_seconds: float | None = None,
        done: Callable[[], object],
        counted: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._command = list(command)
        self._environ = dict(environ)
        self._every = every
        self._min_seconds = min_seconds
        self._most_seconds = most_seconds
        self._done = done
        self._counted = counted
        # What was annotated while no server ran is learned from when it starts.
        self._annotations = every or 0
        self._started_at: float | None = None
        self._waiting: Training | None = None
        self._asked = asyncio.Event()
        self._known: deque[Training] = deque(maxlen=REMEMBERED)
        self.running: Training | None = None

    @property
    def last(self) -> Training | None:
        """The training that was asked for last."""
        return self._known[-1] if self._known else None

    def find(self, name: str) -> Training | None:
        """The training of this id, or None where it is unknown or forgotten."""
        return next((entry for entry in self._known if entry.id == name), None)

    def annotated(self, count: int) -> None:
        """So many annotations are new."""
        self._annotations += count
        self._asked.set()

    def start(self, why: str, *, since_last: bool = False) -> Training:
        """Train soon. What is asked for while a training waits is that training."""
        if self._waiting is None:
            self._waiting = Training(f"training-{secrets.token_hex(6)}", why, since_last)
            self._waiting.become("queued")
            self._known.append(self._waiting)
        # Who asks by hand wants one even if nothing is new.
        self._waiting.since_last = self._waiting.since_last and since_last
        self._asked.set()
        return self._waiting

    async def run(self) -> None:
        """Train when there is reason to, until cancelled; a training that is under way then is ended."""
        loop = asyncio.get_running_loop()
        while True:
            self._asked.clear()
            due = self._due(loop.time())
            if due == 0:
                self.start(f"{self._annotations} new annotations", since_last=True)
            if self._waiting is not None:
                # Annotations that come from here on may be too late for it.
                self._annotations, self._started_at = 0, loop.time()
                self.running, self._waiting = self._waiting, None
                await self._train(self.running)
                self.running = None
                continue
            try:
                async with asyncio.timeout(due):
                    await self._asked.wait()
            except TimeoutError:
                continue

    def _due(self, now: float) -> float | None:
        """Seconds until annotations start a training; None where there are too few of them."""
        if self._every is None or self._annotations < self._every:
            return None
        return 0 if self._started_at is None else max(0.0, self._started_at + self._min_seconds - now)

    async def _train(self, training: Training) -> None:
        training.become("started")
        logger.info("training %s started: %s", training.id, training.why)
        command = [*self._command, *(["--since-last"] if training.since_last else [])]
        try:
            async with asyncio.timeout(self._most_seconds):
                code, out, told = await _carried_out(command, self._environ)
            if code in (0, NOT_BETTER):
                self._finish(training, _outcome(out))
            else:
                if code == TEMPORARY and self._every is not None and training.since_last:
                    # What it was to learn is as new as before.
                    self._annotations = max(self._annotations, self._every)
                ended = f"signal {-code}" if code < 0 else f"exit code {code}"
                self._fail(training, f"it ended with {ended}: {told}")
        except TimeoutError:
            self._fail(training, f"it took longer than {self._most_seconds:g} s (serve.train_seconds) and was ended")
        except OSError as error:
            self._fail(training, f"it could not be started: {error}")
        except Exception as error:
            logger.exception("training %s: this is a bug in lsbatch", training.id)
            self._fail(training, f"this is a bug in lsbatch: {error}")

    def _finish(self, training: Training, outcome: str) -> None:
        training.outcome = outcome
        training.become("finished")
        logger.info("training %s finished: %s", training.id, training.outcome)
        self._counted("finished")
        self._done()

    def _fail(self, training: Training, error: str) -> None:
        training.error = error
        training.become("failed")
        logger.error("training %s failed: %s", training.id, error)
        self._counted("failed")


async def _carried_out(command: Sequence[str], environ: Mapping[str, str]) -> tuple[int, bytes, str]:
    """Run a command; its exit code, its stdout, and the end of its stderr.

    The process and all that it started are gone afterwards, however it ended and when this is cancelled, too. Its
    stdin is at its end when this process is gone (see ``tether``). What it says goes to files, since a pipe stays open
    as long as any process that it started.
    """
    mine, held = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, os.fdopen(held, "wb"):
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=mine, stdout=out, stderr=err, env=environ, start_new_session=True
            )
        finally:
            os.close(mine)
        try:
            code = await process.wait()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        out.seek(0)
        return code, out.read(REPORT), _end(err).decode(errors="replace").strip()


def _end(file: IO[bytes]) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - TOLD))
    return file.read()


def _outcome(out: bytes) -> str:
    """What ``retrain --json`` reports, in words."""
    try:
        report = json.loads(out)
    except (ValueError, RecursionError):
        return "its report cannot be read"
    if not isinstance(report, dict):
        return "its report cannot be read"
    if not report.get("model_version"):
        return "nothing new"
    return f"{report['model_version']} {'promoted' if report.get('promoted') else 'stored and not promoted'}"
