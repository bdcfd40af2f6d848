"""``lsbatch`` as a process that a test talks to while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ls_support import environment
from lsbatch.local_server import LocalServer

__all__ = ["Ended", "Running", "running"]

#: Longest wait for a process, in seconds; the machine may be busy.
PATIENCE = 120.0


@dataclass(frozen=True)
class Ended:
    """How a process ended, and all that it wrote."""

    code: int
    stdout: str
    stderr: str


class Running:
    """A process of ``lsbatch`` under way, the leader of a group of its own.

    Args:
        arguments: of the command.
        cwd: its working directory.
        server: the Label Studio that its environment names.
        more: more of its environment.
    """

    def __init__(self, *arguments: str, cwd: Path, server: LocalServer, **more: str) -> None:
        self._cwd = cwd
        self._token = server.token
        number = len(list(cwd.glob("stdout-*")))
        self._stdout, self._stderr = cwd / f"stdout-{number}", cwd / f"stderr-{number}"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lsbatch", *arguments],
                cwd=cwd,
                env=environment(server, **more),
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has written to stderr so far."""
        return self._stderr.read_text()

    def until_there(self, name: str) -> None:
        """Wait for a file in the working directory."""
        self._until(lambda: (self._cwd / name).exists(), name)

    def until_said(self, words: str) -> None:
        """Wait for these words on stderr."""
        self._until(lambda: words in self.said, words)

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while not holds():
            assert self.process.poll() is None, f"ended before {what}: {self.said}"
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.said}"
            pause.wait(0.05)

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def send_group(self, number: signal.Signals) -> None:
        """Send it and all processes that it started a signal, as a terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)

    def goes_on(self, seconds: float) -> bool:
        """Whether it still runs after so long."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def end(self) -> Ended:
        """Wait for its end. Whatever ended it, it shows no traceback and no token."""
        code = self.process.wait(PATIENCE)
        ended = Ended(code, self._stdout.read_text(), self._stderr.read_text())
        assert "Traceback" not in ended.stderr, ended.stderr
        assert self._token not in ended.stdout + ended.stderr
        return ended


@contextmanager
def running(*arguments: str, cwd: Path, server: LocalServer, **more: str) -> Iterator[Running]:
    """A process of ``lsbatch``, ended at the end of the context if it still runs."""
    process = Running(*arguments, cwd=cwd, server=server, **more)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait(PATIENCE)
