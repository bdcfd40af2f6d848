"""Fixtures of the core's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from run_support import Scene, predicted_run


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Three predicted chunks, of which the project holds nothing yet."""
    with predicted_run(tmp_path) as scene:
        yield scene
