"""One project of one Label Studio, behind the ports of the core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lsbatch.entities import AnnotatedTask, Prediction, Task, TaskId
from lsbatch.errors import AmbiguousError, PermanentError
from lsbatch.ports import AnnotationSource, PredictionSink, ProjectInfo, Selection, TaskPage, TaskSource
from lsbatch.retry import retry_transient
from lsbatch_connectors.label_studio import filters
from lsbatch_connectors.label_studio.client import LabelStudioClient
from lsbatch_connectors.label_studio.tasks import PageSize, annotated_tasks, walk

__all__ = ["LabelStudioProject"]

#: Tasks whose predictions are read whole in one request, only where there are too many of them.
FULL_PAGE = 100


class LabelStudioProject(TaskSource, AnnotationSource, PredictionSink):
    """Tasks, annotations and predictions of one project.

    Args:
        client: the connection.
        project_id: the project's id on that server.
    """

    def __init__(self, client: LabelStudioClient, project_id: int) -> None:
        self.client = client
        self.id = project_id
        self._page_size = PageSize()

    # -------------------------------------------------------------------------------------------- reading

    def project(self) -> ProjectInfo:
        """See ``TaskSource.project``."""
        row = self.client.get(f"/api/projects/{self.id}/")
        warnings = []
        if row.get("evaluate_predictions_automatically"):
            warnings.append(
                "the project asks its live backend for predictions whenever tasks are listed, so that reading them "
                "is slow and creates predictions; switch off 'evaluate_predictions_automatically'"
            )
        if not row.get("show_collab_predictions", True):
            warnings.append("the project does not show predictions to annotators (Settings > Annotation > Prelabeling)")
        return ProjectInfo(
            id=self.id,
            title=row.get("title") or "",
            label_config=row.get("label_config") or "",
            task_count=int(row.get("task_number") or 0),
            annotated_count=int(row.get("num_tasks_with_annotations") or 0),
            active_version=row.get("model_version") or "",
            prediction_count=int(row.get("total_predictions_number") or 0),
            one_writer=self.client.development_server,
            warnings=tuple(warnings),
        )

    def split(self, selection: Selection, parts: int) -> Sequence[tuple[int, int]]:
        """See ``TaskSource.split``."""
        return [(1, 2**31 - 1)]

    def pages(self, selection: Selection, *, after: int = 0, last: int | None = None) -> Iterator[TaskPage]:
        """See ``TaskSource.pages``."""
        items = filters.untouched() if selection.untouched_only else []
        if last is not None:
            items.append(filters.in_range(after + 1, last))
        version = selection.without_version
        versions = self._versions() if version else {}
        if version and filters.lookalikes(version, versions):
            # The server's filter is by substring: subtract on this side, exactly.
            yield from self._pages_less_carriers(selection, items, after)
            return
        if version in versions:
            items = [*items, filters.not_carrying(version)]
        for rows, left in self._walk(items, "id,data", after=after, limit=selection.limit):
            yield TaskPage([_task(row) for row in rows], left)

    def _pages_less_carriers(self, selection: Selection, items: list[filters.Filter], after: int) -> Iterator[TaskPage]:
        limit = selection.limit
        for rows, left in self._walk(items, "id,data", after=after):
            carriers = set(self.carriers(selection.without_version, rows[0]["id"], rows[-1]["id"]))
            tasks = [_task(row) for row in rows if row["id"] not in carriers]
            # The count of the tasks to come is not known exactly here, only that it is not larger.
            tasks, left = tasks[:limit], left - len(carriers)
            if tasks:
                yield TaskPage(tasks, left if limit is None else min(left, limit))
            if limit is not None:
                limit -= len(tasks)
                if limit <= 0:
                    return

    def annotated(self) -> Iterator[AnnotatedTask]:
        """See ``AnnotationSource.annotated``."""
        return annotated_tasks(self.client, self.id)

    def existing(self, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.existing``."""
        for rows, _ in self._walk([filters.in_range(first, last)], "id"):
            yield from (TaskId(row["id"]) for row in rows)

    def carriers(self, model_version: str, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.carriers``."""
        items = [filters.in_range(first, last), filters.carrying(model_version)]
        if not filters.lookalikes(model_version, self._versions()):
            # The server's filter is exact then, and ids alone are cheaper.
            for rows, _ in self._walk(items, "id"):
                yield from (TaskId(row["id"]) for row in rows)
            return
        for rows, _ in self._walk(items, "id,predictions_model_versions"):
            yield from (TaskId(row["id"]) for row in rows if self._carries(row, model_version))

    def count_carriers(self, model_version: str, task_ids: Sequence[TaskId]) -> int:
        """See ``PredictionSink.count_carriers``.

        The server counts 20,000 tasks in the time in which it lists 1,000: for each one listed it loads predictions,
        annotations and eight more relations, whatever columns are asked for (``TaskListAPI.prefetch``).
        """
        if not task_ids:
            return 0
        if filters.lookalikes(model_version, self._versions()):
            wanted = set(task_ids)
            return sum(task in wanted for task in self.carriers(model_version, task_ids[0], task_ids[-1]))
        version = filters.carrying(model_version)
        return sum(self._count([version, *group]) for group, _ in filters.exactly(task_ids, [version]))

    def _count(self, items: Sequence[filters.Filter]) -> int:
        """How many tasks these filters leave."""
        _, total = next(walk(self.client, self.id, items, include="id", page_size=PageSize(1)), ([], 0))
        return total

    def _carries(self, row: dict[str, Any], model_version: str) -> bool:
        versions = filters.parse_versions(row["predictions_model_versions"] or "")
        if versions is None:
            predictions = self.client.get("/api/predictions/", {"task": row["id"]})
            versions = [prediction["model_version"] for prediction in predictions]
        return model_version in versions

    def _walk(
        self, items: Sequence[filters.Filter], include: str, *, after: int = 0, limit: int | None = None
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        # Rows without data are small: their pages need not learn a size.
        size = self._page_size if "data" in include.split(",") else PageSize(5_000)
        for rows, left in walk(self.client, self.id, items, include=include, after=after, page_size=size, limit=limit):
            if size is self._page_size:
                size.learn(len(rows), sum(len(str(row["data"])) for row in rows))
            yield rows, left if limit is None else min(left, limit)

    def _versions(self) -> dict[str, int]:
        """Every version of the project with its number of predictions."""
        body = self.client.get(f"/api/projects/{self.id}/model-versions/", {"extended": "true"})
        return {row["model_version"] or "": row["count"] for row in body["static"]}

    # -------------------------------------------------------------------------------------------- writing

    def recounts_project(self) -> bool:
        """See ``PredictionSink.recounts_project``.

        Both ways of importing refuse a task that is not in the project before they store anything, each in its own
        words (``ImportPredictionsAPI`` of Label Studio 1.23).
        """
        body = [{"task": 0, "result": [], "model_version": "lsbatch-check"}]
        try:
            self.client.write("POST", f"/api/projects/{self.id}/import/predictions", body)
        except PermanentError as error:
            if error.status != 400:
                raise
            return "field: task ID" not in str(error)
        except AmbiguousError as error:
            # Nothing of it can be stored, so that it may be asked again.
            raise error.as_transient() from error
        return True

    def create(self, predictions: Sequence[Prediction]) -> int:
        """See ``PredictionSink.create``: one bulk request, in one transaction on a server in its default setting."""
        body = [_wire(prediction) for prediction in predictions]
        if not body:
            # An empty list makes the server recount the whole project.
            return 0
        answer = self.client.write("POST", f"/api/projects/{self.id}/import/predictions", body)
        if not isinstance(answer, dict) or not isinstance(answer.get("created"), int):
            raise AmbiguousError(f"the import was answered without a count: {str(answer)[:100]!r}", finished=True)
        return int(answer["created"])

    def create_one(self, prediction: Prediction) -> None:
        """See ``PredictionSink.create_one``."""
        # With the project, the server need not look it up.
        self.client.write("POST", "/api/predictions/", {**_wire(prediction), "project": self.id})

    def surplus(self, model_version: str) -> int:
        """See ``PredictionSink.surplus``."""
        versions = self._versions()
        if filters.lookalikes(model_version, versions):
            items = [filters.carrying(model_version)]
            carriers = sum(
                self._carries(row, model_version)
                for rows, _ in self._walk(items, "id,predictions_model_versions")
                for row in rows
            )
        else:
            carriers = self._count([filters.carrying(model_version)])
        return versions.get(model_version, 0) - carriers

    def prediction_ids(self, model_version: str, first: int, last: int) -> Iterator[tuple[TaskId, tuple[int, ...]]]:
        """See ``PredictionSink.prediction_ids``."""
        items = [filters.in_range(first, last), filters.carrying(model_version)]
        size = PageSize(FULL_PAGE)
        for rows, _ in walk(self.client, self.id, items, include="id,predictions", page_size=size, full=True):
            for row in rows:
                ids = sorted(entry["id"] for entry in row["predictions"] if entry["model_version"] == model_version)
                if ids:
                    yield TaskId(row["id"]), tuple(ids)

    def delete(self, prediction_id: int) -> None:
        """See ``PredictionSink.delete``."""
        self._delete(prediction_id)

    def stale_counters(self, first: int, last: int) -> int:
        """See ``PredictionSink.stale_counters``."""
        return 0

    def repair_counters(self) -> None:
        """See ``PredictionSink.repair_counters``."""
        self.client.write("POST", f"/api/projects/{self.id}/import/predictions", [])

    def remove_surplus(self, model_version: str) -> int:
        """See ``PredictionSink.remove_surplus``."""
        removed = 0
        items = [filters.carrying(model_version)]
        size = PageSize(FULL_PAGE)
        for rows, _ in walk(self.client, self.id, items, include="id,predictions", page_size=size, full=True):
            for row in rows:
                ids = sorted(entry["id"] for entry in row["predictions"] if entry["model_version"] == model_version)
                for prediction_id in reversed(ids[1:]):
                    self._delete(prediction_id)
                removed += max(0, len(ids) - 1)
        return removed

    def _delete(self, prediction_id: int) -> None:
        def once() -> None:
            try:
                self.client.write("DELETE", f"/api/predictions/{prediction_id}/")
            except PermanentError as error:
                if error.status != 404:  # 404: an earlier attempt deleted it
                    raise
            except AmbiguousError as error:
                raise error.as_transient() from error

        retry_transient(once, seconds=self.client.options.retry_seconds)

    def activate(self, model_version: str) -> str:
        """See ``PredictionSink.activate``."""
        before = self.project().active_version

        def once() -> None:
            try:
                self.client.write("PATCH", f"/api/projects/{self.id}/", {"model_version": model_version})
            except AmbiguousError as error:
                raise error.as_transient() from error

        retry_transient(once, seconds=self.client.options.retry_seconds)
        return before


def _task(row: dict[str, Any]) -> Task:
    return Task(TaskId(row["id"]), row["data"])


def _wire(prediction: Prediction) -> dict[str, Any]:
    return {
        "task": prediction.task_id,
        "result": list(prediction.result),
        "score": prediction.score,
        "model_version": prediction.model_version,
    }
