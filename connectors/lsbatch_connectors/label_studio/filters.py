"""The data manager's filters, as JSON values. Pure.

Shape: ``{"filters": {"conjunction": "and", "items": [...]}, "ordering": ["tasks:id"]}`` in the parameter ``query`` of
``GET /api/tasks``, seen on Label Studio 1.23.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote_plus

__all__ = [
    "after",
    "alternatives",
    "annotated",
    "by_versions",
    "carrying",
    "carrying_any",
    "created",
    "exactly",
    "in_range",
    "lookalikes",
    "not_carrying",
    "parse_versions",
    "query",
    "shown_with",
    "untouched",
]

Filter = dict[str, Any]

#: The server cuts the text of a computed column here (``CHAR_LIMITS`` of its data manager's serializer).
COLUMN_LENGTH = 500
#: How the data manager writes times, in UTC.
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
#: Characters of a request's address that filters may fill: gunicorn takes 4,094 for the whole line.
ADDRESS_LENGTH = 3_600
#: Least of them for ids, however long the other filters are.
IDS_LENGTH = 400
#: Most ids of one group. The server looks at each of them.
GROUP_IDS = 50_000


def _item(column: str, operator: str, kind: str, value: Any) -> Filter:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def after(task_id: int) -> Filter:
    """Tasks with a greater id."""
    return _item("id", "greater", "Number", task_id)


def in_range(first: int, last: int) -> Filter:
    """Tasks with an id from ``first`` to ``last``, both included."""
    return _item("id", "in", "Number", {"min": first, "max": last})


def exactly(ids: Sequence[int], others: Sequence[Filter] = ()) -> Iterator[tuple[list[Filter], Sequence[int]]]:
    """Filters for exactly these tasks (ids ascending, unique), a group at a time, with the ids of the group.

    Groups ascend. A group is a range, less the ids in it that are not wanted, or a list: whichever takes more ids.

    Args:
        ids: of the tasks.
        others: filters of the same request, which take their part of its address.
    """
    room = max(IDS_LENGTH, ADDRESS_LENGTH - len(quote_plus(query([*others, in_range(2**53, 2**53), _unlisted(())]))))
    start = 0
    while start < len(ids):
        listed, spanned, holes = _group(ids, start, room)
        if listed > spanned:
            yield [_listed(ids[start:listed])], ids[start:listed]
        else:
            less = [_unlisted(holes)] if holes else []
            yield [in_range(ids[start], ids[spanned - 1]), *less], ids[start:spanned]
        start = max(listed, spanned)


def _group(ids: Sequence[int], start: int, room: int) -> tuple[int, int, list[int]]:
    """Where a list and a range that begin at ``start`` must end, and what the range must leave out."""
    most = min(len(ids), start + GROUP_IDS)
    listed, length = start, 0
    while listed < most and (length := length + _length(ids[listed])) <= room:
        listed += 1
    spanned, length = start + 1, 0
    holes: list[int] = []
    while spanned < most:
        gap = range(ids[spanned - 1] + 1, ids[spanned])
        length += len(gap) * _length(gap.start)
        if length > room:
            break
        holes += gap
        spanned += 1
    return listed, spanned, holes


def _length(task_id: int) -> int:
    """Characters of an id in an address, the comma after it included."""
    return len(str(task_id)) + len("%2C")


def _listed(ids: Sequence[int]) -> Filter:
    return _item("id", "in_list", "Number", list(ids))


def _unlisted(ids: Sequence[int]) -> Filter:
    return _item("id", "not_in_list", "Number", list(ids))


def carrying(model_version: str) -> Filter:
    """Tasks with a prediction whose version *contains* this text. The value is a list: a text is taken by letters."""
    return _item("predictions_model_versions", "contains", "List", [model_version])


def carrying_any(model_versions: Sequence[str]) -> Filter | None:
    """Tasks with a prediction whose version contains one of these texts; None where that cannot be asked for.

    That is where one of them is empty, or all together are too long for an address.
    """
    found = _item("predictions_model_versions", "contains", "List", list(model_versions))
    short = len(quote_plus(query([found, in_range(2**53, 2**53)]))) < ADDRESS_LENGTH - IDS_LENGTH
    return found if all(model_versions) and short else None


def not_carrying(model_version: str) -> Filter:
    """Tasks without any prediction whose version contains this text."""
    return _item("predictions_model_versions", "not_contains", "List", [model_version])


def created(since: datetime | None, until: datetime | None) -> list[Filter]:
    """Tasks created at ``since`` or later, and before ``until``; in UTC."""
    ends = (("greater_or_equal", since), ("less", until))
    return [_item("created_at", operator, "Datetime", f"{end:{TIME}}") for operator, end in ends if end is not None]


def shown_with(predictions: int, operator: str = "not_equal") -> Filter:
    """Tasks whose counter of predictions compares so with a number."""
    return _item("total_predictions", operator, "Number", predictions)


def by_versions(versions: Sequence[str]) -> list[tuple[list[Filter], frozenset[str]]]:
    """Filters that part all tasks by which of these versions they carry, each with those versions.

    Exact only where no version contains another (``lookalikes``).
    """
    found: list[tuple[list[Filter], frozenset[str]]] = [([], frozenset())]
    for version in versions:
        with_it = [([*items, carrying(version)], carried | {version}) for items, carried in found]
        found = [*with_it, *(([*items, not_carrying(version)], carried) for items, carried in found)]
    return found


def alternatives(conditions: Iterable[Mapping[str, Any]]) -> list[list[Filter]]:
    """What matches all of these conditions: the tasks that match any of the returned lists, each asked with ``and``.

    A request has one conjunction for all its filters (``apply_filters`` of the data manager), and a filter of it one
    child, so that ours cannot be added to somebody's ``or``: (a or b) and ours is (a and ours) or (b and ours).

    Args:
        conditions: each ``{"conjunction": "and" or "or", "items": [...]}``.
    """
    found: list[list[Filter]] = [[]]
    for condition in conditions:
        items = list(condition["items"])
        lines = [[item] for item in items] if condition["conjunction"] == "or" and items else [items]
        found = [[*one, *other] for one in found for other in lines]
    return found


def annotated() -> list[Filter]:
    """Tasks with annotations that were not cancelled."""
    return [_item("total_annotations", "greater", "Number", 0)]


def untouched() -> list[Filter]:
    """Tasks without annotations, cancelled ones included, and without drafts."""
    return [
        _item("total_annotations", "equal", "Number", 0),
        _item("cancelled_annotations", "equal", "Number", 0),
        _item("draft_exists", "equal", "Boolean", False),
    ]


def query(items: Iterable[Filter], *, descending: bool = False) -> str:
    """The ``query`` parameter: all filters at once, lowest ids first, or highest."""
    ordering = ["-tasks:id" if descending else "tasks:id"]
    value = {"filters": {"conjunction": "and", "items": list(items)}, "ordering": ordering}
    return json.dumps(value, separators=(",", ":"))


def lookalikes(model_version: str, versions: Iterable[str]) -> list[str]:
    """Other versions that the server's substring filter takes for this one (SQLite compares without case)."""
    text = model_version.casefold()
    return [other for other in versions if other != model_version and text in other.casefold()]


def parse_versions(column: str) -> Sequence[str] | None:
    """The versions in a ``predictions_model_versions`` column; None where the server cut it and one may be missing."""
    if len(column) >= COLUMN_LENGTH:
        return None
    return [version.strip() for version in column.split(",") if version.strip()]
