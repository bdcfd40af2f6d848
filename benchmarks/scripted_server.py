"""A server that speaks Label Studio's endpoints for one project of any size, at hardly any cost.

Tasks are made from their id while they are asked for, and of a prediction only its task is kept: one byte a task and
version. It answers exactly what lsbatch asks for and refuses the rest, so that it cannot be wrong in silence.

Runs as a process of its own: ``python -m benchmarks.scripted_server --tasks 1000000`` prints its address.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.answering import JsonHandler
from benchmarks.process import environment
from benchmarks.projects import CONFIG

__all__ = ["PROJECT", "scripted_server"]

PROJECT = 1
STOP_SECONDS = 10
TEXT = "my invoice was charged twice and the card amount is wrong please look at the order again today thank you"


class NotScriptedError(Exception):
    """Nothing here answers that."""


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
                f"page {params['page']} ordered by {query['ordering']}, fields {params.get('fields')}"
            )
        first, last, version, wanted = 1, self.tasks, "", 0
        for item in query["filters"]["items"]:
            match item["filter"].removeprefix("filter:tasks:"), item["operator"]:
                case "id", "greater":
                    first = max(first, int(item["value"]) + 1)
                case "id", "less":
                    last = min(last, int(item["value"]) - 1)
                case "id", "in":
                    first, last = max(first, int(item["value"]["min"])), min(last, int(item["value"]["max"]))
                case "predictions_model_versions", ("contains" | "not_contains") as operator:
                    [version], wanted = item["value"], int(operator == "contains")
                case column, operator:
                    raise NotScriptedError(f"the filter {column} {operator}")
        size = int(params["page_size"])
        if version:
            ids, total = self._marked(version, wanted, first, last, size)
        else:
            ids, total = list(range(first, min(last, first + size - 1) + 1)), max(0, last - first + 1)
        rows = b",".join(_rows(ids, params["include"].split(",")))
        return b'{"tasks":[%s],"total":%d,"total_annotations":0,"total_predictions":0}' % (rows, total)

    def _marked(self, version: str, wanted: int, first: int, last: int, size: int) -> tuple[list[int], int]:
        """Ids that do (1) or do not (0) carry the version, the lowest ones, and how many there are."""
        if any(version in other and version != other for other in self.carriers):
            raise NotScriptedError(f"a version that others contain: {version}")
        flags = self.carriers.get(version) or bytearray(self.tasks + 1)
        ids: list[int] = []
        place = flags.find(wanted, first, last + 1)
        while place >= 0 and len(ids) < size:
            ids.append(place)
            place = flags.find(wanted, place + 1, last + 1)
        return ids, flags.count(wanted, first, last + 1)

    def store(self, rows: list[dict[str, Any]]) -> int:
        """Take predictions; how many."""
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


class _Handler(JsonHandler):
    """HTTP around the project."""

    project: Project

    def get(self) -> None:
        """See ``JsonHandler.get``."""
        address = urlsplit(self.path)
        match address.path.strip("/").split("/"):
            case ["health"]:
                self.answer(200, {"status": "UP"})
            case ["api", "tasks"]:
                params = {name: values[-1] for name, values in parse_qs(address.query).items()}
                try:
                    self.answer_text(200, self.project.page(params))
                except NotScriptedError as error:
                    self._not_scripted(str(error))
            case ["api", "projects", _]:
                self.answer(200, self.project.about())
            case ["api", "projects", _, "model-versions"]:
                counts = self.project.counts.items()
                self.answer(200, {"static": [{"model_version": name, "count": count} for name, count in counts]})
            case _:
                self._not_scripted(self.path)

    def post(self, body: Any) -> None:
        """See ``JsonHandler.post``."""
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "projects", _, "import", "predictions"]:
                self.answer(201, {"created": self.project.store(body)})
            case ["api", "predictions"]:
                self.answer(201, {"id": 1, "created": self.project.store([body])})
            case _:
                self._not_scripted(self.path)

    def _not_scripted(self, what: str) -> None:
        # A refusal for good: a 5xx would be tried again and again.
        self.answer(400, {"status_code": 400, "detail": f"the scripted server does not know {self.command} {what}"})


@contextmanager
def scripted_server(tasks: int) -> Iterator[str]:
    """Run one as a process of its own; its address."""
    command = [sys.executable, "-m", "benchmarks.scripted_server", "--tasks", str(tasks)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise SystemExit(f"the scripted server did not start: it ended with {process.wait()}")
            yield url
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, required=True)
    _Handler.project = Project(parser.parse_args().tasks)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
