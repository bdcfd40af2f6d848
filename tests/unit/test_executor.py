"""Chunks on a real Dask cluster of processes, also when a task kills its worker."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from deadly_pipeline import Recipe
from lsbatch.dask_executor import DaskOptions, open_dask
from lsbatch.entities import Task, TaskId
from lsbatch.errors import TransientError
from lsbatch.executor import Executor, InProcessExecutor
from lsbatch.run_dir import tasks_table


def chunks(count: int, *, deadly: tuple[int, ...] = ()) -> Iterator[tuple[int, pa.Table]]:
    """Chunks of five tasks."""
    for number in range(count):
        ids = range(number * 5, number * 5 + 5)
        yield number, tasks_table([Task(TaskId(task), {"text": "DIE" if task in deadly else "x"}) for task in ids])


def ids_of(executor: Executor, count: int, *, deadly: tuple[int, ...] = ()) -> tuple[list[int], list[int]]:
    """Ids of the predicted tasks and of the dead letters."""
    predicted, dead = [], []
    for result in executor.run(chunks(count, deadly=deadly)):
        found = result.predictions.column("task_id").to_pylist()
        assert found == sorted(found)
        assert result.tasks == 5 == len(found) + len(result.letters)
        predicted += found
        dead += [int(letter.task_id) for letter in result.letters]
    return sorted(predicted), sorted(dead)


def test_in_this_process() -> None:
    assert ids_of(InProcessExecutor(Recipe()), 3) == (list(range(15)), [])


def test_on_a_cluster_only_the_tasks_that_kill_are_lost() -> None:
    deadly = (7, 21)
    with open_dask(DaskOptions(workers=2), Recipe(), "run", say=print) as executor:
        predicted, dead = ids_of(executor, 6, deadly=deadly)
    assert dead == list(deadly)
    assert predicted == [task for task in range(30) if task not in deadly]


def test_no_scheduler_is_an_error_and_not_a_wait() -> None:
    options = DaskOptions(scheduler="tcp://127.0.0.1:9", worker_seconds=0.5)
    with pytest.raises(TransientError, match="no Dask scheduler"), open_dask(options, Recipe(), "run", say=print):
        raise AssertionError("connected to nobody")
