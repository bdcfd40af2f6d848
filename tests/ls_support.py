"""What the tests share: projects on a real Label Studio, what it holds, and lsbatch as a real process."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lsbatch.local_server import LocalServer

TOPICS = ("sport", "food", "music")
TEXT_CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="topic" toName="text">'
    + "".join(f'<Choice value="{topic}"/>' for topic in TOPICS)
    + "</Choices></View>"
)
WORDS = {"sport": "goal team match ball", "food": "soup bread cheese dinner", "music": "song band guitar concert"}

#: A pipeline of a user; what it does with a task is told by the task's text.
USER_PIPELINE = """
import math
import pathlib
import threading

LABELS = ("sport", "food", "music")


class Told:
    model_version = "told-1"

    @classmethod
    def why_not(cls, label_config):
        return None if label_config.find("Choices", "Text") else "no Choices on Text"

    @classmethod
    def build(cls, context):
        return cls()

    def predict(self, tasks):
        results = []
        for task in tasks:
            text = task.data["text"]
            if "RAISE" in text:
                raise ValueError("told to")
            if "HANG" in text and not pathlib.Path("go").exists():
                pathlib.Path("hanging").touch()
                threading.Event().wait()
            if "FEWER" in text:
                continue
            label = "no such label" if "UNKNOWN" in text else LABELS[task.id % 3]
            score = math.nan if "NAN" in text else 0.5
            region = {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
            results.append({"result": [region], "score": score})
        return results
"""


def text_tasks(count: int) -> list[dict[str, Any]]:
    """Tasks whose words tell their topic."""
    rows = []
    for number in range(count):
        topic = TOPICS[number % 3]
        rows.append({"data": {"text": f"{WORDS[topic]} number{number}", "topic": topic}})
    return rows


def annotate(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same tasks with their topic as annotation."""
    return [{**row, "annotations": [{"result": [topic_region(row["data"]["topic"])]}]} for row in rows]


def topic_region(topic: str) -> dict[str, Any]:
    """A choice, as Label Studio writes it."""
    return {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": [topic]}}


def unscored(prediction: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The regions of a prediction, without their scores, which must be that of the prediction."""
    regions = [dict(region) for region in prediction["result"]]
    assert [region.pop("score") for region in regions] == [prediction["score"]] * len(regions)
    return regions


@dataclass
class Studio:
    """A running Label Studio, asked without any code of lsbatch."""

    server: LocalServer

    @property
    def http(self) -> httpx.Client:
        """A client with the user's token."""
        headers = {"Authorization": f"Token {self.server.token}"}
        # Plain HTTP: loading the certificates would take as long as a request.
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=60, verify=False)  # noqa: S501

    def make_project(self, tasks: Sequence[Mapping[str, Any]], config: str = TEXT_CONFIG) -> int:
        """A new project with these tasks; its id."""
        with self.http as http:
            answer = http.post("/api/projects/", json={"title": "test", "label_config": config}).raise_for_status()
            project = int(answer.json()["id"])
            if tasks:
                http.post(f"/api/projects/{project}/import", json=list(tasks)).raise_for_status()
        return project

    def task_ids(self, project: int) -> list[int]:
        """All tasks of a project, ids ascending."""
        with self.http as http:
            body = http.get("/api/tasks", params={"project": project, "page_size": 10_000, "include": "id"}).json()
        return sorted(task["id"] for task in body["tasks"])

    def predictions(self, project: int) -> dict[int, list[tuple[str, float, Any]]]:
        """What the server holds: version, score and result of each prediction, by task."""
        found: dict[int, list[tuple[str, float, Any]]] = defaultdict(list)
        with self.http as http:
            for row in http.get("/api/predictions/", params={"project": project}).raise_for_status().json():
                found[row["task"]].append((row["model_version"], row["score"], row["result"]))
        return dict(found)

    def active_version(self, project: int) -> str:
        """The version that annotators see."""
        with self.http as http:
            return str(http.get(f"/api/projects/{project}/").raise_for_status().json()["model_version"])


def environment(server: LocalServer | None, **more: str) -> dict[str, str]:
    """The environment without anything of the caller's Label Studio."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LABEL_STUDIO_", "LSBATCH_"))}
    if server is not None:
        kept |= {"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": server.token}
    return {**kept, **more}


def lsbatch(
    *arguments: str, cwd: Path, server: LocalServer | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run lsbatch as a process of its own, forked from one that has loaded its libraries: see ``fault.driver``."""
    from fault.driver import Driver

    with tempfile.TemporaryDirectory(prefix="lsbatch-test-") as folder:
        driver = Driver(arguments, cwd=cwd, environment=environment(server, **more), output=Path(folder))
        done = driver.done(seconds=240)
    return subprocess.CompletedProcess(["lsbatch", *arguments], done.code, done.stdout, done.stderr)
