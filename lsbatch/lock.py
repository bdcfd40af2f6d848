"""One run at a time for a server, project and version. The kernel holds the lock: it ends with the process."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from lsbatch.errors import LockedError
from lsbatch.run_dir import disk_errors
from lsbatch.stopping import Stop

__all__ = ["hold", "is_held"]

logger = logging.getLogger(__name__)
#: How often a lock that another process holds is tried.
POLL_SECONDS = 0.2


@contextmanager
def hold(
    folder: Path, model_version: str, *, wait_seconds: float, stop: Stop, what: str = "another run"
) -> Iterator[None]:
    """Hold the lock of this version in a project's folder.

    Args:
        folder: where the locks of the project are.
        model_version: what is locked.
        wait_seconds: how long to wait for a process that holds it.
        stop: ends the wait.
        what: who else may hold it, in words.

    Raises:
        StoppedError: somebody asked to stop while it was waited for.
        LockedError: another process holds it; says which.
        ConfigError: the folder cannot be written.
    """
    path = _path(folder, model_version)
    holder = path.with_suffix(".holder.json")
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
    # At least one more attempt: whoever only asks whether it is held holds it for a moment.
    deadline = time.monotonic() + max(wait_seconds, POLL_SECONDS)
    waiting = False
    while not _acquired(lock, path):
        if wait_seconds > 0 and not waiting:
            waiting = True
            logger.warning(
                "waiting up to %.0f s for %s on %sthis project: %s",
                *(wait_seconds, what, _named(model_version), _who(holder)),
            )
        if time.monotonic() >= deadline:
            raise LockedError(
                f"{what} works on {_named(model_version)}this project: {_who(holder)}",
                hint="Wait until it ends, with --wait TIME if you like, or stop it; then run this again.",
            )
        stop.sleep(POLL_SECONDS)
    try:
        with disk_errors(holder):
            since = datetime.now(UTC).isoformat(timespec="seconds")
            note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            holder.write_text(json.dumps(note), encoding="utf-8")
        yield
    finally:
        lock.release()


def is_held(folder: Path, model_version: str) -> bool:
    """Whether a process holds the lock of this version now."""
    path = _path(folder, model_version)
    if not path.exists():
        return False
    lock = FileLock(path)
    if not _acquired(lock, path):
        return True
    lock.release()
    return False


def _acquired(lock: BaseFileLock, path: Path) -> bool:
    with disk_errors(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:  # an OSError, too
            return False
    return True


def _path(folder: Path, model_version: str) -> Path:
    return folder / f"{hashlib.sha256(model_version.encode()).hexdigest()[:16]}.lock"


def _named(model_version: str) -> str:
    """The version for a message; a lock of the whole project has a name that no version has."""
    return f"version {model_version} of " if model_version.strip() else ""


def _who(holder: Path) -> str:
    try:
        note = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']}, since {note['since']}"
    except (OSError, ValueError, KeyError):
        return "a process that left no note"
