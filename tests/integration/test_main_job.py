"""Retrain and predict on a real Label Studio; what counts is what the server holds afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ls_support import TEXT_CONFIG, Studio, annotate, lsbatch, text_tasks, topic_region

TASKS, ANNOTATED = 90, 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of this module's project, with its models."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def project(studio: Studio, place: Path) -> int:
    """A project with a trained model."""
    rows = text_tasks(TASKS)
    project = studio.make_project(annotate(rows[:ANNOTATED]) + rows[ANNOTATED:])
    done = lsbatch("retrain", "--project", str(project), "--json", cwd=place, server=studio.server)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["trained_on"] + report["held_out"] == ANNOTATED
    assert report["accuracy"] > report["baseline"]
    return project


def test_the_main_job(studio: Studio, place: Path, project: int) -> None:
    ids = studio.task_ids(project)

    def run(*more: str) -> dict[str, object]:
        done = lsbatch("predict", "--project", str(project), "--json", *more, cwd=place, server=studio.server)
        assert done.returncode == 0, done.stderr
        report: dict[str, object] = json.loads(done.stdout)
        return report

    dry = run("--dry-run", "--limit", "5")
    assert dry["selected"] == 5
    assert studio.predictions(project) == {}

    done = lsbatch(
        "import", "--project", str(project), "--from", str(dry["run"]), "--json", cwd=place, server=studio.server
    )
    assert done.returncode == 0, done.stderr
    assert sorted(studio.predictions(project)) == ids[:5]

    assert run("--untouched-only", "--activate", "--workers", "2")["selected"] == TASKS - ANNOTATED
    found = studio.predictions(project)
    assert sorted(found) == ids[:5] + ids[ANNOTATED:]

    assert run()["selected"] == ANNOTATED - 5
    found = studio.predictions(project)
    assert sorted(found) == ids
    version = str(dry["model_version"])
    assert all([entry[0] for entry in entries] == [version] for entries in found.values())
    assert all(0 <= entries[0][1] <= 1 for entries in found.values())
    right = sum(found[task][0][2] == [topic_region_like(found[task][0][2], number)] for number, task in enumerate(ids))
    assert right > 0.9 * TASKS
    assert studio.active_version(project) == version

    assert run()["selected"] == 0
    assert studio.predictions(project) == found


def topic_region_like(result: list[dict[str, object]], number: int) -> dict[str, object]:
    """The region that task ``number`` should have, with the id that the server gave it."""
    expected = topic_region(("sport", "food", "music")[number % 3])
    return {**result[0], **expected}


def test_check_passes_and_writes_nothing(studio: Studio, place: Path, project: int) -> None:
    before = studio.predictions(project)
    done = lsbatch("check", "--project", str(project), cwd=place, server=studio.server)
    assert done.returncode == 0, done.stdout
    assert "legacy token" in done.stdout
    assert "FAIL" not in done.stdout
    assert studio.predictions(project) == before


def test_a_personal_access_token_works(studio: Studio, place: Path, project: int) -> None:
    with studio.http as http:
        token = http.post("/api/token/").raise_for_status().json()["token"]
    done = lsbatch("check", "--project", str(project), cwd=place, server=studio.server, LABEL_STUDIO_API_KEY=token)
    assert done.returncode == 0, done.stdout
    assert "personal access token" in done.stdout
    assert token not in done.stdout + done.stderr


def test_export_gives_every_task(studio: Studio, here: Path, project: int) -> None:
    ids = studio.task_ids(project)
    for out in ("tasks.parquet", "tasks.jsonl", "folder"):
        done = lsbatch("export", "--project", str(project), "--out", out, cwd=here, server=studio.server)
        assert done.returncode == 0, done.stderr
    assert pq.read_table(here / "tasks.parquet").column("id").to_pylist() == ids
    lines = [json.loads(line) for line in (here / "tasks.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids
    assert set(lines[0]["data"]) == {"text", "topic"}
    assert pq.read_table(here / "folder").column("id").to_pylist() == ids


def test_predictions_of_a_file_are_imported_once(studio: Studio, here: Path) -> None:
    project = studio.make_project(text_tasks(4))
    ids = studio.task_ids(project)
    rows = [{"task": task, "result": [topic_region("food")], "score": 0.5, "model_version": "theirs-1"} for task in ids]
    rows[1]["result"] = [topic_region("no such label")]
    (here / "theirs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    arguments = ("import", "--project", str(project), "--from", "theirs.jsonl", "--json")
    for _ in range(2):
        done = lsbatch(*arguments, cwd=here, server=studio.server)
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["quarantined"] == 1
        found = studio.predictions(project)
        assert sorted(found) == [ids[0], ids[2], ids[3]]
        assert all(len(entries) == 1 for entries in found.values())


def test_a_task_of_another_project_gets_nothing(studio: Studio, here: Path) -> None:
    ours, theirs = studio.make_project(text_tasks(3)), studio.make_project(text_tasks(1))
    tasks = [*studio.task_ids(ours), *studio.task_ids(theirs)]
    rows = [{"task": task, "result": [topic_region("food")], "score": 0.5, "model_version": "v"} for task in tasks]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = lsbatch("import", "--project", str(ours), "--from", "rows.jsonl", cwd=here, server=studio.server)
    assert done.returncode == 3, done.stderr
    assert "not in the project" in done.stdout
    assert sorted(studio.predictions(ours)) == tasks[:3]
    assert studio.predictions(theirs) == {}


def test_the_token_is_nowhere_on_disk(studio: Studio, place: Path, project: int) -> None:
    assert project > 0
    files = [path for path in (place / ".lsbatch").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if studio.server.token.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"LABEL_STUDIO_API_KEY": "0" * 40}, 5, "LABEL_STUDIO_API_KEY"),
        ({"LABEL_STUDIO_URL": "http://127.0.0.1:9"}, 75, "cannot be reached"),
        ({"LSBATCH_PROJECT": "99999"}, 5, "404"),
    ],
    ids=["wrong token", "nobody there", "no such project"],
)
def test_refusals(studio: Studio, here: Path, change: dict[str, str], code: int, words: str) -> None:
    settings = {"LSBATCH_PROJECT": "1", "LSBATCH_LABEL_STUDIO_RETRY_SECONDS": "0", **change}
    done = lsbatch("predict", cwd=here, server=studio.server, **settings)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_project_can_lack(studio: Studio, here: Path) -> None:
    def predict(project: int, *more: str) -> tuple[int, str]:
        done = lsbatch("predict", "--project", str(project), *more, cwd=here, server=studio.server)
        return done.returncode, done.stderr

    unserved = '<View><Text name="t" value="$text"/><TextArea name="a" toName="t"/></View>'
    code, message = predict(studio.make_project(text_tasks(1), unserved))
    assert (code, "no installed pipeline can serve" in message) == (5, True), message
    code, message = predict(studio.make_project([], TEXT_CONFIG))
    assert (code, "lsbatch retrain --project" in message) == (2, True), message
    code, message = predict(studio.make_project(text_tasks(1)), "--model-version", "a,b")
    assert (code, "pipeline.model_version" in message) == (2, True), message

    done = lsbatch(
        "retrain", "--project", str(studio.make_project(annotate(text_tasks(3)))), cwd=here, server=studio.server
    )
    assert (done.returncode, "too few annotations" in done.stderr) == (2, True), done.stderr
    assert not list((here / ".lsbatch").rglob("model.ubj"))
