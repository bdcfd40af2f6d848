"""Who may ask, and how much: before a request is read."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lsbatch.ports import SECRET_HEADER

__all__ = ["Access", "Guard", "is_local"]

#: Asked by those who only want to know whether it runs, and told no more.
OPEN = ("/", "/ready")


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        user: of basic auth; empty where there is none.
        password: that goes with it.
        secret: of webhooks; empty where there is none.
        insecure: answer everybody on a public interface too.
        max_body_bytes: largest request.
    """

    user: str = ""
    password: str = ""
    secret: str = ""
    insecure: bool = False
    max_body_bytes: int = 25_000_000

    def __repr__(self) -> str:
        return f"Access(user={self.user!r}, insecure={self.insecure})"

    @property
    def open(self) -> bool:
        """Nobody needs to say who they are."""
        return not self.user

    def refused(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request lacks what it needs to carry. Takes the same time for every wrong password."""
        if path in OPEN:
            return False
        return not self.knows(headers) and not (path == "/webhook" and self.secret and self.has_secret(headers))

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request carries the login, or none is needed."""
        return self.open or self._has_login(headers)

    def has_secret(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request carries the secret of webhooks, if there is one."""
        given = headers.get(SECRET_HEADER.lower().encode(), b"")
        return hmac.compare_digest(given, self.secret.encode())

    def _has_login(self, headers: Mapping[bytes, bytes]) -> bool:
        kind, _, value = headers.get(b"authorization", b"").partition(b" ")
        try:
            given = base64.b64decode(value, validate=True) if kind.lower() == b"basic" else b""
        except ValueError:
            given = b""
        return hmac.compare_digest(given, f"{self.user}:{self.password}".encode())


class Guard:
    """An ASGI middleware that refuses requests without a login, from afar without one, and larger than allowed."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if why := self._exposed(scope):
            await _refuse(send, 403, why)
        elif _from_another_page(headers, any_name=not self._access.open):
            await _refuse(send, 403, "a page of another address asks, and browsers are no clients of this server")
        elif self._access.refused(scope["path"], headers):
            await _refuse(send, 401, "the login or the webhook's secret is missing or wrong", _CHALLENGE)
        elif _length(headers) > self._access.max_body_bytes:
            await _refuse(send, 413, self._too_large())
        else:
            await self._limited(scope, receive, send)

    def _exposed(self, scope: Scope) -> str:
        """Why nobody is answered on this interface, or an empty text."""
        server = scope.get("server")
        # On a socket of the file system there is no port, and its rights say who may ask.
        if not self._access.open or self._access.insecure or not server or server[1] is None or is_local(server[0]):
            return ""
        return "without basic auth only this machine is answered: set BASIC_AUTH_USER and BASIC_AUTH_PASS"

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes, since a body in pieces does not say how long it is."""
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._access.max_body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> str:
        limit = self._access.max_body_bytes / 1e6
        return f"the request is larger than {limit:g} MB (serve.max_body_mb); predict offline: lsbatch predict"


_CHALLENGE = ((b"www-authenticate", b'Basic realm="lsbatch"'),)


async def _refuse(send: Send, status: int, detail: str, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body: Any = json.dumps({"detail": detail}).encode()
    # What was not read of the request would be taken for the next one.
    headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *more]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _from_another_page(headers: Mapping[bytes, bytes], *, any_name: bool) -> bool:
    """Whether a browser asks for a page that came from elsewhere: any page may, and without a login all would be done.

    Browsers say so themselves (Fetch standard, ``Origin``); neither Label Studio nor scripts send it.

    Args:
        headers: of the request.
        any_name: the page may have come from here by any name. Whoever owns a name can have it mean this machine.
    """
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    if origin is None:
        return False
    return origin.partition(b"://")[2] != host or not (any_name or _is_address(host.decode("latin-1")))


def _is_address(host: str) -> bool:
    """Whether it is this machine's own name or an address, with a port or without: nobody else can have it changed."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _length(headers: Mapping[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    return int(value[:20]) if value.isdigit() else 0


def is_local(host: str) -> bool:
    """Whether an address is one of this machine that no other reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "testserver")
