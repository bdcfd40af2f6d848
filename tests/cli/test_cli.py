"""The command line without a Label Studio, as real processes."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lsbatch as package
from ls_support import environment, lsbatch
from lsbatch.cli import COMMANDS
from lsbatch.config import load, render_example, settings

LEAVES = tuple("config show" if name == "config" else name for name in COMMANDS)
HEAVY = ("dask", "distributed", "label_studio_sdk", "numpy", "pyarrow", "pydantic", "sklearn", "xgboost")
SECRET = "secret-token-0123456789"
CONSOLE_SCRIPT = Path(sys.executable).with_name("lsbatch")


def python(code: str, *, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run some Python as a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment(None, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a process wrote, which is never a traceback and never the token."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert SECRET not in text
    return text


# ------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("command", LEAVES)
def test_help_has_an_example(command: str, here: Path) -> None:
    done = lsbatch(*command.split(), "--help", cwd=here)
    assert done.returncode == 0
    assert f"lsbatch {command}" in done.stdout.split("Example:")[1]


def test_help_names_every_command(here: Path) -> None:
    done = lsbatch("--help", cwd=here)
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines() if line.strip()]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], *([*leaf.split(), "--help"] for leaf in LEAVES)], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str], here: Path) -> None:
    code = (
        "import sys; from lsbatch.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: code = end.code\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = python(code, cwd=here)
    assert done.stderr.strip() == "0 []"
    assert "Usage:" in done.stdout


def test_the_version_is_that_of_the_package(here: Path) -> None:
    done = lsbatch("--version", cwd=here)
    assert (done.returncode, done.stdout.split()[-1]) == (0, package.__version__)


# ------------------------------------------------------------------------------------------------ usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["config", "nosuch"], "No such command 'nosuch'"),
        (["predict", "--nosuch"], "No such option"),
        (["predict", "--limit", "many"], "'many' is not a valid integer"),
        (["export", "--project", "3"], "Missing option '--out'"),
        (["import", "--project", "3"], "Missing option '--from'"),
        (["predict", "--keep-versions", "1"], "--keep-versions goes with --replace"),
        (["activate"], "either a VERSION or --deactivate"),
        (["activate", ""], "either a VERSION or --deactivate"),
        (["activate", "v1", "--deactivate"], "either a VERSION or --deactivate"),
        (["delete-predictions", "--yes"], "exactly one of"),
        (["delete-predictions", "--duplicates", "--all-versions", "--yes"], "exactly one of"),
        (["delete-predictions", "--older-than", "soon", "--yes"], "--older-than: "),
        (["delete-predictions", "--keep-latest", "0", "--yes"], "--keep-latest"),
        (["delete-predictions", "--duplicates"], "no terminal to ask at"),
        (["connect", "--remove", "--title", "live"], "need --url"),
        (["connect", "--interactive"], "need --url"),
        (["connect", "--url", "http://backend", "--title", " "], "--title must not be empty"),
        (["verify-serve", "--sample", "0"], "--sample"),
        (["accept", "--model-version", "v1"], "Missing option '--min-score'"),
        (["accept", "--model-version", "v1", "--min-score", "1.1"], "--min-score"),
        (["accept", "--model-version", "v1", "--min-score", "nan", "--yes"], "must be a number"),
        (["accept", "--model-version", "v1", "--min-score", "0.9", "--sample-for-review", "100%"], "is no share"),
        (["accept", "--model-version", "v1", "--min-score", "0.9"], "no terminal to ask at"),
        (["predict", "-c", "nosuch.yaml"], "nosuch.yaml"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_usage(arguments: list[str], words: str, here: Path) -> None:
    done = lsbatch(*arguments, cwd=here)
    assert done.returncode == 2
    assert words in said(done)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command", ["predict", "retrain", "check", "export --out tasks.jsonl", "import --from predictions.jsonl"]
)
def test_all_that_is_missing_is_said_at_once(command: str, here: Path) -> None:
    done = lsbatch(*command.split(), "--project", "3", cwd=here)
    assert done.returncode == 2
    assert "LABEL_STUDIO_URL" in said(done)
    assert "LABEL_STUDIO_API_KEY" in said(done)


def test_without_a_project_nothing_begins(here: Path) -> None:
    done = lsbatch("predict", cwd=here, LABEL_STUDIO_URL="http://127.0.0.1:9", LABEL_STUDIO_API_KEY=SECRET)
    assert done.returncode == 2
    assert "--project" in said(done)
    assert list(here.iterdir()) == []


# ------------------------------------------------------------------------------------------------ configuration


def test_all_mistakes_of_the_configuration_are_said_at_once(here: Path) -> None:
    (here / "pipeline.yaml").write_text("dask:\n  wrokers: 3\ninference:\n  chunk_size: 0\n")
    done = lsbatch("predict", "--limit", "0", cwd=here, LSBATCH_RETRAIN_HOLDOUT="2", LABEL_STUDIO_API_KEY=SECRET + " x")
    assert done.returncode == 2
    text = said(done)
    assert "dask.wrokers: unknown key; did you mean dask.workers? (pipeline.yaml line 2)" in text
    assert "inference.chunk_size: must be at least 1, got 0 (pipeline.yaml line 4)" in text
    assert "retrain.holdout: must be at most 0.5, got '2' (environment LSBATCH_RETRAIN_HOLDOUT)" in text
    assert "selection.limit: must be at least 1, got 0 (flag --limit)" in text
    assert "label_studio.api_key: " in text
    assert "5 mistakes" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"dask:\n\tworkers: 1\n", ["line 2", "tabs"]),
        (b"project: 1\nproject: 2\n", ["line 2", "twice"]),
        (b"- 1\n", ["mapping"]),
        (b"a: [\n", ["line"]),
        (b"project: \xff\n", ["UTF-8"]),
    ],
    ids=["tab", "duplicate key", "list", "broken", "not UTF-8"],
)
def test_a_file_that_is_no_configuration(here: Path, content: bytes, words: list[str]) -> None:
    (here / "pipeline.yaml").write_bytes(content)
    done = lsbatch("config", "show", cwd=here)
    assert done.returncode == 2
    text = said(done)
    assert "pipeline.yaml" in text
    assert [word for word in words if word not in text] == []


def test_config_show_masks_the_token_and_says_where_values_come_from(here: Path) -> None:
    (here / "pipeline.yaml").write_text("project: 7\ndask:\n  workers: 1\n")
    arguments = ("config", "show", "--workers", "3")
    done = lsbatch(*arguments, cwd=here, LABEL_STUDIO_API_KEY=SECRET, LSBATCH_SELECTION_LIMIT="9")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in said(done).splitlines()[1:]}
    assert rows["project"] == ["7", "pipeline.yaml", "line", "1"]
    assert rows["dask.workers"] == ["3", "flag", "--workers"]
    assert rows["selection.limit"] == ["9", "environment", "LSBATCH_SELECTION_LIMIT"]
    assert rows["label_studio.api_key"] == ["***", "environment", "LABEL_STUDIO_API_KEY"]
    assert rows["retrain.holdout"] == ["0.2", "default"]
    assert set(rows) == set(settings())


def test_config_show_as_json_says_the_same(here: Path) -> None:
    done = lsbatch("config", "show", "--json", "--project", "4", cwd=here, LABEL_STUDIO_API_KEY=SECRET)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows["project"] == {"value": "4", "origin": "flag --project"}
    assert rows["label_studio.api_key"]["value"] == "***"
    assert set(rows) == set(settings())
    said(done)


def test_init_writes_a_file_that_changes_nothing(here: Path) -> None:
    done = lsbatch("init", cwd=here)
    assert (done.returncode, done.stdout) == (0, "wrote pipeline.yaml\n"), done.stderr
    assert (here / "pipeline.yaml").read_text(encoding="utf-8") == render_example()
    shown = lsbatch("config", "show", "--json", cwd=here)
    assert shown.returncode == 0, shown.stderr
    assert {row["origin"] for path, row in json.loads(shown.stdout).items() if row["value"] == ""} == {"default"}
    written = load(None, environ={}, flags={}, cwd=here).config
    assert written == load(None, environ={}, flags={}, cwd=here.parent).config


def test_init_replaces_a_file_only_when_told_to(here: Path) -> None:
    (here / "pipeline.yaml").write_text("project: 3\n")
    refused = lsbatch("init", cwd=here)
    assert refused.returncode == 2
    assert "--force" in said(refused)
    assert (here / "pipeline.yaml").read_text() == "project: 3\n"
    assert lsbatch("init", "--force", cwd=here).returncode == 0
    assert (here / "pipeline.yaml").read_text(encoding="utf-8") == render_example()


# ------------------------------------------------------------------------------------------------ not a Label Studio


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers everything with a page that is not Label Studio's."""

    def do_GET(self) -> None:
        content = b"<!doctype html><title>Intranet</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


class _Moved(_Page):
    """Sends everybody elsewhere."""

    def do_GET(self) -> None:
        self.send_response(301)
        self.send_header("Location", "https://label.example.org/")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens: the port is taken, so that nobody else gets it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("command", ["check", "predict", "retrain", "export --out tasks.jsonl"])
def test_nobody_there(command: str, here: Path, nobody: str) -> None:
    done = lsbatch(
        *command.split(),
        "--project",
        "1",
        cwd=here,
        LABEL_STUDIO_URL=nobody,
        LABEL_STUDIO_API_KEY=SECRET,
        LSBATCH_LABEL_STUDIO_RETRY_SECONDS="0",
    )
    assert done.returncode == 75
    assert f"Label Studio at {nobody} cannot be reached" in said(done)
    assert "LABEL_STUDIO_URL" in said(done)


def test_check_does_not_call_a_connection_good_that_is_none(here: Path, nobody: str) -> None:
    arguments = ("check", "--project", "1", "--json")
    done = lsbatch(*arguments, cwd=here, LABEL_STUDIO_URL=nobody, LABEL_STUDIO_API_KEY=SECRET)
    assert done.returncode == 75
    found = {finding["subject"]: finding["passed"] for finding in json.loads(done.stdout)}
    assert found == {"configuration": True, "Label Studio": False}


@pytest.mark.parametrize("command", ["check", "predict", "retrain", "export --out tasks.jsonl"])
def test_something_else_answers(command: str, here: Path) -> None:
    with serving(_Page) as url:
        done = lsbatch(*command.split(), "--project", "1", cwd=here, LABEL_STUDIO_URL=url, LABEL_STUDIO_API_KEY=SECRET)
    assert done.returncode == 5
    assert f"is there a Label Studio at {url}?" in said(done)


def test_an_address_that_redirects(here: Path) -> None:
    with serving(_Moved) as url:
        done = lsbatch("predict", "--project", "1", cwd=here, LABEL_STUDIO_URL=url, LABEL_STUDIO_API_KEY=SECRET)
    assert done.returncode == 5
    assert "https://label.example.org/" in said(done)


def test_the_most_talkative_log_does_not_hold_the_token(here: Path, nobody: str) -> None:
    done = lsbatch(
        "predict",
        "--project",
        "1",
        "-vv",
        cwd=here,
        LABEL_STUDIO_URL=nobody,
        LABEL_STUDIO_API_KEY=SECRET,
        LSBATCH_LABEL_STUDIO_RETRY_SECONDS="0",
    )
    assert done.returncode == 75
    assert "the error in full" in done.stderr
    assert SECRET not in done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------ how a process ends


@pytest.mark.parametrize("arguments", [["config", "show"], ["config", "show", "--json"], ["--help"]], ids=" ".join)
def test_a_reader_that_went_away_is_no_traceback(arguments: list[str], here: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lsbatch", *arguments],
            cwd=here,
            env=environment(None),
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""


#: Ends by an error that nobody expected, with the token in its words.
BUG = """
import lsbatch.verbs
from lsbatch.cli import main

def broken(bench, *_, **__):
    raise RuntimeError("with " + bench.connection.token + " inside")

lsbatch.verbs.predict_project = broken
main(["predict", "--project", "1"])
"""


@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_bug_leaves_a_report_without_the_token(place: str, here: Path) -> None:
    given = {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "TMPDIR": str(here)}
    if place == "environment":
        given["LABEL_STUDIO_API_KEY"] = SECRET
    else:
        (here / "pipeline.yaml").write_text(f"label_studio:\n  api_key: {SECRET}\n")
    done = python(BUG, cwd=here, **given)
    assert done.returncode == 1
    [report] = here.glob("lsbatch-error-*.txt")
    text = said(done)
    assert "bug in lsbatch: RuntimeError: with *** inside" in text
    assert str(report) in text
    written = report.read_text(encoding="utf-8")
    assert SECRET not in written
    assert "Traceback (most recent call last)" in written
    assert "RuntimeError: with *** inside" in written
    names = [f"lsbatch {package.__version__}", "Python 3.", "label-studio-sdk ", "dask ", "pyarrow ", "click "]
    assert [name for name in names if name not in written] == []


def test_the_boundary_masks_what_becomes_known_inside(here: Path) -> None:
    code = (
        "from lsbatch.cli.boundary import boundary\n"
        "from lsbatch.errors import AuditError\n"
        "secrets = []\n"
        "with boundary(secrets):\n"
        f"    secrets.append({SECRET!r})\n"
        f"    raise AuditError('one of {SECRET}', hint='look at {SECRET}')"
    )
    done = python(code, cwd=here)
    assert done.returncode == 7
    assert said(done) == "Error: one of ***\nlook at ***\n"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("PipelineError", 1),
        ("ConfigError", 2),
        ("BudgetError", 4),
        ("RefusedError", 5),
        ("PermanentError", 5),
        ("GateError", 6),
        ("AuditError", 7),
        ("LockedError", 75),
        ("TransientError", 75),
        ("AmbiguousError", 75),
    ],
)
def test_each_error_ends_a_process_with_its_code(kind: str, code: int, here: Path) -> None:
    done = python(
        "from lsbatch import errors\nfrom lsbatch.cli.boundary import boundary\n"
        f"with boundary():\n    raise errors.{kind}('what failed', hint='the way out')",
        cwd=here,
    )
    assert (done.returncode, said(done)) == (code, "Error: what failed\nthe way out\n")


#: Says that it is ready and waits for a signal. A shell may have handed SIGINT down ignored.
WAITING = """
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from lsbatch.cli.boundary import boundary
with boundary():
    print("ready", flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")],
    ids=["SIGINT", "SIGTERM"],
)
def test_signals_have_codes_of_their_own(number: signal.Signals, code: int, word: str, here: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=here,
        env=environment(None),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code
    assert errors == f"{word}\nNothing is lost: give the same command again.\n"


# ------------------------------------------------------------------------------------------------ completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell: str, here: Path) -> None:
    asked = {"_LSBATCH_COMPLETE": f"{shell}_complete", "COMP_WORDS": "lsbatch pre", "COMP_CWORD": "1"}
    if shell == "fish":
        asked["COMP_CWORD"] = "pre"
    done = subprocess.run(
        [CONSOLE_SCRIPT],
        cwd=here,
        env=environment(None, **asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "predict" in done.stdout
    assert "retrain" not in done.stdout
    assert done.stderr == ""
