"""The data manager's filters on tasks in memory, as far as tests need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lsbatch.entities import Task
from lsbatch.errors import PermanentError

__all__ = ["matches"]

#: The data manager's operators that a project in memory knows.
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "equal": lambda found, value: bool(found == value),
    "not_equal": lambda found, value: bool(found != value),
    "greater": lambda found, value: bool(found > value),
    "less": lambda found, value: bool(found < value),
    "in": lambda found, value: bool(value["min"] <= found <= value["max"]),
    "in_list": lambda found, value: found in value,
    "contains": lambda found, value: str(value) in str(found),
}


def matches(task: Task, condition: Mapping[str, Any]) -> bool:
    """Whether filters on the id or the data of tasks let this one through; others are refused, as by the server."""
    held = []
    for item in condition["items"]:
        column = item["filter"].removeprefix("filter:tasks:")
        if item["operator"] not in _OPERATORS or not (column == "id" or column.startswith("data.")):
            raise PermanentError(f"a project in memory knows no filter {item['operator']} on {column}", status=400)
        found = task.id if column == "id" else task.data.get(column.removeprefix("data."))
        children = [item["child_filter"]] if item.get("child_filter") else []
        held.append(
            _OPERATORS[item["operator"]](found, item["value"])
            and matches(task, {"conjunction": "and", "items": children})
        )
    return any(held) if condition["conjunction"] == "or" else all(held)
