"""Walks over a project's tasks: ids greater than the last one seen, so that changes under way skip nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lsbatch.entities import AnnotatedTask, Annotation, Task, TaskId
from lsbatch.errors import PermanentError, TransientError
from lsbatch.retry import retry_transient
from lsbatch_connectors.label_studio import filters
from lsbatch_connectors.label_studio.client import LabelStudioClient

__all__ = ["FULL_PAGE", "PageSize", "Pages", "Row", "TaskList"]

FIRST_PAGE = 200
MOST_TASKS = 5_000
#: Fewer are not asked for because of time alone: what an answer costs besides its tasks would weigh too much.
LEAST_TASKS = 50
#: Tasks whose predictions are read whole in the first request; they cost five times as much as ids.
FULL_PAGE = 100
PAGE_BYTES = 4_000_000
PAGE_SECONDS = 2.0
#: A window of ids is asked for that should hold this many times the tasks of a page.
WINDOW = 1.25
#: Ids of one export request travel in its address; gunicorn takes 4,094 bytes of it.
EXPORT_TASKS = 150

Row = dict[str, Any]
#: Pages of rows, each with the number of tasks that are left, the page's included.
Pages = Iterator[tuple[list[Row], int]]


class PageSize:
    """How many tasks to ask for, so that an answer stays near some bytes and seconds whatever the size of a task.

    Threads may share one: what one learns serves the others.

    Args:
        first: tasks of the first page.
        most_bytes: about so large should an answer be at most.
    """

    def __init__(self, first: int = FIRST_PAGE, *, most_bytes: int = PAGE_BYTES) -> None:
        self.tasks = first
        self._most_bytes = most_bytes

    def learn(self, tasks: int, size_bytes: int, seconds: float, longest_seconds: float) -> None:
        """Take note of an answer; the next page is at most four times as large as this one.

        Args:
            tasks: how many it held.
            size_bytes: how large it was; 0 where that does not matter.
            seconds: how long it took.
            longest_seconds: how long the server may be silent; an answer should never take a third of it.
        """
        if not tasks:
            return
        by_bytes = self._most_bytes * tasks / size_bytes if size_bytes else MOST_TASKS
        by_time = max(LEAST_TASKS, PAGE_SECONDS * tasks / max(seconds, 1e-3))
        never_above = longest_seconds / 3 * tasks / max(seconds, 1e-3)
        self.tasks = max(1, min(int(by_bytes), int(by_time), int(never_above), 4 * self.tasks, MOST_TASKS))

    def failed(self) -> None:
        """An answer did not come, or not whole: ask for less."""
        self.tasks = max(1, self.tasks // 2)


class TaskList:
    """The tasks of one project, as ``GET /api/tasks`` lists them. Threads may share it.

    Args:
        client: the connection.
        project: the project's id.
    """

    def __init__(self, client: LabelStudioClient, project: int) -> None:
        self._client = client
        self._project = project

    def walk(
        self,
        items: Sequence[filters.Filter],
        include: str,
        *,
        after: int = 0,
        last: int | None = None,
        page_size: PageSize | None = None,
        limit: int | None = None,
        full: bool = False,
    ) -> Pages:
        """Pages of rows in ascending order of id, each with the number of tasks that are left, the page's included.

        The server counts all that a request matches. So only the first one asks for all that is left; the next ones
        ask for a window of ids that should hold about a page, and after a hole in the ids again for all.

        A column that the server computes (versions, drafts) is filled in only when a filter names it.

        Args:
            items: filters, all of which must hold.
            include: columns, separated by commas.
            after: begin after this id.
            last: end with this id; None for the last there is.
            page_size: what is known of the size of tasks, and learns more.
            limit: most rows.
            full: give predictions, annotations and drafts too, and fill in every column.

        Raises:
            TransientError: an answer had fewer tasks than it said there are, again and again, or none came.
            PermanentError: refused.
        """
        size = page_size or PageSize()
        ask = _Asking(self._client, self._project, items, include, size, full)
        span: int | None = None
        left = 0
        while limit is None or limit > 0:
            until = _until(after, span, last)
            rows, total = ask.page(after, until, limit)
            left = total if span is None else max(left, total)
            if rows:
                yield rows, left if limit is None else min(left, limit)
                left -= len(rows)
                limit = None if limit is None else limit - len(rows)
            whole = total == len(rows)
            if whole and (span is None or until == last):
                return
            # The ids that these rows were found in: all of the window when it is exhausted.
            end = until if whole and until is not None else int(rows[-1]["id"])
            start = after if span is not None else int(rows[0]["id"]) - 1
            # After a hole, or where all that was counted has come, only a count of all that follows tells.
            span = max(1, int(WINDOW * size.tasks * (end - start) / len(rows))) if rows and left > 0 else None
            after = end

    def count(self, items: Sequence[filters.Filter]) -> int:
        """How many tasks match all of these filters; raises as ``walk``."""
        _, total = next(self.walk(items, "id", page_size=PageSize(1)), ([], 0))
        return total

    def split(self, items: Sequence[filters.Filter], parts: int) -> list[tuple[int, int]]:
        """Ranges of ids (first, last) that hold about equally many of the tasks that match; as ``TaskSource.split``.

        One small request for each boundary, whatever lies between them.
        """
        first, total = self._at(items, 1)
        last, _ = self._at(items, 1, descending=True) if first is not None else (None, 0)
        if first is None or last is None:
            return []
        found = [self._at(items, part * total // parts + 1)[0] for part in range(1, parts)] if total >= parts else []
        starts = [first, *sorted({start for start in found if start is not None and first < start <= last})]
        return list(zip(starts, [*(start - 1 for start in starts[1:]), last], strict=True))

    def _at(self, items: Sequence[filters.Filter], place: int, *, descending: bool = False) -> tuple[int | None, int]:
        """The id at this place, counted from 1, None where there is none any more; and how many match."""
        query = filters.query(items, descending=descending)
        params = {"project": self._project, "page": place, "page_size": 1, "include": "id", "query": query}
        try:
            body = self._client.get("/api/tasks", params)
        except PermanentError as error:
            if error.status == 404 and place > 1:  # tasks were deleted meanwhile
                return None, 0
            raise
        rows = body["tasks"]
        return (int(rows[0]["id"]) if rows else None), int(body["total"])

    def annotated(self, ids: Sequence[int]) -> Iterator[AnnotatedTask]:
        """These tasks (ascending) with their annotations.

        The list of tasks gives ids of annotations only, so that they are exported, a few tasks at a time.
        """
        for start in range(0, len(ids), EXPORT_TASKS):
            yield from self._export(list(ids[start : start + EXPORT_TASKS]))

    def parent_predictions(self, ids: Sequence[int]) -> Counter[int]:
        """Ids of the predictions that annotations of these tasks came from, with the number of these."""
        groups = (list(ids[start : start + EXPORT_TASKS]) for start in range(0, len(ids), EXPORT_TASKS))
        annotations = (entry for group in groups for row in self._exported(group) for entry in row["annotations"])
        return Counter(int(entry["parent_prediction"]) for entry in annotations if entry.get("parent_prediction"))

    def _exported(self, ids: list[int]) -> list[Row]:
        params = {"exportType": "JSON", "download_all_tasks": "true", "download_resources": "false", "ids[]": ids}
        rows: list[Row] = self._client.get(f"/api/projects/{self._project}/export", params)
        return rows

    def _export(self, ids: list[int]) -> list[AnnotatedTask]:
        tasks = [
            AnnotatedTask(
                Task(TaskId(row["id"]), row["data"]), tuple(_annotation(entry) for entry in row["annotations"])
            )
            for row in self._exported(ids)
        ]
        return sorted(tasks, key=lambda annotated: annotated.task.id)


def _until(after: int, span: int | None, last: int | None) -> int | None:
    """The last id of a window of so many ids, None for no end."""
    if span is None:
        return last
    return after + span if last is None else min(after + span, last)


class _Asking:
    """What the requests of one walk have in common."""

    def __init__(
        self,
        client: LabelStudioClient,
        project: int,
        items: Sequence[filters.Filter],
        include: str,
        size: PageSize,
        full: bool,
    ) -> None:
        self.size = size
        self._client = client
        self._items = items
        self._params = {
            "project": project,
            "page": 1,
            "include": include,
            "resolve_uri": "false",
            # Without this, predictions are left out whatever ``include`` says.
            **({"fields": "all"} if full else {}),
        }
        # Ids alone are small, and so are their answers.
        self._weighs = next((name for name in ("data", "predictions") if name in include.split(",")), "")

    def page(self, after: int, until: int | None, limit: int | None) -> tuple[list[Row], int]:
        """The first rows with an id above ``after`` and up to ``until``, and how many of these there are in all."""
        between = filters.after(after) if until is None else filters.in_range(after + 1, until)

        def once() -> tuple[list[Row], int]:
            tasks = self.size.tasks if limit is None else min(self.size.tasks, limit)
            params = {**self._params, "page_size": tasks, "query": filters.query([between, *self._items])}
            try:
                body, seconds = self._client.timed("/api/tasks", params)
                rows, total = _checked(body, after, until, tasks)
            except TransientError:
                self.size.failed()
                raise
            weight = sum(len(str(row[self._weighs])) for row in rows) if self._weighs else 0
            self.size.learn(len(rows), weight, seconds, self._client.options.read_seconds)
            return rows, total

        return retry_transient(once, seconds=self._client.options.retry_seconds)


def _checked(body: Any, after: int, until: int | None, asked: int) -> tuple[list[Row], int]:
    """Rows and total of an answer that holds what it says, and what was asked for.

    Raises:
        TransientError: it does not.
    """
    try:
        rows, total = body["tasks"], int(body["total"])
        ids = [int(row["id"]) for row in rows]
    except (KeyError, TypeError, ValueError):
        raise TransientError(f"an answer to /api/tasks is no page of tasks: {str(body)[:100]!r}") from None
    strange = ids != sorted(set(ids)) or (ids and (ids[0] <= after or (until is not None and ids[-1] > until)))
    if strange or len(ids) != min(total, asked):
        raise TransientError(f"an incomplete page of tasks: {len(ids)} of {total} after task {after}")
    return rows, total


def _annotation(row: Row) -> Annotation:
    return Annotation(
        id=row["id"],
        result=tuple(row.get("result") or ()),
        updated_at=row["updated_at"],
        was_cancelled=bool(row.get("was_cancelled")),
        ground_truth=bool(row.get("ground_truth")),
        parent_prediction=row.get("parent_prediction"),
    )
