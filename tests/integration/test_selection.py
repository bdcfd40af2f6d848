"""Which tasks a real Label Studio gives for a selection, and how what it holds is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ls_support import USER_PIPELINE, Studio, annotate, lsbatch, text_tasks, topic_region
from lsbatch.entities import Prediction, TaskId
from lsbatch.errors import ConfigError
from lsbatch.ports import Selection
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient, LabelStudioProject

TASKS = 24


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[LabelStudioClient]:
    """A connection."""
    client = LabelStudioClient(ConnectionOptions(studio.server.url, studio.server.token))
    yield client
    client.close()


@pytest.fixture(scope="module")
def project(studio: Studio, client: LabelStudioClient) -> LabelStudioProject:
    """Tasks with topics in turn; the first six are annotated, every fourth carries v10, every eighth v1 as well."""
    rows = text_tasks(TASKS)
    found = LabelStudioProject(client, studio.make_project(annotate(rows[:6]) + rows[6:]))
    ids = every(found)
    found.create([prediction(task, "v10") for task in ids[::4]])
    found.create([prediction(task, "v1") for task in ids[::8]])
    return found


def prediction(task: int, version: str) -> Prediction:
    """A prediction that the label config allows."""
    return Prediction(TaskId(task), [topic_region("food")], 0.5, version)


def selected(project: LabelStudioProject, selection: Selection, **more: Any) -> list[int]:
    """The ids of the selected tasks."""
    return [task.id for page in project.pages(selection, **more) for task in page.tasks]


def every(project: LabelStudioProject) -> list[int]:
    """All ids of a project."""
    return selected(project, Selection())


def item(column: str, operator: str, kind: str, value: Any, **more: Any) -> dict[str, Any]:
    """A filter of the data manager."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value, **more}


SPORT, FOOD = (item("data.topic", "equal", "String", topic) for topic in ("sport", "food"))
ANNOTATED = item("total_annotations", "greater", "Number", 0)


def filters(conjunction: str, *items: Any) -> str:
    """Filters of the data manager, as a selection holds them."""
    return json.dumps({"conjunction": conjunction, "items": items})


def make_tab(studio: Studio, project: int, data: dict[str, Any], **more: Any) -> int:
    """A tab of the data manager; its id."""
    with studio.http as http:
        answer = http.post("/api/dm/views/", json={"project": project, "data": data, **more})
        return int(answer.raise_for_status().json()["id"])


# ------------------------------------------------------------------------------------------------ filters


def test_alternatives_hold_together_with_all_else(project: LabelStudioProject) -> None:
    ids = every(project)
    either = filters("or", SPORT, FOOD)
    wanted = [task for place, task in enumerate(ids) if place % 3 != 2]
    assert selected(project, Selection(filters=either)) == wanted
    assert selected(project, Selection(filters=filters("and", SPORT, FOOD))) == []
    assert selected(project, Selection(filters=either), after=ids[5], last=ids[-5]) == [
        task for task in wanted if ids[5] < task <= ids[-5]
    ]
    assert selected(project, Selection(filters=either, limit=5)) == wanted[:5]
    assert selected(project, Selection(filters=either, untouched_only=True)) == [x for x in wanted if x not in ids[:6]]
    assert selected(project, Selection("v1", filters=either)) == [task for task in wanted if task not in ids[::8]]
    assert selected(project, Selection(filters=either, task_ids=tuple(ids[1:9]))) == [
        x for x in wanted if x in ids[1:9]
    ]


def test_a_filter_keeps_its_child_among_alternatives(project: LabelStudioProject) -> None:
    ids = every(project)
    child = {**SPORT, "child_filter": item("id", "less", "Number", ids[7])}
    wanted = [task for place, task in enumerate(ids) if (place % 3 == 0 and place < 7) or place % 3 == 1]
    assert selected(project, Selection(filters=filters("or", child, FOOD))) == wanted


def test_alternatives_that_overlap_give_each_task_once(project: LabelStudioProject) -> None:
    ids = every(project)
    either = filters("or", SPORT, ANNOTATED, item("id", "in", "Number", {"min": ids[0], "max": ids[9]}))
    assert selected(project, Selection(filters=either)) == sorted({*ids[:10], *ids[::3]})


def test_the_ranges_of_alternatives_hold_them_all(project: LabelStudioProject) -> None:
    selection = Selection(filters=filters("or", SPORT, ANNOTATED))
    ranges = project.split(selection, 3)
    assert len(ranges) == 3
    found = [task for first, last in ranges for task in selected(project, selection, after=first - 1, last=last)]
    assert found == selected(project, selection)


# ------------------------------------------------------------------------------------------------ tabs


def test_the_filters_of_a_tab_narrow_the_selection_and_its_order_does_not_count(
    studio: Studio, project: LabelStudioProject
) -> None:
    ids = every(project)
    either = {"conjunction": "or", "items": [SPORT, ANNOTATED]}
    tab = make_tab(studio, project.id, {"filters": either, "ordering": ["-tasks:id"]})
    wanted = sorted({*ids[:6], *ids[::3]})
    assert selected(project, Selection(view=tab)) == wanted
    both = Selection("v10", view=tab, filters=filters("or", FOOD, item("id", "greater", "Number", ids[11])))
    assert selected(project, both) == [
        task for task in wanted if (ids.index(task) % 3 == 1 or task > ids[11]) and task not in ids[::4]
    ]


def test_the_tasks_that_are_ticked_in_a_tab_count(studio: Studio, project: LabelStudioProject) -> None:
    ids = every(project)
    conditions = {"conjunction": "and", "items": [SPORT]}
    for ticks, wanted in (
        ({"all": False, "included": [ids[3], ids[4], ids[6]]}, [ids[3], ids[6]]),
        ({"all": True, "excluded": [ids[3], ids[4]]}, [task for task in ids[::3] if task != ids[3]]),
        ({"all": False, "included": []}, ids[::3]),
    ):
        tab = make_tab(studio, project.id, {"filters": conditions}, selected_items=ticks)
        assert selected(project, Selection(view=tab)) == wanted, ticks
        assert selected(project, Selection(view=tab, limit=2)) == wanted[:2]


def test_a_tab_that_is_not_there_is_a_mistake(studio: Studio, project: LabelStudioProject) -> None:
    other = make_tab(studio, studio.make_project([]), {})
    for view in (other, 999_999):
        with pytest.raises(ConfigError, match=f"project {project.id} has no tab {view}"):
            selected(project, Selection(view=view))
    unfinished = make_tab(
        studio, project.id, {"filters": {"conjunction": "and", "items": [item("data.topic", "equal", "String", {})]}}
    )
    with pytest.raises(ConfigError, match="has no value"):
        selected(project, Selection(view=unfinished))


# ------------------------------------------------------------------------------------------------ ids, times, versions


def test_many_task_ids_are_asked_for_in_groups(project: LabelStudioProject) -> None:
    ids = every(project)
    many = tuple(sorted({*ids[::2], *range(10**6, 10**6 + 60_000), *range(2 * 10**6, 3 * 10**6, 1_000)}))
    assert selected(project, Selection(task_ids=many)) == ids[::2]
    assert list(project.absent(many)) == [task for task in many if task not in ids]
    assert selected(project, Selection(task_ids=many, limit=3)) == ids[::2][:3]


def test_versions_compare_whole(project: LabelStudioProject) -> None:
    ids = every(project)
    assert selected(project, Selection("v1")) == [task for task in ids if task not in ids[::8]]
    assert selected(project, Selection("v10")) == [task for task in ids if task not in ids[::4]]
    assert selected(project, Selection(with_version="v1")) == ids[::8]
    assert selected(project, Selection(with_version="v10", without_version="v1")) == ids[4::8]
    assert project.count_carriers("v1", [TaskId(task) for task in ids]) == len(ids[::8])
    assert list(project.carriers("V1", ids[0], ids[-1])) == [], "SQLite itself compares without case"


def test_tasks_are_chosen_by_when_they_were_created(studio: Studio, client: LabelStudioClient) -> None:
    project = LabelStudioProject(client, studio.make_project(text_tasks(3)))
    first = every(project)
    between = datetime.now(UTC)
    with studio.http as http:
        http.post(f"/api/projects/{project.id}/import", json=text_tasks(2)).raise_for_status()
    second = [task for task in every(project) if task not in first]
    assert selected(project, Selection(created_since=between)) == second
    assert selected(project, Selection(created_until=between)) == first
    assert selected(project, Selection(created_since=between, created_until=between + timedelta(days=1))) == second
    assert selected(project, Selection(created_since=between - timedelta(days=1), created_until=between)) == first


def test_tasks_that_come_and_go_during_a_walk_break_and_double_nothing(
    studio: Studio, client: LabelStudioClient
) -> None:
    project = LabelStudioProject(client, studio.make_project(text_tasks(900)))
    before = every(project)
    pages = LabelStudioProject(client, project.id).pages(Selection())
    found = [task.id for task in next(pages).tasks]
    assert len(found) < len(before) - 100, "the walk is under way"
    # Not the last one: SQLite gives its id to the next task.
    gone = [before[0], before[len(found) + 3], before[-2]]
    with studio.http as http:
        for task in gone:
            http.delete(f"/api/tasks/{task}/").raise_for_status()
        http.post(f"/api/projects/{project.id}/import", json=text_tasks(5)).raise_for_status()
    found += [task.id for page in pages for task in page.tasks]
    assert found == sorted(set(found))
    assert set(before) - set(gone) <= set(found)
    assert not set(gone[1:]) & set(found)


# ------------------------------------------------------------------------------------------------ doubles, counters


def show(studio: Studio, counters: Mapping[int, int]) -> None:
    """Have tasks show these numbers of predictions, as an import does whose recount never came."""
    with studio.http as http:
        for task, number in counters.items():
            http.patch(f"/api/tasks/{task}/", json={"total_predictions": number}).raise_for_status()


def doubled(project: LabelStudioProject, tasks: Sequence[int], version: str) -> None:
    """A second prediction on each of these tasks."""
    project.create([prediction(task, version) for task in tasks])


def test_doubles_are_found_without_a_look_at_every_task(
    studio: Studio, client: LabelStudioClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = LabelStudioProject(client, studio.make_project(text_tasks(400)))
    ids = every(project)
    for version in ("one", "two"):
        project.create([prediction(task, version) for task in ids])
    before = dict(project.prediction_ids("two", ids[0], ids[-1]))
    doubled(project, [ids[7], ids[300]], "two")
    doubled(project, [ids[7]], "two")
    rows: list[int] = []
    original = LabelStudioClient.timed

    def timed(self: LabelStudioClient, path: str, params: Any = None) -> Any:
        body, seconds = original(self, path, params)
        rows.extend(task["id"] for task in body.get("tasks", ()) if "predictions" in task)
        return body, seconds

    monkeypatch.setattr(LabelStudioClient, "timed", timed)
    assert project.surplus("two") == 3
    assert project.remove_surplus("two") == 3
    assert rows == [ids[7], ids[300]]
    assert dict(project.prediction_ids("two", ids[0], ids[-1])) == before, "the oldest stay"
    assert project.surplus("one") == 0


def test_doubles_are_found_where_the_counters_are_wrong(studio: Studio, client: LabelStudioClient) -> None:
    project = LabelStudioProject(client, studio.make_project(text_tasks(30)))
    ids = every(project)
    project.create([prediction(task, "one") for task in ids])
    doubled(project, ids[4:6], "one")
    show(studio, dict.fromkeys(ids, 0))
    assert project.remove_surplus("one") == 2
    assert all(len(own) == 1 for _, own in project.prediction_ids("one", ids[0], ids[-1]))


@pytest.mark.parametrize("versions", [("one",), ("one", "two"), ("v1", "v10"), ("a", "b", "c", "d"), ()])
def test_wrong_counters_are_counted_and_mended(
    versions: Sequence[str], studio: Studio, client: LabelStudioClient
) -> None:
    project = LabelStudioProject(client, studio.make_project(text_tasks(12)))
    ids = every(project)
    for place, version in enumerate(versions):
        project.create([prediction(task, version) for task in ids[place:]])
    assert project.stale_counters(ids[0], ids[-1]) == 0
    # One too low and one too high: their sum is right.
    right = [sum(place >= start for start in range(len(versions))) for place in range(12)]
    show(studio, {ids[0]: right[0] + 1, ids[7]: right[7] - 1 if versions else 1, ids[9]: right[9] + 2})
    assert project.stale_counters(ids[0], ids[-1]) == 3
    assert project.stale_counters(ids[1], ids[8]) == 1
    project.repair_counters()
    assert project.stale_counters(ids[0], ids[-1]) == 0


def test_wrong_counters_are_counted_where_a_task_has_doubles(studio: Studio, client: LabelStudioClient) -> None:
    project = LabelStudioProject(client, studio.make_project(text_tasks(4)))
    ids = every(project)
    project.create([prediction(task, "one") for task in ids])
    doubled(project, ids[:1], "one")
    assert project.stale_counters(ids[0], ids[-1]) == 0
    show(studio, {ids[0]: 1})
    assert project.stale_counters(ids[0], ids[-1]) == 1


# ------------------------------------------------------------------------------------------------ the commands


@pytest.fixture
def pipeline(here: Path) -> Path:
    """A working directory with a pipeline of a user."""
    (here / "told.py").write_text(USER_PIPELINE, encoding="utf-8")
    return here


def predict(studio: Studio, project: int, here: Path, *more: str, code: int = 0) -> dict[str, Any]:
    """Run ``lsbatch predict``; its report."""
    done = lsbatch(
        *("predict", "--project", str(project), "--pipeline", "told:Told", "--workers", "0", "--json", *more),
        cwd=here,
        server=studio.server,
    )
    assert done.returncode == code, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return {**report, "said": done.stderr}


def prediction_ids(studio: Studio, project: int) -> dict[int, list[int]]:
    """The ids of the predictions on each task."""
    found: dict[int, list[int]] = {}
    with studio.http as http:
        for row in http.get("/api/predictions/", params={"project": project}).raise_for_status().json():
            found.setdefault(row["task"], []).append(row["id"])
    return found


def test_what_changed_is_predicted_again_and_replaced(studio: Studio, pipeline: Path) -> None:
    project = studio.make_project(text_tasks(12))
    ids = studio.task_ids(project)
    assert predict(studio, project, pipeline, "--limit", "10")["imported"] == 10
    before = prediction_ids(studio, project)
    with studio.http as http:
        change = {"data": {"text": "changed", "topic": "sport"}}
        http.patch(f"/api/tasks/{ids[4]}/", json=change).raise_for_status()
        http.patch(
            f"/api/tasks/{ids[6]}/", json={"data": {**text_tasks(7)[6]["data"], "topic": "x"}}
        ).raise_for_status()
    report = predict(studio, project, pipeline, "--select", "stale")
    assert report["selected"] == 1
    assert "1 of 10 tasks that carry told-1 are stale" in report["said"]
    after = prediction_ids(studio, project)
    assert {task for task in before if before[task] != after[task]} == {ids[4]}
    assert all(len(own) == 1 for own in after.values())
    assert predict(studio, project, pipeline, "--select", "stale")["selected"] == 0

    assert predict(studio, project, pipeline, "--select", "all", "--limit", "3")["selected"] == 3
    replaced = prediction_ids(studio, project)
    assert {task for task in after if after[task] != replaced[task]} == set(ids[:3])
    assert all(len(own) == 1 for own in replaced.values())


def test_a_pipeline_says_what_it_reads(studio: Studio, pipeline: Path) -> None:
    own = """
import told

class Keyed(told.Told):
    model_version = "keyed-1"

    @classmethod
    def data_keys(cls, label_config):
        return ["topic"]
"""
    (pipeline / "keyed.py").write_text(own, encoding="utf-8")
    project = studio.make_project(text_tasks(4))
    ids = studio.task_ids(project)
    assert predict(studio, project, pipeline, "--pipeline", "keyed:Keyed")["imported"] == 4
    with studio.http as http:
        for task, data in ((ids[0], {"text": "changed", "topic": "sport"}), (ids[1], {"text": "same", "topic": "new"})):
            http.patch(f"/api/tasks/{task}/", json={"data": data}).raise_for_status()
    before = prediction_ids(studio, project)
    assert predict(studio, project, pipeline, "--pipeline", "keyed:Keyed", "--select", "stale")["selected"] == 1
    after = prediction_ids(studio, project)
    assert {task for task in before if before[task] != after[task]} == {ids[1]}


def test_what_failed_is_tried_again(studio: Studio, pipeline: Path) -> None:
    rows = text_tasks(6)
    rows[2]["data"]["text"] = rows[4]["data"]["text"] = "RAISE"
    project = studio.make_project(rows)
    ids = studio.task_ids(project)
    assert predict(studio, project, pipeline, "--limit", "5", "--max-failures", "3", code=3)["quarantined"] == 2
    with studio.http as http:
        http.patch(f"/api/tasks/{ids[2]}/", json={"data": {"text": "mended", "topic": "x"}}).raise_for_status()
    report = predict(studio, project, pipeline, "--select", "failed", "--max-failures", "3", code=3)
    assert (report["selected"], report["quarantined"]) == (2, 1)
    assert sorted(studio.predictions(project)) == [*ids[:4]]
    assert "2 tasks are in the quarantine of run" in report["said"]


def test_a_choice_of_tasks_on_the_command_line(studio: Studio, pipeline: Path) -> None:
    project = studio.make_project(text_tasks(9))
    ids = studio.task_ids(project)
    (pipeline / "ids.txt").write_text("\n".join(map(str, [*ids[:6], ids[-1] + 10**6])), encoding="utf-8")
    (pipeline / "filters.json").write_text(filters("or", SPORT, FOOD), encoding="utf-8")
    choice = ("--task-ids", "ids.txt", "--filter", "filters.json", "--since", "1d", "--until", "2999-01-01")
    report = predict(studio, project, pipeline, *choice)
    assert report["selected"] == 4
    assert "1 of 7 task ids are not in the project" in report["said"]
    assert sorted(studio.predictions(project)) == [ids[0], ids[1], ids[3], ids[4]]
    done = lsbatch("export", "--project", str(project), *choice, "--out", "-", cwd=pipeline, server=studio.server)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [ids[0], ids[1], ids[3], ids[4]]


def test_mistakes_in_a_choice_come_at_once_before_any_request(pipeline: Path) -> None:
    (pipeline / "ids.txt").write_text("1\ntwo\n", encoding="utf-8")
    unreachable = {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "LABEL_STUDIO_API_KEY": "0" * 40}
    command = ("export", "--project", "1", "--out", "-", "--task-ids", "ids.txt", "--filter", "none.json")
    done = lsbatch(*command, "--since", "1d", "--until", "2d", cwd=pipeline, **unreachable)
    assert done.returncode == 2
    for words in (
        "selection.task_ids: ",
        "line 2: 'two' is not a task id",
        "selection.filter: ",
        "none.json is neither JSON nor a file",
        "selection.until: 2d is not after selection.since, 1d",
    ):
        assert words in done.stderr
    done = lsbatch("export", "--project", "1", "--out", "-", "--since", "soon", "--filter", "{", cwd=pipeline)
    assert done.returncode == 2
    assert "selection.since: must be a date" in done.stderr
    assert "selection.filter: is not JSON" in done.stderr
