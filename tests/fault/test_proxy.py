"""The fault proxy does to a request what its script says, and nothing to the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from fault.faults import Answer, Call, CommitTwice, Cut, LateCommit, Outage, Stall, TooLarge, Trickle, Truncate
from fault.proxy import Fault, FaultProxy, Rule, running
from fault.waiting import until

ANSWER = json.dumps({"words": "of the upstream " * 20}).encode()


class Upstream(ThreadingHTTPServer):
    """Answers everything with ``ANSWER``, and notes the bodies that it got."""

    daemon_threads = True

    def __init__(self) -> None:
        self.got: list[tuple[str, str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.got.append((self.command, self.path, body))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    do_GET = do_POST = _answer  # noqa: N815 - the library's names


@contextmanager
def upstream_running() -> Iterator[Upstream]:
    """An upstream for the time of the context."""
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answers(client: httpx.Client) -> bool:
    """Whether connections are accepted."""
    try:
        return client.get("/a").content == ANSWER
    except httpx.ConnectError:
        return False


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """An upstream."""
    with upstream_running() as server:
        yield server


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    """A proxy in front of it."""
    with running(upstream.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[httpx.Client]:
    """A client of the proxy that gives up after a moment."""
    with httpx.Client(base_url=proxy.url, timeout=0.3, trust_env=False) as client:
        yield client


def test_without_a_script_the_answer_is_relayed_and_the_request_remembered(
    proxy: FaultProxy, upstream: Upstream, client: httpx.Client
) -> None:
    rows = [{"task": 1}, {"task": 2}]
    answer = client.post("/api/projects/3/import/predictions?a=b", json=rows)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, ANSWER, "application/json")
    [(method, path, body)] = upstream.got
    assert (method, path, json.loads(body)) == ("POST", "/api/projects/3/import/predictions?a=b", rows)
    [seen] = proxy.seen
    assert (seen.method, seen.path, seen.query) == ("POST", "/api/projects/3/import/predictions", "a=b")
    assert (seen.rows, seen.size, seen.status, seen.upstream, seen.fault) == (2, len(body), 200, [200], "")


def test_a_rule_counts_only_what_it_matches(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.script(Rule(Answer(503), method="GET", path="/tasks$", at=2, times=2))
    paths = ["/tasks", "/other", "/tasks", "/other", "/tasks", "/tasks"]
    assert [client.get(path).status_code for path in paths] == [200, 200, 503, 200, 503, 200]
    assert client.post("/tasks", content=b"").status_code == 200
    proxy.script(Rule(Answer(503), rows=2))
    assert [client.post("/predictions", json=[{}] * rows).status_code for rows in (0, 1, 2)] == [200, 200, 503]
    proxy.script()
    assert proxy.seen == []
    assert client.get("/tasks").status_code == 200


def test_of_two_rules_the_first_that_fits_counts_and_both_are_counted(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.script(Rule(Answer(500), path="/a"), Rule(Answer(502), at=2, times=None))
    assert [client.get(path).status_code for path in ("/a", "/b", "/a")] == [500, 502, 502]


@pytest.mark.parametrize(
    ("fault", "error", "reached"),
    [
        (Cut(after=False), httpx.ReadError, 0),
        (Cut(after=True), httpx.ReadError, 1),
        (Cut(after=False, reset=False), httpx.RemoteProtocolError, 0),
        (Cut(after=True, reset=False), httpx.RemoteProtocolError, 1),
        (Stall(after=False), httpx.ReadTimeout, 0),
        (Stall(after=True), httpx.ReadTimeout, 1),
        (Truncate(), httpx.RemoteProtocolError, 1),
    ],
    ids=repr,
)
def test_the_client_gets_no_answer(
    proxy: FaultProxy, upstream: Upstream, client: httpx.Client, fault: Fault, error: type[Exception], reached: int
) -> None:
    proxy.script(Rule(fault))
    with pytest.raises(error):
        client.post("/a", content=b"x")
    assert len(upstream.got) == reached
    assert proxy.seen[0].fault == repr(fault)
    assert proxy.seen[0].status is None
    assert client.post("/a", content=b"x").content == ANSWER


def test_a_late_commit_comes_when_the_client_has_given_up(
    proxy: FaultProxy, upstream: Upstream, client: httpx.Client
) -> None:
    proxy.script(Rule(LateCommit()))
    with pytest.raises(httpx.ReadTimeout):
        client.post("/a", content=b"x")
    until(lambda: len(upstream.got) == 1)


@pytest.mark.parametrize("after", [False, True])
def test_a_gateway_answers_in_place_of_the_upstream(
    proxy: FaultProxy, upstream: Upstream, client: httpx.Client, after: bool
) -> None:
    proxy.script(Rule(Answer(429, after=after, retry_after="7")))
    answer = client.get("/a")
    assert (answer.status_code, answer.headers["retry-after"], b"<html>" in answer.content) == (429, "7", True)
    assert len(upstream.got) == int(after)
    assert proxy.seen[0].upstream == [200] * int(after)


def test_a_request_can_reach_the_upstream_twice(proxy: FaultProxy, upstream: Upstream, client: httpx.Client) -> None:
    proxy.script(Rule(CommitTwice()))
    assert client.post("/a", content=b"x").content == ANSWER
    assert [body for _, _, body in upstream.got] == [b"x", b"x"]
    assert proxy.seen[0].upstream == [200, 200]


def test_a_trickle_takes_longer_than_any_of_its_silences(proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.script(Rule(Trickle(pieces=10, seconds=0.6)))
    started = time.monotonic()
    assert client.get("/a").content == ANSWER
    assert time.monotonic() - started > 0.3


def test_only_large_bodies_are_too_large(proxy: FaultProxy, upstream: Upstream, client: httpx.Client) -> None:
    proxy.script(Rule(TooLarge(10), times=None))
    assert [client.post("/a", content=b"x" * size).status_code for size in (10, 11, 9, 500)] == [200, 413, 200, 413]
    assert [len(body) for _, _, body in upstream.got] == [10, 9]


@pytest.mark.parametrize("answered", [False, True])
def test_in_an_outage_connections_are_refused_and_then_accepted_again(
    proxy: FaultProxy, upstream: Upstream, client: httpx.Client, answered: bool
) -> None:
    url = proxy.url
    proxy.script(Rule(Outage(0.3, answered=answered), at=2))
    assert client.get("/a").content == ANSWER
    if answered:
        assert client.get("/a").content == ANSWER
    else:
        with pytest.raises(httpx.ReadError):
            client.get("/a")
    with pytest.raises(httpx.ConnectError):
        client.get("/a")
    until(lambda: answers(client))
    assert proxy.url == url
    assert len(upstream.got) == 2 + int(answered)


def test_something_can_happen_between_the_commit_and_the_answer(
    proxy: FaultProxy, upstream: Upstream, client: httpx.Client
) -> None:
    reached: list[int] = []
    proxy.script(Rule(Call(lambda: reached.append(len(upstream.got)), after=True)))
    with pytest.raises(httpx.ReadError):
        client.post("/a", content=b"x")
    assert reached == [1]


def test_when_the_upstream_is_gone_the_connection_is_cut(proxy: FaultProxy, client: httpx.Client) -> None:
    with upstream_running() as other:
        proxy.upstream = other.url
    with pytest.raises(httpx.ReadError):
        client.get("/a")
    with upstream_running() as other:
        proxy.upstream = other.url
        assert client.get("/a").content == ANSWER


def test_closing_releases_a_stalled_client_and_a_failing_fault_is_told(upstream: Upstream) -> None:
    def broken(_exchange: object) -> None:
        raise ValueError("in the fault itself")

    proxy = FaultProxy(upstream.url)
    proxy.script(Rule(Stall(after=False)), Rule(broken, at=2))
    ended = threading.Event()

    def ask() -> None:
        try:
            httpx.get(proxy.url, timeout=60, trust_env=False)
        except httpx.TransportError:
            ended.set()

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: bool(proxy.seen))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(proxy.url, timeout=10, trust_env=False)
    with pytest.raises(AssertionError, match="in the fault itself"):
        proxy.close()
    asking.join(10)
    assert ended.is_set()
