"""Answers out of runs on this disk."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from ls_support import TEXT_CONFIG, topic_region
from lsbatch.chunks import ChunkState
from lsbatch.entities import Prediction, Task
from lsbatch.label_config import LabelConfig
from lsbatch.ledger import Ledger
from lsbatch.run_dir import RunDir, predictions_table, tasks_table
from lsbatch.serving import create_app
from lsbatch.serving.stored_answers import StoredAnswers
from lsbatch.wiring import Bench
from serving_support import Versions, choices, configured, request, running, served, task


def stored(folder: Path, name: str, version: str, tasks: list[Task], *, score: float, imported: bool = True) -> None:
    """A run that predicted these tasks, in chunks of three."""
    run = RunDir(folder / name)
    manifest = {"model_version": version, "label_config_hash": LabelConfig(TEXT_CONFIG).hash, "dry_run": False}
    run.create({**manifest, "operation": "predict", "created_at": "2026-01-01T00:00:00+00:00"})
    with closing(Ledger(run.ledger)) as ledger:
        for start in range(0, len(tasks), 3):
            some = tasks[start : start + 3]
            chunk = ledger.plan(some[0].id, some[-1].id, len(some))
            run.write_tasks(chunk.number, tasks_table(some))
            ledger.exported(chunk)
            found = [Prediction(one.id, [topic_region("music")], score, version) for one in some]
            run.write_predictions(chunk.number, predictions_table(found))
            batch = ledger.intend([ledger.predicted(chunk.number, len(some), [])])
            if imported:
                ledger.imported(batch)
        assert len(ledger.chunks(ChunkState.IMPORTED)) == (-(-len(tasks) // 3) if imported else 0)


def found(folder: Path, tasks: list[Task], work: Path, version: str = "v1") -> dict[int, float | None]:
    """The scores that are found, by task."""
    answers = StoredAnswers(folder).find(tasks, served(work, version))
    assert all(isinstance(outcome, Prediction) for outcome in answers.values())
    return {int(tasks[place].id): answer.score for place, answer in answers.items() if isinstance(answer, Prediction)}


def test_what_a_run_predicted_is_found(tmp_path: Path) -> None:
    runs, tasks = tmp_path / "runs", [task(number) for number in range(10, 20)]
    stored(runs, "20260101T000000Z-0001", "v1", tasks, score=0.5)
    wanted = [tasks[7], task(5), tasks[0], task(99), tasks[9]]
    assert found(runs, wanted, tmp_path) == {17: 0.5, 10: 0.5, 19: 0.5}
    assert found(tmp_path / "none", wanted, tmp_path) == {}


def test_the_newest_run_counts_and_only_of_this_version(tmp_path: Path) -> None:
    runs, tasks = tmp_path / "runs", [task(number) for number in range(1, 5)]
    stored(runs, "20260101T000000Z-0001", "v1", tasks, score=0.1)
    stored(runs, "20260102T000000Z-0001", "v1", tasks[:2], score=0.2)
    stored(runs, "20260103T000000Z-0001", "v2", tasks, score=0.3)
    stored(runs, "20260104T000000Z-0001", "v1", tasks, score=0.4, imported=False)
    assert found(runs, tasks, tmp_path) == {1: 0.2, 2: 0.2, 3: 0.1, 4: 0.1}
    assert found(runs, tasks, tmp_path, "v3") == {}


def test_a_task_that_has_changed_is_left_out(tmp_path: Path) -> None:
    runs, tasks = tmp_path / "runs", [task(1), task(2)]
    stored(runs, "20260101T000000Z-0001", "v1", tasks, score=0.1)
    other = Task(tasks[0].id, {**tasks[0].data, "text": "another"})
    more = Task(tasks[1].id, {**tasks[1].data, "note": "the pipeline does not read this"})
    assert found(runs, [other, more], tmp_path) == {2: 0.1}


def test_a_run_that_ends_later_is_seen_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    runs, tasks = tmp_path / "runs", [task(1), task(2)]
    runs.mkdir()
    answers, model = StoredAnswers(runs), served(tmp_path)
    assert answers.find(tasks, model) == {}
    stored(runs, "20260101T000000Z-0001", "v1", tasks, score=0.1)
    assert set(answers.find(tasks, model)) == {0, 1}
    (runs / "20260101T000000Z-0001" / "predictions" / "00000.parquet").write_bytes(b"damaged")
    assert StoredAnswers(runs).find(tasks, model) == {}


@pytest.mark.parametrize("stored_too", [True, False])
def test_the_backend_computes_only_what_is_not_stored(tmp_path: Path, stored_too: bool) -> None:
    async def main() -> None:
        loaded = configured(tmp_path)
        tasks = [Task(one.id, {"text": "goal"}) for one in (task(1), task(3))]
        app = create_app(loaded, source=Versions(served(tmp_path)), answer_from_runs=stored_too)
        stored(Bench(loaded).runs, "20260101T000000Z-0001", "v1", tasks, score=0.9)
        async with running(app) as http:
            answer = (await http.post("/predict", json=request("goal", "soup", "goal"))).json()["results"]
            assert choices(answer) == (["music", "food", "music"] if stored_too else ["sport", "food", "sport"])
            metrics = (await http.get("/metrics")).text
            assert f'lsbatch_tasks_total{{outcome="stored"}} {2.0 if stored_too else 0.0}' in metrics

    asyncio.run(main())
