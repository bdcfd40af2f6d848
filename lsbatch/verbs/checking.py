"""``check`` on a configured project."""

from __future__ import annotations

from collections.abc import Iterator

from lsbatch.entities import ModelVersion
from lsbatch.errors import PermanentError, RefusedError
from lsbatch.operations.check import Finding, check, try_tasks
from lsbatch.operations.importing import SERVER_SETTING
from lsbatch.wiring import Bench

__all__ = ["CHECK_RETRY_SECONDS", "check_project"]

#: A retry of ``check`` would only make a person wait for the same answer.
CHECK_RETRY_SECONDS = 0.0
#: Tasks of a project in which the server's recount takes seconds.
LARGE_PROJECT = 10_000


def check_project(bench: Bench) -> Iterator[Finding]:
    """Look at everything that a run of ``predict`` needs, in the order in which it would need it."""
    return check(
        iter(
            [
                ("configuration", lambda: str(bench.loaded.file or "no file; environment, flags and defaults")),
                ("Label Studio", lambda: _connection(bench)),
                ("project", lambda: f"{bench.info.id} {bench.info.title!r}, {bench.info.task_count:,} tasks"),
                ("settings", lambda: "; ".join(bench.info.warnings) or "nothing that will surprise"),
                ("permission to write predictions", lambda: _may_write(bench)),
                ("label config", lambda: _controls(bench)),
                ("pipeline", lambda: _pipeline(bench)),
                ("model", lambda: _model(bench)),
                ("prediction without writing", lambda: try_tasks(bench.project, bench.spec())),
            ]
        )
    )


def _connection(bench: Bench) -> str:
    bench.client.authorization()
    # A legacy token is sent as it is: only a request shows that it works, and that a Label Studio answers.
    bench.client.get("/api/current-user/whoami")
    return f"{bench.connection.url}, {bench.client.token_kind}"


def _may_write(bench: Bench) -> str:
    try:
        recounts = bench.project.recounts_project()
    except PermanentError as error:
        raise RefusedError(
            f"this token may not import predictions: {error}",
            hint="Ask for a role that may, or use another user's token.",
        ) from error
    if recounts and bench.info.task_count >= LARGE_PROJECT:
        return (
            f"yes; the server recounts the whole project at each import, which {SERVER_SETTING} in its environment ends"
        )
    return "yes"


def _controls(bench: Bench) -> str:
    return ", ".join(
        f"{control.tag} {control.name!r} on {control.object_tag} (data key {control.data_key!r}, "
        f"{len(control.labels)} labels)"
        for control in bench.label_config.controls
    )


def _pipeline(bench: Bench) -> str:
    trained = "trainable" if hasattr(bench.pipeline_class, "fit") else "without training"
    return f"{bench.pipeline_name}, {trained}"


def _model(bench: Bench) -> str:
    version = bench.model_version
    if not hasattr(bench.pipeline_class, "fit"):
        return f"{version}, without a trained model"
    stored: ModelVersion = bench.store.get(version)
    accuracy = stored.manifest.get("metrics", {}).get("accuracy")
    return version if accuracy is None else f"{version}, accuracy {accuracy:.3f} on held-out tasks"
