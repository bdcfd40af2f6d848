"""What a task's data points at, as bytes: uploads of Label Studio, http(s) addresses, data URIs, object stores."""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote_to_bytes, urljoin, urlsplit

import fsspec
import httpx

from lsbatch.errors import PipelineError, TransientError
from lsbatch.ports import MediaReader
from lsbatch.retry import retry_transient

__all__ = ["MediaOptions", "UriMedia"]

MOST_REDIRECTS = 5
SHOWN_LENGTH = 120
#: A whole file must arrive within this many times the longest allowed silence.
TOTAL_FACTOR = 10
#: fsspec's schemes for what Label Studio calls by other names, and the package that reads them.
STORES = {"s3": ("s3", "s3fs"), "gs": ("gs", "gcsfs"), "azure-blob": ("abfs", "adlfs")}


@dataclass(frozen=True)
class MediaOptions:
    """How files are fetched.

    Attributes:
        base_url: Label Studio's address, a path prefix included; URIs that begin with ``/`` are relative to it.
        connect_seconds: longest wait for a connection.
        read_seconds: longest silence while a file is read; the whole file may take ten times as long.
        max_bytes: largest file.
        retry_seconds: how long a file that cannot be had now is tried again.
        verify_tls: check certificates.
    """

    base_url: str
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    max_bytes: int = 50_000_000
    retry_seconds: float = 30.0
    verify_tls: bool = True


class UriMedia(MediaReader):
    """Reads URIs. May be shared by threads; cannot be pickled: build it in each process.

    The token is sent to Label Studio's own scheme, host and port only, also after a redirect.

    Args:
        options: limits.
        authorization: gives the value of the Authorization header for Label Studio; None to send none. Called again
            after a 401.
    """

    def __init__(self, options: MediaOptions, authorization: Callable[[], str] | None = None) -> None:
        self._options = options
        self._authorization = authorization
        self._base = urlsplit(options.base_url)
        # Hosts that did not answer in all the time they had: one attempt for each more file, until one succeeds.
        # Label Studio is never among them: that it is away for a minute must not cost the tasks of that minute.
        self._down: set[str] = set()
        self._http = httpx.Client(
            timeout=httpx.Timeout(options.read_seconds, connect=options.connect_seconds),
            verify=options.verify_tls,
            follow_redirects=False,
        )

    def read(self, uri: str) -> bytes:
        """See ``MediaReader.read``."""
        if uri[:5].lower() == "data:":
            # Before anything is split: urllib keeps what it split last, and these are megabytes each.
            return self._data(uri)
        try:
            parts = urlsplit(uri)
            scheme, _ = parts.scheme.lower(), parts.port
        except ValueError as error:
            raise PipelineError(f"{_shown(uri)!r} is not an address: {error}") from error
        if scheme in ("http", "https"):
            return self._download(uri, uri)
        if uri.startswith("/") and not uri.startswith("//"):
            return self._download(self._absolute(uri), uri)
        if scheme in STORES:
            return self._store(scheme, uri)
        raise PipelineError(f"{_shown(uri)!r} is not a URI that can be read: it is relative, or of an unknown scheme")

    def _absolute(self, uri: str) -> str:
        prefix = self._base.path.rstrip("/")
        # Label Studio under a path prefix writes the prefix into the task's data.
        path = uri if not prefix or uri.startswith(prefix + "/") else prefix + uri
        return f"{self._base.scheme}://{self._base.netloc}{path}"

    def _is_ours(self, url: str) -> bool:
        try:
            return _origin(urlsplit(url)) == _origin(self._base)
        except ValueError:  # a port that is none
            return False

    # -------------------------------------------------------------------------------------------- kinds

    def _data(self, uri: str) -> bytes:
        head, comma, body = uri.partition(",")
        if not comma:
            raise PipelineError(f"{_shown(uri)!r} is not a data URI: it has no comma")
        try:
            raw = unquote_to_bytes(body)
            content = base64.b64decode(raw, validate=True) if head.endswith(";base64") else raw
        except (binascii.Error, ValueError) as error:
            raise PipelineError(f"{_shown(uri)!r} is not a data URI: {error}") from error
        return self._limited(content, uri)

    def _store(self, scheme: str, uri: str) -> bytes:
        name, package = STORES[scheme]
        try:
            with fsspec.open(f"{name}{uri[len(scheme) :]}", "rb") as file:
                content: bytes = file.read(self._options.max_bytes + 1)
        except ImportError as error:
            raise PipelineError(f"{_shown(uri)}: reading {scheme}:// needs pip install {package}") from error
        except FileNotFoundError as error:
            raise PipelineError(f"not found: {_shown(uri)}") from error
        except OSError as error:
            raise TransientError(f"{_shown(uri)} cannot be read now: {error}") from error
        return self._limited(content, uri)

    def _limited(self, content: bytes, uri: str) -> bytes:
        if len(content) > self._options.max_bytes:
            raise self._too_large(uri)
        return content

    def _too_large(self, uri: str) -> PipelineError:
        return PipelineError(f"{_shown(uri)} is larger than {self._options.max_bytes / 1e6:g} MB (media.max_mb)")

    # -------------------------------------------------------------------------------------------- http

    def _download(self, url: str, uri: str) -> bytes:
        host = urlsplit(url).netloc
        seconds = 0.0 if host in self._down else self._options.retry_seconds
        try:
            # One line for each of thousands of files would hide the rest; what fails in the end has its cause.
            content = retry_transient(lambda: self._follow(url, uri), seconds=seconds, level=logging.DEBUG)
        except TransientError:
            if not self._is_ours(url):
                self._down.add(host)
            raise
        self._down.discard(host)
        return content

    def _follow(self, url: str, uri: str) -> bytes:
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._get(url, uri, again=True)
            if isinstance(answer, bytes):
                return answer
            try:
                url = urljoin(url, answer)
                scheme = urlsplit(url).scheme
            except ValueError:
                break
            if scheme not in ("http", "https"):
                break
        raise PipelineError(f"{_shown(uri)}: redirected too often, or to something that is not http")

    def _get(self, url: str, uri: str, *, again: bool) -> bytes | str:
        """The content, or the address that it redirects to."""
        headers = {}
        if self._authorization is not None and self._is_ours(url):
            headers["Authorization"] = self._authorization()
        try:
            with self._http.stream("GET", url, headers=headers) as response:
                status = response.status_code
                if status == 200:
                    return self._body(response, uri)
                location = str(response.headers.get("location", ""))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
            raise PipelineError(f"{_shown(uri)!r} is not an address: {error}") from error
        except httpx.HTTPError as error:
            raise TransientError(f"{_shown(uri)} cannot be read now: {self._words(error)}") from error
        if status in (301, 302, 303, 307, 308) and location:
            return location
        if again and (status == 500 or (status == 401 and headers)):
            # A short-lived token ran out, or the server stumbled.
            return self._get(url, uri, again=False)
        raise _refusal(uri, status)

    def _words(self, error: httpx.HTTPError) -> str:
        """What went wrong on the way, with the limit that was met."""
        if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
            return f"no connection within {self._options.connect_seconds:g} s (media.connect_seconds)"
        if isinstance(error, httpx.TimeoutException):
            return f"silence for {self._options.read_seconds:g} s (media.read_seconds)"
        return f"{type(error).__name__}: {error}"

    def _body(self, response: httpx.Response, uri: str) -> bytes:
        if int(response.headers.get("content-length") or 0) > self._options.max_bytes:
            raise self._too_large(uri)
        deadline = time.monotonic() + TOTAL_FACTOR * self._options.read_seconds
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > self._options.max_bytes:
                raise self._too_large(uri)
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{_shown(uri)} did not arrive within {TOTAL_FACTOR * self._options.read_seconds:g} s"
                )
            parts.append(part)
        return b"".join(parts)


def _refusal(uri: str, status: int) -> PipelineError | TransientError:
    if status == 404:
        return PipelineError(f"not found: {_shown(uri)}")
    if status == 500:
        # Not an outage: this is how Label Studio answers for an upload whose file is gone.
        return PipelineError(f"{_shown(uri)}: the server fails on it (500); is the file still there?")
    if status in (408, 429) or status > 500:
        return TransientError(f"{_shown(uri)} cannot be read now: {status}")
    return PipelineError(f"{_shown(uri)}: refused with {status}")


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown(uri: str) -> str:
    return uri if len(uri) <= SHOWN_LENGTH else uri[:SHOWN_LENGTH] + "..."
