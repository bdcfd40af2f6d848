"""What tests of the live backend share: a pipeline that does what its tasks tell, an application, and clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from ls_support import TEXT_CONFIG
from lsbatch.config import Loaded, load
from lsbatch.entities import Task, TaskId
from lsbatch.errors import LsbatchError
from lsbatch.pipeline_spec import MediaSpec, PipelineSpec
from lsbatch.serving import create_app
from lsbatch.serving.model import Served
from lsbatch_connectors.label_studio import ConnectionOptions
from lsbatch_connectors.media import MediaOptions

PROJECT = 7
#: Answers with the version, so that one can see which model said it.
PIPELINE = """
import os
import pathlib
import threading
import time


class Told:
    def __init__(self, context):
        self.model_version = context.model_version
        if pathlib.Path(context.params.get("broken", "/nowhere")).exists():
            raise RuntimeError("the model's file is broken")

    @classmethod
    def why_not(cls, label_config):
        return None if label_config.find("Choices", "Text") else "no Choices on Text"

    @classmethod
    def build(cls, context):
        return cls(context)

    def predict(self, tasks, context=None):
        return [self.one(task.data["text"], context) for task in tasks]

    def one(self, text, context):
        if "RAISE" in text:
            raise ValueError("told to")
        if "DIE" in text:
            os._exit(9)
        if "HANG" in text:
            threading.Event().wait()
        if "SLOW" in text:
            time.sleep(0.05)
        label = "music" if context else "food" if "soup" in text else "sport"
        region = {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
        return {"result": [region], "score": len(text) / 1000}
"""


def task(number: int, text: str = "goal") -> Task:
    """A task."""
    return Task(TaskId(number), {"text": f"{text} {number}"})


def served(folder: Path, version: str = "v1", *, params: Mapping[str, Any] | None = None) -> Served:
    """The pipeline above as something to load; its module is written into the folder."""
    (folder / "mine.py").write_text(PIPELINE)
    media = MediaSpec(MediaOptions(base_url="http://a"), ConnectionOptions("http://a", "token"))
    recipe = PipelineSpec(
        pipeline="mine:Told",
        folder=str(folder),
        params=dict(params or {}),
        label_config=TEXT_CONFIG,
        model_version=version,
        model_dir=None,
        media=media,
    )
    return Served(recipe, "mine:Told", version, TEXT_CONFIG, ("text",), (task(1),))


@dataclass
class Versions:
    """See ``Models``: what a test says is in use.

    Attributes:
        current: what is in use now; None where nothing is trained, an error where it cannot be found out.
        asked: how often Label Studio was to be asked again.
    """

    current: Served | LsbatchError | None
    asked: int = 0
    known: list[str] = field(default_factory=list)

    def __call__(self, *, fresh: bool) -> Served | None:
        """See ``ModelSource.__call__``."""
        self.asked += fresh
        if isinstance(self.current, LsbatchError):
            raise self.current
        return self.current

    def versions(self) -> list[str]:
        """See ``Models.versions``."""
        return self.known

    def why_not(self, label_config: str) -> str | None:
        """See ``Models.why_not``."""
        return None if "Choices" in label_config else "no Choices"


def configured(folder: Path, **settings: Any) -> Loaded:
    """A configuration of project 7 with these settings of ``serve``."""
    flags = {"project": PROJECT, **{f"serve.{key}": value for key, value in settings.items()}}
    environ = {"LABEL_STUDIO_URL": "http://localhost:1", "LABEL_STUDIO_API_KEY": "not-used"}
    return load(None, environ=environ, flags=flags, cwd=folder)


@asynccontextmanager
async def running(app: FastAPI, *, ready: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which is started before and ended after."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60) as http,
    ):
        if ready:
            await until(lambda: app.state.backend.ready)
        yield http


@asynccontextmanager
async def serving(
    folder: Path, versions: Versions | None = None, *, ready: bool = True, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that serves these versions, by default ``v1``."""
    source = Versions(served(folder)) if versions is None else versions
    async with running(create_app(configured(folder, **settings), source=source), ready=ready) as http:
        yield http


async def until(fulfilled: Any, seconds: float = 60.0) -> None:
    """Return as soon as something holds; it is looked at again and again.

    Raises:
        TimeoutError: it does not come to hold.
    """
    async with asyncio.timeout(seconds):
        while not fulfilled():
            await asyncio.sleep(0.01)


def request(*texts: str, context: Any = None, project: str = f"{PROJECT}.1700000000") -> dict[str, Any]:
    """A request for predictions, in the form that Label Studio 1.23 sends."""
    tasks = [
        {"id": number, "data": {"text": text}, "project": PROJECT, "predictions": [], "annotations": []}
        for number, text in enumerate(texts, 1)
    ]
    params = {"login": None, "password": None, "context": context}
    return {"tasks": tasks, "project": project, "label_config": TEXT_CONFIG, "params": params}


def choices(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The label of each result; ``error`` where a task failed."""
    return [
        "error" if "error" in row else "".join(row["result"][0]["value"]["choices"] if row["result"] else ["nothing"])
        for row in results
    ]


def renewed(found: Served, version: str) -> Served:
    """The same with another version."""
    assert isinstance(found.recipe, PipelineSpec)
    return replace(found, model_version=version, recipe=replace(found.recipe, model_version=version))
