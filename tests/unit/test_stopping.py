"""A request to stop: the first reason counts, and nobody waits longer than needed."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from lsbatch.errors import ExitCode, StoppedError
from lsbatch.stopping import Stop

PATIENCE = 20


def test_nobody_asked() -> None:
    stop = Stop()
    stop.check()
    stop.sleep(0)
    assert not stop.asked


def test_the_first_reason_counts() -> None:
    calls: list[str] = []
    stop = Stop(on_ask=lambda: calls.append("asked"))
    stop.ask("interrupted", ExitCode.INTERRUPTED)
    stop.ask("terminated", ExitCode.TERMINATED)
    assert stop.asked
    assert calls == ["asked"]
    with pytest.raises(StoppedError, match="interrupted") as caught:
        stop.check()
    assert caught.value.exit_code is ExitCode.INTERRUPTED
    assert "the same command continues" in caught.value.hint


def test_a_wait_ends_when_somebody_asks() -> None:
    stop = Stop()
    waiting = threading.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        waiting.set()
        try:
            stop.sleep(1_000)
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(PATIENCE)
    stop.ask("told to", ExitCode.TERMINATED)
    thread.join(PATIENCE)
    assert [type(error) for error in ended] == [StoppedError]


def test_a_wait_takes_its_time_when_nobody_asks() -> None:
    began = time.monotonic()
    Stop().sleep(0.05)
    Stop().sleep(-1)
    assert time.monotonic() - began >= 0.05


def test_time_that_is_up_asks_by_itself() -> None:
    stop = Stop()
    with stop.after(0.05), pytest.raises(StoppedError, match=r"run\.max_runtime") as caught:
        stop.sleep(PATIENCE)
    assert caught.value.exit_code is ExitCode.TEMPORARY


def test_a_context_that_ends_before_is_not_asked() -> None:
    stop = Stop()
    before = set(threading.enumerate())
    with stop.after(0.2):
        [timer] = set(threading.enumerate()) - before
    timer.join(PATIENCE)
    assert not stop.asked


def test_without_a_limit_there_is_no_clock() -> None:
    stop = Stop()
    before = threading.active_count()
    with stop.after(None):
        assert threading.active_count() == before
    assert not stop.asked


def test_a_signal_may_ask_while_the_same_thread_waits() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.ask("told to", ExitCode.INTERRUPTED))
    try:
        timer = threading.Timer(0.05, signal.raise_signal, (signal.SIGUSR1,))
        timer.start()
        with pytest.raises(StoppedError):
            stop.sleep(PATIENCE)
        timer.join(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
