"""``connect`` on a configured project."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from lsbatch import backend_wiring
from lsbatch.errors import ConfigError
from lsbatch.operations.connecting import (
    Connected,
    Connection,
    Disconnected,
    Wanted,
    connect,
    connections,
    disconnect,
)
from lsbatch.wiring import Bench

__all__ = ["ConnectRequest", "backend_url", "connect_backend", "connected_backends", "disconnect_backend"]


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """What is asked of ``connect``.

    Attributes:
        url: of the backend, as Label Studio sees it.
        title: its name in the project; None keeps the one that it has.
        interactive: also asked while somebody annotates; None keeps what is set.
        show: also switch on that the project shows predictions at all.
    """

    url: str
    title: str | None = None
    interactive: bool | None = None
    show: bool = False


def connect_backend(bench: Bench, request: ConnectRequest) -> Connected:
    """Register the backend in the project, with the configured basic auth and secret of webhooks. Safe to repeat.

    Raises:
        ConfigError: half of basic auth is set, the address is none, or the title is taken.
        RefusedError: Label Studio does not take it; the hint says the way out.
    """
    user, password = backend_wiring.basic_auth(bench)
    wanted = Wanted(
        backend_url(request.url),
        request.title,
        request.interactive,
        user,
        password,
        backend_wiring.webhook_secret(bench),
        request.show,
    )
    taken = [entry.model_version for entry in bench.project.versions() if entry.model_version]
    return connect(backend_wiring.registry(bench), bench.project, bench.project, taken, wanted)


def disconnect_backend(bench: Bench, url: str | None) -> Disconnected:
    """Take the backend at this address away, or the only one that there is. Safe to repeat.

    Raises:
        ConfigError: there are several, or one that may be somebody else's, and none is named.
    """
    return disconnect(backend_wiring.registry(bench), bench.project, None if url is None else backend_url(url))


def connected_backends(bench: Bench) -> tuple[list[Connection], str]:
    """What is connected, and the version that annotators see. Changes nothing."""
    return connections(backend_wiring.registry(bench)), bench.info.active_version


def backend_url(text: str) -> str:
    """The address of a live backend without a slash at the end.

    Raises:
        ConfigError: it is none, or holds a password, which Label Studio would show to everybody.
    """
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"--url: {re.sub('//.*@', '//***@', text)!r} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
        raise ConfigError("--url: must be a URL that starts with http:// or https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "--url: must be a URL without user, password, ? and #",
            hint="User and password of basic auth are BASIC_AUTH_USER and BASIC_AUTH_PASS.",
        )
    return url
