"""Read several ranges of tasks side by side and give them in order, in flat memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from lsbatch.ports import TaskPage
from lsbatch.prefetch import side_by_side
from lsbatch.run_dir import TASKS, disk_errors, table_tasks, tasks_table

__all__ = ["in_order"]

#: Pages, each a few megabytes, that are fetched ahead.
MOST_PAGES = 6


@contextmanager
def in_order(ranges: Sequence[Iterator[TaskPage]], folder: Path | None) -> Iterator[Iterator[TaskPage]]:
    """The pages of all ranges, read side by side in threads, those of the first range first and so on.

    Pages that come before their turn wait in temporary files. Errors are raised where the page would have come; the
    threads end with the context.

    Args:
        ranges: each gives its pages with ids ascending; the ranges ascend too.
        folder: where temporary files may be made; None for the system's own place.

    Raises:
        ConfigError: a temporary file cannot be written.
    """
    with ExitStack() as stack:
        with disk_errors(folder or Path(tempfile.gettempdir())):
            waiting = stack.enter_context(tempfile.TemporaryDirectory(prefix=".lsbatch-export-", dir=folder))
        pages = stack.enter_context(side_by_side(ranges, MOST_PAGES))
        yield _ordered(pages, len(ranges), Path(waiting))


def _ordered(pages: Iterator[tuple[int, TaskPage | None]], ranges: int, folder: Path) -> Iterator[TaskPage]:
    waiting = [_Waiting(folder / f"{number}.arrow") for number in range(ranges)]
    ended: set[int] = set()
    turn = 0
    for number, page in pages:
        if page is None:
            ended.add(number)
        elif number == turn:
            yield page
        else:
            waiting[number].put(page)
        while turn in ended:
            turn += 1
            if turn < ranges:
                yield from waiting[turn].drain()


class _Waiting:
    """Pages of one range, on disk until it is their turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    def put(self, page: TaskPage) -> None:
        with disk_errors(self._path):
            if self._writer is None:
                options = pa.ipc.IpcWriteOptions(compression="zstd")
                self._writer = pa.ipc.new_stream(str(self._path), TASKS, options=options)
            self._writer.write_table(tasks_table(page.tasks))

    def drain(self) -> Iterator[TaskPage]:
        """The pages so far, one at a time in memory."""
        if self._writer is None:
            return
        with disk_errors(self._path):
            self._writer.close()
            with self._path.open("rb") as file, pa.ipc.open_stream(file) as batches:
                for batch in batches:
                    yield TaskPage(table_tasks(pa.Table.from_batches([batch])), batch.num_rows)
            self._path.unlink()
