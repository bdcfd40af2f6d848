"""What earlier runs predicted from: whether a task has changed since, told from the runs on this disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsbatch.chunks import ChunkState
from lsbatch.entities import Task
from lsbatch.errors import ConfigError
from lsbatch.ledger import Ledger
from lsbatch.operations.runs import runs
from lsbatch.run_dir import RunDir

__all__ = ["Predicted", "digest"]

DIGEST_BYTES = 16


def digest(data: Mapping[str, Any], keys: Sequence[str]) -> bytes:
    """Equal for data that a pipeline cannot tell apart.

    Args:
        data: of a task.
        keys: what the pipeline reads of it; where one is not there, or there are none, all of it counts.
    """
    read = {key: data[key] for key in keys} if keys and all(key in data for key in keys) else data
    text = json.dumps(read, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk that reached the server. ``age`` is 0 for the newest run; ``outdated``: of another label config."""

    first: int
    last: int
    age: int
    number: int
    run: RunDir
    outdated: bool


@dataclass(frozen=True, slots=True)
class _Open:
    """A chunk that is being looked at: the digest of each predicted task, None where the run kept no data."""

    chunk: _Chunk
    digests: Mapping[int, bytes | None]


class Predicted:
    """What the runs of one version predicted, the newest of those that predicted a task counting.

    Only the chunks are in memory that hold the id that is asked for.

    Args:
        runs_folder: of the project.
        version: the model version.
        label_config_hash: of the project's label config as it is now.
        data_keys: keys of the tasks' data that the pipeline reads; empty for all data.

    Attributes:
        notes: what could not be read, in words.
    """

    def __init__(self, runs_folder: Path, version: str, label_config_hash: str, data_keys: Sequence[str]) -> None:
        self.notes: list[str] = []
        self._keys = tuple(data_keys)
        self._refused: dict[int, set[int]] = {}
        chunks = sorted(
            self._chunks(runs_folder, version, label_config_hash), key=lambda chunk: (chunk.first, chunk.age)
        )
        self._coming = iter(chunks)
        self._next = next(self._coming, None)
        self._open: list[_Open] = []

    def is_stale(self, task: Task) -> bool | None:
        """Whether the task was predicted from other data, or for another label config; None if no run can tell.

        Each task must have a greater id than the one before.
        """
        self._open = [entry for entry in self._open if entry.chunk.last >= task.id]
        while self._next is not None and self._next.first <= task.id:
            if self._next.last >= task.id:
                self._open.append(self._read(self._next))
            self._next = next(self._coming, None)
        newest = min((entry for entry in self._open if task.id in entry.digests), key=_age, default=None)
        if newest is None:
            return None
        if newest.chunk.outdated:
            return True
        known = newest.digests[task.id]
        return None if known is None else known != digest(task.data, self._keys)

    def _chunks(self, folder: Path, version: str, label_config_hash: str) -> Iterator[_Chunk]:
        for age, run in enumerate(runs(folder)):
            try:
                manifest = run.manifest()
                if manifest.get("model_version") != version or manifest.get("dry_run") or not run.ledger.is_file():
                    continue
                with closing(Ledger(run.ledger)) as ledger:
                    chunks = ledger.chunks(ChunkState.IMPORTED)
                    self._refused[age] = {
                        int(letter.task_id) for letter in ledger.dead_letters() if letter.stage == "import"
                    }
            except ConfigError as error:
                self.notes.append(f"run {run.id} cannot be read, what it predicted is not known: {error}")
                continue
            outdated = manifest.get("label_config_hash") != label_config_hash
            for chunk in chunks:
                yield _Chunk(chunk.first_task, chunk.last_task, age, chunk.number, run, outdated)

    def _read(self, chunk: _Chunk) -> _Open:
        try:
            sent = [task for task in chunk.run.predicted_ids(chunk.number) if task not in self._refused[chunk.age]]
        except ConfigError as error:
            self.notes.append(f"run {chunk.run.id}: {error}")
            return _Open(chunk, {})
        digests: dict[int, bytes | None] = dict.fromkeys(map(int, sent))
        if not chunk.outdated:
            digests |= {task: found for task, found in self._digests(chunk) if task in digests}
        return _Open(chunk, digests)

    def _digests(self, chunk: _Chunk) -> Iterator[tuple[int, bytes]]:
        try:
            table = chunk.run.read_tasks(chunk.number)
        except ConfigError:
            # A run that imported stored predictions has no tasks.
            return
        for task, text in zip(table.column("id").to_pylist(), table.column("data").to_pylist(), strict=True):
            yield int(task), digest(json.loads(text), self._keys)


def _age(entry: _Open) -> int:
    return entry.chunk.age
