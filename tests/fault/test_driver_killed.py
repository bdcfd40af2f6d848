"""The driver is killed (SIGKILL) at every write, at every request, and at random: the same command then ends well."""

from __future__ import annotations

import itertools
import queue
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from fault.cases import Case, each
from fault.driver import KILLED, Done
from fault.faults import Call
from fault.plugins import CountWrites, KillAtWrite, Moment, Write
from fault.proxy import Exchange, FaultProxy, Rule
from fault.scene import CHUNK, DONE, TASKS, Scene
from fault.victim import Victim
from ls_support import Studio

KILLS = 30
SEED = 20


def runs(scene: Scene) -> list[Path]:
    """What the runs of a scene were asked to do: one file each."""
    return list((scene.folder / ".lsbatch").glob("*/*/runs/*/manifest.json"))


# ------------------------------------------------------------------------------------------------ at every write


@pytest.fixture(scope="module")
def writes(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> dict[Write, int]:
    """How many writes of each kind a run without any fault makes."""
    counter = CountWrites(tmp_path_factory.mktemp("counted") / "writes")
    each(
        studio,
        counter.file.parent,
        [("counted", lambda scene: check_done(scene, scene.run(plugins=[counter])))],
    )
    counted = counter.counted()
    return {write: counted[write] for write in get_args(Write)}


def check_done(scene: Scene, done: Done) -> None:
    """A run that ended well, after which each task has one prediction."""
    assert done.code == DONE, done.stderr
    scene.check_exactly_once()


def check_resumed(scene: Scene, done: Done) -> None:
    """The same for a run that continued the one before."""
    check_done(scene, done)
    assert len(runs(scene)) == 1


def test_the_writes_of_a_run_are_counted(writes: dict[Write, int]) -> None:
    # At least: planned, exported, predicted, sent and imported, of each chunk; the tasks and predictions of each.
    assert writes["commit"] >= 5 * TASKS // CHUNK
    assert writes["rename"] >= 2 * TASKS // CHUNK


def kill_everywhere(studio: Studio, folder: Path, count: int, write: Write, moment: Moment) -> None:
    """Kill a run at each of its writes of a kind, always in a project of its own, and run the same command again."""
    killed: list[int] = []

    def killed_at(at: int) -> Case:
        def case(scene: Scene) -> None:
            done = scene.run(plugins=[KillAtWrite(write, at, moment)])
            if done.code == KILLED:
                killed.append(at)
                done = scene.run()
            # Import and inference go side by side: one run may write a little less often than another.
            check_done(scene, done)
            # The last commit comes before the run is finished, so that it is always continued.
            assert write == "rename" or len(runs(scene)) == 1

        return case

    each(studio, folder, [(f"killed {moment} {write} {at}", killed_at(at)) for at in range(1, count + 1)])
    assert len(killed) >= count - 2, killed


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_every_commit(studio: Studio, tmp_path: Path, writes: dict[Write, int], moment: Moment) -> None:
    kill_everywhere(studio, tmp_path, writes["commit"], "commit", moment)


def test_killed_before_every_rename(studio: Studio, tmp_path: Path, writes: dict[Write, int]) -> None:
    kill_everywhere(studio, tmp_path, writes["rename"], "rename", "before")


# ------------------------------------------------------------------------------------------------ at every request


def killed_by_request(at: int, *, after: bool) -> Case:
    """A run that is killed when a request of it is under way: before it is carried out, or after."""

    def case(scene: Scene) -> None:
        victim = Victim()
        scene.proxy.script(Rule(Call(victim.kill, after=after), at=at))
        victim.start(scene)
        check_resumed(scene, scene.run())

    return case


def test_killed_at_every_request(studio: Studio, tmp_path: Path) -> None:
    counted: list[int] = []

    def count(scene: Scene) -> None:
        check_done(scene, scene.run())
        counted.append(len(scene.proxy.seen))

    each(studio, tmp_path / "counted", [("counted", count)])
    # Before the second request there is no run yet.
    numbers = range(2, counted[0] + 1)
    cases = [(f"killed after request {at}", killed_by_request(at, after=True)) for at in numbers]
    each(studio, tmp_path, cases)


class Outlives:
    """A request that Label Studio carries out only when its sender is dead and a new run has begun to ask."""

    def __init__(self, victim: Victim) -> None:
        self._victim = victim
        self._asked: queue.Queue[str] = queue.Queue()

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        self._victim.kill()
        self._asked.get(timeout=30)
        exchange.forward()
        exchange.cut()

    def asked(self, exchange: Exchange) -> None:
        """A fault for reads of the new run: they are answered, and the held request goes on its way."""
        exchange.relay(exchange.forward())
        self._asked.put(exchange.seen.path)


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_a_request_outlives_its_sender(scene: Scene, asked: int) -> None:
    victim = Victim()
    outlives = Outlives(victim)
    scene.proxy.script(Rule(outlives, method="POST", at=2))
    victim.start(scene, LSBATCH_LABEL_STUDIO_WRITE_SECONDS="3")
    held = list(scene.proxy.seen)
    scene.proxy.script(Rule(outlives.asked, method="GET", at=asked))
    done = scene.run(LSBATCH_LABEL_STUDIO_WRITE_SECONDS="3")
    assert [seen.upstream for seen in held if seen.fault] == [[201]]
    check_resumed(scene, done)


# ------------------------------------------------------------------------------------------------ at random


def kills(scene: Scene, dice: random.Random, seconds: float) -> Iterator[int]:
    """Start the run of a scene again and again and kill it at a random moment, until one ends well.

    Yields:
        1 for each kill.
    """
    while True:
        driver = scene.start()
        if not driver.ended(dice.uniform(0, seconds)):
            driver.kill()
        done = driver.done()
        assert "Traceback" not in done.stderr, done.stderr
        if done.code == DONE:
            return
        assert done.code == KILLED, done.stderr
        yield 1


def killed_until_done(scene: Scene, dice: random.Random, most: int) -> int:
    """Kill the run of a scene at most so often, and then let it end; how often it was killed."""
    started = time.monotonic()
    first = scene.run("--model-version", "told-0")
    assert first.code == DONE, first.stderr
    killed = sum(itertools.islice(kills(scene, dice, time.monotonic() - started), most))
    last = scene.run()
    assert last.code == DONE, last.stderr
    scene.check_exactly_once()
    assert scene.held("told-0") == scene.held()
    return killed


def test_thirty_random_kills(studio: Studio, proxy: FaultProxy, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    killed = 0
    for number in range(KILLS):
        with Scene.make(studio, proxy, tmp_path / str(number), tasks=24) as scene:
            killed += killed_until_done(scene, dice, KILLS - killed)
        if killed == KILLS:
            break
    assert killed == KILLS
