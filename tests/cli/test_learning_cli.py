"""What the commands about models refuse, before anything is asked of Label Studio."""

from __future__ import annotations

from pathlib import Path

import pytest

from ls_support import lsbatch


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("retrain --project 3 --activate", "--activate and --replace go with --predict"),
        ("retrain --project 3 --predict --keep-versions 2", "--keep-versions goes with --replace"),
        ("select --project 3 -n 5 --rank-key rank", "--rank-key goes with --tab"),
        ("models prune --project 3", "Missing option '--keep'"),
        ("evaluate --project 3 --report no/such/folder/page.html", "there is no folder"),
        ("retrain --project 3 --max-regression 2", "retrain.max_regression: must be at most 1"),
        ("predict --project 3 --score luck", "inference.score: must be"),
    ],
)
def test_what_is_refused(line: str, words: str, tmp_path: Path) -> None:
    nowhere = {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "LABEL_STUDIO_API_KEY": "0" * 40}
    done = lsbatch(*line.split(), cwd=tmp_path, **nowhere)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
