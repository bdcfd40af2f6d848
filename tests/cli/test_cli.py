"""The command line without a server, as real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ls_support import environment, lsbatch

COMMANDS = ("init", "check", "retrain", "predict", "import", "export", "config show", "demo")
HEAVY = "{'dask', 'distributed', 'xgboost', 'sklearn', 'numpy', 'pyarrow', 'label_studio_sdk', 'pydantic'}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, here: Path) -> None:
    done = lsbatch(*command.split(), "--help", cwd=here)
    assert done.returncode == 0
    assert f"lsbatch {command}" in done.stdout.split("Example:")[1]


def test_help_loads_nothing_heavy(here: Path) -> None:
    code = (
        "import sys; from lsbatch.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment(None), capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "predict" in done.stdout


def test_all_that_is_missing_is_said_at_once(here: Path) -> None:
    done = lsbatch("predict", "--project", "3", cwd=here)
    assert done.returncode == 2
    assert "LABEL_STUDIO_URL" in done.stderr
    assert "LABEL_STUDIO_API_KEY" in done.stderr


def test_all_mistakes_of_the_configuration_are_said_at_once(here: Path) -> None:
    (here / "pipeline.yaml").write_text("dask:\n  wrokers: 3\ninference:\n  chunk_size: 0\n")
    done = lsbatch("predict", cwd=here, LSBATCH_RETRAIN_HOLDOUT="2")
    assert done.returncode == 2
    assert "dask.wrokers: unknown key; did you mean dask.workers? (pipeline.yaml line 2)" in done.stderr
    assert "inference.chunk_size: must be at least 1, got 0 (pipeline.yaml line 4)" in done.stderr
    assert "retrain.holdout: must be at most 0.5, got '2' (environment LSBATCH_RETRAIN_HOLDOUT)" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dask:\n\tworkers: 1\n", "tabs"),
        ("project: 1\nproject: 2\n", "twice"),
        ("- 1\n", "mapping"),
        ("a: [\n", "line"),
    ],
    ids=["tab", "duplicate key", "list", "broken"],
)
def test_a_file_that_is_no_configuration(here: Path, text: str, words: str) -> None:
    (here / "pipeline.yaml").write_text(text)
    done = lsbatch("config", "show", cwd=here)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_config_show_masks_the_token_and_says_where_values_come_from(here: Path) -> None:
    (here / "pipeline.yaml").write_text("project: 7\n")
    done = lsbatch("config", "show", "--workers", "3", cwd=here, LABEL_STUDIO_API_KEY="secret-token")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert rows["project"] == ["7", "pipeline.yaml", "line", "1"]
    assert rows["dask.workers"] == ["3", "flag", "--workers"]
    assert rows["label_studio.api_key"] == ["***", "environment", "LABEL_STUDIO_API_KEY"]
    assert "secret-token" not in done.stdout + done.stderr


def test_init_writes_a_file_that_changes_nothing_and_does_not_replace_one(here: Path) -> None:
    assert lsbatch("init", cwd=here).returncode == 0
    done = lsbatch("config", "show", cwd=here)
    assert done.returncode == 0, done.stderr
    again = lsbatch("init", cwd=here)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    assert lsbatch("init", "--force", cwd=here).returncode == 0


def test_an_unknown_error_leaves_a_report_without_the_token(here: Path) -> None:
    code = (
        "from lsbatch.cli.boundary import boundary\n"
        "with boundary(('secret-token',)):\n    raise RuntimeError('with secret-token inside')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=environment(None, TMPDIR=str(here)), capture_output=True, text=True
    )
    assert done.returncode == 1
    [report] = here.glob("lsbatch-error-*.txt")
    assert str(report) in done.stderr
    assert "RuntimeError: with *** inside" in report.read_text()
    assert "secret-token" not in report.read_text() + done.stderr


def test_a_state_folder_of_the_environment_is_relative_to_the_working_directory(here: Path) -> None:
    (here / "file").touch()
    done = lsbatch("config", "show", "--json", cwd=here, LSBATCH_STATE_DIR="file/state")
    assert done.returncode == 0, done.stderr
    assert str(here.resolve() / "file" / "state") in done.stdout
