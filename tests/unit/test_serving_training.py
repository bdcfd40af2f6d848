"""Trainings: one at a time, each in a process of its own, after annotations or on demand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lsbatch.serving.source import training_environment
from lsbatch.serving.training import Trainer, Training
from serving_support import configured, until

#: Notes its arguments, waits for the file ``go``, and reports a version as ``retrain --json`` does.
SCRIPT = """
import json, os, sys, time
from pathlib import Path
here = Path(os.environ["HERE"])
with (here / "calls").open("a") as calls:
    print(os.getpid(), *sys.argv[1:], file=calls)
while not (here / "go").exists():
    time.sleep(0.01)
if (here / "away").exists():
    sys.exit(75)
if (here / "deep").exists():
    print("[" * 100_000)
    sys.exit(0)
if (here / "fail").exists():
    sys.exit("Error: there are too few annotations")
report = {"model_version": "v2", "promoted": not (here / "worse").exists()}
if (here / "nothing").exists():
    report = {"model_version": None}
print(json.dumps(report))
sys.exit(6 if (here / "worse").exists() else 0)
"""


def calls(folder: Path) -> list[list[str]]:
    """The process id and the arguments of each training so far."""
    file = folder / "calls"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def use(folder: Path, do: Callable[[Trainer, list[str]], Awaitable[None]], **options: Any) -> None:
    """Do something with a trainer; the list grows by ``done`` and the status of each training that ended."""

    async def main() -> None:
        told: list[str] = []
        trainer = Trainer(
            [sys.executable, "-c", SCRIPT],
            {**os.environ, "HERE": str(folder)},
            done=lambda: told.append("done"),
            counted=told.append,
            **{"every": None, "min_seconds": 0.0, **options},
        )
        task = asyncio.create_task(trainer.run())
        try:
            await do(trainer, told)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


async def over(training: Training) -> None:
    """Return when a training ended."""
    await until(lambda: training.status in ("finished", "failed"))


def test_a_training_goes_through_its_states(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        training = trainer.start("somebody asked")
        assert training.status == "queued"
        await until(lambda: training.status == "started" and calls(tmp_path))
        assert trainer.running is training
        (tmp_path / "go").touch()
        await over(training)
        assert trainer.running is None
        told_json = training.to_json()
        assert (told_json["job_status"], told_json["outcome"]) == ("finished", "v2 promoted")
        assert told_json["created_at"] <= told_json["started_at"] <= told_json["ended_at"]
        assert told == ["finished", "done"]
        assert trainer.find(training.id) is training
        assert trainer.find("no such") is None

    use(tmp_path, do)


@pytest.mark.parametrize(
    ("flag", "outcome"),
    [
        ("worse", "v2 stored and not promoted"),
        ("nothing", "nothing new"),
        ("deep", "its report cannot be read"),
    ],
)
def test_what_came_of_it_is_said(tmp_path: Path, flag: str, outcome: str) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        training = trainer.start("somebody asked")
        await over(training)
        assert (training.status, training.outcome) == ("finished", outcome)

    (tmp_path / "go").touch()
    (tmp_path / flag).touch()
    use(tmp_path, do)


def test_one_at_a_time_and_those_that_wait_are_one(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        first = trainer.start("first")
        await until(lambda: calls(tmp_path))
        second, third = trainer.start("second"), trainer.start("third")
        assert second is third is not first
        assert second.status == "queued"
        (tmp_path / "go").touch()
        await over(second)
        assert len(calls(tmp_path)) == 2

    use(tmp_path, do)


def test_a_failure_is_told_and_the_next_one_works(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        failed = trainer.start("somebody asked")
        await over(failed)
        assert failed.status == "failed"
        assert "exit code 1" in failed.error
        assert "too few annotations" in failed.error
        (tmp_path / "fail").unlink()
        again = trainer.start("once more")
        await over(again)
        assert again.status == "finished"
        assert told == ["failed", "finished", "done"]

    (tmp_path / "go").touch()
    (tmp_path / "fail").touch()
    use(tmp_path, do)


def test_a_training_that_does_not_end_is_ended(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        endless = trainer.start("somebody asked")
        await over(endless)
        assert endless.status == "failed"
        assert "serve.train_seconds" in endless.error
        (tmp_path / "go").touch()
        again = trainer.start("once more")
        await over(again)
        assert again.status == "finished"

    use(tmp_path, do, most_seconds=0.5)


def test_a_killed_training_is_told(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        training = trainer.start("somebody asked")
        await until(lambda: calls(tmp_path))
        os.kill(int(calls(tmp_path)[0][0]), signal.SIGKILL)
        await over(training)
        assert "signal 9" in training.error

    use(tmp_path, do)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        trainer = Trainer([str(tmp_path / "none")], {}, every=None, min_seconds=0, done=lambda: None)
        task = asyncio.create_task(trainer.run())
        training = trainer.start("somebody asked")
        await over(training)
        assert "could not be started" in training.error
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_annotations_start_a_training_when_there_are_enough(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        # What was annotated before the server ran.
        await until(lambda: told == ["finished", "done"])
        assert calls(tmp_path)[0][1:] == ["--since-last"]
        trainer.annotated(2)
        assert trainer.last is not None
        assert trainer.last.status == "finished"
        trainer.annotated(1)
        await until(lambda: len(told) == 4)
        assert trainer.last.why == "3 new annotations"

    (tmp_path / "go").touch()
    use(tmp_path, do, every=3)


def test_what_could_not_be_learned_is_learned_the_next_time(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        await until(lambda: len(calls(tmp_path)) >= 3)
        (tmp_path / "away").unlink()
        await until(lambda: "finished" in told)
        await until(lambda: trainer.running is None)
        assert told[:2] == ["failed", "failed"]
        assert told[-2:] == ["finished", "done"]

    (tmp_path / "go").touch()
    (tmp_path / "away").touch()
    use(tmp_path, do, every=2)


def test_annotations_wait_for_their_time_and_a_person_need_not(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        await until(lambda: len(told) == 2)
        trainer.annotated(5)
        asked = trainer.start("somebody asked")
        await over(asked)
        assert [call[1:] for call in calls(tmp_path)] == [["--since-last"], []]

    (tmp_path / "go").touch()
    use(tmp_path, do, every=1, min_seconds=3600.0)


def test_the_end_of_the_server_ends_the_training(tmp_path: Path) -> None:
    async def do(trainer: Trainer, told: list[str]) -> None:
        trainer.start("somebody asked")
        await until(lambda: calls(tmp_path))

    use(tmp_path, do)
    process = int(calls(tmp_path)[0][0])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_training_has_the_configuration_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("retrain: {holdout: 0.3}\n")
    found = training_environment(configured(tmp_path, port=1234), {"PATH": "/bin"})
    assert found["LSBATCH_CONFIG"] == str(tmp_path / "pipeline.yaml")
    assert found["LSBATCH_PROJECT"] == "7"
    assert found["PATH"] == "/bin"
    assert "not-used" not in json.dumps(found)
