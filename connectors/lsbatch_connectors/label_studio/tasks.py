"""Walks over a project's tasks: ids greater than the last one seen, so that changes under way skip nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lsbatch.entities import AnnotatedTask, Annotation, Task, TaskId
from lsbatch.errors import TransientError
from lsbatch.retry import retry_transient
from lsbatch_connectors.label_studio import filters
from lsbatch_connectors.label_studio.client import LabelStudioClient

__all__ = ["PageSize", "annotated_tasks", "walk"]

FIRST_PAGE = 200
MOST_TASKS = 5_000
PAGE_BYTES = 4_000_000
#: Ids of one export request travel in its address; gunicorn takes 4,094 bytes of it.
EXPORT_TASKS = 150

Row = dict[str, Any]


class PageSize:
    """How many tasks to ask for, so that an answer stays near ``PAGE_BYTES`` whatever the size of a task."""

    def __init__(self, first: int = FIRST_PAGE) -> None:
        self.tasks = first

    def learn(self, tasks: int, size_bytes: int) -> None:
        """Take note of an answer; the next page is at most four times as large as this one."""
        if tasks and size_bytes:
            wanted = int(PAGE_BYTES * tasks / size_bytes)
            self.tasks = max(1, min(wanted, 4 * self.tasks, MOST_TASKS))


def walk(
    client: LabelStudioClient,
    project: int,
    items: Sequence[filters.Filter],
    *,
    include: str,
    after: int = 0,
    page_size: PageSize | None = None,
    limit: int | None = None,
    full: bool = False,
) -> Iterator[tuple[list[Row], int]]:
    """Pages of rows in ascending order of id, each with the number of tasks that are left, the page's included.

    A column that the server computes (versions, drafts) is filled in only when a filter names it.

    Raises:
        TransientError: an answer had fewer tasks than it said there are, again and again, or none came.
        PermanentError: refused.
    """
    size = page_size or PageSize()
    while limit is None or limit > 0:
        params = {
            "project": project,
            "page": 1,
            "page_size": size.tasks if limit is None else min(size.tasks, limit),
            "include": include,
            "resolve_uri": "false",
            "query": filters.query([filters.after(after), *items]),
            # Without this, predictions are left out whatever ``include`` says.
            **({"fields": "all"} if full else {}),
        }
        rows, left = _page(client, params, after)
        if not rows:
            return
        yield rows, left
        after = rows[-1]["id"]
        limit = None if limit is None else limit - len(rows)
        if left <= len(rows):
            return


def _page(client: LabelStudioClient, params: dict[str, Any], after: int) -> tuple[list[Row], int]:
    def once() -> tuple[list[Row], int]:
        body = client.get_once("/api/tasks", params)
        rows, total = body["tasks"], int(body["total"])
        ids = [row["id"] for row in rows]
        if (total and not ids) or ids != sorted(set(ids)) or (ids and ids[0] <= after):
            raise TransientError(f"{client.url}: an incomplete page of tasks: {len(ids)} of {total} after task {after}")
        return rows, total

    return retry_transient(once, seconds=client.options.retry_seconds)


def annotated_tasks(client: LabelStudioClient, project: int) -> Iterator[AnnotatedTask]:
    """Every task with annotations, ids ascending.

    The list of tasks gives ids of annotations only, so that ids are listed first and exported a few at a time.
    """
    for rows, _ in walk(client, project, filters.annotated(), include="id"):
        for start in range(0, len(rows), EXPORT_TASKS):
            yield from _export(client, project, [row["id"] for row in rows[start : start + EXPORT_TASKS]])


def _export(client: LabelStudioClient, project: int, ids: list[int]) -> list[AnnotatedTask]:
    params = {"exportType": "JSON", "download_all_tasks": "true", "download_resources": "false", "ids[]": ids}
    rows = client.get(f"/api/projects/{project}/export", params)
    tasks = [
        AnnotatedTask(Task(TaskId(row["id"]), row["data"]), tuple(_annotation(entry) for entry in row["annotations"]))
        for row in rows
    ]
    return sorted(tasks, key=lambda annotated: annotated.task.id)


def _annotation(row: Row) -> Annotation:
    return Annotation(
        id=row["id"],
        result=tuple(row.get("result") or ()),
        updated_at=row["updated_at"],
        was_cancelled=bool(row.get("was_cancelled")),
        ground_truth=bool(row.get("ground_truth")),
    )
