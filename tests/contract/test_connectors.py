"""Every connector keeps the rules of the ports."""

from __future__ import annotations

from ls_support import Studio, text_tasks, topic_region
from lsbatch.entities import Task, TaskId
from lsbatch.testing import MemoryProject, check_connector, check_store
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient, LabelStudioProject

RESULT = [topic_region("food")]


def test_a_project_in_memory() -> None:
    project = MemoryProject({number: Task(TaskId(number), {}) for number in range(3, 20, 2)})
    check_connector(project, project, result=RESULT)
    assert project.active == "check-1"


def test_a_project_of_label_studio(studio: Studio) -> None:
    project = studio.make_project(text_tasks(5))
    client = LabelStudioClient(ConnectionOptions(studio.server.url, studio.server.token))
    connector = LabelStudioProject(client, project)
    try:
        check_connector(connector, connector, result=RESULT)
    finally:
        client.close()
    versions = [entry[0] for entries in studio.predictions(project).values() for entry in entries]
    assert sorted(versions) == ["check-1", "check-10"]


def test_a_store_in_memory() -> None:
    project = MemoryProject({number: Task(TaskId(number), {}) for number in range(3, 20, 2)})
    check_store(project, project, result=RESULT)


def test_a_store_of_label_studio(studio: Studio) -> None:
    project = studio.make_project(text_tasks(7))
    client = LabelStudioClient(ConnectionOptions(studio.server.url, studio.server.token))
    connector = LabelStudioProject(client, project)
    try:
        check_store(connector, connector, result=RESULT)
    finally:
        client.close()
    assert studio.predictions(project) == {}
