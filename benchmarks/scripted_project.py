"""A project of any size at hardly any cost, for the scripted server.

Tasks are made from their id while they are asked for, and of a prediction only its task is kept: one byte a task and
version.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.projects import CONFIG

__all__ = ["PROJECT", "NotScriptedError", "Project", "UnknownTaskError"]

#: Its id.
PROJECT = 1
TEXT = "my invoice was charged twice and the card amount is wrong please look at the order again today thank you"


class NotScriptedError(Exception):
    """Nothing here answers that."""


class UnknownTaskError(Exception):
    """A prediction for a task that does not exist."""


@dataclass
class _Filters:
    """What the filters of a request leave.

    Attributes:
        first: lowest id.
        last: highest id.
        listed: only these ids, where they are listed.
        without: none of these ids.
        version: of ``wanted``; empty when any will do.
        wanted: 1 for tasks that carry the version, 0 for those that do not.
    """

    first: int
    last: int
    listed: list[int] | None = None
    without: frozenset[int] = frozenset()
    version: str = ""
    wanted: int = 0

    @classmethod
    def read(cls, items: list[dict[str, Any]], tasks: int) -> _Filters:
        """From the parameter ``query`` of a project with the ids 1 to ``tasks``.

        Raises:
            NotScriptedError: one that is not known here.
        """
        found = cls(1, tasks)
        for item in items:
            value = item["value"]
            match item["filter"].removeprefix("filter:tasks:"), item["operator"]:
                case "id", "greater":
                    found.first = max(found.first, int(value) + 1)
                case "id", "less":
                    found.last = min(found.last, int(value) - 1)
                case "id", "in":
                    found.first, found.last = max(found.first, int(value["min"])), min(found.last, int(value["max"]))
                case "id", "in_list":
                    found.listed = sorted(value)
                case "id", "not_in_list":
                    found.without = frozenset(value)
                case "predictions_model_versions", ("contains" | "not_contains") as operator:
                    [found.version], found.wanted = value, int(operator == "contains")
                case column, operator:
                    raise NotScriptedError(f"the filter {column} {operator}")
        return found

    def select(self, flags: bytes | bytearray, most: int) -> tuple[list[int], int]:
        """The lowest ids, at most so many, and how many there are.

        Args:
            flags: one byte a task id: whether it carries the version.
            most: ids to list.
        """
        if self.listed is not None:
            ids = [task for task in self.listed if self._fits(task, flags)]
            return ids[:most], len(ids)
        ids, place = [], flags.find(self.wanted, self.first, self.last + 1)
        while place >= 0 and len(ids) < most:
            if place not in self.without:
                ids.append(place)
            place = flags.find(self.wanted, place + 1, self.last + 1)
        left_out = sum(self.first <= task <= self.last and flags[task] == self.wanted for task in self.without)
        return ids, flags.count(self.wanted, self.first, self.last + 1) - left_out

    def _fits(self, task: int, flags: bytes | bytearray) -> bool:
        return self.first <= task <= self.last and task not in self.without and flags[task] == self.wanted


@dataclass
class Project:
    """Tasks with the ids 1 to ``tasks``.

    Attributes:
        tasks: how many there are.
        carriers: by version, one byte a task id: whether it carries a prediction of the version.
        counts: by version, how many predictions there are; more than carriers when some are there twice.
        lock: held while predictions are stored.
    """

    tasks: int
    carriers: dict[str, bytearray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self, params: dict[str, str]) -> bytes:
        """The answer of ``GET /api/tasks``.

        Raises:
            NotScriptedError: a filter or a column that is not known here.
        """
        query = json.loads(params["query"])
        if query["ordering"] != ["tasks:id"] or params["page"] != "1" or params.get("fields"):
            raise NotScriptedError(
                f"page {params['page']}, ordering {query['ordering']}, fields {params.get('fields')}"
            )
        filters = _Filters.read(query["filters"]["items"], self.tasks)
        ids, total = filters.select(self._flags(filters.version), int(params["page_size"]))
        rows = b",".join(_rows(ids, params["include"].split(",")))
        return b'{"tasks":[%s],"total":%d,"total_annotations":0,"total_predictions":0}' % (rows, total)

    def _flags(self, version: str) -> bytes | bytearray:
        """One byte a task id: whether it carries the version; none does carry the empty one."""
        if version and any(version in other and version != other for other in self.carriers):
            raise NotScriptedError(f"a version that others contain: {version}")
        return self.carriers.get(version) or bytes(self.tasks + 1)

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
                version = row["model_version"]
                flags = self.carriers.setdefault(version, bytearray(self.tasks + 1))
                flags[row["task"]] = 1
                self.counts[version] = self.counts.get(version, 0) + 1
        return len(rows)

    def about(self) -> dict[str, Any]:
        """The answer of ``GET /api/projects/<id>/``."""
        return {
            "id": PROJECT,
            "title": "scripted",
            "label_config": CONFIG,
            "task_number": self.tasks,
            "num_tasks_with_annotations": 0,
            "total_annotations_number": 0,
            "total_predictions_number": sum(self.counts.values()),
            "model_version": "",
            "show_collab_predictions": True,
            "evaluate_predictions_automatically": False,
        }


def _rows(ids: list[int], columns: list[str]) -> Iterator[bytes]:
    unknown = set(columns) - {"id", "data"}
    if unknown:
        raise NotScriptedError(f"the columns {', '.join(sorted(unknown))}")
    if "data" not in columns:
        return (b'{"id":%d}' % task for task in ids)
    return (b'{"id":%d,"data":{"text":"%d %s"}}' % (task, task, TEXT.encode()) for task in ids)
