"""A pipeline that kills its worker. A module of its own, so that workers can import it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ls_support import TEXT_CONFIG, topic_region
from lsbatch.entities import Task
from lsbatch.label_config import LabelConfig
from lsbatch.predictor import Predictor


class Deadly:
    """Kills its process on the text DIE."""

    model_version = "v"

    def predict(self, tasks: list[Task]) -> list[dict[str, object]]:
        """One result a task."""
        if any(task.data["text"] == "DIE" for task in tasks):
            os._exit(9)
        return [{"result": [topic_region("food")], "score": 0.5} for _ in tasks]


@dataclass(frozen=True)
class Recipe:
    """Builds ``Deadly``."""

    key: str = "deadly"

    def parcels(self) -> dict[str, bytes]:
        """Nothing: workers import this module."""
        return {}

    def __call__(self) -> Predictor:
        return Predictor(Deadly(), LabelConfig(TEXT_CONFIG), "v")  # type: ignore[arg-type]
