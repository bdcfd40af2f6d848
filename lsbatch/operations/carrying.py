"""Which tasks carry a version: by a count where that is enough, since servers count much faster than they list."""

from __future__ import annotations

from collections.abc import Sequence

from lsbatch.entities import TaskId
from lsbatch.ports import PredictionSink

__all__ = ["which_carry"]


def which_carry(sink: PredictionSink, model_version: str, tasks: Sequence[TaskId]) -> set[TaskId]:
    """Those of the tasks (ids ascending, each once) that carry exactly this version now.

    Raises:
        TransientError: the server could not be read.
    """
    if not tasks:
        return set()
    count = sink.count_carriers(model_version, tasks)
    if count == 0:
        return set()
    if count == len(tasks):
        return set(tasks)
    return set(tasks).intersection(sink.carriers(model_version, tasks[0], tasks[-1]))
