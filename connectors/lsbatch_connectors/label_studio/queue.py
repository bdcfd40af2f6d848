"""Where annotators get their next task from: tabs of the data manager, and how the project chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lsbatch.entities import Task
from lsbatch.errors import AmbiguousError
from lsbatch.retry import retry_transient
from lsbatch_connectors.label_studio.client import LabelStudioClient

__all__ = ["Queue"]

#: Label Studio's names (``projects/models.py``).
SAMPLING = {
    "sequential": "Sequential sampling",
    "uniform": "Uniform sampling",
    "uncertainty": "Uncertainty sampling",
}


class Queue:
    """As ``LabelQueue``.

    Args:
        client: the connection.
        project: the project's id.
    """

    def __init__(self, client: LabelStudioClient, project: int) -> None:
        self._client = client
        self._project = project

    def make_tab(self, title: str, task_ids: Sequence[int], *, order_by: str = "") -> int:
        """See ``LabelQueue.make_tab``."""
        listed = {
            "filter": "filter:tasks:id",
            "operator": "in_list",
            "type": "Number",
            "value": list(task_ids),
        }
        data = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "filters": {"conjunction": "and", "items": [listed]},
            "ordering": [f"tasks:data.{order_by}" if order_by else "tasks:id"],
        }
        made = self._client.write("POST", "/api/dm/views/", {"project": self._project, "data": data})
        return int(made["id"])

    def put_data(self, task: Task, key: str, value: str) -> None:
        """See ``LabelQueue.put_data``."""
        self._again("PATCH", f"/api/tasks/{task.id}/", {"data": {**task.data, key: value}})

    def set_sampling(self, how: str) -> None:
        """See ``LabelQueue.set_sampling``."""
        self._again("PATCH", f"/api/projects/{self._project}/", {"sampling": SAMPLING[how]})

    def _again(self, method: str, path: str, body: Any) -> None:
        """A request that changes nothing more when it is repeated."""

        def once() -> None:
            try:
                self._client.write(method, path, body)
            except AmbiguousError as error:
                raise error.as_transient() from error

        retry_transient(once, seconds=self._client.options.retry_seconds)
