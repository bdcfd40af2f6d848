"""Answers in JSON over HTTP, for the servers that the benchmarks bring along."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

__all__ = ["JsonHandler"]


class JsonHandler(BaseHTTPRequestHandler):
    """A handler whose connections stay open between requests. Subclasses answer in ``get`` and ``post``."""

    protocol_version = "HTTP/1.1"
    #: Buffered: headers and content leave together.
    wbufsize = -1

    def get(self) -> None:
        """Answer a GET of ``self.path``."""
        self.send_error(405)

    def post(self, body: Any) -> None:
        """Answer a POST of this value to ``self.path``."""
        self.send_error(405)

    def do_GET(self) -> None:  # the name that http.server calls
        """Called by ``http.server``."""
        self.get()

    def do_POST(self) -> None:  # the name that http.server calls
        """Called by ``http.server``."""
        self.post(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, status: int, body: Any) -> None:
        """Answer with this value."""
        self.answer_text(status, json.dumps(body).encode())

    def answer_text(self, status: int, content: bytes) -> None:
        """Answer with JSON that is written already."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing: the requests are many."""
