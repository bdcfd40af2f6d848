"""The predictions that a project holds: read whole, and acted on many at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from lsbatch.entities import StoredPrediction, TaskId, TaskPredictions
from lsbatch.ports import Backend, Selection
from lsbatch_connectors.label_studio import filters
from lsbatch_connectors.label_studio.backends import backend_of
from lsbatch_connectors.label_studio.client import LabelStudioClient
from lsbatch_connectors.label_studio.read_back import ReadBack
from lsbatch_connectors.label_studio.selections import Selector
from lsbatch_connectors.label_studio.tasks import FULL_PAGE, PageSize, Row, TaskList

__all__ = ["StoredPredictions"]

COLUMNS = "id,predictions,total_annotations,cancelled_annotations,draft_exists"


class StoredPredictions:
    """What one project holds. Threads may share it.

    Args:
        client: the connection.
        project: the project's id.
        tasks: the project's.
        selector: finds the tasks of a selection.
        read_back: knows the versions.
    """

    def __init__(
        self, client: LabelStudioClient, project: int, tasks: TaskList, selector: Selector, read_back: ReadBack
    ) -> None:
        self._client = client
        self._project = project
        self._tasks = tasks
        self._selector = selector
        self._read_back = read_back

    # -------------------------------------------------------------------------------------------- reading

    def backends(self) -> list[Backend]:
        """See ``PredictionStore.backends``."""
        return [backend_of(row) for row in self._client.get("/api/ml/", {"project": self._project})]

    def holding(
        self, selection: Selection, versions: Collection[str] | None, *, references: bool
    ) -> Iterator[list[TaskPredictions]]:
        """See ``PredictionStore.holding``."""
        if versions is not None and not versions:
            return
        carrying = None if versions is None else filters.carrying_any(sorted(versions))
        for rows in self._selector.full_rows(selection, COLUMNS, [] if carrying is None else [carrying]):
            wanted = [row for row in rows if row["predictions"] and _carries(row, versions)]
            touched = [row["id"] for row in wanted if _annotated(row)] if references else []
            parents = self._tasks.parent_predictions(touched) if touched else {}
            if wanted:
                yield [_task(row, parents) for row in wanted]

    def remaining(self, prediction_ids: Collection[int], task_ids: Sequence[TaskId]) -> set[int]:
        """See ``PredictionStore.remaining``."""
        return {entry["id"] for entry in self._entries(task_ids)}.intersection(prediction_ids)

    def holds_only(self, task_ids: Sequence[TaskId], prediction_ids: Collection[int]) -> bool:
        """See ``PredictionStore.holds_only``."""
        return {entry["id"] for entry in self._entries(task_ids)} <= set(prediction_ids)

    def holds_others(self, task_ids: Sequence[TaskId], versions: Collection[str]) -> bool:
        """See ``PredictionStore.holds_others``: a count, where the server's filter tells the versions apart."""
        others = [version for version in self._read_back.versions() if version not in versions]
        if not others or not task_ids:
            return False
        carrying = filters.carrying_any(others)
        if carrying is None or any(filters.lookalikes(other, versions) for other in others):
            return any((entry["model_version"] or "") not in versions for entry in self._entries(task_ids))
        groups = filters.exactly(task_ids, [carrying])
        return any(self._tasks.count([carrying, *group]) for group, _ in groups)

    def counters_off(self, task_ids: Sequence[TaskId], predictions: int) -> int:
        """See ``PredictionStore.counters_off``."""
        wrong = filters.shown_with(predictions)
        return sum(self._tasks.count([wrong, *group]) for group, _ in filters.exactly(task_ids, [wrong]))

    def untouched(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """See ``PredictionStore.untouched``: a count, and a list only where some are not."""
        free = filters.untouched()
        found: set[TaskId] = set()
        for group, ids in filters.exactly(task_ids, free):
            number = self._tasks.count([*free, *group])
            if number == len(ids):
                found.update(TaskId(task) for task in ids)
            elif number:
                pages = self._tasks.walk([*free, *group], "id", after=ids[0] - 1, last=ids[-1])
                found.update(TaskId(row["id"]) for rows, _ in pages for row in rows)
        return found

    def _entries(self, task_ids: Sequence[TaskId]) -> Iterator[dict[str, Any]]:
        for group, ids in filters.exactly(task_ids):
            size = PageSize(FULL_PAGE)
            pages = self._tasks.walk(group, "id,predictions", after=ids[0] - 1, last=ids[-1], page_size=size, full=True)
            yield from (entry for rows, _ in pages for row in rows for entry in row["predictions"])

    # -------------------------------------------------------------------------------------------- writing

    def delete_all(self, task_ids: Sequence[TaskId]) -> None:
        """See ``PredictionStore.delete_all``: 5 to 6 ms a task on Label Studio 1.23."""
        self._act("delete_tasks_predictions", task_ids)

    def delete_version(self, model_version: str) -> None:
        """See ``PredictionStore.delete_version``: 5 to 9 ms a prediction on Label Studio 1.23."""
        body = {"model_version": model_version}
        self._client.write("DELETE", f"/api/projects/{self._project}/model-versions/", body)

    def accept(self, model_version: str, task_ids: Sequence[TaskId]) -> None:
        """See ``PredictionStore.accept``.

        Without the version the server makes an annotation of every prediction (``predictions_to_annotations``).
        """
        self._act("predictions_to_annotations", task_ids, model_version=model_version)

    def _act(self, action: str, task_ids: Sequence[TaskId], **more: Any) -> None:
        if not task_ids:
            # No ids are all tasks of the project to the server.
            return
        body = {"selectedItems": {"all": False, "included": list(task_ids)}, **more}
        self._client.write("POST", "/api/dm/actions/", body, {"id": action, "project": self._project})


def _carries(row: Row, versions: Collection[str] | None) -> bool:
    return versions is None or any((entry["model_version"] or "") in versions for entry in row["predictions"])


def _annotated(row: Row) -> bool:
    return bool(row["total_annotations"] or row["cancelled_annotations"])


def _task(row: Row, parents: Collection[int]) -> TaskPredictions:
    task = TaskId(row["id"])
    predictions = sorted(row["predictions"], key=lambda entry: int(entry["id"]))
    return TaskPredictions(
        task,
        tuple(
            StoredPrediction(
                id=int(entry["id"]),
                task_id=task,
                result=entry["result"],
                score=entry["score"],
                model_version=entry["model_version"] or "",
                created_at=datetime.fromisoformat(entry["created_at"]),
                referenced=entry["id"] in parents,
            )
            for entry in predictions
        ),
        touched=_annotated(row) or bool(row["draft_exists"]),
    )
