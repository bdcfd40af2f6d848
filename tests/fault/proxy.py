"""An HTTP proxy in front of Label Studio that breaks requests by a script, and remembers every one of them.

A fault is a call that gets the exchange and decides what becomes of it: whether and how often the request reaches
Label Studio, and what the client sees. ``fault.faults`` has those that networks, gateways and servers really show.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

__all__ = ["Exchange", "Fault", "FaultProxy", "Rule", "Seen", "running"]

#: Longest time that a stalled request is held, in seconds; the client should have given up long before.
STALL_SECONDS = 30.0
UPSTREAM_SECONDS = 60.0
#: What belongs to one connection, and is made anew for the other (RFC 9110, 7.6.1).
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "host"}

Fault = Callable[["Exchange"], None]


@dataclass(frozen=True)
class Rule:
    """Apply a fault to some of the requests that match.

    Attributes:
        fault: what happens to them.
        method: a regular expression for the whole method.
        path: a regular expression that is searched in the path, the query not included.
        at: the how-manieth matching request is the first one, from 1.
        times: how many requests in a row; None for all that follow.
        rows: only requests with at least so many predictions.
    """

    fault: Fault
    method: str = ".*"
    path: str = ""
    at: int = 1
    times: int | None = 1
    rows: int = 0

    def matches(self, seen: Seen) -> bool:
        """Whether this request counts."""
        return (
            re.fullmatch(self.method, seen.method) is not None
            and re.search(self.path, seen.path) is not None
            and seen.rows >= self.rows
        )


@dataclass
class Seen:
    """A request that arrived.

    Attributes:
        method: such as ``POST``.
        path: without the query.
        query: without the question mark.
        rows: predictions in the body; 0 where there are none.
        size: bytes of the body.
        moment: when it arrived, in seconds of the monotonic clock.
        fault: what was done to it; empty when it was relayed.
        upstream: the status of each answer of Label Studio to it.
        status: what the client was told; None when it got no answer.
    """

    method: str
    path: str
    query: str
    rows: int
    size: int
    moment: float
    fault: str = ""
    upstream: list[int] = field(default_factory=list)
    status: int | None = None

    def __str__(self) -> str:
        rows = f" with {self.rows} predictions" if self.rows else ""
        broken = f", {self.fault}" if self.fault else ""
        return f"{self.moment:.3f} {self.method} {self.path}{rows}: {self.upstream} -> {self.status}{broken}"


class Exchange:
    """One request, and what can be done with it. Belongs to the thread of its connection."""

    def __init__(self, proxy: FaultProxy, handler: _Handler, seen: Seen, body: bytes) -> None:
        self.proxy = proxy
        self.seen = seen
        self._handler = handler
        self._body = body

    def forward(self) -> httpx.Response:
        """Send the request to Label Studio and wait for the answer; each call sends it once more."""
        headers = {name: value for name, value in self._handler.headers.items() if name.lower() not in HOP_BY_HOP}
        response = self.proxy.http.request(
            self.seen.method,
            self.proxy.upstream + self._handler.path,
            headers={**headers, "accept-encoding": "identity"},
            content=self._body,
        )
        self.seen.upstream.append(response.status_code)
        return response

    def relay(self, response: httpx.Response, *, last: bool = False) -> None:
        """Give the client Label Studio's answer; as the last one on this connection, if so told."""
        self.seen.status = response.status_code
        self.send(head(response, last=last) + response.content)
        if last:
            self.hang_up()

    def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Give the client another answer."""
        self.relay(httpx.Response(status, content=body, headers=headers))

    def send(self, data: bytes) -> None:
        """Write to the client as it is; a client that is gone does not matter."""
        try:
            self._handler.connection.sendall(data)
        except OSError:
            self._handler.close_connection = True

    def hang_up(self) -> None:
        """Close the connection when the exchange is over, in order: the client reads an end of the stream."""
        self._handler.close_connection = True

    def cut(self) -> None:
        """Reset the connection at once."""
        self._handler.close_connection = True
        reset(self._handler.connection)

    def client_gone(self, seconds: float = STALL_SECONDS) -> bool:
        """Wait until the client hangs up: True; or until the proxy is released or the time is over: False."""
        connection, released = self._handler.connection, self.proxy.released
        readable, _, _ = select.select([connection, released], [], [], seconds)
        return connection in readable and released not in readable

    def pause(self, seconds: float) -> None:
        """Let the client wait for the next bytes, but not when it is gone or the proxy is released."""
        self.client_gone(seconds)

    def outage(self, seconds: float) -> None:
        """Refuse every connection from now on for this time; only this exchange may still end."""
        self.proxy.outage(seconds, keep=self._handler.connection)


class FaultProxy:
    """A proxy on a free port of this machine; its address stays the same through an outage.

    Args:
        upstream: address of Label Studio; may be changed while it is down.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.seen: list[Seen] = []
        self.failures: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        # Without keep-alive: a connection that Label Studio closed meanwhile would be a fault that nobody asked for.
        # It speaks plain HTTP: loading the certificates would take as long as a request.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(timeout=UPSTREAM_SECONDS, trust_env=False, limits=limits, verify=False)  # noqa: S501
        self.released, self._release = socket.socketpair()
        self._rules: list[tuple[Rule, list[int]]] = []
        self._lock = threading.RLock()
        self._timers: list[threading.Timer] = []
        # Never listens: it keeps the port ours through an outage.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self._server: _Server | None = None
        self.up()

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self._port.getsockname()[1]}"

    def script(self, *rules: Rule) -> None:
        """Forget what was seen, and break requests by these rules from now on; the first rule that fits counts."""
        with self._lock:
            self.seen = []
            self._rules = [(rule, [0]) for rule in rules]

    def fault_for(self, seen: Seen) -> Fault | None:
        """Note a request, and what its fault is."""
        with self._lock:
            self.seen.append(seen)
            fault: Fault | None = None
            for rule, count in self._rules:
                if rule.matches(seen):
                    count[0] += 1
                    last = float("inf") if rule.times is None else rule.at + rule.times
                    if fault is None and rule.at <= count[0] < last:
                        fault = rule.fault
                        seen.fault = repr(fault)
            return fault

    def down(self, *, keep: socket.socket | None = None) -> None:
        """Refuse connections, and cut those that are open."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.stop(keep)

    def up(self) -> None:
        """Accept connections again."""
        with self._lock:
            if self._server is None:
                self._server = _Server(self, self._port.getsockname())

    def outage(self, seconds: float, *, keep: socket.socket | None = None) -> None:
        """Go down, and up again after this time."""
        self.down(keep=keep)
        timer = threading.Timer(seconds, self.up)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def close(self) -> None:
        """End everything.

        Raises:
            AssertionError: the proxy itself failed on a request.
        """
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._release.close()
        self.down()
        for thread in self.threads:
            thread.join(UPSTREAM_SECONDS)
        self.http.close()
        self.released.close()
        self._port.close()
        assert not self.failures, self.failures


@contextmanager
def running(upstream: str) -> Iterator[FaultProxy]:
    """A proxy for the time of the context."""
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


class _Server(ThreadingHTTPServer):
    """Accepts connections in a thread of its own until it is stopped."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: FaultProxy, address: tuple[str, int]) -> None:
        self.proxy = proxy
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), name="fault-proxy", daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection in a thread that can be waited for."""
        with self._lock:
            self._open.add(request)
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self.proxy.threads.append(thread)
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong in the proxy itself, for ``close`` to tell."""
        error = sys.exc_info()[1]
        # A client may reset its connection whenever it likes: killed ones do.
        if error is not None and not isinstance(error, ConnectionError):
            self.proxy.failures.append(error)

    def stop(self, keep: socket.socket | None) -> None:
        """Refuse connections and cut the open ones, all but one."""
        self.shutdown()
        self.socket.close()
        with self._lock:
            for connection in self._open - {keep}:
                shut(connection)


class _Handler(BaseHTTPRequestHandler):
    """Reads requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def _exchange(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # Killed while it sent: a server gets no whole request either.
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        seen = Seen(self.command, path, query, _rows(self.command, path, body), len(body), time.monotonic())
        proxy = self.server.proxy
        exchange = Exchange(proxy, self, seen, body)
        fault = proxy.fault_for(seen)
        try:
            if fault is None:
                exchange.relay(exchange.forward())
            else:
                fault(exchange)
        except httpx.TransportError:
            # Label Studio is gone: what its own clients would see.
            exchange.cut()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _exchange  # noqa: N815 - the library's names


def head(response: httpx.Response, *, last: bool = False) -> bytes:
    """The status line and the headers of an answer, as they are sent."""
    status = response.status_code
    lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name.lower() not in HOP_BY_HOP]
    lines += [f"content-length: {len(response.content)}", *(["connection: close"] if last else [])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reset(connection: socket.socket) -> None:
    """Close with a reset instead of an end of the stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Files of the handler share the socket; closing it below them is what sends the reset now.
    os.close(connection.detach())


def shut(connection: socket.socket) -> None:
    """End the connection in both directions, whichever thread is at work on it; it may be gone already."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _rows(method: str, path: str, body: bytes) -> int:
    """Predictions in a request that writes some."""
    if method != "POST" or "predictions" not in path:
        return 0
    value = json.loads(body)
    return len(value) if isinstance(value, list) else 1
