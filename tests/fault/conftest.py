"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fault.proxy import FaultProxy, running
from fault.scene import Scene
from ls_support import Studio


@pytest.fixture
def proxy(studio: Studio) -> Iterator[FaultProxy]:
    """A proxy in front of the real Label Studio."""
    with running(studio.server.url) as proxy:
        yield proxy


@pytest.fixture
def scene(studio: Studio, proxy: FaultProxy, tmp_path: Path) -> Iterator[Scene]:
    """A small project behind the proxy."""
    with Scene.make(studio, proxy, tmp_path) as scene:
        yield scene
