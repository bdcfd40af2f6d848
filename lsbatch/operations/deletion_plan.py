"""What a deletion takes, written down before anything is deleted: the plan, and a backup to import again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from lsbatch.chunks import ChunkSizer, rechunk
from lsbatch.entities import StoredPrediction, TaskId
from lsbatch.errors import ConfigError
from lsbatch.ports import PredictionStore, Selection
from lsbatch.progress import Progress
from lsbatch.run_dir import PREDICTIONS, whole_file
from lsbatch.stopping import Stop
from lsbatch.version_choice import Doomed

__all__ = ["BACKUP", "PlannedTask", "Preview", "planned_groups", "planned_tasks", "preview_of", "write_plan"]

#: As the predictions of a run, with what only Label Studio knows. ``created_at`` is in UTC.
BACKUP = pa.schema(
    [
        *PREDICTIONS,
        pa.field("prediction_id", pa.int64(), nullable=False),
        pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
PLAN = pa.schema(
    [
        pa.field("task_id", pa.int64(), nullable=False),
        pa.field("prediction_id", pa.int64(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("doomed", pa.bool_(), nullable=False),
    ]
)
BATCH_ROWS = 20_000


@dataclass
class Preview:
    """What will go.

    Attributes:
        versions: predictions to be deleted, by version.
        tasks: tasks that lose at least one.
        alone: of these, tasks that lose all that they hold.
        spared: predictions that stay because annotations came from them.
        kept: predictions that stay on the same tasks.
        mixed: of those to be deleted, the ones on tasks that keep others, by version.
        bared: tasks that have nothing of a version left, by version.
    """

    versions: Counter[str] = field(default_factory=Counter)
    mixed: Counter[str] = field(default_factory=Counter)
    bared: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    alone: int = 0
    spared: int = 0
    kept: int = 0

    @property
    def predictions(self) -> int:
        """How many predictions will go."""
        return self.versions.total()

    def add(self, gone: Sequence[StoredPrediction], kept: Sequence[StoredPrediction], spared: int) -> None:
        """Take note of one more task."""
        self.spared += spared
        if not gone:
            return
        versions = [prediction.model_version for prediction in gone]
        self.versions.update(versions)
        self.bared.update(set(versions) - {prediction.model_version for prediction in kept})
        self.tasks += 1
        self.kept += len(kept)
        if kept:
            self.mixed.update(versions)
        else:
            self.alone += 1

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        counters = {name: Counter(value[name]) for name in ("versions", "mixed", "bared")}
        return cls(**{**value, **counters})


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task that loses predictions: versions and ids, oldest first, of what goes and of what stays."""

    task_id: TaskId
    gone: Sequence[tuple[str, int]]
    kept: Sequence[tuple[str, int]]


def preview_of(
    store: PredictionStore, selection: Selection, doomed: Doomed, progress: Progress, stop: Stop, expected: int
) -> Preview:
    """Read what would go. Changes nothing, and writes nothing."""
    preview = Preview()
    for gone, kept, spared in _chosen(store, selection, doomed, progress, stop, expected):
        preview.add(gone, kept, spared)
    return preview


def write_plan(
    store: PredictionStore,
    selection: Selection,
    doomed: Doomed,
    plan: Path,
    backup: Path | None,
    progress: Progress,
    stop: Stop,
    *,
    expected: int,
) -> Preview:
    """Write what will go, and what stays on the same tasks. Both files appear whole or not at all, the plan last.

    Args:
        store: is only read.
        selection: which tasks.
        doomed: which of their predictions.
        plan: versions and ids (schema ``PLAN``).
        backup: all of what goes (schema ``BACKUP``), for ``lsbatch import``; None for none.
        progress: told of every task that is read.
        stop: asked between pages.
        expected: about how many tasks are read.

    Raises:
        ConfigError: the disk is full or cannot be written; nothing is deleted then.
        TransientError: the server did not answer, or not completely.
    """
    preview = Preview()
    with ExitStack() as files:
        plans = _Rows(files, plan, PLAN)
        backups = None if backup is None else _Rows(files, backup, BACKUP)
        for gone, kept, spared in _chosen(store, selection, doomed, progress, stop, expected):
            preview.add(gone, kept, spared)
            if not gone:
                continue
            rows = [(entry, True) for entry in gone] + [(entry, False) for entry in kept]
            plans.add([_planned(entry, doomed) for entry, doomed in sorted(rows, key=lambda row: row[0].id)])
            if backups is not None:
                backups.add([_backed_up(entry) for entry in gone])
    return preview


def _chosen(
    store: PredictionStore, selection: Selection, doomed: Doomed, progress: Progress, stop: Stop, expected: int
) -> Iterator[tuple[list[StoredPrediction], list[StoredPrediction], int]]:
    with progress.stage("read", expected) as meter:
        for page in store.holding(selection, doomed.versions, references=not doomed.referenced):
            stop.check()
            for task in page:
                yield doomed.parted(task.predictions)
            meter.advance(len(page))


class _Rows:
    """Rows of a Parquet file that is there whole when the stack unwinds without an error.

    Files that were opened later appear first.
    """

    def __init__(self, files: ExitStack, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        stream = files.enter_context(whole_file(path))
        self._file = files.enter_context(pq.ParquetWriter(stream, schema, compression="zstd"))
        self._rows: list[dict[str, Any]] = []
        files.push(self._flush_unless)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add rows; memory holds a batch of them at most."""
        self._rows += rows
        if len(self._rows) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def _flush_unless(self, kind: type[BaseException] | None, *_details: object) -> None:
        if kind is None:
            self._flush()


def _planned(prediction: StoredPrediction, doomed: bool) -> dict[str, Any]:
    return {
        "task_id": prediction.task_id,
        "prediction_id": prediction.id,
        "model_version": prediction.model_version,
        "doomed": doomed,
    }


def _backed_up(prediction: StoredPrediction) -> dict[str, Any]:
    return {
        "task_id": prediction.task_id,
        "result": json.dumps(prediction.result, ensure_ascii=False),
        "score": prediction.score,
        "model_version": prediction.model_version,
        "prediction_id": prediction.id,
        "created_at": prediction.created_at,
    }


def planned_tasks(plan: Path) -> Iterator[PlannedTask]:
    """The tasks of a plan, ids ascending, read a few at a time.

    Raises:
        ConfigError: missing or damaged.
    """
    try:
        with pq.ParquetFile(plan) as file:
            rows = (row for batch in file.iter_batches(BATCH_ROWS) for row in batch.to_pylist())
            for task, entries in groupby(rows, key=lambda row: int(row["task_id"])):
                parts: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
                for entry in entries:
                    parts[entry["doomed"]].append((entry["model_version"], entry["prediction_id"]))
                yield PlannedTask(TaskId(task), parts[True], parts[False])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ConfigError(
            f"{plan} is missing or damaged: {error}", hint="Start over with --no-resume: what is gone stays gone."
        ) from error


def planned_groups(plan: Path, tasks: int) -> Iterator[list[PlannedTask]]:
    """As ``planned_tasks``, so many tasks at a time."""
    return rechunk(([task] for task in planned_tasks(plan)), ChunkSizer(tasks))
