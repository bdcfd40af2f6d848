"""A real Label Studio, started once for all tests, from a template so that its migrations run once per machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from ls_support import Studio
from lsbatch.local_server import start

# A commit passes or it does not: the same examples each time. For a wider search: --hypothesis-profile=wide
settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("wide", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile("same")


@pytest.fixture(scope="session")
def studio_template(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """The data folder of a Label Studio that nobody used yet; of processes that test side by side, one makes it."""
    template = pytestconfig.rootpath / ".cache" / f"label-studio-{metadata.version('label-studio')}"
    template.parent.mkdir(exist_ok=True)
    with FileLock(template.with_suffix(".lock")):
        if not template.is_dir():
            made = tmp_path_factory.mktemp("template") / "data"
            with start(made):
                pass
            copied = template.with_suffix(".partial")
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(made, copied)
            copied.rename(template)
    return template


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, studio_template: Path) -> Iterator[Studio]:
    """A running Label Studio with one user, to which a live backend of this machine can be connected."""
    local = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}
    with start(tmp_path_factory.mktemp("studio") / "data", template=studio_template, environ=local) as server:
        yield Studio(server)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    return found


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty working directory."""
    return tmp_path
