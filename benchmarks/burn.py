"""A fixed amount of work for one core. Standard library only: Ray's own environment runs it too."""

from __future__ import annotations

import hashlib
import time

__all__ = ["burn", "burn_many", "rounds_of"]

#: Rounds of one measurement, and how many measurements there are; the fastest counts.
TRIAL_ROUNDS, TRIALS = 20_000, 20


def burn(text: str, rounds: int) -> bytes:
    """Keep one core busy for so many rounds of a hash; no memory, no I/O."""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"lsbatch", rounds)


def rounds_of(milliseconds: float) -> int:
    """How many rounds take so long on a core of this machine."""
    fastest = min(_seconds(TRIAL_ROUNDS) for _ in range(TRIALS))
    return max(1, round(TRIAL_ROUNDS * milliseconds / 1e3 / fastest))


def burn_many(tasks: int, rounds: int) -> float:
    """Burn for so many tasks, one after the other; seconds."""
    started = time.perf_counter()
    for number in range(tasks):
        burn(str(number), rounds)
    return time.perf_counter() - started


def _seconds(rounds: int) -> float:
    started = time.perf_counter()
    burn("trial", rounds)
    return time.perf_counter() - started
