"""Chunks in this process, and when the rest of them goes to a cluster; a real cluster is in test_workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest

from lsbatch import executor as module
from lsbatch.dask_cluster import open_dask
from lsbatch.dask_executor import DaskOptions
from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError, TransientError
from lsbatch.executor import AdaptiveExecutor, ChunkResult, Executor, InProcessExecutor
from lsbatch.predictor import Predictor
from lsbatch.run_dir import tasks_table
from odd_pipeline import Recipe

CHUNK = 5


def chunks(count: int, drawn: list[int] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Chunks of five tasks; each that is drawn is noted."""
    for number in range(count):
        if drawn is not None:
            drawn.append(number)
        ids = range(number * CHUNK, (number + 1) * CHUNK)
        yield number, tasks_table([Task(TaskId(task), {"text": "x"}) for task in ids])


# ------------------------------------------------------------------------------------------------ in this process


def test_in_this_process() -> None:
    results = list(InProcessExecutor(Recipe()).run(chunks(3)))
    assert [result.chunk for result in results] == [0, 1, 2]
    assert all(result.tasks == CHUNK and result.letters == () for result in results)
    assert [task for result in results for task in result.predictions.column("task_id").to_pylist()] == list(range(15))


def test_no_more_chunks_are_drawn_than_are_needed() -> None:
    drawn: list[int] = []
    results = InProcessExecutor(Recipe()).run(chunks(3, drawn))
    next(results)
    assert drawn == [0]


def test_a_pipeline_that_cannot_be_built_says_so() -> None:
    class Broken(Recipe):
        def __call__(self) -> Predictor:
            raise ConfigError("no such model")

    with pytest.raises(ConfigError, match="no such model"):
        list(InProcessExecutor(Broken(key="broken")).run(chunks(1)))


def test_a_predictor_is_built_once_for_a_recipe() -> None:
    built: list[str] = []

    class Counting(Recipe):
        def __call__(self) -> Predictor:
            built.append(self.key)
            return super().__call__()

    for key in ("one", "one", "two", "one"):
        list(InProcessExecutor(Counting(key=key)).run(chunks(2)))
    # One at a time, so that two models are never in memory.
    assert built == ["one", "two", "one"]


# ------------------------------------------------------------------------------------------------ when a cluster pays


class Timed:
    """Chunks that take the time that the test says.

    Args:
        monkeypatch: of the test.
        seconds: of each chunk in this process; the last one goes for all that follow.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
        self.opened = 0
        self.there: list[int] = []
        self._waiting = list(seconds)
        original = module.predict_table

        def timed(factory: Recipe, table: pa.Table) -> tuple[object, object, float]:
            predictions, letters, _ = original(factory, table)
            return predictions, letters, self._waiting.pop(0) if len(self._waiting) > 1 else self._waiting[0]

        monkeypatch.setattr(module, "predict_table", timed)

    @contextmanager
    def cluster(self) -> Iterator[Executor]:
        """Another executor, which notes what goes there."""
        self.opened += 1
        yield self

    def run(self, chunks: Iterable[tuple[int, pa.Table]]) -> Iterator[ChunkResult]:
        """See ``Executor.run``."""
        for result in InProcessExecutor(Recipe()).run(chunks):
            self.there.append(result.chunk)
            yield result


def run_adaptive(timed: Timed, *, total: int, pays: float, count: int) -> list[int]:
    """Run so many chunks; their numbers, in the order in which they were done."""
    adaptive = AdaptiveExecutor(Recipe(), total, pays, timed.cluster)
    return [result.chunk for result in adaptive.run(chunks(count))]


def test_a_short_run_stays_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, [1.0])
    # 0.2 s a task, and 90 tasks left after the second chunk: 18 s.
    assert run_adaptive(timed, total=100, pays=20, count=20) == list(range(20))
    assert (timed.opened, timed.there) == (0, [])


def test_a_long_run_moves_once_it_is_known_to_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, [1.0])
    assert run_adaptive(timed, total=200, pays=20, count=40) == list(range(40))
    assert timed.opened == 1
    assert timed.there == list(range(2, 40))


def test_the_loading_of_libraries_is_not_taken_for_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, [60.0, 0.01])
    assert run_adaptive(timed, total=1_000, pays=20, count=5) == list(range(5))
    assert timed.opened == 0


def test_a_slow_moment_does_not_open_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, [1.0, 0.01, 60.0, 0.01])
    run_adaptive(timed, total=1_000, pays=20, count=6)
    assert timed.opened == 0


def test_what_becomes_slow_later_moves_as_soon_as_all_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, [1.0, 5.0, 5.0])
    run_adaptive(timed, total=1_000, pays=20, count=6)
    assert timed.there == [2, 3, 4, 5]


def test_nothing_is_opened_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, [100.0])
    assert run_adaptive(timed, total=0, pays=0, count=0) == []
    assert run_adaptive(timed, total=CHUNK, pays=0, count=1) == [0]
    assert timed.opened == 0


# ------------------------------------------------------------------------------------------------ no cluster


def test_no_scheduler_is_an_error_and_not_a_wait() -> None:
    options = DaskOptions(scheduler="tcp://127.0.0.1:9", worker_seconds=0.5)
    with pytest.raises(TransientError, match="no Dask scheduler"), open_dask(options, Recipe(), "run", say=print):
        raise AssertionError("connected to nobody")


@pytest.mark.parametrize("address", ["nonsense", "nonsense://host:1", "tcp://host"])
def test_an_address_that_is_none_is_a_mistake_of_the_settings(address: str) -> None:
    options = DaskOptions(scheduler=address, worker_seconds=0.5)
    with pytest.raises(ConfigError, match=r"dask\.scheduler"), open_dask(options, Recipe(), "run", say=print):
        raise AssertionError("connected to nobody")
