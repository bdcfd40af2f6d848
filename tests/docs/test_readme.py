"""What the README says holds: command lines, exit codes, settings, links, the example of a pipeline."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import lsbatch
from ls_support import lsbatch as run_lsbatch
from lsbatch.cli import main
from lsbatch.config import Config, load, render_example, settings
from lsbatch.config.choosing import parse_filters
from lsbatch.entities import Task, TaskId
from lsbatch.errors import ExitCode
from lsbatch.label_config import LabelConfig
from lsbatch.ledger import Ledger
from lsbatch.testing import check_pipeline

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT_CONFIG = (
    '<View><Text name="t" value="$words"/><Choices name="c" toName="t">'
    '<Choice value="a"/><Choice value="b"/></Choices></View>'
)


def blocks(language: str) -> list[str]:
    """The text of each fenced block of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def section(title: str) -> str:
    """The text below a heading."""
    return re.split(r"^## ", README.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a shell line, assignments before it left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&"):
            words.append(word)
            continue
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words:
            yield words
        words = []


def command_lines() -> list[str]:
    """Arguments of every call of lsbatch in a block of shell, and of every one in the text."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"`(lsbatch [^`\n]+)`", README)
    lines += re.findall(r'bash_command="([^"|]+)', README)
    found = [words[1:] for line in lines for words in simple_commands(line) if Path(words[0]).name == "lsbatch"]
    return sorted({shlex.join(words) for words in found if words})


@pytest.mark.parametrize("line", command_lines())
def test_each_command_line_is_one_that_lsbatch_takes(line: str) -> None:
    words = shlex.split(line)
    command: click.Command = main
    context = click.Context(main, info_name="lsbatch")
    # A group with options of its own is a command as well.
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    try:
        # Parses all and checks types and what is required, but runs nothing.
        command.make_context(command.name, words, parent=context)
    except click.ClickException as error:
        pytest.fail(f"lsbatch {line}: {error.format_message()}")


def test_the_command_lines_are_found() -> None:
    lines = command_lines()
    named = [name for name in main.list_commands(click.Context(main)) if not any(x.split()[0] == name for x in lines)]
    assert named == []
    assert "predict --project 3 --quiet --json" in lines, "the line for cron"
    assert "predict --project 3 --json" in lines, "the line for Airflow"


def test_every_command_of_the_help_has_a_row_with_an_example() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \|.*\| `lsbatch ([\w-]+)[^`]*` \|$", section("Commands"), re.MULTILINE))
    names = main.list_commands(click.Context(main))
    assert rows == {name: name for name in names}


def test_the_exit_codes_are_those_of_the_program() -> None:
    codes = re.findall(r"^\| (\d+) \| \S.*\|$", section("Exit codes"), re.MULTILINE)
    assert [int(code) for code in codes] == [int(code) for code in ExitCode]


def test_the_settings_that_are_named_exist() -> None:
    sections = {path.partition(".")[0] for path in settings() if "." in path}
    named = {path for path in re.findall(r"`([a-z_]+\.[a-z_]+)`", README) if path.partition(".")[0] in sections}
    named -= {"pipeline.yaml", "selection.json"}
    assert {"state.dir", "models.url", "import.max_body_mb"} <= named
    assert named <= set(settings())


def test_the_variables_that_are_named_exist() -> None:
    known = {name for setting in settings().values() for name in setting.env} | {"LSBATCH_CONFIG"}
    named = set(re.findall(r"(?<![\w<])((?:LSBATCH|LABEL_STUDIO)_[A-Z_]*[A-Z])(?![\w<])", README))
    assert {"LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "LSBATCH_STATE_DIR"} <= named
    assert named <= known


def test_only_a_mapping_cannot_stand_in_the_environment() -> None:
    assert [path for path, setting in settings().items() if not setting.env] == ["pipeline.params"]


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)", README, re.M)
    }
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    broken = [link for link in links if not (link[1:] in headings if link[0] == "#" else (ROOT / link).is_file())]
    assert broken == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert named == {"demo", "test", "check", "bench"}
    assert named <= targets


def test_the_question_to_the_ledger_can_be_asked(tmp_path: Path) -> None:
    [line] = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("sqlite3 ")]
    _, file, question = shlex.split(line)
    ledger = Ledger(tmp_path / file)
    ledger.plan(1, 9, 5)
    ledger.plan(10, 12, 3)
    ledger.close()
    with sqlite3.connect(tmp_path / file) as db:
        rows = db.execute(question).fetchall()
    db.close()
    assert [row[1:] for row in rows] == [(2, 8)]


def test_python_blocks_are_python() -> None:
    assert [ast.parse(block) for block in blocks("python")]


def test_the_example_of_a_pipeline_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = section("Your own pipeline")
    assert "`rules.py`" in place
    assert "--pipeline rules:Rules" in place
    (tmp_path / "rules.py").write_text(blocks("python")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    # Known to monkeypatch before it is imported, so that no other test finds this module.
    monkeypatch.setitem(sys.modules, "rules", sys)
    del sys.modules["rules"]
    rules = importlib.import_module("rules").Rules
    tasks = [Task(TaskId(number), {"words": "x" * number}) for number in range(1, 6)]
    check_pipeline(rules, label_config=TEXT_CONFIG, tasks=tasks)
    assert rules.why_not(LabelConfig('<View><Image name="i" value="$i"/></View>')) == "it needs Choices on Text"


def test_the_files_of_a_run_are_those_that_the_program_writes() -> None:
    from lsbatch import run_dir

    table = set(re.findall(r"^\| `([\w.*/]+)` \|", section("Where state lies"), re.MULTILINE))
    layout = re.findall(r"^([a-z_]+(?:\.\w+|/00000\.parquet))\s", run_dir.__doc__ or "", re.MULTILINE)
    assert table == {name.replace("00000", "*") for name in layout}


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == lsbatch.__version__


def test_the_example_file_is_what_init_writes() -> None:
    assert (ROOT / "pipeline.example.yaml").read_text(encoding="utf-8") == render_example()


def test_the_example_file_names_every_key_and_changes_nothing(tmp_path: Path) -> None:
    loaded = load(ROOT / "pipeline.example.yaml", environ={}, flags={}, cwd=tmp_path)
    assert loaded.config == Config()
    text = (ROOT / "pipeline.example.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"^\s*([a-z_]+):", text, re.MULTILINE))
    assert {path.rpartition(".")[2] for path in settings()} <= named


def test_the_filters_are_such() -> None:
    (text,) = blocks("json")
    assert len(json.loads(parse_filters(text))["items"]) == 2


def test_the_demo(here: Path) -> None:
    done = run_lsbatch("demo", "--pictures", "600", "--no-keep-open", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["selected"], report["confirmed"], report["activated"]) == (200, 200, True)
    assert report["agreement"] > 0.9
