"""A minimal ML backend on Flask, to compare with: one that builds its model for each request, and one that keeps it.

Written the way ``label-studio-ml`` is: a WSGI application with one worker and eight threads of gunicorn
(``gunicorn --workers 1 --threads 8``). ``BUILD`` says which of the two it is.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, request

from lsbatch.config import load
from lsbatch.entities import Task, TaskId
from lsbatch.ports import Pipeline, TaskFailure, TaskResult
from lsbatch.wiring import Bench

__all__ = ["app"]

app = Flask(__name__)
_spec = Bench(load(None, environ=os.environ, flags={}, cwd=Path.cwd())).spec
_lock = threading.Lock()
_kept: Pipeline | None = None if os.environ["BUILD"] == "per request" else _spec().pipeline


@app.get("/health")
def health() -> Any:
    """Up, as always."""
    return jsonify({"status": "UP"})


def _checked(result: TaskResult | TaskFailure) -> TaskResult:
    if isinstance(result, TaskFailure):
        raise RuntimeError(result.cause)
    return result


@app.post("/predict")
def predict() -> Any:
    """One result a task."""
    tasks = [Task(TaskId(task["id"]), task["data"]) for task in request.json["tasks"]]
    if _kept is None:
        found = _spec().pipeline.predict(tasks)
    else:
        # A pipeline is used from one thread at a time.
        with _lock:
            found = _kept.predict(tasks)
    return jsonify({"results": [{**_checked(result), "model_version": _spec.model_version} for result in found]})
