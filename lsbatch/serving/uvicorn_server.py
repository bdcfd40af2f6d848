"""Uvicorn, ending in order: not ready first, then what is under way is answered, then the sockets close."""

from __future__ import annotations

import asyncio
import logging
from types import FrameType

import uvicorn
from fastapi import FastAPI

from lsbatch.serving.wire import PatientProtocol

__all__ = ["DrainingServer", "draining_server"]

logger = logging.getLogger(__name__)
#: How long connections may take to end once nothing is under way, in seconds.
CLOSE_SECONDS = 2
#: Connections at once; whoever comes beyond is answered with 503.
MOST_CONNECTIONS = 1_000


class DrainingServer(uvicorn.Server):
    """Uvicorn with another answer to SIGTERM and SIGINT; the second signal ends at once.

    Args:
        config: of uvicorn.
        drain_seconds: how long what is under way may take.

    Attributes:
        cut_short_by: the signal that did not let what was under way be answered, if one came.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task[None] | None = None
        self.cut_short_by: int | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See ``uvicorn.Server``. Runs between two steps of the loop, as any signal handler of Python."""
        if self._draining is None and self.started and not self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self._begin)
        else:
            # What is torn down now is no news, and uvicorn would log each of it.
            logging.getLogger("uvicorn.error").disabled = True
            self.force_exit = self.should_exit = True
            self.cut_short_by = sig

    def _begin(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        logger.info("ending: what is under way is answered first; once more ends at once")
        backend = self.config.app.state.backend  # type: ignore[union-attr]
        backend.draining = True
        if not await backend.idle(self._drain_seconds):
            logger.warning("not all was answered within %g s", self._drain_seconds)
        self.should_exit = True


def draining_server(app: FastAPI, drain_seconds: float) -> DrainingServer:
    """A server of the application that logs nothing itself: the application has a log of its own."""
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="on",
        http=PatientProtocol,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        server_header=False,
    )
    return DrainingServer(config, drain_seconds)
