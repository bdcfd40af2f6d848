"""Write a project's tasks to files for other tools."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TextIO

import pyarrow.parquet as pq

from lsbatch.chunks import ChunkSizer, rechunk
from lsbatch.entities import Task
from lsbatch.errors import ConfigError
from lsbatch.operations.reading import in_order
from lsbatch.ports import Selection, TaskPage, TaskSource
from lsbatch.progress import Progress
from lsbatch.run_dir import TASKS, disk_errors, tasks_table

__all__ = ["export"]

#: Tasks of one file of a folder.
FILE_TASKS = 50_000
GROUP_TASKS = 2_000

Writer = Callable[[Sequence[Task]], None]


def export(
    source: TaskSource, selection: Selection, out: Path | TextIO, progress: Progress, *, readers: int = 1
) -> int:
    """Write the selected tasks, ids ascending, and return how many.

    Args:
        source: the project.
        selection: which tasks.
        out: a ``.parquet`` file (columns ``id`` and ``data``, JSON text), a ``.jsonl`` file (``{"id", "data"}`` a
            line), a folder that gets ``tasks-00000.parquet`` and so on, or an open text stream that gets JSON lines.
        progress: told of every task.
        readers: ranges of ids that are read side by side; with a limit, one.

    Files appear whole or not at all. Files of an earlier export of the same name are replaced. Tasks that are added
    meanwhile need not be in it.

    Raises:
        ConfigError: another ending, a folder with something else in it, or a disk that is full or read-only.
        TransientError: the source did not answer, or not completely.
    """
    written = 0
    with ExitStack() as stack:
        write = stack.enter_context(_writer(out))
        ranges = _ranges(source, selection, readers)
        folder = out.parent if isinstance(out, Path) and len(ranges) > 1 else None
        pages = stack.enter_context(in_order(ranges, folder))
        first = next(pages, None)
        # The ranges are about equal.
        coming = first.remaining * len(ranges) if first else 0
        meter = stack.enter_context(progress.stage("export", coming))
        tasks = (page.tasks for page in chain([first] if first else [], pages))
        for group in rechunk(tasks, ChunkSizer(GROUP_TASKS), weigh=lambda task: len(str(task.data))):
            write(group)
            meter.advance(len(group))
            written += len(group)
    return written


def _ranges(source: TaskSource, selection: Selection, readers: int) -> list[Iterator[TaskPage]]:
    if readers == 1 or selection.limit is not None:
        return [source.pages(selection)]
    return [source.pages(selection, after=first - 1, last=last) for first, last in source.split(selection, readers)]


def _writer(out: Path | TextIO) -> AbstractContextManager[Writer]:
    if not isinstance(out, Path):
        return _lines(out)
    if out.is_dir() or not out.suffix:
        return _folder(out)
    if out.suffix == ".parquet":
        return _parquet(out)
    if out.suffix in (".jsonl", ".ndjson"):
        return _jsonl(out)
    raise ConfigError(
        f"--out {out}: unknown ending {out.suffix}",
        hint="Give a file that ends in .parquet or .jsonl, a folder, or - for JSON lines on stdout.",
    )


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path beside ``path``, renamed to it when all went well."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def _lines(stream: TextIO) -> Iterator[Writer]:
    def write(tasks: Sequence[Task]) -> None:
        for task in tasks:
            stream.write(json.dumps({"id": task.id, "data": task.data}, ensure_ascii=False) + "\n")

    yield write
    stream.flush()


@contextmanager
def _jsonl(path: Path) -> Iterator[Writer]:
    with _whole(path) as beside, beside.open("w", encoding="utf-8") as file, _lines(file) as write:
        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Writer]:
    with _whole(path) as beside, pq.ParquetWriter(beside, TASKS, compression="zstd") as file:
        yield lambda tasks: file.write_table(tasks_table(tasks))


@contextmanager
def _folder(folder: Path) -> Iterator[Writer]:
    old = sorted(folder.iterdir()) if folder.is_dir() else []
    if strange := [path.name for path in old if not (path.name.startswith("tasks-") and path.suffix == ".parquet")]:
        raise ConfigError(f"--out {folder} holds other files: {', '.join(strange[:3])}", hint="Give an empty folder.")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as beside:
            files = _Files(Path(beside))
            try:
                yield files.write
            finally:
                files.close()
            for path in old:
                path.unlink()
            for path in sorted(Path(beside).iterdir()):
                path.replace(folder / path.name)


class _Files:
    """Parquet files of ``FILE_TASKS`` each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._tasks = 0
        self._file: pq.ParquetWriter | None = None

    def write(self, tasks: Sequence[Task]) -> None:
        if self._file is None:
            self._file = pq.ParquetWriter(self._folder / f"tasks-{self._number:05d}.parquet", TASKS, compression="zstd")
        self._file.write_table(tasks_table(tasks))
        self._tasks += len(tasks)
        if self._tasks >= FILE_TASKS:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._number, self._tasks, self._file = self._number + 1, 0, None
