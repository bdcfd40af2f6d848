"""The demo, whole."""

from __future__ import annotations

import json
from pathlib import Path

from ls_support import lsbatch


def test_the_demo(here: Path) -> None:
    done = lsbatch("demo", "--no-keep-open", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["selected"], report["confirmed"], report["activated"]) == (1397, 1397, True)
    assert report["agreement"] > 0.9
