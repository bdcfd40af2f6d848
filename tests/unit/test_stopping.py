"""A request to stop: the first reason counts, and nobody waits longer than needed."""

from __future__ import annotations

import gc
import signal
import threading
import time
from pathlib import Path

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


def wait_for_ever(stop: Stop) -> None:
    """Wait again and again."""
    while True:
        stop.sleep(0.0)


def test_a_signal_may_ask_at_any_moment_of_a_wait() -> None:
    """The handler interrupts the thread that waits: whatever that does at the time, neither waits for the other."""
    stop = Stop()
    before = signal.signal(signal.SIGALRM, lambda *_: stop.ask("told to", ExitCode.INTERRUPTED))
    try:
        for number in range(4_000):
            stop = Stop()
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + (number % 400) * 3e-6)
            with pytest.raises(StoppedError):
                wait_for_ever(stop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_ends_a_long_wait_of_the_main_thread() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGALRM, lambda *_: stop.ask("told to", ExitCode.INTERRUPTED))
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(StoppedError):
            stop.sleep(PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < PATIENCE


def test_a_request_holds_no_files_open_once_it_is_forgotten() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(100):
        Stop().ask("told to", ExitCode.INTERRUPTED)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
