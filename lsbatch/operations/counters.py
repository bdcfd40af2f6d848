"""The numbers of predictions that Label Studio shows on tasks: repaired where it left them wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from lsbatch.errors import LsbatchError
from lsbatch.ports import PredictionSink
from lsbatch.progress import Progress

__all__ = ["Recount", "repaired"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recount:
    """Whether the server may count the whole project again: if so, in a request of at most so many seconds.

    Attributes:
        allowed: it may at all.
        seconds: what the request should take.
        most_seconds: what it may take.
    """

    allowed: bool
    seconds: float
    most_seconds: float


def repaired(sink: PredictionSink, stale: Callable[[], int], recount: Recount, progress: Progress) -> int:
    """Tasks that are shown with a wrong number of predictions, after what could be repaired was.

    Args:
        sink: recounts.
        stale: counts such tasks.
        recount: what may be done about them.
        progress: told why nothing was.

    Raises:
        TransientError: they could not be counted.
    """
    found = stale()
    if not found:
        return 0
    logger.warning("Label Studio shows a wrong number of predictions on %d tasks", found)
    if not recount.allowed or recount.seconds > recount.most_seconds:
        progress.say(
            f"Label Studio shows a wrong number of predictions on {found:,} tasks; the predictions are right. A "
            f"recount takes about {recount.seconds:.0f} s in one request, import.request_seconds allows "
            f"{recount.most_seconds:.0f} s"
        )
        return found
    try:
        sink.repair_counters()
    except LsbatchError as error:
        # The counters are for show; the predictions are proved.
        logger.warning("the recount failed: %s", error)
    return stale()
