"""One run at a time for a version; the kernel ends a lock with its process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from lsbatch.errors import ConfigError, ExitCode, LockedError, StoppedError
from lsbatch.lock import hold, is_held
from lsbatch.stopping import Stop

PATIENCE = 30
VERSION = "digits-1"

#: Holds the lock until its stdin ends.
HOLDER = """
import sys
from pathlib import Path
from lsbatch.lock import hold
from lsbatch.stopping import Stop
with hold(Path(sys.argv[1]), sys.argv[2], wait_seconds=0, stop=Stop()):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(folder), VERSION]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def take(folder: Path, *, wait: float = 0.0, version: str = VERSION, stop: Stop | None = None) -> None:
    """Hold the lock for a moment."""
    with hold(folder, version, wait_seconds=wait, stop=stop or Stop()):
        assert is_held(folder, version)


def test_a_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    assert not is_held(folder, VERSION)
    for _ in range(2):
        take(folder)
        assert not is_held(folder, VERSION)


def test_who_holds_it_is_named(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert is_held(tmp_path, VERSION)
        with pytest.raises(LockedError, match=f"process {process.pid} on {socket.gethostname()}, since 20") as caught:
            take(tmp_path)
    assert VERSION in str(caught.value)
    assert "--wait" in caught.value.hint


def test_a_wait_says_for_whom_and_gives_up_after_its_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with another_process(tmp_path) as process:
        began = time.monotonic()
        with pytest.raises(LockedError, match=f"process {process.pid} "):
            take(tmp_path, wait=1.0)
        assert 1.0 <= time.monotonic() - began < PATIENCE
        [message] = caplog.messages
        assert (
            f"waiting up to 1 s for another run on version {VERSION} of this project: process {process.pid} " in message
        )


def test_a_wait_ends_when_the_holder_does(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert process.stdin is not None
        timer = threading.Timer(0.3, process.stdin.close)
        timer.start()
        take(tmp_path, wait=PATIENCE)
        timer.join()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait(PATIENCE)
        take(tmp_path)
        note = json.loads(next(tmp_path.glob("*.holder.json")).read_text())
    assert note["pid"] == os.getpid()


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    stop = Stop()
    with another_process(tmp_path):
        timer = threading.Timer(0.3, stop.ask, ("told to", ExitCode.INTERRUPTED))
        timer.start()
        with pytest.raises(StoppedError):
            take(tmp_path, wait=PATIENCE, stop=stop)
        timer.join()


def test_a_holder_without_a_note_is_an_error_all_the_same(tmp_path: Path) -> None:
    with another_process(tmp_path):
        for note in tmp_path.glob("*.holder.json"):
            note.write_text("{")
        with pytest.raises(LockedError, match="left no note"):
            take(tmp_path)


def test_other_versions_are_free(tmp_path: Path) -> None:
    with another_process(tmp_path):
        take(tmp_path, version="digits-10")
        take(tmp_path, version="../digits-1")
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}


def test_whoever_only_asks_does_not_keep_a_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To see whether a lock is held, it is taken for a moment: a run that does not wait tries twice."""
    take(tmp_path)
    asking = FileLock(next(tmp_path.glob("*.lock")))
    asking.acquire(timeout=0)
    stop = Stop()
    monkeypatch.setattr(stop, "sleep", lambda _seconds: asking.release())
    take(tmp_path, wait=0, stop=stop)


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file") as caught:
        take(tmp_path / "file" / "locks")
    assert "LSBATCH_STATE_DIR" in caught.value.hint
