"""The data manager's filters, as JSON values. Pure.

Shape: ``{"filters": {"conjunction": "and", "items": [...]}, "ordering": ["tasks:id"]}`` in the parameter ``query`` of
``GET /api/tasks``, seen on Label Studio 1.23.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "annotated",
    "carrying",
    "in_range",
    "lookalikes",
    "not_carrying",
    "parse_versions",
    "query",
    "untouched",
]

Filter = dict[str, Any]

#: The server cuts the text of a computed column here (``CHAR_LIMITS`` of its data manager's serializer).
COLUMN_LENGTH = 500


def _item(column: str, operator: str, kind: str, value: Any) -> Filter:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def after(task_id: int) -> Filter:
    """Tasks with a greater id."""
    return _item("id", "greater", "Number", task_id)


def in_range(first: int, last: int) -> Filter:
    """Tasks with an id from ``first`` to ``last``, both included."""
    return _item("id", "in", "Number", {"min": first, "max": last})


def carrying(model_version: str) -> Filter:
    """Tasks with a prediction whose version *contains* this text. The value is a list: a text is taken by letters."""
    return _item("predictions_model_versions", "contains", "List", [model_version])


def not_carrying(model_version: str) -> Filter:
    """Tasks without any prediction whose version contains this text."""
    return _item("predictions_model_versions", "not_contains", "List", [model_version])


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


def query(items: Iterable[Filter]) -> str:
    """The ``query`` parameter: all filters at once, lowest ids first."""
    return json.dumps({"filters": {"conjunction": "and", "items": list(items)}, "ordering": ["tasks:id"]})


def lookalikes(model_version: str, versions: Iterable[str]) -> list[str]:
    """Other versions that the server's substring filter takes for this one (SQLite compares without case)."""
    text = model_version.casefold()
    return [other for other in versions if other != model_version and text in other.casefold()]


def parse_versions(column: str) -> Sequence[str] | None:
    """The versions in a ``predictions_model_versions`` column; None where the server cut it and one may be missing."""
    if len(column) >= COLUMN_LENGTH:
        return None
    return [version.strip() for version in column.split(",") if version.strip()]
