"""A run on disk: where its files lie, what they hold, and how they are written so that half a file never counts.

manifest.json               what the run was asked to do
ledger.sqlite               what is true so far
selection.json              which tasks, as it was resolved when the run began
tasks/00000.parquet         id: int64, data: string (JSON)
predictions/00000.parquet   task_id: int64, result: string (JSON), score: float64 or null, model_version: string
dead_letters.jsonl          one line a quarantined task, written when the run ends
run_results.json            the report, written as the run goes
log.jsonl                   what was logged, one JSON object a line, over all processes that worked on the run
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lsbatch.entities import DeadLetter, Prediction, Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.ports import Selection

__all__ = ["PREDICTIONS", "TASKS", "RunDir", "predictions_table", "table_predictions", "table_tasks", "tasks_table"]

TASKS = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("data", pa.string(), nullable=False)])
#: Fields of a selection that are times.
_TIMES = ("created_since", "created_until")
PREDICTIONS = pa.schema(
    [
        pa.field("task_id", pa.int64(), nullable=False),
        pa.field("result", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("model_version", pa.string(), nullable=False),
    ]
)


def tasks_table(tasks: Sequence[Task]) -> pa.Table:
    """The tasks as a table of schema ``TASKS``."""
    return pa.Table.from_pydict(
        {"id": [task.id for task in tasks], "data": [json.dumps(task.data, ensure_ascii=False) for task in tasks]},
        schema=TASKS,
    )


def table_tasks(table: pa.Table) -> list[Task]:
    """The inverse of ``tasks_table``."""
    ids, data = table.column("id").to_pylist(), table.column("data").to_pylist()
    return [Task(TaskId(task_id), json.loads(text)) for task_id, text in zip(ids, data, strict=True)]


def predictions_table(predictions: Sequence[Prediction]) -> pa.Table:
    """The predictions as a table of schema ``PREDICTIONS``."""
    return pa.Table.from_pydict(
        {
            "task_id": [prediction.task_id for prediction in predictions],
            "result": [json.dumps(list(prediction.result), ensure_ascii=False) for prediction in predictions],
            "score": [prediction.score for prediction in predictions],
            "model_version": [prediction.model_version for prediction in predictions],
        },
        schema=PREDICTIONS,
    )


def table_predictions(table: pa.Table) -> list[Prediction]:
    """The inverse of ``predictions_table``."""
    return [
        Prediction(TaskId(row["task_id"]), json.loads(row["result"]), row["score"], row["model_version"])
        for row in table.to_pylist()
    ]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing right and the like into an error with a way out."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror or error}",
            hint="Free space there or make it writable, or point state.dir (LSBATCH_STATE_DIR) elsewhere. "
            "What is already on disk stays valid: the same command continues.",
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """An open file that is at ``path``, flushed to the disk, when all went well; else what was there before stays.

    Raises:
        ConfigError: the disk is full, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none, as ``whole_file`` does."""
    with whole_file(path) as file:
        file.write(content)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, each with its end, as ``whole_file`` does."""
    with whole_file(path) as file:
        file.writelines(line.encode() for line in lines)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as ``write_bytes`` does."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _write_table(path: Path, table: pa.Table) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"{path} is missing or damaged: {error}", hint="Start this run over with --no-resume."
        ) from error


class RunDir:
    """The files of one run.

    Args:
        path: the run's folder; its name is the run's id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = path / "ledger.sqlite"
        self.results = path / "run_results.json"
        self.log = path / "log.jsonl"
        #: Of a deletion: what goes, and what was known when the first prediction went.
        self.plan = path / "plan.parquet"
        self.begun = path / "begun.json"
        #: A request that must not meet another one may be under way.
        self.in_flight = path / "in_flight.json"
        self._manifest = path / "manifest.json"
        self._selection = path / "selection.json"

    @property
    def id(self) -> str:
        """The run's id: its UTC time of start and four hex digits."""
        return self.path.name

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Make the folder; a folder with a manifest is a run."""
        write_json(self._manifest, dict(manifest))

    def exists(self) -> bool:
        """Whether there is a whole manifest."""
        return self._manifest.is_file()

    def manifest(self) -> dict[str, Any]:
        """What the run was asked to do.

        Raises:
            ConfigError: missing or damaged.
        """
        try:
            return dict(json.loads(self._manifest.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self._manifest} is missing or damaged: {error}",
                hint=f"Move {self.path} elsewhere and give the command again: what the server holds is left out.",
            ) from error

    def settings(self) -> dict[str, Any]:
        """The settings that it was started with, by path, for a command that goes on with it.

        Raises:
            ConfigError: the manifest is missing or damaged, or the run did not predict.
        """
        manifest = self.manifest()
        if manifest.get("operation") != "predict":
            command = {"repair": "audit --repair"}.get(str(manifest.get("operation")), manifest.get("operation"))
            raise ConfigError(
                f"run {self.id} is one of lsbatch {command}",
                hint="Give the command that started it again; what the server holds already is left out.",
            )
        paths = {"project": "project", "origin": "pipeline.name", "params": "pipeline.params"}
        paths["score"] = "inference.score"
        settings = {path: manifest[key] for key, path in paths.items() if key in manifest}
        return {**settings, "pipeline.model_version": manifest.get("model_version")}

    def write_selection(self, selection: Selection, *, replace: bool) -> None:
        """Store which tasks the run takes, and whether what they carry of its version is replaced."""
        value = asdict(selection)
        for name in _TIMES:
            value[name] = None if value[name] is None else value[name].isoformat()
        write_json(self._selection, {"replace": replace, **value})

    def selection(self) -> tuple[Selection, bool]:
        """Which tasks the run takes, and whether what they carry of its version is replaced.

        Raises:
            ConfigError: missing or damaged.
        """
        try:
            value = json.loads(self._selection.read_bytes())
            replace = bool(value.pop("replace"))
            for name in _TIMES:
                value[name] = None if value[name] is None else datetime.fromisoformat(value[name])
            ids = value["task_ids"]
            return Selection(**{**value, "task_ids": None if ids is None else tuple(ids)}), replace
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"{self._selection} is missing or damaged: {error}", hint="Start this run over with --no-resume."
            ) from error

    def write_tasks(self, chunk: int, table: pa.Table) -> None:
        """Store the tasks of a chunk (schema ``TASKS``); may be repeated."""
        _write_table(self._file("tasks", chunk), table)

    def read_tasks(self, chunk: int) -> pa.Table:
        """The tasks of a chunk, schema ``TASKS``."""
        return _read_table(self._file("tasks", chunk), TASKS)

    def write_predictions(self, chunk: int, table: pa.Table) -> None:
        """Store the predictions of a chunk (schema ``PREDICTIONS``, ids ascending); may be repeated."""
        _write_table(self._file("predictions", chunk), table)

    def read_predictions(self, chunk: int) -> list[Prediction]:
        """The predictions of a chunk, ids ascending."""
        return table_predictions(_read_table(self._file("predictions", chunk), PREDICTIONS))

    def predicted_ids(self, chunk: int) -> list[TaskId]:
        """The ids of a chunk's predicted tasks, ascending."""
        table = _read_table(self._file("predictions", chunk), PREDICTIONS)
        return [TaskId(task_id) for task_id in table.column("task_id").to_pylist()]

    def write_dead_letters(self, letters: Iterable[DeadLetter]) -> None:
        """Store what was quarantined, for people and other tools."""
        write_lines(self.path / "dead_letters.jsonl", map(_letter_line, letters))

    def _file(self, kind: str, chunk: int) -> Path:
        return self.path / kind / f"{chunk:05d}.parquet"


def _letter_line(letter: DeadLetter) -> str:
    value = {"task": letter.task_id, "stage": letter.stage, "cause": letter.cause, "attempts": letter.attempts}
    return json.dumps(value, ensure_ascii=False) + "\n"
