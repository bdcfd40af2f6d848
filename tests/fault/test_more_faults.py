"""Faults that last, that come together, and that strike the reads which settle an earlier fault."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from fault.cases import Case, each, name, positions
from fault.faults import Answer, CommitTwice, Cut, LateCommit, OwnError, Stall, TooLarge, Trickle, Truncate
from fault.proxy import Fault, FaultProxy, Rule, Seen, running
from fault.scene import CHUNK, DONE, LIMITS, TASKS, TEMPORARY, Scene
from ls_support import Studio, lsbatch

#: An answer that hides a commit; that one hides none is tried at every request elsewhere.
HIDDEN = Cut(after=True)


# ------------------------------------------------------------------------------------------------ reads that settle


def read_backs(seen: list[Seen]) -> list[Seen]:
    """The reads between the first broken request and the next write."""
    found: list[Seen] = []
    broken = next(place for place, request in enumerate(seen) if request.fault)
    for request in seen[broken + 1 :]:
        if request.method != "GET":
            break
        found.append(request)
    return found


def test_a_fault_at_a_read_that_settles_another(studio: Studio, tmp_path: Path) -> None:
    write = Rule(HIDDEN, rows=CHUNK)
    with running(studio.server.url) as proxy, Scene.make(studio, proxy, tmp_path / "recorded") as scene:
        proxy.script(write)
        assert scene.run().code == DONE
        reads = read_backs(proxy.seen)
        before = proxy.seen.index(reads[0])
    assert reads
    kinds = {(position.method, position.path) for position in positions(reads)}

    def twice(number: int, fault: Fault) -> Case:
        def case(scene: Scene) -> None:
            scene.proxy.script(write, Rule(fault, method="GET", at=number))
            done = scene.run()
            scene.check_faults(2)
            scene.finish(done)
            scene.check_exactly_once()

        return case

    reads_before = sum(position.method == "GET" for position in positions(proxy.seen[:before]))
    faults = (Cut(after=False), Stall(after=False), Answer(503), Answer(404), Answer(200))
    cases = [
        (f"{fault} at read {number}", twice(number, fault))
        for number in range(reads_before + 1, reads_before + 1 + len(kinds))
        for fault in faults
    ]
    each(studio, tmp_path, cases)


# ------------------------------------------------------------------------------------------------ faults that last


def test_nothing_is_lost_while_label_studio_takes_no_import(scene: Scene) -> None:
    scene.proxy.script(Rule(Answer(503), rows=CHUNK, times=None))
    done = scene.run(LSBATCH_LABEL_STUDIO_RETRY_SECONDS="1")
    assert done.code == TEMPORARY, done.stderr
    assert "503" in done.stderr
    assert scene.held() == {}
    scene.finish(done)
    scene.check_exactly_once()


@pytest.mark.parametrize(
    "fault", [Answer(504, after=True), Cut(after=True), OwnError(after=True), Truncate(), CommitTwice()], ids=name
)
def test_no_import_is_ever_answered_and_each_is_carried_out(scene: Scene, fault: Fault) -> None:
    scene.proxy.script(Rule(fault, rows=CHUNK, times=None))
    done = scene.run()
    assert done.code == DONE, done.stderr
    scene.check_faults(TASKS // CHUNK)
    scene.check_exactly_once()


def test_every_import_comes_too_late(scene: Scene) -> None:
    scene.proxy.script(Rule(LateCommit(), rows=CHUNK, times=None))
    done = scene.run()
    scene.check_faults(TASKS // CHUNK)
    scene.finish(done)
    scene.check_exactly_once()


def test_the_time_that_a_busy_server_asks_for_is_waited(scene: Scene) -> None:
    scene.proxy.script(Rule(Answer(429, retry_after="2"), rows=CHUNK))
    assert scene.run().code == DONE
    busy = next(place for place, seen in enumerate(scene.proxy.seen) if seen.fault)
    writes = [seen for seen in scene.proxy.seen[busy:] if seen.method == "POST"]
    assert writes[1].moment - writes[0].moment >= 2
    scene.check_exactly_once()


@pytest.mark.parametrize("rows", [3, 1])
def test_a_gateway_with_a_size_limit_gets_smaller_requests(scene: Scene, rows: int) -> None:
    # First a run in peace on another version, to know the size of a request.
    assert scene.run("--model-version", "told-0").code == DONE
    whole = max(seen.size for seen in scene.proxy.seen if seen.rows == CHUNK)
    limit = whole * rows // CHUNK + 10
    scene.proxy.script(Rule(TooLarge(limit), times=None))
    done = scene.run()
    assert done.code == DONE, done.stderr
    taken = [seen.rows for seen in scene.proxy.seen if seen.rows and seen.status == 201]
    assert sum(taken) == TASKS
    assert max(taken) <= rows
    scene.check_exactly_once()


# ------------------------------------------------------------------------------------------------ export pages


@pytest.mark.parametrize("fault", [Answer(404), Answer(200), Truncate(), Cut(after=True), Trickle()], ids=name)
def test_a_fault_in_the_middle_of_an_export(studio: Studio, proxy: FaultProxy, tmp_path: Path, fault: Fault) -> None:
    with Scene.make(studio, proxy, tmp_path, tasks=450) as scene:
        proxy.script(Rule(fault, method="GET", path="/api/tasks", at=2))
        done = scene.run(
            "--chunk-size", "100", LSBATCH_IMPORT_BATCH_ROWS="500", LSBATCH_LABEL_STUDIO_WRITE_SECONDS="30"
        )
        scene.check_faults(1)
        assert done.code == DONE, done.stderr
        assert done.report["selected"] == 450
        pages = [seen for seen in proxy.seen if seen.path == "/api/tasks"]
        assert pages[1].fault, "the second page of the export"
        scene.check_exactly_once()


# ------------------------------------------------------------------------------------------------ many at once

SOAK: tuple[Fault, ...] = (
    *(Cut(after=after) for after in (False, True)),
    *(Answer(status, after=after) for status in (500, 502, 504) for after in (False, True)),
    Answer(429, retry_after="0"),
    Stall(after=True),
    LateCommit(),
    CommitTwice(),
    Truncate(),
)
MOST_RUNS = 8


def soak(seed: int) -> Case:
    """Three of the first ten requests are broken, and a fifth of those that follow; run until one ends well."""

    def case(scene: Scene) -> None:
        dice = random.Random(seed)
        places = dice.sample(range(1, 11), 3) + [place for place in range(11, 60) if dice.random() < 0.2]
        scene.proxy.script(*(Rule(dice.choice(SOAK), at=place) for place in places))
        done = scene.run()
        scene.check_faults(1)
        for _ in range(MOST_RUNS):
            if done.code != TEMPORARY:
                break
            done = scene.run()
        scene.finish(done)
        scene.check_exactly_once()

    return case


def test_many_faults_in_one_run(studio: Studio, tmp_path: Path) -> None:
    each(studio, tmp_path, [(f"seed {seed}", soak(seed)) for seed in range(12)])


# ------------------------------------------------------------------------------------------------ as users start it


@pytest.mark.parametrize("fault", [Cut(after=True), Answer(502, after=True)], ids=name)
def test_the_installed_command_survives_a_fault(scene: Scene, fault: Fault) -> None:
    scene.proxy.script(Rule(fault, rows=CHUNK))
    server = replace(scene.studio.server, url=scene.proxy.url)
    done = lsbatch(*scene.command, cwd=scene.folder, server=server, **LIMITS)
    assert done.returncode == DONE, done.stderr
    assert "Traceback" not in done.stderr
    scene.check_faults(1)
    scene.check_exactly_once()
