"""A PostgreSQL of our own on this machine, empty at the start and gone at the end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lsbatch.local_server import free_port

__all__ = ["find_programs", "postgres"]

USER, DATABASE = "bench", "postgres"
#: Where Debian and its relatives put the server's programs, one folder a version.
FOLDERS = Path("/usr/lib/postgresql")
START_SECONDS = 60


def find_programs() -> Path:
    """The folder of PostgreSQL's server programs, the newest version where there are several.

    Raises:
        SystemExit: there are none.
    """
    found = sorted(FOLDERS.glob("*/bin/initdb"), key=lambda path: float(path.parents[1].name))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise SystemExit("PostgreSQL's server programs are not installed: apt-get install postgresql")
    return Path(on_path).resolve().parent


@dataclass(frozen=True)
class _Owner:
    """Who runs the server: PostgreSQL refuses to run as root."""

    name: str
    user: int
    group: int

    def run(self, *command: str, cwd: Path) -> None:
        """Run a program as this user.

        Raises:
            SystemExit: it failed; with its own words.
        """
        other = {} if self.user == os.getuid() else {"user": self.user, "group": self.group, "extra_groups": []}
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **other)  # type: ignore[call-overload]
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed as user {self.name}:\n{done.stdout}{done.stderr}")


def _owner() -> _Owner:
    if os.getuid() != 0:
        entry = pwd.getpwuid(os.getuid())
    else:
        names = {entry.pw_name for entry in pwd.getpwall()}
        entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return _Owner(entry.pw_name, entry.pw_uid, entry.pw_gid)


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """Run a server on a free port, in its default settings; gives the variables that point Label Studio at it.

    Raises:
        SystemExit: PostgreSQL is not installed, or does not start.
    """
    programs, owner, port = find_programs(), _owner(), free_port()
    # Not inside a folder of ours: its owner must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="lsbatch-bench-postgres-"))
    data, log, password_file = folder / "data", folder / "postgres.log", folder / "password"
    password = secrets.token_hex(16)
    try:
        password_file.write_text(password, encoding="ascii")
        password_file.chmod(0o600)
        for path in (folder, password_file):
            os.chown(path, owner.user, owner.group)
        access = ("--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password_file}")
        owner.run(str(programs / "initdb"), "-D", str(data), "-E", "UTF8", "--no-locale", *access, cwd=folder)
        control = (str(programs / "pg_ctl"), "-D", str(data), "-w", "-t", str(START_SECONDS))
        listen = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        owner.run(*control, "-l", str(log), "-o", listen, "start", cwd=folder)
        try:
            yield {
                "DJANGO_DB": "default",
                "POSTGRE_HOST": "127.0.0.1",
                "POSTGRE_PORT": str(port),
                "POSTGRE_USER": USER,
                "POSTGRE_PASSWORD": password,
                "POSTGRE_NAME": DATABASE,
            }
        finally:
            owner.run(*control, "-m", "fast", "stop", cwd=folder)
    finally:
        shutil.rmtree(folder)
