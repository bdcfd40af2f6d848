"""The documents say what the program does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

import lsbatch
from lsbatch.cli import COMMANDS, main
from lsbatch.config import Config, load, render_example
from lsbatch.errors import ExitCode

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = sorted(set(re.findall(r"(?:^|`)(lsbatch [a-z][^`\n]*)", README, re.MULTILINE)))


@pytest.mark.parametrize("line", LINES)
def test_each_command_line_of_the_readme_is_one(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = main
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    used = {word for word in words if word.startswith("--")}
    assert used <= known


def test_the_readme_names_every_command() -> None:
    assert [name for name in COMMANDS if f"| `{name}` |" not in README] == []


def test_the_readme_names_every_exit_code() -> None:
    table = README.split("## Exit codes")[1].split("##")[0]
    assert {int(number) for number in re.findall(r"\b\d+\b", table.replace("two", ""))} == {int(c) for c in ExitCode}


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ([\w.]+)", text, re.MULTILINE).group(1) == lsbatch.__version__  # type: ignore[union-attr]


def test_the_example_names_every_key_and_changes_nothing(tmp_path: Path) -> None:
    text = (ROOT / "pipeline.example.yaml").read_text(encoding="utf-8")
    assert text == render_example()
    loaded = load(ROOT / "pipeline.example.yaml", environ={}, flags={}, cwd=tmp_path)
    assert loaded.config == Config()
    named = set(re.findall(r"^\s*([a-z_]+):", text, re.MULTILINE))
    assert {path.rpartition(".")[2] for path, _, _ in loaded.rows()} <= named


def test_the_readmes_pipeline_works() -> None:
    from lsbatch.entities import Prediction, Task, TaskId
    from lsbatch.label_config import LabelConfig
    from lsbatch.predictor import Predictor

    source = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert source is not None
    names: dict[str, type] = {}
    exec(source.group(1), names)  # noqa: S102 - our own document
    config = LabelConfig(
        '<View><Text name="t" value="$text"/><Choices name="c" toName="t">'
        '<Choice value="a"/><Choice value="b"/></Choices></View>'
    )

    class Context:
        label_config = config

    rules = names["Rules"]
    assert rules.why_not(config) is None  # type: ignore[attr-defined]
    predictor = Predictor(rules.build(Context), config, "rules-1")  # type: ignore[attr-defined]
    outcomes = predictor.predict_chunk([Task(TaskId(1), {"text": "odd"}), Task(TaskId(2), {"text": "even"})])
    assert [outcome.result[0]["value"] for outcome in outcomes if isinstance(outcome, Prediction)] == [
        {"choices": ["b"]},
        {"choices": ["a"]},
    ]
