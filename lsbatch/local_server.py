"""A real Label Studio on this machine, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from lsbatch.errors import ConfigError, TransientError

__all__ = ["LOGIN", "QUIET", "TOKEN", "LocalServer", "find_program", "free_port", "serving", "start"]

USERNAME, PASSWORD = "demo@example.org", "prelabel-demo"
#: It listens on this machine alone and holds nothing but what we put there.
TOKEN = "de300000000000000000000000000000000000de"
#: Arguments of ``label-studio`` that make this user.
LOGIN = ("--username", USERNAME, "--password", PASSWORD, "--user-token", TOKEN, "--enable-legacy-api-token")
#: Migrations of a new database take about half a minute, minutes on a machine that is busy with other things.
START_SECONDS = 600.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.25
LOG_LINES = 15

#: Keeps it from calling home.
QUIET = {"COLLECT_ANALYTICS": "0", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}


@dataclass(frozen=True)
class LocalServer:
    """A running Label Studio and the login of its only user."""

    url: str
    token: str
    username: str
    password: str
    process: subprocess.Popen[bytes]


@contextmanager
def start(
    data_dir: Path, *, template: Path | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[LocalServer]:
    """Start Label Studio on a free port, wait until it answers, and stop it at the end whatever happens.

    Args:
        data_dir: its database and files; made when missing.
        template: a data folder of an earlier start to begin with, which saves the migrations.
        environ: more variables of its environment, its own settings among them.

    Raises:
        ConfigError: Label Studio is not installed.
        TransientError: it did not start; the message ends with its log.
    """
    program = find_program()
    if template is not None and template.is_dir() and not data_dir.exists():
        shutil.copytree(template, data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(program), "start", "-b", "--host", url, "--internal-host", "127.0.0.1", "-p", str(port)),
        *("--data-dir", str(data_dir), *LOGIN),
    ]
    log = data_dir / "label-studio.log"
    with serving(command, url, log, cwd=data_dir, environ={**QUIET, **(environ or {})}) as process:
        yield LocalServer(url, TOKEN, USERNAME, PASSWORD, process)


def find_program() -> Path:
    """The program ``label-studio`` beside this Python.

    Raises:
        ConfigError: it is not installed.
    """
    program = Path(sys.executable).with_name("label-studio")
    if not program.exists():
        raise ConfigError("Label Studio is not installed here", hint="Install it: pip install 'lsbatch[demo]'")
    return program


@contextmanager
def serving(
    command: Sequence[str], url: str, log: Path, *, cwd: Path, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that serves Label Studio at ``url``, from when it answers until the end of the context.

    Args:
        command: the program and its arguments.
        url: where it answers ``/health``.
        log: takes its output.
        cwd: its working directory.
        environ: variables beside those of this process.

    Raises:
        TransientError: it did not start; the message ends with its log.
    """
    with log.open("wb") as output:
        # A session of its own: Ctrl-C at the terminal reaches us first, and we stop it in order.
        process = subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=output, stderr=output, start_new_session=True, cwd=cwd
        )
    try:
        _await(url, process, log)
        yield process
    finally:
        _stop(process)


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass_seconds = POLL_SECONDS
        else:
            pass_seconds = 2 * POLL_SECONDS
        try:
            process.wait(pass_seconds)
        except subprocess.TimeoutExpired:
            continue
        break
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    raise TransientError("\n".join([f"Label Studio did not start; the end of {log}:", *lines]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
