"""The floor: the raw requests that any program would need, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from benchmarks.projects import export_ids, prediction

__all__ = ["Floor", "bulk_import", "floor"]


@dataclass(frozen=True)
class Floor:
    """Seconds of the raw requests."""

    export: float
    write: float

    @property
    def total(self) -> float:
        """Seconds of both."""
        return self.export + self.write


def floor(http: httpx.Client, project: int) -> Floor:
    """The cheapest export and one bulk import. Leaves the project predicted: measure each on a project of its own.

    Raises:
        httpx.HTTPError: the server refused, or cut the import off.
    """
    started = time.perf_counter()
    ids = export_ids(http, project)
    exported = time.perf_counter() - started
    return Floor(exported, bulk_import(http, project, ids, "floor"))


def bulk_import(http: httpx.Client, project: int, ids: Sequence[int], model_version: str) -> float:
    """Import a prediction for each of these tasks in one request; seconds of the request.

    Raises:
        httpx.HTTPError: the server refused, or cut the request off.
        SystemExit: it created another number than was sent.
    """
    content = json.dumps([prediction(task, model_version) for task in ids]).encode()
    headers = {"Content-Type": "application/json"}
    started = time.perf_counter()
    answer = http.post(f"/api/projects/{project}/import/predictions", content=content, headers=headers)
    seconds = time.perf_counter() - started
    created = answer.raise_for_status().json()["created"]
    if created != len(ids):
        raise SystemExit(f"the bulk import is no measure: {created} of {len(ids)} predictions created")
    return seconds
