"""The configured choice of tasks as a selection; reads the files that it names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TextIO, TypeVar

from lsbatch.config.choosing import parse_time, read_filters, read_task_ids
from lsbatch.config.schema import Selection as Choice
from lsbatch.errors import ConfigError
from lsbatch.ports import Selection

__all__ = ["chosen"]

T = TypeVar("T")


def chosen(choice: Choice, *, now: datetime, stdin: TextIO | None = None, section: str = "selection") -> Selection:
    """The selection, whatever predictions there are.

    Args:
        choice: ``selection`` of the configuration.
        now: what ages such as ``7d`` count from.
        stdin: where task ids are read from for ``-``; read once.
        section: of the configuration that it stands in, for messages.

    Raises:
        ConfigError: a file cannot be read or holds something else; everything that is wrong, one line each.
    """
    mistakes: list[str] = []

    def read(key: str, value: str | None, reading: Callable[[str], T]) -> T | None:
        if value is None:
            return None
        try:
            return reading(value)
        except ValueError as error:
            mistakes.append(f"{section}.{key}: {error}")
            return None

    since = read("since", choice.since, lambda value: parse_time(value, now))
    until = read("until", choice.until, lambda value: parse_time(value, now))
    if since is not None and until is not None and since >= until:
        mistakes.append(f"selection.until: {choice.until} is not after selection.since, {choice.since}")
    filters = read("filter", choice.filter, read_filters)
    task_ids = read("task_ids", choice.task_ids, lambda name: read_task_ids(name, stdin))
    if mistakes:
        raise ConfigError("\n".join(["the tasks cannot be chosen", *(f"  {line}" for line in mistakes)]))
    return Selection(
        untouched_only=choice.untouched_only,
        limit=choice.limit,
        view=choice.view,
        filters=filters or "",
        task_ids=task_ids,
        created_since=since,
        created_until=until,
    )
