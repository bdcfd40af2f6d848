"""Walks over the tasks of a real HTTP server: holes, windows, broken answers, pages that learn their size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lsbatch import retry
from lsbatch.errors import TransientError
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient
from lsbatch_connectors.label_studio.tasks import LEAST_TASKS, MOST_TASKS, PageSize, TaskList
from scripted_http import Answer, ScriptedServer, scripted_server

PATH = "/api/tasks"
GATEWAY = Answer(404, b"<html><h1>404 Not Found</h1></html>")


@dataclass
class Shelf:
    """Answers ``GET /api/tasks`` from a list of ids, as Label Studio does."""

    ids: list[int]
    instead: dict[int, Answer] = field(default_factory=dict)
    before: Callable[[int], None] = lambda _: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)

    def answer(self, path: str) -> Answer:
        """The answer to this request, or the one that is scripted for its number, from 1."""
        params = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        self.asked.append(params)
        self.before(len(self.asked))
        if len(self.asked) in self.instead:
            return self.instead.pop(len(self.asked))
        query = json.loads(params["query"])
        found = [task for task in self.ids if all(_holds(item, task) for item in query["filters"]["items"])]
        found.sort(reverse=query["ordering"] == ["-tasks:id"])
        self.counted.append(len(found))
        size = int(params["page_size"])
        start = (int(params["page"]) - 1) * size
        rows = [{"id": task, "data": {"text": f"task {task}"}} for task in found[start : start + size]]
        if start and not rows:
            return Answer(404, {"id": "1", "status_code": 404, "detail": "Invalid page."})
        return Answer(200, {"tasks": rows, "total": len(found)})


def _holds(item: dict[str, Any], task: int) -> bool:
    if item["operator"] == "greater":
        return bool(task > item["value"])
    return bool(item["value"]["min"] <= task <= item["value"]["max"])


@contextmanager
def serving(shelf: Shelf, *, retry_seconds: float = 5.0) -> Iterator[TaskList]:
    """The shelf's tasks over HTTP; refused requests are repeated without a wait."""
    with scripted_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedServer, "next_answer", lambda _, path: shelf.answer(path))
        patch.setattr(retry, "_backoff", lambda _state: 0.0)
        client = LabelStudioClient(ConnectionOptions(server.url, "0" * 40, retry_seconds=retry_seconds))
        try:
            yield TaskList(client, 1)
        finally:
            client.close()


def walked(shelf: Shelf, **more: Any) -> list[int]:
    """The ids that a walk gives."""
    with serving(shelf) as tasks:
        return [row["id"] for rows, _ in tasks.walk([], "id,data", page_size=PageSize(50), **more) for row in rows]


DENSE = list(range(1, 1001))
SPARSE = list(range(5, 100_000_000, 250_000))
BLOCKS = [*range(10, 300), *range(1_000_000, 1_000_300), *range(2_000_000_000, 2_000_000_400)]


@pytest.mark.parametrize("ids", [DENSE, SPARSE, BLOCKS, [7], []], ids=["dense", "sparse", "blocks", "one", "none"])
def test_a_walk_gives_every_task_once_however_the_ids_lie(ids: list[int]) -> None:
    assert walked(Shelf(ids)) == ids


def test_a_walk_keeps_to_its_range_and_its_limit() -> None:
    for ids in (DENSE, BLOCKS):
        between = [task for task in ids if ids[60] < task <= ids[-60]]
        assert walked(Shelf(ids), after=ids[60], last=ids[-60]) == between
        assert walked(Shelf(ids), after=ids[60], limit=77) == ids[61:138]
    assert walked(Shelf(DENSE), after=500, last=500) == []


def test_what_is_left_is_told_with_every_page() -> None:
    for ids in (DENSE, SPARSE, BLOCKS):
        with serving(Shelf(ids)) as tasks:
            seen = 0
            for rows, left in tasks.walk([], "id", page_size=PageSize(30)):
                assert left == len(ids) - seen
                seen += len(rows)


def test_the_server_counts_what_is_left_only_at_the_ends_and_after_holes() -> None:
    shelf = Shelf(list(range(1, 20_001)))
    with serving(shelf) as tasks:
        pages = [len(rows) for rows, _ in tasks.walk([], "id", page_size=PageSize(MOST_TASKS // 10))]
    assert sum(pages) == 20_000
    assert shelf.counted[0] == 20_000
    assert max(shelf.counted[1:]) <= 2 * MOST_TASKS
    assert len(shelf.counted) <= len(pages) + 2
    blocks = Shelf(BLOCKS)
    with serving(blocks) as tasks:
        assert sum(len(rows) for rows, _ in tasks.walk([], "id", page_size=PageSize(100))) == len(BLOCKS)
    assert len(blocks.counted) < 30, "a hole of two thousand million ids costs a request or two"


def test_tasks_that_come_and_go_during_a_walk_disturb_nobody_else() -> None:
    shelf = Shelf(list(range(1, 1001)))

    def change(request: int) -> None:
        if request == 4:
            shelf.ids = [task for task in shelf.ids if task not in (1, 2, 3, 400, 900)] + list(range(1001, 1051))

    shelf.before = change
    with serving(shelf) as tasks:
        found = [row["id"] for rows, _ in tasks.walk([], "id", page_size=PageSize(50)) for row in rows]
    assert found == sorted(set(found))
    assert set(range(1, 1001)) - {1, 2, 3, 400, 900} <= set(found)


@pytest.mark.parametrize(
    "broken",
    [
        GATEWAY,
        Answer(200, {"tasks": [], "total": 900}),
        Answer(200, {"tasks": [{"id": 400}], "total": 900}),
        Answer(200, {"tasks": [{"id": 1}], "total": 1}),
        Answer(200, {"detail": "something else"}),
        Answer(200, {"tasks": [{"id": task} for task in range(1, 200)], "total": 199}, fault="cut"),
        Answer(200, b'{"tasks": [{"id": 1}, '),
        Answer(502, b"<html>Bad Gateway</html>"),
        Answer(500, {"id": "1", "status_code": 500, "detail": "KeyError(7)"}),
        Answer(429, {}, {"Retry-After": "0"}),
    ],
    ids=["gateway 404", "empty", "too few", "wrong id", "no page", "cut", "half JSON", "502", "500", "429"],
)
def test_a_broken_answer_in_the_middle_is_asked_for_again(broken: Answer) -> None:
    shelf = Shelf(list(DENSE), {3: broken, 5: broken})
    assert walked(shelf) == DENSE


@pytest.mark.parametrize("broken", [GATEWAY, Answer(200, {"tasks": [], "total": 900})], ids=["gateway", "empty"])
def test_an_answer_that_stays_broken_is_an_error_not_an_end(broken: Answer) -> None:
    shelf = Shelf(list(DENSE), dict.fromkeys(range(3, 10_000), broken))
    with serving(shelf, retry_seconds=0.2) as tasks, pytest.raises(TransientError):
        list(tasks.walk([], "id", page_size=PageSize(50)))
    assert len(shelf.asked) > 3


def test_a_server_that_is_not_there_any_more_ends_the_walk_with_an_error() -> None:
    shelf = Shelf(list(DENSE), dict.fromkeys(range(2, 10_000), Answer(fault="close")))
    with serving(shelf, retry_seconds=0.2) as tasks, pytest.raises(TransientError):
        list(tasks.walk([], "id", page_size=PageSize(50)))


@pytest.mark.parametrize("ids", [DENSE, SPARSE, BLOCKS], ids=["dense", "sparse", "blocks"])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_ranges_hold_about_equally_many_tasks_however_the_ids_lie(ids: list[int], parts: int) -> None:
    shelf = Shelf(ids)
    with serving(shelf) as tasks:
        ranges = tasks.split([], parts)
    sizes = [sum(first <= task <= last for task in ids) for first, last in ranges]
    assert sum(sizes) == len(ids)
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1
    assert len(shelf.asked) == parts + 1, "one small request a boundary"
    assert {params["page_size"] for params in shelf.asked} == {"1"}


def test_ranges_of_a_project_that_shrinks_meanwhile_hold_what_is_left() -> None:
    shelf = Shelf(list(DENSE))

    def delete(request: int) -> None:
        if request == 3:
            shelf.ids = shelf.ids[:5]

    shelf.before = delete
    with serving(shelf) as tasks:
        ranges = tasks.split([], 4)
    assert ranges == sorted(ranges)
    assert all(any(first <= task <= last for first, last in ranges) for task in range(1, 6))


def sizes(answers: Sequence[tuple[int, int, float]], longest: float = 60.0) -> list[int]:
    """The size of the next page after each answer: tasks, bytes, seconds."""
    size = PageSize(200)
    found = []
    for tasks, size_bytes, seconds in answers:
        size.learn(tasks, size_bytes, seconds, longest)
        found.append(size.tasks)
    return found


def test_pages_grow_while_answers_are_small_and_quick() -> None:
    assert sizes([(200, 40_000, 0.1), (800, 160_000, 0.4), (3200, 640_000, 1.0)]) == [800, 3200, MOST_TASKS]


def test_large_tasks_make_small_pages() -> None:
    assert sizes([(200, 400_000_000, 0.1)]) == [2]
    assert sizes([(1, 90_000_000, 0.1)]) == [1]


def test_slow_answers_make_small_pages_but_not_tiny_ones() -> None:
    assert sizes([(200, 40_000, 4.0)]) == [100]
    assert sizes([(200, 40_000, 15.0)]) == [LEAST_TASKS]


def test_no_answer_may_take_a_third_of_what_the_server_may_be_silent() -> None:
    assert sizes([(200, 40_000, 40.0)], longest=60.0) == [50]
    assert sizes([(200, 40_000, 400.0)], longest=60.0) == [10]


def test_an_answer_that_does_not_come_halves_the_page() -> None:
    size = PageSize(200)
    for _ in range(10):
        size.failed()
    assert size.tasks == 1
