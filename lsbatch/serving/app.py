"""The ML-backend protocol over HTTP: an ASGI application for one project."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from lsbatch import __version__
from lsbatch.backend_wiring import basic_auth, webhook_secret
from lsbatch.config import Loaded, load
from lsbatch.errors import LsbatchError
from lsbatch.serving.backend import Backend
from lsbatch.serving.background import background, in_thread
from lsbatch.serving.guard import Access, Guard
from lsbatch.serving.keeper import Keeper, Models
from lsbatch.serving.logs import configure
from lsbatch.serving.metrics import Metrics
from lsbatch.serving.model import Limits
from lsbatch.serving.observing import Observer
from lsbatch.serving.predicting import Shortcut, backend_of, refused
from lsbatch.serving.protocol import (
    JobRequest,
    PredictRequest,
    SetupRequest,
    ValidateRequest,
    WebhookRequest,
    mistakes,
)
from lsbatch.serving.request_error import RequestError
from lsbatch.serving.source import ProjectSource, training_command, training_environment
from lsbatch.serving.stored_answers import StoredAnswers
from lsbatch.serving.training import Trainer
from lsbatch.wiring import Bench

__all__ = ["create_app"]

#: Longest time for what has to be asked for elsewhere, in seconds.
LOOK_SECONDS = 20.0
DESCRIPTION = "A Label Studio ML backend that gives the predictions of `lsbatch predict`."


def _described(answers: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Answers that say why in ``detail``, by their status."""
    content = {"application/json": {"schema": {"type": "object"}}}
    return {status: {"description": words, "content": content} for status, words in answers.items()}


#: What every endpoint may be refused with.
REFUSALS = _described(
    {
        400: "The body is not JSON.",
        401: "The login is missing or wrong.",
        403: "A public interface without basic auth, or a page of another address.",
        413: "Too much at once.",
    }
)
BUSY = _described(
    {
        409: "This server serves another project.",
        410: "No such training.",
        429: "Too much waits; see Retry-After.",
        503: "No model, or no answer in time.",
    }
)


def create_app(
    loaded: Loaded | None = None, *, source: Models | None = None, answer_from_runs: bool | None = None
) -> FastAPI:
    """The application; its model is loaded when it starts.

    Args:
        loaded: the configuration; that of the environment by default, as ``lsbatch`` reads it (``LSBATCH_CONFIG``).
        source: says which model; that of the configured project by default.
        answer_from_runs: answer with what finished runs predicted, where they did. By default, whether the variable
            ``LSBATCH_ANSWER_FROM_RUNS`` is 1.

    Raises:
        ConfigError: the configuration is wrong, or names no project or Label Studio.
    """
    if loaded is None:
        if not logging.getLogger("lsbatch").handlers:
            configure()
        loaded = load(None, environ=os.environ, flags={}, cwd=Path.cwd())
    if answer_from_runs is None:
        answer_from_runs = os.environ.get("LSBATCH_ANSWER_FROM_RUNS", "") == "1"
    bench, metrics = Bench(loaded), Metrics()
    source, access = source or ProjectSource(loaded), _access(bench)
    # What they lack is said now, and not when the server starts.
    limits, runs = _limits(loaded, bench.project_id, metrics), bench.runs
    stored = StoredAnswers(runs) if answer_from_runs else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(loaded, source, limits, metrics, stored) as app.state.backend:
            yield

    app = FastAPI(
        title="lsbatch serve", version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    _add_errors(app)
    _add_state(app, metrics, access)
    _add_predictions(app)
    _add_training(app, access)
    _add_versions(app, source)
    paths = [route.path for route in app.routes if hasattr(route, "path")]
    # The last one is asked first.
    app.add_middleware(Shortcut)
    app.add_middleware(Guard, access=access)
    app.add_middleware(Observer, metrics=metrics, endpoints=paths)
    return app


@asynccontextmanager
async def _running(
    loaded: Loaded, source: Models, limits: Limits, metrics: Metrics, stored: StoredAnswers | None
) -> AsyncIterator[Backend]:
    """The backend, with what goes on beside its requests."""
    options = loaded.config.serve
    keeper = Keeper(source, limits, options.reload_seconds, metrics.answers)
    trainer = Trainer(
        training_command(),
        training_environment(loaded),
        every=options.retrain_every,
        min_seconds=options.retrain_min_seconds,
        most_seconds=options.train_seconds,
        done=keeper.ask,
        counted=lambda status: metrics.trainings.labels(status).inc(),
    )
    tasks = [background(keeper.run(), "looking for the model"), background(trainer.run(), "training")]
    try:
        yield Backend(limits.project, keeper, trainer, metrics, stored, limits.queue_tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Who waited for an answer has it by now, or is gone.
        await keeper.close(0)


def _limits(loaded: Loaded, project: int, metrics: Metrics) -> Limits:
    options = loaded.config.serve
    return Limits(
        project=project,
        workers=options.workers,
        batch_size=options.max_batch_size,
        max_wait_seconds=options.max_wait_ms / 1e3,
        queue_tasks=options.max_queue_tasks,
        answer_seconds=options.predict_seconds,
        call_seconds=options.task_seconds,
        batches=metrics.batch_size.observe,
    )


def _access(bench: Bench) -> Access:
    options = bench.config.serve
    user, password = basic_auth(bench)
    return Access(
        user=user,
        password=password,
        secret=webhook_secret(bench),
        insecure=options.insecure,
        max_body_bytes=options.max_body_bytes,
    )


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def not_done(request: Request, error: RequestError) -> Response:
        return refused(error)

    @app.exception_handler(LsbatchError)
    async def failed(request: Request, error: LsbatchError) -> Response:
        return refused(error)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> Response:
        return refused(RequestError(422, mistakes(error.errors())))


def _add_state(app: FastAPI, metrics: Metrics, access: Access) -> None:
    # Load balancers ask with HEAD.
    @app.head("/", include_in_schema=False)
    @app.get("/", summary="Alive; open to everybody", responses=REFUSALS)
    async def root() -> dict[str, str]:
        return {"status": "UP"}

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Alive, and which model", responses=REFUSALS)
    async def health(request: Request) -> dict[str, Any]:
        return backend_of(request).health()

    @app.head("/ready", include_in_schema=False)
    @app.get(
        "/ready",
        summary="Whether predictions can be had; open to everybody",
        responses={**REFUSALS, 503: {"description": "Not yet, or not any more."}},
    )
    async def ready(request: Request) -> JSONResponse:
        backend = backend_of(request)
        status = backend.status()
        if not access.knows(dict(request.scope["headers"])):
            # Anybody may ask, and is told no more than what a load balancer needs.
            status = {"status": status["status"]}
        return JSONResponse(status, 200 if backend.ready else 503)

    @app.get("/metrics", summary="Prometheus", responses=REFUSALS, response_class=Response)
    async def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_predictions(app: FastAPI) -> None:
    @app.post("/setup", summary="Which version answers", responses={**REFUSALS, **BUSY})
    async def setup(request: Request, body: SetupRequest) -> dict[str, Any]:
        return await backend_of(request).setup(body)

    described: dict[str, Any] = {
        "responses": {**REFUSALS, **BUSY, 422: {"description": "The body has not the form of a request."}}
    }

    @app.get("/predict", summary="As POST; for clients that send a GET with a body", **described)
    @app.post("/predict", summary="One result a task, in order", **described)
    async def predict(request: Request, body: PredictRequest) -> dict[str, Any]:
        # Described here; Shortcut, which comes first, answers.
        return await backend_of(request).predict(body)


def _add_training(app: FastAPI, access: Access) -> None:
    @app.post("/webhook", summary="What happened in Label Studio", status_code=202, responses={**REFUSALS, **BUSY})
    async def webhook(request: Request, body: WebhookRequest) -> dict[str, Any]:
        # The button for training comes as predictions do, without the webhook's header.
        known = not access.secret or not access.open or access.has_secret(dict(request.scope["headers"]))
        if not known and body.action != "START_TRAINING":
            raise RequestError(401, "the webhook's secret is missing or wrong; lsbatch connect sets it")
        return backend_of(request).webhook(body)

    @app.post("/train", summary="Train now", status_code=201, responses={**REFUSALS, **BUSY})
    async def train(request: Request) -> dict[str, Any]:
        return backend_of(request).train("/train").to_json()

    @app.post("/job_status", summary="How far a training is", responses={**REFUSALS, **BUSY})
    async def job_status(request: Request, body: JobRequest) -> dict[str, Any]:
        return backend_of(request).job_status(body.job)

    @app.get("/is_training", summary="Whether a training is under way", responses=REFUSALS)
    async def is_training(request: Request) -> dict[str, Any]:
        return backend_of(request).is_training()


def _add_versions(app: FastAPI, source: Models) -> None:
    # While Label Studio does not answer, these must not become more and more threads, nor wait for it without end.
    few = asyncio.Semaphore(2)

    async def looked_up(what: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(LOOK_SECONDS), few:
                return await in_thread(what)
        except TimeoutError:
            raise RequestError(503, "Label Studio or the model store does not answer", 5) from None

    @app.get("/versions", summary="Versions that are stored", responses={**REFUSALS, **BUSY})
    async def versions(request: Request) -> dict[str, Any]:
        served = backend_of(request).keeper.served
        in_use = None if served is None else served.model_version
        return {"versions": await looked_up(source.versions), "in_use": in_use}

    @app.post(
        "/validate",
        summary="Whether the pipeline can serve a label config",
        responses={**REFUSALS, **BUSY, 422: {"description": "It cannot."}},
    )
    async def validate(body: ValidateRequest) -> JSONResponse:
        why = await looked_up(partial(source.why_not, body.config))
        return JSONResponse(
            {"status": "ok"} if why is None else {"status": "failed", "detail": why}, 422 if why else 200
        )
