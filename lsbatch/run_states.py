"""The states of a run, as ``run_results.json`` has them."""

from __future__ import annotations

__all__ = ["CLOSED", "DECLINED", "FAILED", "FINISHED", "INTERRUPTED", "OVER_BUDGET", "RUNNING", "STOPPED", "SUPERSEDED"]

#: Under way, or killed before it could say otherwise.
RUNNING = "running"
FINISHED = "finished"
#: An error ended it; the same command continues.
FAILED = "failed"
#: It ended at once: a second signal, or a bug; the same command continues.
INTERRUPTED = "interrupted"
#: A signal or a clock ended it in order; the same command continues.
STOPPED = "stopped"
#: Too many tasks failed; the same command begins anew, since somebody has mended something by then.
OVER_BUDGET = "over budget"
#: The person who was asked said no; nothing was done.
DECLINED = "declined"
#: A later run took its place.
SUPERSEDED = "superseded"

#: Not continued by the same command.
CLOSED = frozenset({FINISHED, OVER_BUDGET, SUPERSEDED})
