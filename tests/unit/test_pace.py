"""A limit on requests: evenly spaced over all threads, and not taken for slowness of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient
from scripted_http import Answer, ScriptedServer, scripted_server

PATH = "/api/projects/7/"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Stands for Label Studio."""
    with scripted_server() as server:
        server.on(PATH, Answer())
        yield server


def client(server: ScriptedServer, per_second: float | None) -> LabelStudioClient:
    """A client with this limit."""
    return LabelStudioClient(ConnectionOptions(server.url, "0" * 40, max_requests_per_second=per_second))


def test_threads_share_one_limit(server: ScriptedServer) -> None:
    with closing(client(server, 25)) as limited, ThreadPoolExecutor(4) as threads:
        started = time.monotonic()
        list(threads.map(lambda _: limited.get(PATH), range(11)))
        took = time.monotonic() - started
    assert len(server.requests) == 11
    assert took >= 10 / 25


def test_writes_count_too(server: ScriptedServer) -> None:
    with closing(client(server, 10)) as limited:
        started = time.monotonic()
        limited.get(PATH)
        limited.write("POST", PATH, [])
        limited.get(PATH)
        assert time.monotonic() - started >= 2 / 10


def test_the_wait_for_a_turn_is_not_the_servers_time(server: ScriptedServer) -> None:
    with closing(client(server, 1)) as limited:
        limited.timed(PATH)
        started = time.monotonic()
        _, seconds = limited.timed(PATH)
        wall = time.monotonic() - started
    assert 0 < seconds < wall / 2


def test_without_a_limit_nothing_waits(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with closing(client(server, None)) as free:
        for _ in range(3):
            free.get(PATH)
    assert slept == []
