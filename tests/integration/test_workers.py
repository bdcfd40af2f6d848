"""Workers of a real Dask cluster that are killed, hang, run out of memory or share nothing with the driver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from distributed import Client

from lsbatch.dask_cluster import open_dask
from lsbatch.dask_executor import DaskExecutor, DaskOptions
from lsbatch.entities import Task, TaskId
from lsbatch.errors import TransientError
from lsbatch.executor import ChunkResult
from lsbatch.pipeline_spec import MediaSpec, PipelineSpec
from lsbatch.run_dir import tasks_table
from lsbatch_connectors.label_studio import ConnectionOptions
from lsbatch_connectors.media import MediaOptions
from odd_pipeline import CONFIG, Recipe

CHUNK = 5
#: Longest wait for another process, in seconds; the machine may be busy.
PATIENCE = 120
#: Longer than a worker takes to start and to load the pipeline, also on a busy machine.
CHUNK_SECONDS = 15.0
#: What a process of ours needs, and room to see it grow.
MEMORY = "600MB"


def chunks(texts: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Chunks of five tasks, ids from 0 on."""
    for first in range(0, len(texts), CHUNK):
        group = enumerate(texts[first : first + CHUNK], start=first)
        yield first // CHUNK, tasks_table([Task(TaskId(task), {"text": text}) for task, text in group])


def told(count: int, odd: Mapping[int, str]) -> list[str]:
    """Texts that ask for nothing, but for these."""
    return [odd.get(task, "x") for task in range(count)]


def outcome(executor: DaskExecutor, texts: Sequence[str]) -> dict[int, str]:
    """Run the tasks; the causes of those that failed. Every other task must have its own prediction."""
    predicted: list[int] = []
    failed: dict[int, str] = {}
    for result in executor.run(chunks(texts)):
        found = result.predictions.column("task_id").to_pylist()
        assert found == sorted(found)
        assert len(found) + len(result.letters) == result.tasks
        predicted += found
        failed |= {int(letter.task_id): letter.cause for letter in result.letters}
    assert sorted(predicted) == [task for task in range(len(texts)) if task not in failed]
    return failed


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskExecutor]:
    """Two local workers."""
    options = DaskOptions(workers=2, memory_limit=MEMORY, chunk_seconds=CHUNK_SECONDS, worker_seconds=PATIENCE)
    with open_dask(options, Recipe(), "run", say=print) as executor:
        yield executor


# ------------------------------------------------------------------------------------------------ a local cluster


def test_all_is_well(cluster: DaskExecutor) -> None:
    assert outcome(cluster, told(23, {})) == {}


def test_no_worker_looks_at_its_threads(cluster: DaskExecutor) -> None:
    # In Python 3.11, sys._current_frames may never return.
    found = cluster._client.run(lambda dask_worker: "profile" in dask_worker.periodic_callbacks)
    assert list(found.values()) == [False, False]


def test_a_killed_worker_costs_only_its_chunk(cluster: DaskExecutor, tmp_path: Path) -> None:
    waiting = tmp_path / "worker"
    killer = threading.Thread(target=kill_when_ready, args=(waiting,))
    killer.start()
    assert outcome(cluster, told(30, {12: f"WAIT {waiting}"})) == {}
    killer.join(PATIENCE)
    assert waiting.exists()


def when_ready(path: Path, act: Callable[[], object]) -> None:
    """Do something as soon as a worker waits inside a task."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not path.with_suffix(".ready").exists():
        assert time.monotonic() < deadline
        pause.wait(0.05)
    act()


def kill_when_ready(path: Path) -> None:
    """Kill the worker that waits inside a task."""
    when_ready(path, lambda: os.kill(int(path.read_text()), signal.SIGKILL))


def test_only_the_tasks_that_kill_their_worker_are_quarantined(cluster: DaskExecutor) -> None:
    failed = outcome(cluster, told(30, {7: "DIE", 21: "DIE"}))
    assert sorted(failed) == [7, 21]
    assert set(failed.values()) == {"the pipeline kills its worker process (memory, or a crash)"}


def test_a_task_that_hangs_is_quarantined_alone_and_its_worker_replaced(cluster: DaskExecutor) -> None:
    failed = outcome(cluster, told(20, {8: "HANG"}))
    assert failed == {8: "the pipeline does not end within 15 s (inference.chunk_seconds)"}
    assert outcome(cluster, told(10, {})) == {}


def test_a_task_that_takes_too_much_memory_is_quarantined_alone(cluster: DaskExecutor) -> None:
    failed = outcome(cluster, told(20, {13: "EAT"}))
    assert failed == {13: "the pipeline kills its worker process (memory, or a crash)"}


def test_what_is_in_flight_when_nobody_wants_more_is_given_up(cluster: DaskExecutor) -> None:
    results = cluster.run(chunks(told(200, {})))
    next(results)
    assert isinstance(results, Generator)
    results.close()
    assert outcome(cluster, told(10, {})) == {}


# ------------------------------------------------------------------------------------------------ a cluster of others


class Elsewhere:
    """A scheduler and its workers as processes of their own, with another working directory and another home.

    Args:
        folder: theirs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._said(self.scheduler, r"Scheduler at: +(tcp://\S+)")

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        place = self.folder / f"{what}-{len(self._processes)}"
        place.mkdir(parents=True)
        kept = ("PATH", "LANG", "TMPDIR")
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments],
                cwd=place,
                env={**{name: os.environ[name] for name in kept if name in os.environ}, "HOME": str(place)},
                stderr=log,
            )
        self._processes.append(process)
        return process

    def add_worker(self, *arguments: str) -> None:
        """Start one more worker, and wait until it belongs to the cluster."""
        options = ("--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder / "scratch"))
        self._said(self._start("worker", self.address, *options, *arguments), r"Registered to: +(tcp://\S+)")

    def _said(self, process: subprocess.Popen[bytes], pattern: str) -> str:
        """What a process says of itself once it is ready."""
        [log] = self.folder.glob(f"*-{self._processes.index(process)}/log")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := re.search(pattern, log.read_text()):
                return found[1]
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                break
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        """End all of it."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)


@contextmanager
def elsewhere(folder: Path) -> Iterator[Elsewhere]:
    """A cluster of others."""
    there = Elsewhere(folder)
    try:
        yield there
    finally:
        there.stop()


#: A user's own pipeline: the label is in the model's folder, what it stands for in a module beside.
MINE = """
from pathlib import Path

import told
import words


class Mine:
    model_version = "v"

    @classmethod
    def why_not(cls, label_config):
        return None

    @classmethod
    def build(cls, context):
        built = cls()
        built.score = words.SCORES[(context.model_dir / "word.txt").read_text()]
        return built

    def predict(self, tasks):
        for task in tasks:
            told.obey(task.data["text"])
        return [{"result": [], "score": self.score} for _ in tasks]
"""
TOLD = """
import os
import threading


def obey(text):
    if text == "DIE":
        os._exit(9)
    if text.startswith("WAIT"):
        path = text.split()[1]
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        open(os.path.splitext(path)[0] + ".ready", "w").close()
        threading.Event().wait()
"""


def scores(executor: DaskExecutor, texts: Sequence[str]) -> set[float]:
    """Run the tasks, none of which fails; their scores."""
    found: set[float] = set()
    for result in executor.run(chunks(texts)):
        assert result.letters == ()
        found |= set(result.predictions.column("score").to_pylist())
    return found


def mine(folder: Path, score: float) -> PipelineSpec:
    """The recipe of a pipeline that lies in this folder, with a model in another."""
    home, model = folder / "home", folder / "models" / "v"
    for place in (home, model):
        place.mkdir(parents=True, exist_ok=True)
    (home / "mine.py").write_text(MINE)
    (home / "told.py").write_text(TOLD)
    (home / "words.py").write_text(f"SCORES = {{'good': {score}}}")
    (model / "word.txt").write_text("good")
    media = MediaSpec(MediaOptions(base_url="http://a"), ConnectionOptions("http://a", "token"))
    return PipelineSpec("mine:Mine", str(home), {}, CONFIG, "v", str(model), media)


def test_workers_elsewhere_use_what_was_sent_to_them_and_nothing_else(tmp_path: Path) -> None:
    """What was sent is moved away on this machine; a worker that is killed gets it again; a next run sends its own."""
    waiting = tmp_path / "worker"
    with elsewhere(tmp_path / "elsewhere") as there:
        there.add_worker()
        options = DaskOptions(scheduler=there.address, chunk_seconds=PATIENCE, worker_seconds=PATIENCE)
        killer = threading.Thread(target=kill_when_ready, args=(waiting,))
        killer.start()
        with open_dask(options, mine(tmp_path, 0.25), "first", say=print) as executor:
            (tmp_path / "home").rename(tmp_path / "home-away")
            (tmp_path / "models").rename(tmp_path / "models-away")
            assert scores(executor, told(30, {12: f"WAIT {waiting}"})) == {0.25}
        killer.join(PATIENCE)
        with open_dask(options, mine(tmp_path, 0.75), "second", say=print) as executor:
            assert scores(executor, told(10, {})) == {0.75}
        with Client(there.address, set_as_default=False) as client:
            kept = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        assert [name for name in kept if "lsbatch" in name] == []


def test_a_cluster_without_workers_is_an_error_after_a_while(tmp_path: Path) -> None:
    with elsewhere(tmp_path / "elsewhere") as there:
        impatient = DaskOptions(scheduler=there.address, worker_seconds=2.0)
        with (
            pytest.raises(TransientError, match="got no worker within 2 s") as caught,
            open_dask(impatient, mine(tmp_path, 0.5), "run", say=print),
        ):
            raise AssertionError("there is no worker")
        assert "Start workers" in caught.value.hint
        # Nobody starts it again when it dies.
        there.add_worker("--no-nanny")
        leaving = replace(impatient, chunk_seconds=PATIENCE)
        with (
            pytest.raises(TransientError, match="has had no worker for 2 s") as caught,
            open_dask(leaving, mine(tmp_path, 0.5), "run", say=print) as executor,
        ):
            outcome(executor, told(10, {3: "DIE"}))
        assert "run the same command again" in caught.value.hint


def test_a_scheduler_that_dies_is_an_error_and_what_was_done_is_kept(tmp_path: Path) -> None:
    waiting = tmp_path / "worker"
    done: list[int] = []
    two_are_here = threading.Event()
    with elsewhere(tmp_path / "elsewhere") as there:
        there.add_worker()

        def kill() -> None:
            assert two_are_here.wait(PATIENCE)
            there.scheduler.kill()

        def note(results: Iterable[ChunkResult]) -> None:
            for result in results:
                done.append(result.chunk)
                if len(done) == 2:
                    two_are_here.set()

        killer = threading.Thread(target=when_ready, args=(waiting, kill))
        killer.start()
        options = DaskOptions(scheduler=there.address, worker_seconds=PATIENCE, chunk_seconds=PATIENCE)
        with (
            pytest.raises(TransientError, match="connection to the Dask scheduler was lost") as caught,
            open_dask(options, mine(tmp_path, 0.5), "run", say=print) as executor,
        ):
            note(executor.run(chunks(told(30, {12: f"WAIT {waiting}"}))))
        killer.join(PATIENCE)
    assert sorted(done) == [0, 1]
    assert "run the same command again" in caught.value.hint
