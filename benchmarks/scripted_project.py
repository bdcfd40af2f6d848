"""A project of any size at hardly any cost, for the scripted server.

Tasks are made from their id while they are asked for, and of a prediction only its task is kept: one byte a task and
version.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.projects import CONFIG

__all__ = ["PROJECT", "NoSuchPageError", "NotScriptedError", "Project", "UnknownTaskError"]

#: Its id.
PROJECT = 1
TEXT = b"my invoice was charged twice and the card amount is wrong please look at the order again today thank you"
COMPARE = {
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
}


class NotScriptedError(Exception):
    """Nothing here answers that."""


class NoSuchPageError(Exception):
    """A page after the last one."""


class UnknownTaskError(Exception):
    """A prediction for a task that does not exist."""


@dataclass
class Project:
    """Tasks with the ids 1 to ``tasks``.

    Attributes:
        tasks: how many there are.
        held: by version, how many predictions of it a task has; shape (tasks + 1,), uint8, place 0 unused.
        lock: held while predictions are stored.
    """

    tasks: int
    held: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self, params: dict[str, str]) -> bytes:
        """The answer of ``GET /api/tasks``.

        Raises:
            NotScriptedError: a filter, an order or a column that is not known here.
            NoSuchPageError: there are no tasks on this page any more.
        """
        query = json.loads(params["query"])
        if query["filters"]["conjunction"] != "and" or params.get("fields"):
            raise NotScriptedError(f"conjunction {query['filters']['conjunction']}, fields {params.get('fields')}")
        ids = self._select(query["filters"]["items"])
        match query["ordering"]:
            case ["-tasks:id"]:
                ids = ids[::-1]
            case ordering if ordering != ["tasks:id"]:
                raise NotScriptedError(f"ordering {ordering}")
        size = int(params["page_size"])
        skipped = (int(params["page"]) - 1) * size
        if skipped and skipped >= len(ids):
            raise NoSuchPageError
        rows = b",".join(_rows(ids[skipped : skipped + size].tolist(), params["include"].split(",")))
        return b'{"tasks":[%s],"total":%d,"total_annotations":0,"total_predictions":0}' % (rows, len(ids))

    def _select(self, items: Sequence[dict[str, Any]]) -> NDArray[np.int64]:
        """The ids that all of these filters leave, ascending."""
        first, last = _range(items, self.tasks)
        ids = np.arange(first, last + 1)
        kept = np.ones(len(ids), dtype=bool)
        part = slice(first, first + len(ids))
        for item in items:
            value = item["value"]
            match item["filter"].removeprefix("filter:tasks:"), item["operator"]:
                case "id", ("greater" | "in"):
                    pass  # in the range
                case "id", ("in_list" | "not_in_list") as operator:
                    kept &= np.isin(ids, value, invert=operator == "not_in_list")
                case "predictions_model_versions", ("contains" | "not_contains") as operator:
                    kept &= self._carrying(value)[part] == (operator == "contains")
                case "total_predictions", operator if operator in COMPARE:
                    kept &= COMPARE[operator](self._total()[part], value)
                case column, operator:
                    raise NotScriptedError(f"the filter {column} {operator}")
        found: NDArray[np.int64] = ids[kept]
        return found

    def _carrying(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether a task carries a version that contains one of these texts; shape (tasks + 1,)."""
        found = np.zeros(self.tasks + 1, dtype=bool)
        for version, held in self.held.items():
            if any(text in version for text in texts):
                found |= held > 0
        return found

    def _total(self) -> NDArray[np.int64]:
        """How many predictions a task has; shape (tasks + 1,)."""
        found = np.zeros(self.tasks + 1, dtype=np.int64)
        for held in self.held.values():
            found += held
        return found

    def store(self, rows: list[dict[str, Any]]) -> int:
        """Take predictions; how many.

        Raises:
            UnknownTaskError: for one whose task does not exist; nothing is stored.
        """
        for row in rows:
            if not 1 <= row["task"] <= self.tasks:
                # In the words of a server whose imports do not grow with the project.
                raise UnknownTaskError(f'contains invalid "task" field: task ID {row["task"]} not found in project')
        with self.lock:
            for row in rows:
                if row["model_version"] not in self.held:
                    self.held[row["model_version"]] = np.zeros(self.tasks + 1, dtype=np.uint8)
                self.held[row["model_version"]][row["task"]] += 1
        return len(rows)

    def versions(self) -> dict[str, Any]:
        """The answer of ``GET /api/projects/<id>/model-versions/``."""
        latest = "2026-01-01T00:00:00Z"
        counts = [
            {"model_version": version, "count": int(held.sum()), "latest": latest}
            for version, held in self.held.items()
        ]
        return {"static": counts, "live": []}

    def about(self) -> dict[str, Any]:
        """The answer of ``GET /api/projects/<id>/``."""
        return {
            "id": PROJECT,
            "title": "scripted",
            "label_config": CONFIG,
            "task_number": self.tasks,
            "num_tasks_with_annotations": 0,
            "total_annotations_number": 0,
            "total_predictions_number": int(self._total().sum()),
            "model_version": "",
            "show_collab_predictions": True,
            "evaluate_predictions_automatically": False,
        }


def _range(items: Sequence[dict[str, Any]], tasks: int) -> tuple[int, int]:
    """The lowest and the highest id that these filters leave of 1 to ``tasks``."""
    first, last = 1, tasks
    for item in items:
        if item["filter"] == "filter:tasks:id" and item["operator"] == "greater":
            first = max(first, int(item["value"]) + 1)
        if item["filter"] == "filter:tasks:id" and item["operator"] == "in":
            first, last = max(first, int(item["value"]["min"])), min(last, int(item["value"]["max"]))
    return first, last


def _rows(ids: list[int], columns: list[str]) -> Iterator[bytes]:
    unknown = set(columns) - {"id", "data"}
    if unknown:
        raise NotScriptedError(f"the columns {', '.join(sorted(unknown))}")
    if "data" not in columns:
        return (b'{"id":%d}' % task for task in ids)
    return (b'{"id":%d,"data":{"text":"%d %s"}}' % (task, task, TEXT) for task in ids)
