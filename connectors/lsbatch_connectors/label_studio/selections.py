"""A selection as questions to the data manager, and the tasks that they give."""

from __future__ import annotations

import heapq
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError, PermanentError
from lsbatch.ports import Selection, TaskPage
from lsbatch_connectors.label_studio import filters
from lsbatch_connectors.label_studio.client import LabelStudioClient
from lsbatch_connectors.label_studio.read_back import ReadBack
from lsbatch_connectors.label_studio.tasks import FULL_PAGE, PAGE_BYTES, Pages, PageSize, Row, TaskList

__all__ = ["Selector"]


@dataclass(frozen=True)
class _What:
    """Which columns of the tasks are asked for; ``full`` as for ``TaskList.walk``."""

    include: str
    full: bool
    size: PageSize


@dataclass(frozen=True)
class _Asked:
    """A selection as the server is asked for it.

    Attributes:
        alternatives: lists of filters; a task must match all of one of them.
        ids: only these tasks, ascending; None for all.
        left_out: tasks to leave out of the answers.
        with_version: what the answers must carry exactly, where the server's filter cannot tell; else empty.
        without_version: what they must not carry, likewise.
    """

    alternatives: list[list[filters.Filter]]
    ids: Sequence[int] | None
    left_out: frozenset[int]
    with_version: str
    without_version: str

    @property
    def exact(self) -> bool:
        """Whether every task of an answer is selected."""
        return not (self.left_out or self.with_version or self.without_version)


class Selector:
    """Reads the selected tasks of one project. Threads may share it.

    Args:
        client: the connection.
        project: the project's id.
        tasks: the project's.
        read_back: tells which tasks carry a version.
    """

    def __init__(self, client: LabelStudioClient, project: int, tasks: TaskList, read_back: ReadBack) -> None:
        self._client = client
        self._project = project
        self._tasks = tasks
        self._read_back = read_back
        self._page_size = PageSize()

    def pages(self, selection: Selection, after: int, last: int | None) -> Iterator[TaskPage]:
        """See ``TaskSource.pages``."""
        what = _What("id,data", full=False, size=self._page_size)
        for rows, left in self._rows(selection, what, after, last, []):
            yield TaskPage([Task(TaskId(row["id"]), row["data"]) for row in rows], left)

    def ids(self, selection: Selection, items: Sequence[filters.Filter]) -> Iterator[list[int]]:
        """Ids of the selected tasks that match these filters too, ascending, a page at a time."""
        for rows, _ in self._rows(selection, _What("id", full=False, size=PageSize()), 0, None, items):
            yield [int(row["id"]) for row in rows]

    def full_rows(self, selection: Selection, include: str, items: Sequence[filters.Filter]) -> Iterator[list[Row]]:
        """Rows of the selected tasks that match these filters too, as ``TaskList.walk`` gives them with ``full``."""
        what = _What(include, full=True, size=PageSize(FULL_PAGE))
        for rows, _ in self._rows(selection, what, 0, None, items):
            yield rows

    def _rows(
        self, selection: Selection, what: _What, after: int, last: int | None, items: Sequence[filters.Filter]
    ) -> Pages:
        asked = self._asked(selection, items)
        limit = selection.limit
        for rows, left in self._walk(asked, what, after, last, limit if asked.exact else None):
            rows = self._exactly(asked, rows)[:limit]
            if rows:
                yield rows, left if limit is None else min(left, limit)
            if limit is not None:
                limit -= len(rows)
                if limit <= 0:
                    return

    def split(self, selection: Selection, parts: int) -> list[tuple[int, int]]:
        """See ``TaskSource.split``."""
        asked = self._asked(selection)
        if asked.ids is not None:
            return _parts(asked.ids, parts)
        found = [self._tasks.split(items, parts) for items in asked.alternatives]
        found = [ranges for ranges in found if ranges]
        if not found:
            return []
        # The starts of the alternative with the widest spread serve for all.
        starts = [start for start, _ in max(found, key=len)]
        starts[0] = min(ranges[0][0] for ranges in found)
        last = max(ranges[-1][1] for ranges in found)
        return list(zip(starts, [*(start - 1 for start in starts[1:]), last], strict=True))

    # -------------------------------------------------------------------------------------------- what is asked

    def _asked(self, selection: Selection, items: Sequence[filters.Filter] = ()) -> _Asked:
        tab = {} if selection.view is None else self._tab(selection.view)
        conditions = [tab["filters"]] if tab.get("filters") else []
        if selection.filters:
            conditions.append(json.loads(selection.filters))
        ours = [*items, *filters.created(selection.created_since, selection.created_until)]
        if selection.untouched_only:
            ours += filters.untouched()
        inexact = {True: "", False: ""}
        wanted = [(selection.with_version, True), (selection.without_version, False)]
        versions = self._read_back.versions() if any(version for version, _ in wanted) else {}
        for version, carried in wanted:
            if not version:
                continue
            if lookalikes := filters.lookalikes(version, versions):
                inexact[carried] = version
            if carried:
                ours.append(filters.carrying(version))
            elif not lookalikes and version in versions:
                ours.append(filters.not_carrying(version))
        chosen = tab.get("selectedItems") or {}
        ids = _both(selection.task_ids, chosen.get("included") if not chosen.get("all") else None)
        left_out = frozenset(chosen.get("excluded") or ()) if chosen.get("all") else frozenset()
        found = [[*ours, *theirs] for theirs in filters.alternatives(conditions)]
        return _Asked(found, ids, left_out, inexact[True], inexact[False])

    def _tab(self, view: int) -> Mapping[str, Any]:
        """What narrows the tasks of a tab.

        Raises:
            ConfigError: there is no such tab in this project, or a filter of it is not finished.
        """
        try:
            tab = self._client.get(f"/api/dm/views/{view}/")
        except PermanentError as error:
            if error.status != 404:
                raise
            tab = {"project": None}
        if tab["project"] != self._project:
            raise ConfigError(
                f"selection.view: project {self._project} has no tab {view}",
                hint="The id of a tab is in its address in the data manager, after tab=.",
            )
        data: Mapping[str, Any] = tab.get("data") or {}
        for item in (data.get("filters") or {}).get("items") or []:
            if item.get("value") in (None, {}):
                raise ConfigError(
                    f"selection.view: the filter on {item.get('filter')} of tab {view} has no value",
                    hint="Finish or remove that filter in the data manager.",
                )
        return data

    # -------------------------------------------------------------------------------------------- what comes back

    def _walk(self, asked: _Asked, what: _What, after: int, last: int | None, limit: int | None) -> Pages:
        if asked.ids is None:
            yield from self._any_of(asked.alternatives, what, [], after, last, limit)
            return
        end = len(asked.ids) if last is None else bisect_right(asked.ids, last)
        ids = asked.ids[bisect_right(asked.ids, after) : end]
        longest = max(asked.alternatives, key=lambda items: len(filters.query(items)))
        coming = len(ids)
        for group, part in filters.exactly(ids, longest):
            coming -= len(part)
            for rows, left in self._any_of(asked.alternatives, what, group, part[0] - 1, part[-1], limit):
                yield rows, left + coming

    def _any_of(
        self,
        alternatives: Sequence[Sequence[filters.Filter]],
        what: _What,
        group: Sequence[filters.Filter],
        after: int,
        last: int | None,
        limit: int | None,
    ) -> Pages:
        one = len(alternatives) == 1
        size = what.size if one else PageSize(what.size.tasks, most_bytes=PAGE_BYTES // len(alternatives))
        walks = [
            self._tasks.walk(
                [*items, *group], what.include, after=after, last=last, page_size=size, limit=limit, full=what.full
            )
            for items in alternatives
        ]
        return walks[0] if one else _merged(walks)

    def _exactly(self, asked: _Asked, rows: list[Row]) -> list[Row]:
        """Rows that are selected, where the server's filters let more through."""
        for version, carried in ((asked.with_version, True), (asked.without_version, False)):
            if version and rows:
                carriers = set(self._read_back.carriers(version, rows[0]["id"], rows[-1]["id"]))
                rows = [row for row in rows if (row["id"] in carriers) is carried]
        return [row for row in rows if row["id"] not in asked.left_out]


def _both(one: Sequence[int] | None, other: Sequence[int] | None) -> Sequence[int] | None:
    """Ids that both name, ascending; None names all, and so does an empty list of a tab."""
    if not other:
        return one
    return sorted(set(other)) if one is None else sorted(set(other).intersection(one))


def _parts(ids: Sequence[int], parts: int) -> list[tuple[int, int]]:
    size = max(1, -(-len(ids) // parts))
    return [(ids[at], ids[min(at + size, len(ids)) - 1]) for at in range(0, len(ids), size)]


def _merged(walks: Sequence[Pages]) -> Pages:
    """Rows that any of the walks gives, ids ascending, each once; what is left is an upper bound."""
    left = [0] * len(walks)
    lengths = [0] * len(walks)

    def rows_of(number: int) -> Iterator[Row]:
        for rows, remaining in walks[number]:
            lengths[number] = len(rows)
            for place, row in enumerate(rows):
                left[number] = remaining - place
                yield row
        left[number] = 0

    page: list[Row] = []
    last = 0
    for row in heapq.merge(*map(rows_of, range(len(walks))), key=lambda row: int(row["id"])):
        if row["id"] == last:
            continue
        if page and len(page) >= max(lengths):
            yield page, len(page) + sum(left)
            page = []
        page.append(row)
        last = row["id"]
    if page:
        yield page, len(page)
