"""A Label Studio in its default setting recounts the project at each import; one that is set otherwise does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ls_support import USER_PIPELINE, Studio, lsbatch, text_tasks
from lsbatch.import_plan import CostModel
from lsbatch.local_server import start
from lsbatch.operations.importing import SERVER_SETTING
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient, LabelStudioProject


def recounts(studio: Studio, project: int) -> bool:
    """What the connector finds out."""
    client = LabelStudioClient(ConnectionOptions(studio.server.url, studio.server.token))
    try:
        return LabelStudioProject(client, project).recounts_project()
    finally:
        client.close()


def test_the_default_setting_recounts(studio: Studio) -> None:
    project = studio.make_project(text_tasks(3))
    assert recounts(studio, project)
    assert studio.predictions(project) == {}


def test_the_other_setting_is_seen_and_used(here: Path, studio_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*SERVER_SETTING.split("="))
    (here / "mine.py").write_text(USER_PIPELINE)
    with start(here / "label-studio", template=studio_template) as server:
        studio = Studio(server)
        project = studio.make_project([*text_tasks(60), {"data": {"text": "UNKNOWN"}}])
        assert not recounts(studio, project)
        arguments = ("predict", "--project", str(project), "--pipeline", "mine:Told", "--chunk-size", "10", "--json")
        done = lsbatch(*arguments, cwd=here, server=server)
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["confirmed"] == 60
        ids = studio.task_ids(project)
        # This server would store a result that does not fit the label config.
        assert {task: len(entries) for task, entries in studio.predictions(project).items()} == dict.fromkeys(
            ids[:-1], 1
        )
        [costs] = (here / ".lsbatch").rglob("import_costs.json")
        assert not CostModel.from_json(json.loads(costs.read_bytes())).recounts
