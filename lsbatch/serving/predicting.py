"""``/predict`` over HTTP: reading a request without holding up others, and dropping the work of a caller who goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lsbatch.errors import LsbatchError
from lsbatch.serving.backend import Backend
from lsbatch.serving.observing import GONE
from lsbatch.serving.protocol import read_predict_request
from lsbatch.serving.request_error import RequestError

__all__ = ["Shortcut", "backend_of", "refused"]


class Shortcut:
    """An ASGI middleware that answers ``/predict`` itself: FastAPI's machinery takes longer than a small model."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] != "/predict" or scope["method"] not in ("GET", "POST"):
            await self._app(scope, receive, send)
            return
        try:
            response = await _predict(Request(scope, receive))
        except ClientDisconnect:
            response = Response(status_code=GONE)
        except (RequestError, HTTPException, LsbatchError) as error:
            response = refused(error)
        await response(scope, receive, send)


def backend_of(request: Request) -> Backend:
    """The backend of the application that a request came to."""
    found: Backend = request.app.state.backend
    return found


def refused(error: RequestError | HTTPException | LsbatchError) -> Response:
    """The answer that says why."""
    if isinstance(error, LsbatchError):
        return JSONResponse({"detail": f"{error} {error.hint}".strip()}, 503)
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, error.status_code)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse({"detail": error.detail}, error.status, headers)


async def _predict(request: Request) -> Response:
    backend = backend_of(request)
    body = await read_predict_request(await request.body(), backend.check_size)
    return await _unless_gone(request, backend.predict(body))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """The answer; the work is dropped when the caller goes."""
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return Response(status_code=GONE)
        return Response(to_json(doing.result()), media_type="application/json")
    finally:
        doing.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
