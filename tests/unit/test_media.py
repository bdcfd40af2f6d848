"""Media over real HTTP: limits, redirects, and a token that goes to one server only."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lsbatch.errors import PipelineError, TransientError
from lsbatch_connectors.media import MediaOptions, UriMedia


class Server:
    """An HTTP server with scripted answers: path -> list of (status, headers, body), the last one repeated."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.seen: list[tuple[str, str | None]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script.seen.append((self.path, self.headers.get("Authorization")))
                answers = script.answers.get(self.path, [(404, {}, b"")])
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def studio() -> Iterator[Server]:
    """Stands for Label Studio."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Another server."""
    server = Server()
    yield server
    server.close()


def media(server: Server, prefix: str = "", retry_seconds: float = 0.0) -> UriMedia:
    """Media of this server with a token, and files of at most 1,000 bytes."""
    options = MediaOptions(server.url + prefix, max_bytes=1_000, retry_seconds=retry_seconds)
    return UriMedia(options, lambda: "Token t0k")


def test_uploads_are_read_with_the_token(studio: Server) -> None:
    studio.answers["/data/upload/1/a.png"] = [(200, {}, b"picture")]
    assert media(studio).read("/data/upload/1/a.png") == b"picture"
    assert media(studio).read(studio.url + "/data/upload/1/a.png") == b"picture"
    assert studio.seen == [("/data/upload/1/a.png", "Token t0k")] * 2


def test_a_path_prefix_is_added_once(studio: Server) -> None:
    studio.answers["/ls/data/a"] = [(200, {}, b"x")]
    assert media(studio, "/ls").read("/data/a") == b"x"
    assert media(studio, "/ls").read("/ls/data/a") == b"x"


def test_the_token_goes_to_no_other_server(studio: Server, elsewhere: Server) -> None:
    elsewhere.answers["/a"] = [(200, {}, b"x")]
    studio.answers["/r"] = [(302, {"Location": elsewhere.url + "/a"}, b"")]
    assert media(studio).read("/r") == b"x"
    assert media(studio).read(elsewhere.url + "/a") == b"x"
    assert elsewhere.seen == [("/a", None), ("/a", None)]


def test_data_uris_stand_for_themselves(studio: Server) -> None:
    assert media(studio).read("data:text/plain;base64,aGVsbG8=") == b"hello"
    assert media(studio).read("data:,a%20b") == b"a b"
    with pytest.raises(PipelineError, match="not a data URI"):
        media(studio).read("data:;base64,???")


def test_a_passing_fault_is_tried_again(studio: Server) -> None:
    studio.answers["/a"] = [(503, {}, b""), (200, {}, b"x")]
    assert media(studio, retry_seconds=10).read("/a") == b"x"
    studio.answers["/b"] = [(503, {}, b"")]
    with pytest.raises(TransientError, match="503"):
        media(studio).read("/b")


def test_a_file_on_which_the_server_fails_costs_two_requests(studio: Server) -> None:
    studio.answers["/a"] = [(500, {}, b"")]
    with pytest.raises(PipelineError, match=r"the server fails on it \(500\)"):
        media(studio, retry_seconds=10).read("/a")
    assert len(studio.seen) == 2
    studio.answers["/b"] = [(500, {}, b""), (200, {}, b"x")]
    assert media(studio).read("/b") == b"x"


def test_a_host_that_is_down_costs_its_time_once_but_label_studio_is_waited_for(
    studio: Server, elsewhere: Server
) -> None:
    for server, patient in ((studio, True), (elsewhere, False)):
        server.answers["/a"] = [(503, {}, b"")]
        server.answers["/b"] = [(200, {}, b"x")]
        reader = media(studio, retry_seconds=0.6)
        attempts = []
        for path in ("/a", "/a", "/b", "/a"):
            before = len(server.seen)
            if path == "/b":
                assert reader.read(server.url + path) == b"x"
            else:
                with pytest.raises(TransientError):
                    reader.read(server.url + path)
            attempts.append(len(server.seen) - before)
        assert attempts[0] > 1
        assert (attempts[1] > 1) is patient
        assert attempts[3] > 1


@pytest.mark.parametrize("uri", ["http://", "http://[::1", "http:a", "http://h:99999/", "https://h:port/", "http:///a"])
def test_an_address_that_is_none(studio: Server, uri: str) -> None:
    with pytest.raises(PipelineError, match="is not an address"):
        media(studio).read(uri)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/x"])
def test_a_redirect_to_no_address(studio: Server, location: str) -> None:
    studio.answers["/a"] = [(302, {"Location": location}, b"")]
    with pytest.raises(PipelineError, match="redirected too often, or to something that is not http"):
        media(studio).read("/a")


def test_a_server_that_is_silent_is_named_with_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        options = MediaOptions("http://127.0.0.1:1", read_seconds=0.2, retry_seconds=0.0)
        with pytest.raises(TransientError, match=r"silence for 0\.2 s \(media\.read_seconds\)"):
            UriMedia(options).read(url)


def test_an_expired_token_is_exchanged_once(studio: Server) -> None:
    studio.answers["/a"] = [(401, {}, b""), (200, {}, b"x")]
    assert media(studio).read("/a") == b"x"
    studio.answers["/b"] = [(401, {}, b"")]
    with pytest.raises(PipelineError, match="refused with 401"):
        media(studio).read("/b")


@pytest.mark.parametrize("uri", ["pictures/a.png", "/etc/../a", "file:///etc/passwd", "//host/a", "ftp://h/a", ""])
def test_files_of_the_worker_are_never_read(studio: Server, uri: str) -> None:
    with pytest.raises(PipelineError):
        media(studio).read(uri)


def test_limits_and_what_is_not_there(studio: Server) -> None:
    studio.answers["/large"] = [(200, {}, b"x" * 1_001)]
    studio.answers["/loop"] = [(302, {"Location": "/loop"}, b"")]
    with pytest.raises(PipelineError, match="larger than"):
        media(studio).read("/large")
    with pytest.raises(PipelineError, match="larger than"):
        media(studio).read("data:," + "x" * 1_001)
    with pytest.raises(PipelineError, match="redirected too often"):
        media(studio).read("/loop")
    with pytest.raises(PipelineError, match="not found: /gone"):
        media(studio).read("/gone")
