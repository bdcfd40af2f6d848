"""lsbatch as a real process that starts at once: forked from one in which its libraries are loaded already.

Starting Python and loading the libraries takes a second and a half; hundreds of runs are needed here. A forked process
has its own signals, files, environment and exit code all the same. Inside it, before the command runs, *plugins* may
change the process: let it die at a commit, shift its clock. lsbatch knows nothing of them.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

__all__ = ["KILLED", "Done", "Driver", "Plugin"]

Plugin = Callable[[], None]

#: The code of a run that was killed.
KILLED = -signal.SIGKILL

#: Longest time of a small run, in seconds.
RUN_SECONDS = 90.0

#: What a run loads sooner or later: of lsbatch, and by its libraries at their first use.
LOADED = (
    *("lsbatch.cli.predict_command", "lsbatch.verbs", "lsbatch_connectors.label_studio", "tqdm"),
    *(
        "label_studio_sdk.client",
        "label_studio_sdk.tokens",
        "label_studio_sdk.types",
        "label_studio_sdk.label_interface",
    ),
    *("h11", "httpcore", "pandas", "pyarrow.compute", "pyarrow.dataset"),
    *("pyarrow.pandas_compat", "xgboost", "lsbatch_pipelines.text_classification", "lsbatch.dask_cluster"),
)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(LOADED))
_numbers = itertools.count()
#: The library's own book of processes knows no threads.
_book = threading.Lock()


@dataclass(frozen=True)
class Done:
    """How a run ended.

    Attributes:
        code: its exit code; minus the signal's number when one killed it.
        stdout: its data.
        stderr: its talk.
    """

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


class Driver:
    """One run of lsbatch, under way from now on.

    Args:
        arguments: of the command line.
        cwd: its working directory.
        environment: all of it.
        plugins: called in the process before the command; picklable.
        output: folder of its stdout and stderr; the working directory by default.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        plugins: Sequence[Plugin] = (),
        output: Path | None = None,
    ) -> None:
        number, folder = next(_numbers), output or cwd
        self._output = folder / f"driver-{number}.out", folder / f"driver-{number}.err"
        self._code: int | None = None
        self._process = _context.Process(
            target=_run, args=(list(arguments), cwd, dict(environment), tuple(plugins), self._output)
        )
        with _book:
            self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has written to stderr so far."""
        return self._output[1].read_text(encoding="utf-8") if self._output[1].exists() else ""

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def ended(self, seconds: float) -> bool:
        """Wait this long for its end; whether it came."""
        return bool(connection.wait([self._process.sentinel], seconds))

    def done(self, *, seconds: float = RUN_SECONDS) -> Done:
        """Wait for its end.

        Raises:
            AssertionError: it did not end in this time; it is killed then.
        """
        in_time = self.ended(seconds)
        code = self.close()
        assert in_time, f"no end within {seconds} s:\n{self.said}"
        stdout = self._output[0].read_text(encoding="utf-8") if self._output[0].exists() else ""
        return Done(code, stdout, self.said)

    def close(self) -> int:
        """Kill it if it still runs; its exit code. May be repeated."""
        if self._code is None:
            if not self.ended(0):
                self.kill()
                self.ended(RUN_SECONDS)
            with _book:
                self._process.join()
                self._code = self._process.exitcode
                self._process.close()
        assert self._code is not None
        return self._code


def _run(
    arguments: list[str], cwd: Path, environment: dict[str, str], plugins: tuple[Plugin, ...], output: tuple[Path, Path]
) -> None:
    """Runs in the forked process: what the shell and the interpreter do for a command."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in zip((1, 2), output, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    for plugin in plugins:
        plugin()
    from lsbatch.cli import main

    main(args=arguments, prog_name="lsbatch")
