"""A real Label Studio, started once for all tests, from a template so that its migrations run once per machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from filelock import FileLock

from ls_support import Studio
from lsbatch.local_server import start


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
    """A running Label Studio with one user."""
    with start(tmp_path_factory.mktemp("studio") / "data", template=studio_template) as server:
        yield Studio(server)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty working directory."""
    return tmp_path
