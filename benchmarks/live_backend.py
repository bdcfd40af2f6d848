"""A live backend that answers at once: what "Retrieve predictions" costs when the model costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from benchmarks.answering import JsonHandler
from benchmarks.projects import region

__all__ = ["VERSION", "live_backend"]

#: What its predictions carry.
VERSION = "live-1"


class _Handler(JsonHandler):
    """The calls of Label Studio's ``ml.api_connector``: health, setup, predict."""

    def get(self) -> None:
        """See ``JsonHandler.get``."""
        self.answer(200, {"status": "UP", "model_class": "AtOnce"})

    def post(self, body: Any) -> None:
        """See ``JsonHandler.post``."""
        if self.path == "/setup":
            self.answer(200, {"model_version": VERSION})
        elif self.path == "/predict":
            result = {"result": [region("other")], "score": 0.5, "model_version": VERSION}
            self.answer(200, {"results": [result for _ in body["tasks"]]})
        else:
            self.send_error(404)


@contextmanager
def live_backend() -> Iterator[str]:
    """Run it on a free port of this machine; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
