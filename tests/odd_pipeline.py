"""A pipeline that does to its worker what a task says. A module of its own, light, so that workers load it soon."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsbatch.entities import Task
from lsbatch.label_config import LabelConfig
from lsbatch.predictor import Predictor

CONFIG = '<View><Text name="t" value="$text"/><Choices name="c" toName="t"><Choice value="x"/></Choices></View>'
RESULT = {"from_name": "c", "to_name": "t", "type": "choices", "value": {"choices": ["x"]}}
#: More than any worker of the tests may have, and no more than a machine can lend for a moment.
MOST_BYTES, BLOCK_BYTES = 3_000_000_000, 50_000_000


class Odd:
    """Obeys the text of its tasks."""

    model_version = "v"

    def predict(self, tasks: Sequence[Task]) -> list[dict[str, object]]:
        """One result a task."""
        for task in tasks:
            _obey(str(task.data["text"]))
        return [{"result": [RESULT], "score": 0.5} for _ in tasks]


def _obey(text: str) -> None:
    word, _, rest = text.partition(" ")
    if word == "DIE":
        os._exit(9)
    if word == "HANG":
        threading.Event().wait()
    if word == "EAT":
        _eat()
    if word == "WAIT":
        _wait(Path(rest))


def _wait(path: Path) -> None:
    """The first worker that comes here says who it is, and waits for its end; the next one goes on."""
    try:
        with path.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return
    path.with_suffix(".ready").touch()
    threading.Event().wait()


def _eat() -> None:
    """Take memory, block by block, and hold it: whoever watches over the worker's limit sees it soon."""
    held: list[bytearray] = []
    pause = threading.Event()
    while len(held) * BLOCK_BYTES < MOST_BYTES:
        held.append(bytearray(os.urandom(1_000)) * (BLOCK_BYTES // 1_000))
        # A watcher looks ten times a second.
        pause.wait(0.02)
    threading.Event().wait()


@dataclass(frozen=True)
class Recipe:
    """Builds ``Odd``."""

    key: str = "odd"

    def parcels(self) -> dict[str, bytes]:
        """Nothing: workers import this module."""
        return {}

    def __call__(self) -> Predictor:
        return Predictor(Odd(), LabelConfig(CONFIG), "v")  # type: ignore[arg-type]
