"""Read predictions from a file into a run, so that they are imported by the same steps as predicted ones."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lsbatch.chunks import Chunk
from lsbatch.entities import DeadLetter, Prediction, TaskId, check_model_version
from lsbatch.errors import ConfigError
from lsbatch.label_config import LabelConfig
from lsbatch.ledger import Ledger
from lsbatch.ports import TaskSource
from lsbatch.run_dir import RunDir, disk_errors, predictions_table, table_predictions

__all__ = ["FileSummary", "read_predictions", "stage", "summarize"]

CHUNK_ROWS = 2_000
MOST_MISTAKES = 10


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a file of predictions holds: its one model version and the number of its rows."""

    model_version: str
    rows: int


def read_predictions(path: Path) -> Iterator[tuple[str, Prediction]]:
    """Each prediction of a file with the place it stands at, in the order of the file.

    Read are Parquet (``task_id, result, score, model_version``, as a run stores them) and JSON lines or one JSON list
    of ``{"task": 1, "result": [...], "score": 0.9, "model_version": "v"}``, as Label Studio's import takes them.

    Raises:
        ConfigError: the file is missing or of no such format, or a row is not a prediction; names up to 10 of them.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is neither a run nor a file", hint="List the run folders below .lsbatch/.")
    mistakes: list[str] = []
    rows = _parquet(path) if path.suffix == ".parquet" else _json(path)
    for place, row in rows:
        if isinstance(row, Prediction):
            yield place, row
            continue
        prediction, mistake = _checked(row)
        if prediction is not None:
            yield place, prediction
        else:
            mistakes.append(f"{place}: {mistake}")
            if len(mistakes) == MOST_MISTAKES:
                break
    if mistakes:
        raise ConfigError(f"{path} holds rows that are no predictions:\n  " + "\n  ".join(mistakes))


def summarize(path: Path) -> FileSummary:
    """Read the whole file once.

    Raises:
        ConfigError: as ``read_predictions``; no rows; several versions, or one that cannot be found again exactly.
    """
    versions: dict[str, int] = {}
    for _, prediction in read_predictions(path):
        versions[prediction.model_version] = versions.get(prediction.model_version, 0) + 1
    if not versions:
        raise ConfigError(f"{path} holds no predictions")
    if len(versions) > 1:
        raise ConfigError(
            f"{path} holds predictions of {len(versions)} model versions: {', '.join(sorted(versions)[:5])}",
            hint="Import each version from a file of its own.",
        )
    [(version, rows)] = versions.items()
    return FileSummary(check_model_version(version, setting=f"{path}: model_version"), rows)


def stage(path: Path, run: RunDir, ledger: Ledger, source: TaskSource, label_config: LabelConfig) -> None:
    """Bring the file's predictions into the run, in order of task id; what does not fit is quarantined.

    That is what the label config does not allow, and what is for a task that is not in the project: a single create
    would store it on the task of another one.

    They are sorted in a SQLite file beside the ledger, so that memory does not grow with the file. May be repeated.

    Raises:
        ConfigError: two predictions for one task, or as ``read_predictions``.
    """
    if ledger.fact("exported"):
        return
    staged = run.path / "staged.sqlite"
    with disk_errors(staged):
        staged.unlink(missing_ok=True)
    with closing(sqlite3.connect(staged, isolation_level=None)) as db:
        db.execute("CREATE TABLE rows (task_id INTEGER PRIMARY KEY, place TEXT, result TEXT, score REAL, version TEXT)")
        _fill(db, path)
        last = max((chunk.last_task for chunk in ledger.chunks()), default=0)
        ledger.forget_planned()
        cursor = db.execute("SELECT * FROM rows WHERE task_id > ? ORDER BY task_id", (last,))
        while rows := cursor.fetchmany(CHUNK_ROWS):
            _plan(rows, run, ledger, source, label_config)
    ledger.state_fact("exported", str(ledger.totals()[0]))
    staged.unlink()


def _fill(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN")
    for place, row in read_predictions(path):
        values = (row.task_id, place, json.dumps(list(row.result)), row.score, row.model_version)
        try:
            db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            (first,) = db.execute("SELECT place FROM rows WHERE task_id = ?", (row.task_id,)).fetchone()
            raise ConfigError(
                f"{path}: task {row.task_id} has two predictions, at {first} and at {place}",
                hint="Keep one prediction per task and model version.",
            ) from None
    db.execute("COMMIT")


def _plan(
    rows: list[tuple[Any, ...]], run: RunDir, ledger: Ledger, source: TaskSource, label_config: LabelConfig
) -> None:
    """One chunk: planned, taken as exported, and predicted at once, since the file has the predictions."""
    predictions, letters = [], []
    absent = set(source.absent([row[0] for row in rows]))
    for task, place, result, score, version in rows:
        prediction = Prediction(TaskId(task), json.loads(result), score, version)
        why = label_config.why_invalid({"result": prediction.result, "score": score, "model_version": version})
        if task in absent:
            cause = f"the prediction at {place} is for a task that is not in the project"
            letters.append(DeadLetter(prediction.task_id, "validate", cause))
        elif why:
            cause = f"the prediction at {place} does not fit the label config: {why}"
            letters.append(DeadLetter(prediction.task_id, "validate", cause))
        else:
            predictions.append(prediction)
    chunk: Chunk = ledger.plan(rows[0][0], rows[-1][0], len(rows))
    run.write_predictions(chunk.number, predictions_table(predictions))
    ledger.exported(chunk)
    ledger.predicted(chunk.number, len(predictions), letters)


def _parquet(path: Path) -> Iterator[tuple[str, Prediction]]:
    try:
        with pq.ParquetFile(path) as file:
            done = 0
            for batch in file.iter_batches(CHUNK_ROWS, columns=["task_id", "result", "score", "model_version"]):
                for number, row in enumerate(table_predictions(pa.Table.from_batches([batch])), start=done + 1):
                    yield f"row {number}", row
                done += batch.num_rows
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as predictions in Parquet: {error}") from error


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    with disk_errors(path), path.open(encoding="utf-8") as file:
        try:
            # Blanks are allowed before the list.
            start = file.read(4096).lstrip()[:1]
            file.seek(0)
            if start == "[":
                yield from ((f"entry {number}", row) for number, row in enumerate(json.load(file), start=1))
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"line {number}", _loads(line)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error


def _loads(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _checked(row: object) -> tuple[Prediction | None, str]:
    """The row as a prediction, or why it is none."""
    if not isinstance(row, Mapping):
        return None, "not a JSON object"
    task = row.get("task", row.get("task_id"))
    result, score, version = row.get("result"), row.get("score"), row.get("model_version")
    if not isinstance(task, int) or isinstance(task, bool) or task < 1:
        return None, "'task' must be the id of a task"
    if not isinstance(result, list):
        return None, "'result' must be a list of regions"
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        return None, "'score' must be a number or null"
    if not isinstance(version, str) or not version:
        return None, "'model_version' is missing"
    return Prediction(TaskId(task), result, None if score is None else float(score), version), ""
