"""A request that must not meet another one: noted on the disk while it may be under way, whatever becomes of us."""

from __future__ import annotations

import json
import time
from pathlib import Path

from lsbatch.ledger import age_seconds, boot_id
from lsbatch.run_dir import disk_errors, write_json

__all__ = ["InFlight"]


class InFlight:
    """The note about the last request of a run.

    Args:
        path: the file; there while the request may be under way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def leaves(self) -> None:
        """Note that a request leaves now.

        Raises:
            ConfigError: the disk is full or cannot be written; the request must not leave.
        """
        write_json(self._path, {"sent_at": time.time(), "uptime": time.monotonic(), "boot": boot_id()})

    def settled(self) -> None:
        """Nothing can come of it any more."""
        with disk_errors(self._path):
            self._path.unlink(missing_ok=True)

    def seconds_left(self, most_seconds: float) -> float:
        """How long a request that an earlier process sent may still be under way, if one takes so long at most."""
        try:
            note = json.loads(self._path.read_bytes())
            return max(0.0, most_seconds - age_seconds(note["sent_at"], note["uptime"], note["boot"]))
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, TypeError, KeyError):
            # Written whole or not at all: somebody has changed it, and it may mean anything.
            return most_seconds
