"""Which predictions the server holds, read back exactly: who carries a version, doubles, counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from lsbatch.entities import TaskId
from lsbatch.ports import VersionCount
from lsbatch_connectors.label_studio import filters
from lsbatch_connectors.label_studio.client import LabelStudioClient
from lsbatch_connectors.label_studio.tasks import FULL_PAGE, PageSize, TaskList

__all__ = ["ReadBack"]

IDS_PAGE = 2_000
#: Listing so many tasks costs the server about what two counts do.
LISTED_IDS = 500
#: Up to so many versions, tasks are told apart by which of them they carry: eight kinds, one count each.
MOST_VERSIONS = 3


class ReadBack:
    """Reads back what one project holds. Changes nothing; every call may be repeated, threads may share it.

    The server's filter finds a version by substring. It is used where no other version of the project contains the
    one in question; else the versions of each task are read and compared on this side.

    Args:
        client: the connection.
        project: the project's id.
        tasks: the project's.
    """

    def __init__(self, client: LabelStudioClient, project: int, tasks: TaskList) -> None:
        self._client = client
        self._project = project
        self._tasks = tasks
        self._ids_page = PageSize(IDS_PAGE)

    def versions(self) -> dict[str, int]:
        """Every version of the project with its number of predictions, the empty text being none."""
        return {entry.model_version: entry.predictions for entry in self.version_counts()}

    def version_counts(self) -> list[VersionCount]:
        """See ``PredictionStore.versions``.

        The server counts the column of the versions, so that it says 0 for predictions whose version is null.
        """
        path = f"/api/projects/{self._project}/"
        rows = self._client.get(f"{path}model-versions/", {"extended": "true"})["static"]
        counts: dict[str, int] = {}
        latest: dict[str, datetime] = {}
        for row in rows:
            # Null and the empty text are two rows.
            name, when = row["model_version"] or "", datetime.fromisoformat(row["latest"])
            counts[name] = counts.get(name, 0) + row["count"]
            latest[name] = max(when, latest.get(name, when))
        if any(row["model_version"] is None for row in rows):
            total = int(self._client.get(path)["total_predictions_number"] or 0)
            counts[""] += max(0, total - sum(counts.values()))
        found = [VersionCount(name, count, latest[name]) for name, count in counts.items()]
        return sorted(found, key=lambda entry: entry.latest, reverse=True)

    def existing(self, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.existing``."""
        return self._ids([], first, last)

    def carriers(self, model_version: str, first: int, last: int) -> Iterator[TaskId]:
        """See ``PredictionSink.carriers``."""
        carrying = filters.carrying(model_version)
        if not filters.lookalikes(model_version, self.versions()):
            yield from self._ids([carrying], first, last)
            return
        for row in self._rows([carrying], "id,predictions_model_versions", first, last):
            if self._carries(row, model_version):
                yield TaskId(row["id"])

    def count_carriers(self, model_version: str, task_ids: Sequence[TaskId]) -> int:
        """See ``PredictionSink.count_carriers``.

        The server counts 20,000 tasks in the time in which it lists 1,000: for each one listed it loads predictions,
        annotations and eight more relations, whatever columns are asked for (``TaskListAPI.prefetch``).
        """
        if not task_ids:
            return 0
        if filters.lookalikes(model_version, self.versions()):
            wanted = set(task_ids)
            return sum(task in wanted for task in self.carriers(model_version, task_ids[0], task_ids[-1]))
        version = filters.carrying(model_version)
        return sum(self._tasks.count([version, *group]) for group, _ in filters.exactly(task_ids, [version]))

    def absent(self, task_ids: Sequence[int]) -> Iterator[int]:
        """See ``TaskSource.absent``: counts halves until few tasks are left to list."""
        for group, ids in filters.exactly(task_ids):
            found = self._tasks.count(group)
            if found == 0:
                yield from ids
            elif found < len(ids) <= LISTED_IDS:
                there = set(self._ids(group, ids[0], ids[-1]))
                yield from (task for task in ids if task not in there)
            elif found < len(ids):
                yield from self.absent(ids[: len(ids) // 2])
                yield from self.absent(ids[len(ids) // 2 :])

    def prediction_ids(self, model_version: str, first: int, last: int) -> Iterator[tuple[TaskId, tuple[int, ...]]]:
        """See ``PredictionSink.prediction_ids``."""
        return self._prediction_ids(model_version, [filters.carrying(model_version)], first, last)

    def surplus(self, model_version: str) -> int:
        """See ``PredictionSink.surplus``."""
        return self._surplus(model_version, self.versions())

    def doubles(self, model_version: str) -> Iterator[tuple[TaskId, tuple[int, ...]]]:
        """Tasks with several predictions of this version, as ``prediction_ids``; the likely ones first, some twice.

        First come those whose counter of predictions is above what their versions make up: few, where counters are
        right. A counter may be wrong, so that all carriers follow; who has found enough need not draw them.
        """
        versions = self.versions()
        for likely in [*self._likely_doubles(model_version, versions), [filters.carrying(model_version)]]:
            for task, ids in self._prediction_ids(model_version, likely):
                if len(ids) > 1:
                    yield task, ids

    def stale_counters(self, first: int, last: int) -> int:
        """See ``PredictionSink.stale_counters``.

        Where each version is on a task at most once, a task has as many predictions as versions, so that counting the
        tasks of each kind tells; else the predictions of every task are read.
        """
        versions = self.versions()
        between = filters.in_range(first, last)
        if _told_apart(versions) and not any(self._surplus(version, versions) for version in versions):
            kinds = filters.by_versions(list(versions))
            return sum(
                self._tasks.count([between, *items, filters.shown_with(len(carried), "not_equal")])
                for items, carried in kinds
            )
        rows = self._rows([], "id,total_predictions,predictions", first, last, full=True)
        return sum(row["total_predictions"] != len(row["predictions"]) for row in rows)

    # -------------------------------------------------------------------------------------------- requests

    def _surplus(self, model_version: str, versions: dict[str, int]) -> int:
        items = [filters.carrying(model_version)]
        if filters.lookalikes(model_version, versions):
            carriers = sum(
                self._carries(row, model_version) for row in self._rows(items, "id,predictions_model_versions")
            )
        else:
            carriers = self._tasks.count(items)
        return versions.get(model_version, 0) - carriers

    def _likely_doubles(self, model_version: str, versions: dict[str, int]) -> Iterator[list[filters.Filter]]:
        if not _told_apart(versions):
            yield [filters.carrying(model_version), filters.shown_with(1, "greater")]
            return
        for items, carried in filters.by_versions(list(versions)):
            if model_version in carried:
                yield [*items, filters.shown_with(len(carried), "greater")]

    def _prediction_ids(
        self, model_version: str, items: Sequence[filters.Filter], first: int = 1, last: int | None = None
    ) -> Iterator[tuple[TaskId, tuple[int, ...]]]:
        for row in self._rows(items, "id,predictions", first, last, full=True):
            ids = sorted(entry["id"] for entry in row["predictions"] if entry["model_version"] == model_version)
            if ids:
                yield TaskId(row["id"]), tuple(ids)

    def _carries(self, row: dict[str, Any], model_version: str) -> bool:
        versions = filters.parse_versions(row["predictions_model_versions"] or "")
        # The column joins versions with commas and leaves quotes out, so that one of these may look like another.
        if versions is None or any(mark in model_version for mark in ",\"'\\"):
            predictions = self._client.get("/api/predictions/", {"task": row["id"]})
            versions = [prediction["model_version"] for prediction in predictions]
        return model_version in versions

    def _ids(self, items: Sequence[filters.Filter], first: int, last: int) -> Iterator[TaskId]:
        return (TaskId(row["id"]) for row in self._rows(items, "id", first, last))

    def _rows(
        self,
        items: Sequence[filters.Filter],
        include: str,
        first: int = 1,
        last: int | None = None,
        *,
        full: bool = False,
    ) -> Iterator[dict[str, Any]]:
        size = PageSize(FULL_PAGE) if full else self._ids_page
        pages = self._tasks.walk(items, include, after=first - 1, last=last, page_size=size, full=full)
        for rows, _ in pages:
            yield from rows


def _told_apart(versions: dict[str, int]) -> bool:
    """Whether the server's filter tells these versions apart, and they are few enough to ask for every mixture."""
    if len(versions) > MOST_VERSIONS or "" in versions:
        return False
    return not any(filters.lookalikes(version, versions) for version in versions)
