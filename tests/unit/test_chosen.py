"""The configured choice of tasks: what it selects, and whether a run can be continued by it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lsbatch.config import load
from lsbatch.config.chosen import chosen
from lsbatch.errors import ConfigError
from lsbatch.ports import Selection
from lsbatch.wiring import Bench

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
EITHER = '{"conjunction":"or","items":[{"filter":"filter:tasks:id","operator":"equal","type":"Number","value":3}]}'


def bench(here: Path, **flags: Any) -> Bench:
    """A configuration of flags."""
    return Bench(load(None, environ={}, flags={f"selection.{key}": value for key, value in flags.items()}, cwd=here))


def test_nothing_configured_selects_everything(here: Path) -> None:
    assert bench(here).selection == Selection()


def test_everything_configured_is_in_the_selection(here: Path) -> None:
    (here / "f.json").write_text(EITHER, encoding="utf-8")
    flags: dict[str, Any] = {"view": 3, "filter": "f.json", "task_ids": "-", "since": "7d", "until": "2026-01-31"}
    choice = bench(here, **flags, untouched_only=True, limit=5).config.selection
    assert chosen(choice, now=NOW, stdin=io.StringIO("9\n8")) == Selection(
        untouched_only=True,
        limit=5,
        view=3,
        filters=EITHER,
        task_ids=(8, 9),
        created_since=NOW - timedelta(days=7),
        created_until=datetime(2026, 1, 31, tzinfo=UTC),
    )


def test_files_that_the_configuration_names_lie_beside_it(here: Path) -> None:
    folder = here / "conf"
    folder.mkdir()
    (folder / "ids.txt").write_text("4", encoding="utf-8")
    (folder / "f.json").write_text(EITHER, encoding="utf-8")
    file = folder / "pipeline.yaml"
    file.write_text("selection:\n  task_ids: ids.txt\n  filter: f.json\n  since: 2026-01-01\n", encoding="utf-8")
    choice = load(file, environ={}, flags={}, cwd=here).config.selection
    found = chosen(choice, now=NOW)
    assert (found.task_ids, found.filters) == ((4,), EITHER)
    assert found.created_since == datetime(2026, 1, 1, tzinfo=UTC)


def test_filters_may_be_a_mapping_of_the_file(here: Path) -> None:
    text = f"selection:\n  filter: {EITHER}\n"
    (here / "pipeline.yaml").write_text(text, encoding="utf-8")
    assert bench(here).selection.filters == EITHER


def test_everything_that_is_wrong_is_said_at_once(here: Path) -> None:
    choice = bench(here, task_ids="none.txt", filter="none.json", since="1d", until="2d").config.selection
    with pytest.raises(ConfigError) as caught:
        chosen(choice, now=NOW)
    assert [line.split(":")[0].strip() for line in caught.value.message.splitlines()[1:]] == [
        "selection.until",
        "selection.filter",
        "selection.task_ids",
    ]


def test_the_same_command_continues_though_an_age_means_another_time(here: Path) -> None:
    (here / "ids.txt").write_text("1\n2", encoding="utf-8")
    flags = {"since": "7d", "task_ids": "ids.txt"}
    one, other = bench(here, **flags), bench(here, **flags)
    assert one.selection.created_since != other.selection.created_since
    assert one.selection_settings == other.selection_settings
    assert bench(here, **{**flags, "since": "8d"}).selection_settings != one.selection_settings
    (here / "ids.txt").write_text("1\n3", encoding="utf-8")
    assert bench(here, **flags).selection_settings != one.selection_settings
    assert bench(here, select="stale").selection_settings != bench(here).selection_settings
