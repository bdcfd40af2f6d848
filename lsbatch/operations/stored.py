"""Read predictions from a file into a run, so that they are imported by the same steps as predicted ones."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
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
from lsbatch.version_choice import VERSIONLESS

__all__ = ["FileSummary", "Staged", "read_predictions", "stage", "summarize"]

logger = logging.getLogger(__name__)
CHUNK_ROWS = 2_000
MOST_MISTAKES = 10


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a file of predictions holds.

    Attributes:
        versions: its model versions with the number of their rows.
        versionless: rows without a version; a backup alone may have them.
        refused: of a backup, why rows of a version cannot be imported, by version; these are not in ``versions``.
        backup: a deletion of lsbatch wrote it: it holds what Label Studio held, right or not.
    """

    versions: Mapping[str, int]
    versionless: int
    refused: Mapping[str, str]
    backup: bool


@dataclass(frozen=True, slots=True)
class Staged:
    """What of a file is brought into a run.

    Attributes:
        path: the file.
        model_version: rows of this version.
        versionless_too: and those without one, which get it.
        backup: of several predictions on a task the first counts; else they are a mistake.
    """

    path: Path
    model_version: str
    versionless_too: bool = False
    backup: bool = False

    def takes(self, model_version: str) -> bool:
        """Whether a row of this version is brought."""
        return model_version == self.model_version or (self.versionless_too and model_version in VERSIONLESS)


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
        ConfigError: as ``read_predictions``; no rows; a version that cannot be found again exactly.
    """
    versions: dict[str, int] = {}
    for _, prediction in read_predictions(path):
        versions[prediction.model_version] = versions.get(prediction.model_version, 0) + 1
    if not versions:
        raise ConfigError(f"{path} holds no predictions")
    backup = _is_backup(path)
    versionless = sum(versions.pop(version, 0) for version in VERSIONLESS) if backup else 0
    refused: dict[str, str] = {}
    for version in versions:
        try:
            check_model_version(version, setting=f"{path}: model_version", stored=backup)
        except ConfigError as error:
            if not backup:
                raise
            # One of many is no reason to leave the others out.
            refused[version] = str(error)
    kept = {version: rows for version, rows in versions.items() if version not in refused}
    return FileSummary(kept, versionless, refused, backup)


def _is_backup(path: Path) -> bool:
    return path.suffix == ".parquet" and "prediction_id" in pq.read_schema(path).names


def stage(staged: Staged, run: RunDir, ledger: Ledger, source: TaskSource, label_config: LabelConfig) -> None:
    """Bring predictions of a file into the run, in order of task id; what does not fit is quarantined.

    That is what the label config does not allow, and what is for a task that is not in the project: a single create
    would store it on the task of another one.

    They are sorted in a SQLite file beside the ledger, so that memory does not grow with the file. May be repeated.

    Raises:
        ConfigError: two predictions for one task, or as ``read_predictions``.
    """
    if ledger.fact("exported"):
        return
    sorting = run.path / "staged.sqlite"
    with disk_errors(sorting):
        sorting.unlink(missing_ok=True)
    with closing(sqlite3.connect(sorting, isolation_level=None)) as db:
        db.execute("CREATE TABLE rows (task_id INTEGER PRIMARY KEY, place TEXT, result TEXT, score REAL, version TEXT)")
        _fill(db, staged)
        last = max((chunk.last_task for chunk in ledger.chunks()), default=0)
        ledger.forget_planned()
        cursor = db.execute("SELECT * FROM rows WHERE task_id > ? ORDER BY task_id", (last,))
        while rows := cursor.fetchmany(CHUNK_ROWS):
            _plan(rows, run, ledger, source, label_config)
    ledger.state_fact("exported", str(ledger.totals()[0]))
    sorting.unlink()


def _fill(db: sqlite3.Connection, staged: Staged) -> None:
    twice = 0
    db.execute("BEGIN")
    for place, row in read_predictions(staged.path):
        if not staged.takes(row.model_version):
            continue
        values = (row.task_id, place, json.dumps(list(row.result)), row.score, staged.model_version)
        try:
            db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            twice += 1
            if staged.backup:
                continue
            (first,) = db.execute("SELECT place FROM rows WHERE task_id = ?", (row.task_id,)).fetchone()
            raise ConfigError(
                f"{staged.path}: task {row.task_id} has two predictions, at {first} and at {place}",
                hint="Keep one prediction per task and model version.",
            ) from None
    db.execute("COMMIT")
    if twice:
        logger.warning(
            "%s: %d more predictions of %s are for tasks that have one in it already; the oldest counts",
            *(staged.path, twice, staged.model_version),
        )


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


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        backup = _is_backup(path)
        with pq.ParquetFile(path) as file:
            done = 0
            for batch in file.iter_batches(CHUNK_ROWS, columns=["task_id", "result", "score", "model_version"]):
                for number, row in enumerate(table_predictions(pa.Table.from_batches([batch])), start=done + 1):
                    yield f"row {number}", _with_regions(row, backup=backup)
                done += batch.num_rows
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as predictions in Parquet: {error}") from error


def _with_regions(row: Prediction, *, backup: bool) -> Prediction | Mapping[str, Any]:
    """The row, or what of it is to be found wrong; Label Studio may hold a null or one region instead of a list."""
    if isinstance(row.result, list):
        return row
    if backup:
        return replace(row, result=[row.result] if isinstance(row.result, Mapping) else [])
    return {"task": row.task_id, "result": row.result, "score": row.score, "model_version": row.model_version}


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
