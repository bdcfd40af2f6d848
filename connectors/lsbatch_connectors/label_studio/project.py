"""One project of one Label Studio, behind the ports of the core."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from lsbatch.entities import AnnotatedTask, Prediction, Task, TaskId, TaskPredictions
from lsbatch.errors import AmbiguousError, PermanentError
from lsbatch.ports import (
    AnnotationSource,
    Backend,
    LabelQueue,
    PredictionStore,
    ProjectInfo,
    Selection,
    TaskPage,
    TaskSource,
    VersionCount,
)
from lsbatch.retry import retry_transient
from lsbatch_connectors.label_studio import filters
from lsbatch_connectors.label_studio.client import LabelStudioClient
from lsbatch_connectors.label_studio.queue import Queue
from lsbatch_connectors.label_studio.read_back import ReadBack
from lsbatch_connectors.label_studio.selections import Selector
from lsbatch_connectors.label_studio.stored import StoredPredictions
from lsbatch_connectors.label_studio.tasks import TaskList

__all__ = ["LabelStudioProject"]

#: How long it is asked in all how the server imports; what is not known then is learned from its answers.
PROBE_SECONDS = 10.0


class LabelStudioProject(TaskSource, AnnotationSource, PredictionStore, LabelQueue):
    """Tasks, annotations and predictions of one project.

    Args:
        client: the connection.
        project_id: the project's id on that server.
    """

    def __init__(self, client: LabelStudioClient, project_id: int) -> None:
        self.client = client
        self.id = project_id
        self._tasks = TaskList(client, project_id)
        self._read_back = ReadBack(client, project_id, self._tasks)
        self._selector = Selector(client, project_id, self._tasks, self._read_back)
        self._queue = Queue(client, project_id)
        self._stored = StoredPredictions(client, project_id, self._tasks, self._selector, self._read_back)

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
        shown = bool(row.get("show_collab_predictions", True))
        if not shown:
            warnings.append("the project does not show predictions to annotators (Settings > Annotation > Prelabeling)")
        return ProjectInfo(
            id=self.id,
            title=row.get("title") or "",
            label_config=row.get("label_config") or "",
            task_count=int(row.get("task_number") or 0),
            # The first is 0 after an import of annotated tasks, the second leaves out what is annotated in part.
            annotated_count=max(
                int(row.get("num_tasks_with_annotations") or 0), int(row.get("finished_task_number") or 0)
            ),
            active_version=row.get("model_version") or "",
            prediction_count=int(row.get("total_predictions_number") or 0),
            one_writer=self.client.development_server,
            shows_predictions=shown,
            warnings=tuple(warnings),
            created_at=datetime.fromisoformat(row["created_at"]) if row.get("created_at") else None,
        )

    def split(self, selection: Selection, parts: int) -> Sequence[tuple[int, int]]:
        """See ``TaskSource.split``."""
        return self._selector.split(selection, parts)

    def pages(self, selection: Selection, *, after: int = 0, last: int | None = None) -> Iterator[TaskPage]:
        """See ``TaskSource.pages``."""
        return self._selector.pages(selection, after, last)

    def absent(self, task_ids: Sequence[int]) -> Iterator[int]:
        """See ``TaskSource.absent``."""
        return self._read_back.absent(task_ids)

    def annotated(self, selection: Selection) -> Iterator[AnnotatedTask]:
        """See ``AnnotationSource.annotated``."""
        for ids in self._selector.ids(selection, filters.annotated()):
            yield from self._tasks.annotated(ids)

    def existing(self, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.existing``."""
        return self._read_back.existing(first, last)

    def carriers(self, model_version: str, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.carriers``."""
        return self._read_back.carriers(model_version, first, last)

    def count_carriers(self, model_version: str, task_ids: Sequence[TaskId]) -> int:
        """See ``PredictionSink.count_carriers``."""
        return self._read_back.count_carriers(model_version, task_ids)

    def prediction_ids(self, model_version: str, first: int, last: int) -> Iterator[tuple[TaskId, tuple[int, ...]]]:
        """See ``PredictionSink.prediction_ids``."""
        return self._read_back.prediction_ids(model_version, first, last)

    def surplus(self, model_version: str) -> int:
        """See ``PredictionSink.surplus``."""
        return self._read_back.surplus(model_version)

    def stale_counters(self, first: int, last: int) -> int:
        """See ``PredictionSink.stale_counters``."""
        return self._read_back.stale_counters(first, last)

    def versions(self) -> Sequence[VersionCount]:
        """See ``PredictionStore.versions``."""
        return self._read_back.version_counts()

    def backends(self) -> Sequence[Backend]:
        """See ``PredictionStore.backends``."""
        return self._stored.backends()

    def holding(
        self, selection: Selection, versions: Collection[str] | None = None, *, references: bool = False
    ) -> Iterator[Sequence[TaskPredictions]]:
        """See ``PredictionStore.holding``."""
        return self._stored.holding(selection, versions, references=references)

    def remaining(self, prediction_ids: Collection[int], task_ids: Sequence[TaskId]) -> set[int]:
        """See ``PredictionStore.remaining``."""
        return self._stored.remaining(prediction_ids, task_ids)

    def holds_others(self, task_ids: Sequence[TaskId], versions: Collection[str]) -> bool:
        """See ``PredictionStore.holds_others``."""
        return self._stored.holds_others(task_ids, versions)

    def holds_only(self, task_ids: Sequence[TaskId], prediction_ids: Collection[int]) -> bool:
        """See ``PredictionStore.holds_only``."""
        return self._stored.holds_only(task_ids, prediction_ids)

    def counters_off(self, task_ids: Sequence[TaskId], predictions: int) -> int:
        """See ``PredictionStore.counters_off``."""
        return self._stored.counters_off(task_ids, predictions)

    def untouched(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """See ``PredictionStore.untouched``."""
        return self._stored.untouched(task_ids)

    def parents(self, task_ids: Sequence[TaskId]) -> Mapping[int, int]:
        """See ``PredictionStore.parents``."""
        return self._tasks.parent_predictions(task_ids)

    # -------------------------------------------------------------------------------------------- writing

    def recounts_project(self) -> bool:
        """See ``PredictionSink.recounts_project``.

        Both ways of importing refuse a task that is not in the project before they store anything, each in its own
        words (``ImportPredictionsAPI`` of Label Studio 1.23).
        """
        seconds = min(self.client.options.retry_seconds, PROBE_SECONDS)
        return retry_transient(self._ask_whether_it_recounts, seconds=seconds)

    def _ask_whether_it_recounts(self) -> bool:
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

    def remove_surplus(self, model_version: str) -> int:
        """See ``PredictionSink.remove_surplus``."""
        removed = 0
        surplus = self.surplus(model_version)
        if surplus <= 0:
            return 0
        for _, ids in self._read_back.doubles(model_version):
            for prediction_id in reversed(ids[1:]):
                self.delete(prediction_id)
            removed += len(ids) - 1
            if removed >= surplus:
                break
        return removed

    def delete(self, prediction_id: int) -> None:
        """See ``PredictionSink.delete``."""

        def once() -> None:
            try:
                self.client.write("DELETE", f"/api/predictions/{prediction_id}/")
            except PermanentError as error:
                if error.status != 404:  # 404: an earlier attempt deleted it
                    raise
            except AmbiguousError as error:
                raise error.as_transient() from error

        retry_transient(once, seconds=self.client.options.retry_seconds)

    def repair_counters(self) -> None:
        """See ``PredictionSink.repair_counters``: an import of nothing makes the server count the whole project."""
        self.client.write("POST", f"/api/projects/{self.id}/import/predictions", [])

    def delete_all(self, task_ids: Sequence[TaskId]) -> None:
        """See ``PredictionStore.delete_all``."""
        self._stored.delete_all(task_ids)

    def delete_version(self, model_version: str) -> None:
        """See ``PredictionStore.delete_version``."""
        self._stored.delete_version(model_version)

    def accept(self, model_version: str, task_ids: Sequence[TaskId]) -> None:
        """See ``PredictionStore.accept``."""
        self._stored.accept(model_version, task_ids)

    def make_tab(self, title: str, task_ids: Sequence[int], *, order_by: str = "") -> int:
        """See ``LabelQueue.make_tab``."""
        return self._queue.make_tab(title, task_ids, order_by=order_by)

    def put_data(self, task: Task, key: str, value: str) -> None:
        """See ``LabelQueue.put_data``."""
        self._queue.put_data(task, key, value)

    def set_sampling(self, how: str) -> None:
        """See ``LabelQueue.set_sampling``."""
        self._queue.set_sampling(how)

    def activate(self, model_version: str, *, show: bool = False) -> str:
        """See ``PredictionSink.activate``."""
        before = self.project().active_version
        # Both in one request: to switch predictions off empties the version.
        change = {"model_version": model_version, **({"show_collab_predictions": True} if show else {})}

        def once() -> None:
            try:
                self.client.write("PATCH", f"/api/projects/{self.id}/", change)
            except AmbiguousError as error:
                raise error.as_transient() from error

        retry_transient(once, seconds=self.client.options.retry_seconds)
        return before


def _wire(prediction: Prediction) -> dict[str, Any]:
    return {
        "task": prediction.task_id,
        "result": list(prediction.result),
        "score": prediction.score,
        "model_version": prediction.model_version,
    }
