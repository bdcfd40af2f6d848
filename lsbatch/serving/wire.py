"""Connections that take no more of the server than a request needs.

Uvicorn's own limits begin when a request is read; a client that sends one byte a minute, or a head without an end,
would be waited for without end.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["PatientProtocol"]

#: From the first byte of a request to its last, in seconds. Before the first request: from the connection.
REQUEST_SECONDS = 60.0
#: Request line, headers and trailers, in bytes; as much as most proxies take.
HEAD_BYTES = 65_536
#: For each byte of a body in chunks, so many more may be spent on the chunks.
CHUNKING = 2


class PatientProtocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn; a request that does not come to its end is answered with 408, a head too large with 431.

    Trailers are not read, and as little of them is taken as of a head.
    """

    _ending: asyncio.TimerHandle | None = None
    #: Between the first byte of a request and its last, and whether its head is there.
    _reading = False
    _headed = False
    #: Of the request, in bytes: its body so far, and what came beside it.
    _body = 0
    _beside = 0
    #: The piece that is read holds the first byte of a request.
    _begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._begun, body = False, self._body
        super().data_received(data)
        # Of a piece with a first byte it is not known how much of it belongs to the request before.
        if self._reading and not self._begun:
            self._beside += len(data) - (self._body - body)
            if self._beside > HEAD_BYTES + CHUNKING * self._body:
                self._refuse(b"431 Request Header Fields Too Large")
        if self._ending is None and not self._answering:
            # Empty lines, which are allowed before a request: uvicorn has stopped its own clock for them.
            self._wait()

    def on_message_begin(self) -> None:
        """See ``httptools``: the first byte of a request is there."""
        super().on_message_begin()
        self._reading, self._headed, self._begun = True, False, True
        self._body = self._beside = 0
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See ``httptools``; it comes for trailers too."""
        if not self._headed:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """See ``httptools``."""
        self._body += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """See ``httptools``."""
        self._headed = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See ``httptools``: the last byte of a request is there."""
        self._reading = False
        self._wait_no_more()
        super().on_message_complete()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _lacks_its_body(self) -> bool:
        """The request that is answered next is not whole."""
        return self._reading and self._headed and not self.pipeline

    def _wait(self) -> None:
        self._wait_no_more()
        self._ending = self.loop.call_later(REQUEST_SECONDS, self._late)

    def _wait_no_more(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _late(self) -> None:
        if self._answering and not self._lacks_its_body:
            # Another request is answered first, and this one is not read meanwhile.
            self._wait()
        else:
            self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        """The answer to what is not read any further; nothing where it would stand in another one."""
        if self.transport.is_closing():
            return
        if not self._answering or (self._lacks_its_body and not self.cycle.response_started):
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
