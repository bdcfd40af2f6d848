"""lsbatch as a process of its own: its time, its exit code, its report, and the most memory that it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Finished", "environment", "run_lsbatch", "run_lsbatch_well"]

#: The folder of this package's folder: where workers find the pipelines of the benchmarks.
ROOT = Path(__file__).parents[1]
#: How often the peak of the memory is read, which the kernel keeps.
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Finished:
    """What a command did.

    Attributes:
        seconds: from before its start to after its end.
        code: its exit code.
        peak_bytes: most resident memory of the process itself, its workers not counted.
        report: what it printed, with ``--json``; empty when it printed nothing.
    """

    seconds: float
    code: int
    peak_bytes: int
    report: dict[str, Any]

    @property
    def peak_mb(self) -> float:
        """Most resident memory in MB (millions of bytes)."""
        return self.peak_bytes / 1e6


def environment(**more: str) -> dict[str, str]:
    """The environment without settings of the caller's lsbatch, and with the pipelines of the benchmarks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LABEL_STUDIO_", "LSBATCH_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, **more}


def run_lsbatch(url: str, token: str, folder: Path, *arguments: str) -> Finished:
    """Run one command in ``folder``, against the Label Studio at ``url``, whatever it ends with."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "lsbatch", *arguments, "--json"],
        cwd=folder,
        env=environment(LABEL_STUDIO_URL=url, LABEL_STUDIO_API_KEY=token),
        stdout=subprocess.PIPE,
        text=True,
    )
    ended, peak = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            peak[0] = max(peak[0], _peak_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output, _ = process.communicate()
    finally:
        process.terminate()  # it has ended, but for when we are stopped
        process.wait()
        ended.set()
        watcher.join()
    seconds = time.perf_counter() - started
    return Finished(seconds, process.returncode, peak[0], json.loads(output) if output.strip() else {})


def run_lsbatch_well(url: str, token: str, folder: Path, *arguments: str) -> Finished:
    """Run one command that must end with 0.

    Raises:
        SystemExit: it did not.
    """
    finished = run_lsbatch(url, token, folder, *arguments)
    if finished.code != 0:
        raise SystemExit(f"lsbatch {' '.join(arguments)} ended with {finished.code}")
    return finished


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has just ended
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
