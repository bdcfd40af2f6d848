"""Requests to a real HTTP server with scripted answers: which of our errors each becomes, and what was sent."""

from __future__ import annotations

import base64
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from email.utils import formatdate
from typing import Any, Protocol

import pytest

from lsbatch.errors import AmbiguousError, LsbatchError, PermanentError, TransientError
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient
from scripted_http import Answer, ScriptedServer, scripted_server

# The SDK reads the exchanged token with a method that pydantic has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PATH = "/api/projects/7/"
REFRESH = "/api/token/refresh/"
HTML = b"<html><body><h1>It works!</h1></body></html>"
#: How Label Studio itself says that something went wrong.
OWN = {"id": "f00", "status_code": 503, "version": "1.23.2", "detail": "database is locked"}


def jwt(*, seconds: float = 3600.0, kind: str = "refresh") -> str:
    """A personal access token that ends in so many seconds."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"token_type": kind, "exp": int(time.time() + seconds)})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Stands for Label Studio."""
    with scripted_server() as server:
        yield server


class Connect(Protocol):
    """Makes clients, which are closed when the test ends."""

    def __call__(
        self, url: str, token: str = LEGACY, *, seconds: float = 5.0, retry_seconds: float = 0.0
    ) -> LabelStudioClient:
        """A client that waits ``seconds`` for an answer."""
        ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients."""
    with ExitStack() as clients:

        def made(
            url: str, token: str = LEGACY, *, seconds: float = 5.0, retry_seconds: float = 0.0
        ) -> LabelStudioClient:
            options = ConnectionOptions(url, token, 1.0, seconds, seconds, retry_seconds)
            return clients.enter_context(closing(LabelStudioClient(options)))

        yield made


def read(client: LabelStudioClient) -> Any:
    """One read."""
    return client.get_once(PATH)


def write(client: LabelStudioClient) -> Any:
    """One write."""
    return client.write("POST", PATH, [{"task": 1}])


class ErrorOf(Protocol):
    """The error that an answer becomes."""

    def __call__(self, answer: Answer, *, writes: bool, known: bool = False) -> LsbatchError:
        """Send one request, look that it was sent once, and that its error does not hold the token.

        Args:
            answer: to the request.
            writes: whether the request is a write.
            known: an earlier answer came from a Label Studio.
        """
        ...


@pytest.fixture
def error_of(server: ScriptedServer, connect: Connect) -> ErrorOf:
    """Asks the server."""

    def asked(answer: Answer, *, writes: bool, known: bool = False) -> LsbatchError:
        client = connect(server.url, seconds=0.5 if answer.fault == "stall" else 5.0)
        if known:
            server.on(PATH, Answer(200, {}))
            read(client)
        server.requests.clear()
        server.on(PATH, answer)
        with pytest.raises(LsbatchError) as caught:
            (write if writes else read)(client)
        assert len(server.requests) == 1
        assert LEGACY not in f"{caught.value} {caught.value.hint} {caught.value!r}"
        return caught.value

    return asked


# ------------------------------------------------------------------------------------------------ which error


@pytest.mark.parametrize(
    ("answer", "of_read", "of_write"),
    [
        (Answer(400, {"detail": "no"}), PermanentError, PermanentError),
        (Answer(401, {"detail": "no"}), PermanentError, PermanentError),
        (Answer(403, {"detail": "no"}), PermanentError, PermanentError),
        (Answer(404, {"detail": "no"}), PermanentError, PermanentError),
        (Answer(404, HTML), PermanentError, PermanentError),
        (Answer(405, {"detail": "no"}), PermanentError, PermanentError),
        (Answer(413, HTML), PermanentError, PermanentError),
        (Answer(408, HTML), TransientError, AmbiguousError),
        (Answer(429, {"detail": "slowly"}), TransientError, AmbiguousError),
        (Answer(500, OWN), TransientError, AmbiguousError),
        (Answer(502, HTML), TransientError, AmbiguousError),
        (Answer(503, HTML), TransientError, AmbiguousError),
        (Answer(504, HTML), TransientError, AmbiguousError),
        (Answer(520, b""), TransientError, AmbiguousError),
        (Answer(301, b"", {"Location": "https://there/"}), PermanentError, PermanentError),
        (Answer(307, b"", {"Location": "https://there/"}), PermanentError, PermanentError),
        (Answer(200, HTML), PermanentError, AmbiguousError),
        (Answer(200, b'{"id": 7, '), PermanentError, AmbiguousError),
        (Answer(200, {"id": 7}, fault="close"), TransientError, AmbiguousError),
        (Answer(200, {"id": 7}, fault="cut"), TransientError, AmbiguousError),
        (Answer(200, {"id": 7}, fault="stall"), TransientError, AmbiguousError),
        (Answer(200, b"no gzip", {"Content-Encoding": "gzip"}), TransientError, AmbiguousError),
    ],
    ids=lambda value: f"{value.status} {value.fault or str(value.body)[:20]}" if isinstance(value, Answer) else "",
)
def test_each_answer_has_its_error_and_is_asked_for_once(
    answer: Answer, of_read: type[LsbatchError], of_write: type[LsbatchError], error_of: ErrorOf
) -> None:
    assert type(error_of(answer, writes=False)) is of_read
    assert type(error_of(answer, writes=True)) is of_write


@pytest.mark.parametrize("answer", [Answer(404, HTML), Answer(200, HTML)], ids=["404", "200"])
def test_a_page_of_a_gateway_is_no_answer_once_label_studio_was_there(answer: Answer, error_of: ErrorOf) -> None:
    assert type(error_of(answer, writes=False, known=True)) is TransientError


@pytest.mark.parametrize("writes", [False, True])
def test_a_connection_that_nobody_takes_is_surely_no_request(writes: bool, connect: Connect) -> None:
    with socket.socket() as taken:
        # Bound, not listening: nobody else gets the port meanwhile.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TransientError, match=f"Label Studio at {url} cannot be reached") as caught:
            (write if writes else read)(connect(url))
    assert "LABEL_STUDIO_URL" in caught.value.hint


def test_a_connection_kept_open_and_closed_by_the_server_is_ambiguous_for_a_write(
    connect: Connect, server: ScriptedServer
) -> None:
    server.on(PATH, Answer(200, {}), Answer(fault="close"), Answer(200, {"created": 1}))
    client = connect(server.url)
    read(client)
    with pytest.raises(AmbiguousError):
        write(client)
    assert [request.method for request in server.requests] == ["GET", "POST"]


@pytest.mark.parametrize(
    ("answer", "finished"), [(Answer(503, OWN), True), (Answer(503, HTML), False), (Answer(500, {}), False)]
)
def test_only_label_studios_own_words_mean_that_it_has_finished(
    answer: Answer, finished: bool, error_of: ErrorOf
) -> None:
    error = error_of(answer, writes=True)
    assert isinstance(error, AmbiguousError)
    assert error.finished is finished
    assert ("database is locked" in str(error)) is finished


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("17", 17, 17),
        ("0", 0, 0),
        (formatdate(time.time() + 86_400, usegmt=True), 80_000, 86_400),
        (formatdate(time.time() - 3600, usegmt=True), 0, 0),
    ],
    ids=["seconds", "zero", "date", "past date"],
)
def test_retry_after_is_told(status: int, header: str, least: float, most: float, error_of: ErrorOf) -> None:
    for writes in (False, True):
        error = error_of(Answer(status, HTML, {"Retry-After": header}), writes=writes)
        assert isinstance(error, TransientError | AmbiguousError)
        assert error.retry_after is not None
        assert least <= error.retry_after <= most


@pytest.mark.parametrize("header", ["soon", "-3", "1.5", ""])
def test_a_retry_after_that_says_nothing_is_none(header: str, error_of: ErrorOf) -> None:
    error = error_of(Answer(503, HTML, {"Retry-After": header}), writes=False)
    assert isinstance(error, TransientError)
    assert error.retry_after is None


# ------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(404, {"detail": "No Project matches the given query."}), "404: No Project matches the given query."),
        (Answer(400, {"validation_errors": {"title": ["too long"]}}), '400: {"title": ["too long"]}'),
        (Answer(400, {"detail": "Validation error", "error": "no"}), "400: Validation error; no"),
        (Answer(400, ["one", "two"]), "one"),
        (Answer(403, b""), "refused with 403"),
        (Answer(301, b"", {"Location": "https://there/"}), "redirected to https://there/"),
        (Answer(400, {"detail": f"unknown token {LEGACY}"}), "unknown token ***"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_servers_own_words_are_passed_on(
    answer: Answer, words: str, error_of: ErrorOf, server: ScriptedServer
) -> None:
    error = error_of(answer, writes=False)
    assert words in str(error)
    assert f"GET {server.url}{PATH}" in str(error)


def test_a_long_answer_is_cut(error_of: ErrorOf) -> None:
    assert len(str(error_of(Answer(400, {"detail": "x" * 100_000}), writes=False))) < 1_000


def test_the_way_out_fits_the_status(error_of: ErrorOf) -> None:
    hints = {status: error_of(Answer(status, {}), writes=True).hint for status in (401, 403, 404, 413)}
    assert "LABEL_STUDIO_API_KEY" in hints[401]
    assert "access to the project" in hints[403]
    assert "project id" in hints[404]
    assert "import.max_body_mb" in hints[413]


# ------------------------------------------------------------------------------------------------ what is sent


@pytest.mark.parametrize("prefix", ["", "/", "/label/studio", "/label/studio/"])
def test_a_path_prefix_is_kept(prefix: str, connect: Connect, server: ScriptedServer) -> None:
    under = prefix.rstrip("/")
    server.on(under + PATH, Answer(200, {"id": 7}))
    server.on(under + REFRESH, Answer(200, {"access": jwt(kind="access")}))
    for token in (LEGACY, jwt()):
        assert read(connect(server.url + prefix, token)) == {"id": 7}
    assert {request.path for request in server.requests} == {under + PATH, under + REFRESH}


def test_a_query_and_a_body_arrive_as_they_are(connect: Connect, server: ScriptedServer) -> None:
    server.on("/api/tasks", Answer(200, {"tasks": []}))
    client = connect(server.url)
    client.get_once("/api/tasks", {"query": '{"a": "ä&b"}', "page": 1})
    client.write("POST", "/api/tasks", [{"text": "ä\u2028"}], params={"x": "1"})
    first, second = server.requests
    assert first.path == "/api/tasks?query=%7B%22a%22%3A+%22%C3%A4%26b%22%7D&page=1"
    assert (second.method, second.path, second.json) == ("POST", "/api/tasks?x=1", [{"text": "ä\u2028"}])
    assert second.headers["Content-Type"] == "application/json"


def test_a_number_that_json_has_not_is_never_sent(connect: Connect, server: ScriptedServer) -> None:
    server.on(PATH, Answer(200, {}))
    with pytest.raises(ValueError, match="Out of range float"):
        connect(server.url).write("POST", PATH, {"score": float("nan")})
    assert server.requests == []


def test_no_content_is_none(connect: Connect, server: ScriptedServer) -> None:
    server.on(PATH, Answer(204, b""))
    assert connect(server.url).write("DELETE", PATH) is None


# ------------------------------------------------------------------------------------------------ again


def test_a_read_is_tried_again(connect: Connect, server: ScriptedServer) -> None:
    faults = (Answer(503, HTML, {"Retry-After": "0"}), Answer(fault="close"), Answer(200, b"{", fault="cut"))
    server.on(PATH, *faults, Answer(200, {"id": 7}))
    assert connect(server.url, retry_seconds=30).get(PATH) == {"id": 7}
    assert len(server.requests) == 4


def test_a_read_is_not_tried_again_when_it_was_refused_or_the_wait_is_too_long(
    connect: Connect, server: ScriptedServer
) -> None:
    client = connect(server.url, retry_seconds=30)
    server.on(PATH, Answer(403, {}))
    with pytest.raises(PermanentError):
        client.get(PATH)
    server.on(PATH, Answer(429, {}, {"Retry-After": "31"}))
    with pytest.raises(TransientError):
        client.get(PATH)
    assert len(server.requests) == 2


# ------------------------------------------------------------------------------------------------ tokens


def test_a_legacy_token_is_sent_as_it_is(connect: Connect, server: ScriptedServer) -> None:
    server.on(PATH, Answer(200, {}))
    client = connect(server.url)
    assert client.token_kind == "legacy token"
    read(client)
    assert [request.headers["Authorization"] for request in server.requests] == [f"Token {LEGACY}"]


def test_a_personal_access_token_is_exchanged_and_the_new_one_used_until_it_ends(
    connect: Connect, server: ScriptedServer
) -> None:
    token, first, second = jwt(), jwt(seconds=3600, kind="access"), jwt(seconds=7200, kind="access")
    ended = jwt(seconds=-1, kind="access")
    server.on(PATH, Answer(200, {}))
    server.on(REFRESH, Answer(200, {"access": first}))
    client = connect(server.url, token)
    assert client.token_kind == "personal access token"
    read(client)
    read(client)
    server.on(REFRESH, Answer(200, {"access": ended}), Answer(200, {"access": second}))
    again = connect(server.url, token)
    read(again)
    assert again.authorization() == f"Bearer {second}"
    sent = [request.headers.get("Authorization") for request in server.requests if request.path == PATH]
    assert sent == [f"Bearer {first}", f"Bearer {first}", f"Bearer {ended}"]
    exchanges = [request for request in server.requests if request.path == REFRESH]
    assert [exchange.json for exchange in exchanges] == [{"refresh": token}] * 3


@pytest.mark.parametrize("token", [jwt(seconds=-60), jwt().split(".")[0] + ".e30.c2ln"], ids=["expired", "endless"])
def test_a_personal_access_token_that_has_ended_is_refused_before_any_request(
    token: str, connect: Connect, server: ScriptedServer
) -> None:
    with pytest.raises(PermanentError, match="token: refused with 401") as caught:
        connect(server.url, token)
    assert "LABEL_STUDIO_API_KEY" in caught.value.hint
    assert token not in f"{caught.value}{caught.value!r}"
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(401, {"detail": "Token is blacklisted", "code": "token_not_valid"}), PermanentError),
        (Answer(200, HTML), TransientError),
        (Answer(502, HTML), TransientError),
        (Answer(fault="close"), TransientError),
    ],
    ids=["401", "page", "gateway", "closed"],
)
def test_an_exchange_that_fails_is_not_the_request(
    answer: Answer, kind: type[LsbatchError], connect: Connect, server: ScriptedServer
) -> None:
    token = jwt()
    server.on(REFRESH, answer)
    server.on(PATH, Answer(200, {}))
    with pytest.raises(kind) as caught:
        connect(server.url, token).authorization()
    assert token not in f"{caught.value}{caught.value.hint}{caught.value!r}"
    with pytest.raises(LsbatchError):
        write(connect(server.url, token))
    assert {request.path for request in server.requests} == {REFRESH}


def test_no_log_and_no_repr_shows_the_token(
    caplog: pytest.LogCaptureFixture, connect: Connect, server: ScriptedServer
) -> None:
    token = jwt()
    server.on(REFRESH, Answer(200, {"access": jwt(kind="access")}))
    server.on(PATH, Answer(200, {}), Answer(503, OWN), Answer(200, {}))
    with caplog.at_level(logging.DEBUG):
        for secret in (LEGACY, token):
            client = connect(server.url, secret, retry_seconds=10)
            client.get(PATH)
            client.get(PATH)
            assert secret not in repr(client.options)
            assert secret not in repr(client)
    assert "200 in " in caplog.text
    assert LEGACY not in caplog.text
    assert token not in caplog.text
