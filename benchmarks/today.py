"""What people use today instead: "Retrieve predictions" with a live backend, and two scripts around the SDK."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.live_backend import VERSION, live_backend
from benchmarks.projects import make_project, region, versions
from lsbatch.local_server import LocalServer

__all__ = ["Measured", "one_shot_script", "plain_script", "retrieve"]

#: Longest wait of the SDK for an answer, in seconds: its default would cut the one import off and repeat it.
SDK_SECONDS = 600.0


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        tasks: how many tasks were predicted, or should have been.
        seconds: how long it took.
        failed: what the server said instead of predicting them; empty when all went well.
    """

    tasks: int
    seconds: float
    failed: str = ""

    @property
    def per_task(self) -> float:
        """Milliseconds a task."""
        return self.seconds / self.tasks * 1e3


def retrieve(http: httpx.Client, tasks: int, most: int) -> list[Measured]:
    """ "Retrieve predictions" on a new project of so many tasks, then of twice as many, until the server cuts it off.

    Args:
        http: connected to a server that allows live backends on its own machine.
        tasks: of the first project.
        most: of the last project, at most.
    """
    found: list[Measured] = []
    with live_backend() as url:
        while not found or (tasks <= most and not found[-1].failed):
            project = make_project(http, tasks, f"retrieve {tasks}")
            body = {"project": project, "url": url, "title": "answers at once"}
            http.post("/api/ml", json=body).raise_for_status()
            found.append(_retrieve(http, project, tasks))
            tasks *= 2
    return found


def _retrieve(http: httpx.Client, project: int, tasks: int) -> Measured:
    params = {"id": "retrieve_tasks_predictions", "project": str(project)}
    started = time.perf_counter()
    try:
        answer = http.post("/api/dm/actions", params=params, json={"selectedItems": {"all": True, "excluded": []}})
        failed = "" if answer.is_success else f"HTTP {answer.status_code}"
    except httpx.TransportError as error:
        failed = type(error).__name__
    seconds = time.perf_counter() - started
    # The answer is no proof: it is 200 and "Retrieved" without any backend too.
    there = versions(http, project).get(VERSION, 0)
    if not failed and there != tasks:
        raise SystemExit(f"'Retrieve predictions' is no measure: {there} of {tasks} predictions are there")
    return Measured(tasks, seconds, failed and f"{failed} after {seconds:.0f} s, {there:,} predictions saved")


def plain_script(server: LocalServer, http: httpx.Client, tasks: int) -> Measured:
    """The first script that everybody writes: list the tasks, create a prediction for each."""
    project = make_project(http, tasks, "plain script")
    client = _sdk(server)
    started = time.perf_counter()
    for task in client.tasks.list(project=project):
        client.predictions.create(task=task.id, result=[region("other")], score=0.5, model_version="plain")
    return _proved(http, project, "plain", Measured(tasks, time.perf_counter() - started))


def one_shot_script(server: LocalServer, http: httpx.Client, tasks: int) -> Measured:
    """The second one: list the tasks, import all predictions in one request."""
    project = make_project(http, tasks, "one-shot script")
    client = _sdk(server)
    started = time.perf_counter()
    rows = [
        {"task": task.id, "result": [region("other")], "score": 0.5, "model_version": "one-shot"}
        for task in client.tasks.list(project=project)
    ]
    client.projects.import_predictions(project, request=rows)
    return _proved(http, project, "one-shot", Measured(tasks, time.perf_counter() - started))


def _sdk(server: LocalServer) -> Any:
    # Imported before the clock starts: it takes seconds, and brings pandas with it.
    from label_studio_sdk import LabelStudio

    return LabelStudio(base_url=server.url, api_key=server.token, timeout=SDK_SECONDS)


def _proved(http: httpx.Client, project: int, version: str, measured: Measured) -> Measured:
    there = versions(http, project).get(version, 0)
    if there != measured.tasks:
        raise SystemExit(f"the {version} script is no measure: {there} of {measured.tasks} predictions are there")
    return measured
