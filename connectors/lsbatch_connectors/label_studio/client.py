"""One HTTP request to Label Studio, and what its answer means.

The SDK's client wrapper supplies the address, the headers and both kinds of token (a personal access token is exchanged
for a short-lived one). Requests go through this raw layer: the typed methods above it repeat POST on their own, which
stores predictions twice, and parse each task into models, which costs more than the server does. It is imported by
itself, since the SDK's whole client brings pandas with it, which takes seconds to load.
"""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.client_wrapper import SyncClientWrapper

from lsbatch.errors import AmbiguousError, LsbatchError, PermanentError, TransientError
from lsbatch.retry import retry_transient

__all__ = ["ConnectionOptions", "LabelStudioClient"]

logger = logging.getLogger(__name__)
MESSAGE_LENGTH = 800
HINTS = {
    401: "Check LABEL_STUDIO_API_KEY: copy a token from Account & Settings > Access Token. Legacy tokens work only "
    "where the organization allows them.",
    403: "The token's user may not do this. Ask for access to the project, or use another user's token.",
    404: "Check the project id and LABEL_STUDIO_URL.",
    413: "A server or proxy limits the size of a request: lower import.max_body_mb.",
}


@dataclass(frozen=True)
class ConnectionOptions:
    """How to reach one Label Studio.

    Attributes:
        url: its address, a path prefix included.
        token: a legacy token or a personal access token.
        connect_seconds: longest wait for a connection.
        read_seconds: longest silence of the server while it answers a read.
        write_seconds: longest silence of the server while it carries out a write.
        retry_seconds: how long a read is tried again in all.
        verify_tls: check the server's certificate.
        max_requests_per_second: of one client, over all its threads; None for no limit.
    """

    url: str
    token: str
    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    write_seconds: float = 120.0
    retry_seconds: float = 120.0
    verify_tls: bool = True
    max_requests_per_second: float | None = None

    def __repr__(self) -> str:
        return f"ConnectionOptions(url={self.url!r}, token='***')"


class _Pace:
    """Holds requests back so that they leave evenly spaced, whichever threads they come from.

    Args:
        per_second: requests in a second.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, _request: httpx.Request) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        time.sleep(turn - now)


class LabelStudioClient:
    """Requests to one Label Studio. May be shared by threads; cannot be pickled: build it in each process."""

    def __init__(self, options: ConnectionOptions) -> None:
        self.options = options
        self.url = options.url.rstrip("/")
        self._known = False
        #: The server says that it is Django's own development server, which ``label-studio start`` runs.
        self.development_server = False
        rate = options.max_requests_per_second
        # No redirects: a redirected POST would silently become a GET.
        self._http = httpx.Client(
            timeout=httpx.Timeout(options.read_seconds, connect=options.connect_seconds),
            verify=options.verify_tls,
            follow_redirects=False,
            event_hooks={"request": [] if rate is None else [_Pace(rate)]},
        )
        # The slash at the end keeps a path prefix when the SDK exchanges a personal access token.
        self._sdk = self._mapped(
            "token",
            "read",
            lambda: SyncClientWrapper(
                base_url=self.url + "/", api_key=options.token, httpx_client=self._http, max_retries=0
            ),
        )

    @property
    def token_kind(self) -> Literal["legacy token", "personal access token"]:
        """Which of Label Studio's two kinds of token is in use."""
        # A personal access token is a JWT: three parts.
        return "personal access token" if self.options.token.count(".") == 2 else "legacy token"

    def authorization(self) -> str:
        """The value of the Authorization header, exchanged anew when the short-lived token ran out.

        Raises:
            PermanentError: the token was refused.
            TransientError: the server could not be reached.
        """
        header = self._mapped("token", "read", lambda: self._sdk.get_headers())
        return str(header["Authorization"])

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Read JSON; tried again for ``retry_seconds`` in all.

        Raises:
            TransientError: no usable answer in that time.
            PermanentError: refused.
        """
        return retry_transient(lambda: self.get_once(path, params), seconds=self.options.retry_seconds)

    def get_once(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Read JSON in one attempt; raises as ``get``."""
        return self.timed(path, params)[0]

    def timed(self, path: str, params: Mapping[str, Any] | None = None) -> tuple[Any, float]:
        """As ``get_once``, with the seconds that the server took; waiting for a turn does not count."""
        return self._request("GET", path, params=params, kind="read")

    def write(self, method: str, path: str, body: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Write in one attempt; NOT safe to repeat. Returns the answer's JSON, None where there is none.

        Raises:
            TransientError: surely not carried out.
            PermanentError: refused.
            AmbiguousError: may have been carried out.
        """
        return self._request(method, path, params=params, body=body, kind="write")[0]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _request(
        self,
        method: str,
        path: str,
        *,
        kind: Literal["read", "write"],
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> tuple[Any, float]:
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        seconds = self.options.read_seconds if kind == "read" else self.options.write_seconds
        what = f"{method} {self.url}{path}"
        response = self._mapped(
            what,
            kind,
            lambda: self._sdk.httpx_client.request(
                path,
                method=method,
                params=dict(params or {}),
                content=content,
                headers={"Content-Type": "application/json"} if content is not None else None,
                request_options={"timeout": seconds, "max_retries": 0},
            ),
        )
        self.development_server = response.headers.get("server", "").startswith("WSGIServer")
        took = response.elapsed.total_seconds()
        logger.debug("%s: %d in %.3f s", what, response.status_code, took)
        return self._answer(what, kind, response), took

    def _mapped(self, what: str, kind: Literal["read", "write"], call: Callable[[], Any]) -> Any:
        """Call, with the errors of the SDK and of the connection turned into ours."""
        try:
            return call()
        except ApiError as error:
            # Only the exchange of a token gets here; nothing of the request itself was sent.
            status = error.status_code or 401
            if status in (408, 429) or status >= 500:
                raise TransientError(f"{self.url} answered the exchange of the token with {status}") from None
            raise _refused("token", status, _detail(error.body), self.options.token) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise TransientError(
                f"Label Studio at {self.url} cannot be reached: {error}",
                hint="Check LABEL_STUDIO_URL, and that Label Studio is running.",
            ) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise PermanentError(f"{self.url} is not an address: {error}", hint="Check LABEL_STUDIO_URL.") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            message = f"{what}: {type(error).__name__}: {error}"
            if kind == "read":
                raise TransientError(message) from error
            raise AmbiguousError(message) from error
        except json.JSONDecodeError as error:
            raise TransientError(f"{self.url} answered the exchange of the token with something else") from error

    def _answer(self, what: str, kind: Literal["read", "write"], response: httpx.Response) -> Any:
        status = response.status_code
        try:
            body = response.json() if response.content else None
            ours = True
        except ValueError:
            body, ours = response.text, False
        if 200 <= status < 300 and ours:
            self._known = True
            return body
        if 200 <= status < 300:
            return self._strange(what, kind, response)
        if 300 <= status < 400:
            raise PermanentError(
                f"{what}: redirected to {response.headers.get('location', 'nowhere')}",
                hint="Set LABEL_STUDIO_URL to the address that it redirects to.",
                status=status,
            )
        if status in (408, 429) or status >= 500:
            finished = ours and isinstance(body, dict) and "status_code" in body
            # The server's own words tell a locked database from anything else.
            raise _temporary(f"{what}: {status}{': ' + _detail(body) if finished else ''}", kind, response, finished)
        if status == 404 and not ours and self._known:
            # A gateway's page, not Label Studio's own answer.
            raise TransientError(f"{what}: 404 from something in front of Label Studio")
        raise _refused(what, status, _detail(body), self.options.token)

    def _strange(self, what: str, kind: Literal["read", "write"], response: httpx.Response) -> Any:
        message = f"{what}: {response.status_code} without JSON; is there a Label Studio at {self.url}?"
        if kind == "write":
            raise AmbiguousError(message)
        if self._known:
            raise TransientError(message)
        raise PermanentError(message, hint="Check LABEL_STUDIO_URL.", status=response.status_code)


def _temporary(message: str, kind: Literal["read", "write"], response: httpx.Response, finished: bool) -> LsbatchError:
    wait = _retry_after(response.headers.get("retry-after"))
    if kind == "read":
        return TransientError(message, retry_after=wait)
    return AmbiguousError(message, finished=finished, retry_after=wait)


def _refused(what: str, status: int, detail: str, token: str) -> PermanentError:
    message = f"{what}: refused with {status}: {detail}".replace(token, "***")
    return PermanentError(message, hint=HINTS.get(status, ""), status=status)


def _detail(body: object) -> str:
    """The server's own words, short enough to read."""
    if isinstance(body, dict):
        words = [body[key] for key in ("detail", "error", "validation_errors") if body.get(key)]
        text = "; ".join(word if isinstance(word, str) else json.dumps(word) for word in words) or json.dumps(body)
    else:
        text = " ".join(str(body or "").split())
    return text if len(text) <= MESSAGE_LENGTH else text[:MESSAGE_LENGTH] + "..."


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3); None where it says neither."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())
