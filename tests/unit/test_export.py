"""Exports: in order whatever comes first, whole or not at all, in flat memory."""

from __future__ import annotations

import io
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError, TransientError
from lsbatch.operations import export as export_module
from lsbatch.operations.export import export
from lsbatch.operations.reading import MOST_PAGES, in_order
from lsbatch.ports import Selection, TaskPage
from lsbatch.progress import Silent
from lsbatch.testing import MemoryProject

IDS = [number * number for number in range(1, 101)]


def project() -> MemoryProject:
    """A hundred tasks with holes between their ids."""
    return MemoryProject({task: Task(TaskId(task), {"text": f"words {task} ünd"}) for task in IDS})


def page(*ids: int) -> TaskPage:
    """A page of a range."""
    return TaskPage([Task(TaskId(task), {"text": "x" * 50}) for task in ids], len(ids))


def ids_of(pages: Iterator[TaskPage]) -> list[int]:
    """The ids of the pages' tasks."""
    return [task.id for entry in pages for task in entry.tasks]


@pytest.mark.parametrize("readers", [1, 2, 3, 8])
@pytest.mark.parametrize("selection", [Selection(), Selection(limit=30), Selection(task_ids=(4, 400, 900))])
def test_every_form_holds_the_same_tasks_in_order(selection: Selection, readers: int, here: Path) -> None:
    wanted = [task.id for entry in project().pages(selection) for task in entry.tasks]
    lines = io.StringIO()
    for out in (here / "a.parquet", here / "b.jsonl", here / "folder", lines):
        assert export(project(), selection, out, Silent(), readers=readers) == len(wanted)
    rows = pq.read_table(here / "a.parquet").to_pylist()
    assert [row["id"] for row in rows] == wanted
    assert json.loads(rows[0]["data"]) == {"text": f"words {wanted[0]} ünd"}
    assert pq.read_table(here / "folder").column("id").to_pylist() == wanted
    assert (here / "b.jsonl").read_text(encoding="utf-8") == lines.getvalue()
    assert [json.loads(line)["id"] for line in lines.getvalue().splitlines()] == wanted
    assert sorted(path.name for path in here.iterdir()) == ["a.parquet", "b.jsonl", "folder"]


def test_a_folder_holds_files_of_so_many_tasks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "FILE_TASKS", 40)
    monkeypatch.setattr(export_module, "GROUP_TASKS", 20)
    export(project(), Selection(), here / "folder", Silent(), readers=3)
    files = sorted((here / "folder").iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [40, 40, 20]


def test_nothing_selected_is_an_empty_file(here: Path) -> None:
    assert export(project(), Selection(task_ids=()), here / "a.parquet", Silent(), readers=2) == 0
    assert pq.read_table(here / "a.parquet").num_rows == 0


def test_pages_that_come_before_their_turn_wait_on_disk(here: Path) -> None:
    """The first range gives nothing until the others, far more than fits into the queue, have come."""
    others_done = threading.Event()
    count = 5 * MOST_PAGES

    def first() -> Iterator[TaskPage]:
        assert others_done.wait(60)
        yield page(1, 2)

    def second() -> Iterator[TaskPage]:
        for number in range(count):
            yield page(1000 + number)

    def third() -> Iterator[TaskPage]:
        for number in range(count):
            yield page(9000 + number)
        others_done.set()

    with in_order([first(), second(), third()], here) as pages:
        found = ids_of(pages)
    assert found == [1, 2, *range(1000, 1000 + count), *range(9000, 9000 + count)]
    assert list(here.iterdir()) == []


def test_ranges_may_be_empty_or_none() -> None:
    with in_order([iter([]), iter([page(5)]), iter([]), iter([page(6), page(7)]), iter([])], None) as pages:
        assert ids_of(pages) == [5, 6, 7]
    with in_order([], None) as pages:
        assert ids_of(pages) == []


def test_an_error_of_any_range_ends_the_export_and_leaves_nothing(here: Path) -> None:
    class Failing(MemoryProject):
        def pages(self, selection: Selection, *, after: int = 0, last: int | None = None) -> Iterator[TaskPage]:
            yield from super().pages(replace(selection, limit=10), after=after, last=last)
            if after > 0:
                raise TransientError("told to")

    source = Failing(project().tasks)
    source.split = lambda selection, parts: [(1, 2500), (2501, 10_000)]  # type: ignore[method-assign]
    for out in (here / "a.parquet", here / "b.jsonl", here / "folder"):
        with pytest.raises(TransientError, match="told to"):
            export(source, Selection(), out, Silent(), readers=2)
    left = [path for path in here.rglob("*") if path.is_file()]
    assert left == []


def test_a_place_that_cannot_hold_temporary_files_is_named(here: Path) -> None:
    with pytest.raises(ConfigError, match="missing"), in_order([iter([page(1)])], here / "missing"):
        pass


def test_a_reader_that_goes_away_is_not_taken_for_a_full_disk(here: Path) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        export(project(), Selection(), Closed(), Silent(), readers=2)


def test_temporary_files_of_stdout_lie_where_the_system_wants_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    seen: list[Sequence[str]] = []

    def only() -> Iterator[TaskPage]:
        seen.append([path.name for path in here.iterdir()])
        yield page(1)

    with in_order([only()], None) as pages:
        assert ids_of(pages) == [1]
    assert seen[0][0].startswith(".lsbatch-export-")
    assert list(here.iterdir()) == []
