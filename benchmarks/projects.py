"""Projects of made-up messages on a real Label Studio, made and read without any code of lsbatch."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import httpx

from lsbatch.local_server import LocalServer

__all__ = [
    "ANNOTATED",
    "CONFIG",
    "LABELS",
    "add_tasks",
    "connect",
    "export_ids",
    "make_project",
    "prediction",
    "region",
    "versions",
]

WORDS = {
    "billing": "invoice charged twice card amount wrong bank statement total",
    "delivery": "parcel courier late tracking address door never arrived",
    "praise": "great thank you friendly service excellent happy recommend",
    "returns": "send back refund box label broken replacement exchange",
    "other": "question opening hours store phone number website account",
}
COMMON = "the a my was is with for and please order yesterday again today still about your team"
LABELS = tuple(WORDS)
CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="topic" toName="text">'
    + "".join(f'<Choice value="{label}"/>' for label in LABELS)
    + "</Choices></View>"
)
#: Tasks of a project that carry an annotation, for a model to learn from.
ANNOTATED = 500
#: Tasks of one import request, and of one page of the export.
PAGE = 5_000
#: Longest wait for an answer, in seconds: longer than any server's own limit.
ANSWER_SECONDS = 3_600.0


def connect(server: LocalServer) -> httpx.Client:
    """A client with the token of the server's user."""
    headers = {"Authorization": f"Token {server.token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=httpx.Timeout(ANSWER_SECONDS, connect=10))


def region(label: str) -> dict[str, Any]:
    """A choice, as Label Studio writes it."""
    return {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": [label]}}


def prediction(task: int, model_version: str) -> dict[str, Any]:
    """A prediction, as the bulk import takes it."""
    return {"task": task, "result": [region("other")], "score": 0.5, "model_version": model_version}


def make_project(http: httpx.Client, tasks: int, title: str) -> int:
    """A project of so many tasks, the first ``ANNOTATED`` of them annotated; its id."""
    body = {"title": title, "label_config": CONFIG}
    project = int(http.post("/api/projects/", json=body).raise_for_status().json()["id"])
    add_tasks(http, project, tasks, annotated=ANNOTATED)
    return project


def add_tasks(http: httpx.Client, project: int, count: int, *, annotated: int = 0, seed: int = 7) -> None:
    """Add made-up messages, the same for the same seed, of which the first ``annotated`` carry their label."""
    rows: list[dict[str, Any]] = []
    for number, (text, label) in enumerate(_messages(count, seed)):
        row: dict[str, Any] = {"data": {"text": text}}
        if number < annotated:
            row["annotations"] = [{"result": [region(label)]}]
        rows.append(row)
    for first in range(0, count, PAGE):
        http.post(f"/api/projects/{project}/import", json=rows[first : first + PAGE]).raise_for_status()


def _messages(count: int, seed: int) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    found = []
    for number in range(count):
        label = LABELS[number % len(LABELS)]
        words = chance.choices(WORDS[label].split(), k=4) + chance.choices(COMMON.split(), k=26)
        chance.shuffle(words)
        found.append((" ".join(words), label))
    return found


def export_ids(http: httpx.Client, project: int, *, after: int = 0) -> Sequence[int]:
    """The ids of the tasks after this one, by the cheapest way to read tasks with their data (which is dropped)."""
    ids = [after]
    while True:
        item = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": ids[-1]}
        query = {"filters": {"conjunction": "and", "items": [item]}, "ordering": ["tasks:id"]}
        params: dict[str, str | int] = {"project": project, "page": 1, "page_size": PAGE, "include": "id,data"}
        params |= {"resolve_uri": "false", "query": json.dumps(query)}
        body = http.get("/api/tasks", params=params).raise_for_status().json()
        ids += [task["id"] for task in body["tasks"]]
        if body["total"] <= len(body["tasks"]):
            return ids[1:]


def versions(http: httpx.Client, project: int) -> dict[str, int]:
    """How many predictions of each version the project holds."""
    body = http.get(f"/api/projects/{project}/model-versions/", params={"extended": "true"}).raise_for_status().json()
    return {row["model_version"]: row["count"] for row in body["static"]}
