"""One run at a time for a server, project and version. The kernel holds the lock: it ends with the process."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lsbatch.errors import LockedError
from lsbatch.run_dir import disk_errors

__all__ = ["hold"]


@contextmanager
def hold(folder: Path, model_version: str) -> Iterator[None]:
    """Hold the lock of this version in a project's folder.

    Raises:
        LockedError: another process holds it; says which.
        ConfigError: the folder cannot be written.
    """
    name = hashlib.sha256(model_version.encode()).hexdigest()[:16]
    path = folder / f"{name}.lock"
    holder = folder / f"{name}.holder.json"
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
    try:
        with disk_errors(path):
            lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(
            f"another run works on version {model_version} of this project: {_who(holder)}",
            hint="Wait until it ends, or stop it; then run this again.",
        ) from None
    try:
        with disk_errors(holder):
            since = datetime.now(UTC).isoformat(timespec="seconds")
            note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            holder.write_text(json.dumps(note), encoding="utf-8")
        yield
    finally:
        lock.release()


def _who(holder: Path) -> str:
    try:
        note = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']}, since {note['since']}"
    except (OSError, ValueError, KeyError):
        return "a process that left no note"
