"""The two Label Studios that are measured: ``label-studio start`` on SQLite, and PostgreSQL behind gunicorn."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from benchmarks.postgres import find_programs, postgres
from lsbatch.local_server import (
    LOGIN,
    PASSWORD,
    QUIET,
    TOKEN,
    USERNAME,
    LocalServer,
    find_program,
    free_port,
    serving,
    start,
)

__all__ = ["SERVERS", "about", "add_server_option", "serve"]

GUNICORN_WORKERS = 3
#: gunicorn kills a worker that takes longer over a request; the gateways in front of most servers do as much.
LIMIT_SECONDS = 120
SERVERS = {
    "sqlite": "SQLite (`label-studio start`)",
    "postgres": f"PostgreSQL, {GUNICORN_WORKERS} gunicorn workers, {LIMIT_SECONDS} s limit",
}
#: By default the server refuses live backends on its own machine.
LOCAL_BACKENDS = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}


def add_server_option(parser: ArgumentParser, default: str) -> None:
    """``--server``."""
    parser.add_argument("--server", choices=sorted(SERVERS), default=default, help="default: %(default)s")


def about(kind: str) -> list[str]:
    """What a table must say of the server beside its title, a line each."""
    if kind == "sqlite":
        return []
    program = [str(find_programs() / "postgres"), "--version"]
    version = subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip()
    return [f"The server is {version} behind gunicorn {metadata.version('gunicorn')}, both in their default settings."]


@contextmanager
def serve(kind: str, folder: Path) -> Iterator[LocalServer]:
    """Start a Label Studio of one of ``SERVERS`` with an empty database, and stop it at the end.

    Raises:
        ConfigError: Label Studio is not installed.
        SystemExit: gunicorn or PostgreSQL is not.
        TransientError: it did not start.
    """
    if kind == "sqlite":
        with start(folder / "label-studio", environ=LOCAL_BACKENDS) as server:
            yield server
        return
    if importlib.util.find_spec("gunicorn") is None:
        raise SystemExit("gunicorn is not installed here: pip install gunicorn")
    with postgres() as database, _gunicorn(folder / "label-studio", database) as server:
        yield server


@contextmanager
def _gunicorn(data_dir: Path, database: dict[str, str]) -> Iterator[LocalServer]:
    data_dir.mkdir(parents=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {**QUIET, **LOCAL_BACKENDS, **database, "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir), "HOST": url}
    _initialize(data_dir, environ)
    place = importlib.util.find_spec("label_studio")
    if place is None or place.origin is None:
        raise SystemExit("the package label_studio cannot be found")
    settings = {"DJANGO_SETTINGS_MODULE": "core.settings.label_studio", "PYTHONPATH": "."}
    command = [
        *(sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", str(GUNICORN_WORKERS)),
        *("-t", str(LIMIT_SECONDS), "core.wsgi:application"),
    ]
    log, cwd = data_dir / "gunicorn.log", Path(place.origin).parent
    with serving(command, url, log, cwd=cwd, environ={**environ, **settings}) as process:
        yield LocalServer(url, TOKEN, USERNAME, PASSWORD, process)


def _initialize(data_dir: Path, environ: dict[str, str]) -> None:
    """Make the tables and the user."""
    command = [str(find_program()), "init", "-q", "--data-dir", str(data_dir), *LOGIN]
    done = subprocess.run(
        command, env={**os.environ, **environ}, cwd=data_dir, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"label-studio init failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
