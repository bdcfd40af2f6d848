"""One fault at each request of a run: afterwards each task has exactly one prediction.

Which requests a run makes is not written here: a clean run is recorded, and each of its requests is broken in turn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from fault.cases import Case, Position, each, name, positions
from fault.faults import Answer, CommitTwice, Cut, LateCommit, Outage, OwnError, Stall, Trickle, Truncate
from fault.proxy import Exchange, Fault, Rule, running
from fault.scene import CHUNK, DONE, TASKS, Scene
from ls_support import Studio
from lsbatch.errors import ExitCode

READ = "GET"
GATEWAY = (500, 502, 503, 504)
READ_FAULTS: tuple[Fault, ...] = (
    Cut(after=False),
    Cut(after=True, reset=False),
    Stall(after=False),
    Outage(0.4, answered=False),
    Truncate(),
    Trickle(),
    Answer(429, retry_after="1"),
    *(Answer(status) for status in (404, 200, *GATEWAY)),
    OwnError(after=False),
)
#: What also comes where there is no Label Studio at all.
PAGES = (Answer(404), Answer(200))
WRITE_FAULTS: tuple[Fault, ...] = (
    *(Cut(after=after, reset=reset) for after in (False, True) for reset in (False, True)),
    *(Stall(after=after) for after in (False, True)),
    *(Outage(0.4, answered=answered) for answered in (False, True)),
    LateCommit(),
    Truncate(),
    Trickle(),
    CommitTwice(),
    Answer(429, retry_after="1"),
    Answer(404),
    *(Answer(status, after=after) for status in (200, *GATEWAY) for after in (False, True)),
    *(OwnError(after=after) for after in (False, True)),
)


@dataclass(frozen=True)
class Clean:
    """The requests of a run without any fault, in order.

    Attributes:
        reads: those that ask.
        writes: those that store predictions.
    """

    reads: list[Position]
    writes: list[Position]


@pytest.fixture(scope="module")
def clean(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """A run without any fault."""
    folder = tmp_path_factory.mktemp("clean")
    with running(studio.server.url) as proxy, Scene.make(studio, proxy, folder) as scene:
        done = scene.run()
        assert done.code == DONE, done.stderr
        scene.check_exactly_once()
        seen = list(zip(positions(proxy.seen), proxy.seen, strict=True))
    return Clean(
        [position for position, request in seen if request.method == READ],
        [position for position, request in seen if request.status == 201],
    )


def test_a_clean_run_reads_and_writes(clean: Clean) -> None:
    assert len(clean.writes) == TASKS // CHUNK
    assert len(clean.reads) > TASKS // CHUNK


def survives(rule: Rule) -> Case:
    """A run with this fault ends well at once."""

    def case(scene: Scene) -> None:
        scene.proxy.script(rule)
        done = scene.run()
        scene.check_faults(1)
        assert done.code == DONE, done.stderr
        scene.check_exactly_once()

    return case


@pytest.mark.parametrize("fault", WRITE_FAULTS, ids=name)
def test_a_fault_at_each_write(studio: Studio, tmp_path: Path, clean: Clean, fault: Fault) -> None:
    each(studio, tmp_path, [(str(position), survives(position.rule(fault))) for position in clean.writes])


def test_a_fault_at_a_single_create(studio: Studio, tmp_path: Path) -> None:
    def broken(fault: Fault, number: int) -> Case:
        def case(scene: Scene) -> None:
            scene.proxy.script(Rule(fault, path="^/api/predictions/$", method="POST", at=number))
            # No bulk request could be so fast.
            done = scene.run(LSBATCH_IMPORT_REQUEST_SECONDS="0.001")
            scene.check_faults(1)
            assert done.code == DONE, done.stderr
            scene.check_exactly_once()

        return case

    # Each fault once, the first one at the first create, the next one at the second, and so on.
    numbered = [(fault, place % TASKS + 1) for place, fault in enumerate(WRITE_FAULTS)]
    each(studio, tmp_path, [(f"{fault} at {number}", broken(fault, number)) for fault, number in numbered])


@pytest.mark.parametrize("fault", [Cut(after=False), Answer(404), Truncate()], ids=name)
def test_a_fault_at_each_read(studio: Studio, tmp_path: Path, clean: Clean, fault: Fault) -> None:
    # The very first answer is a matter of its own: see below.
    each(studio, tmp_path, [(str(position), survives(position.rule(fault))) for position in clean.reads[1:]])


class EachRequestOnce:
    """A fault for every request when it comes for the first time; what is tried again passes."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._known: set[str] = set()

    def __repr__(self) -> str:
        return repr(self._fault)

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        # A smaller page in place of one that failed is no other request.
        request = re.sub(r"page_size=\d+", "", f"{exchange.seen.path}?{exchange.seen.query}")
        if request in self._known:
            exchange.seen.fault = ""
            exchange.relay(exchange.forward())
        else:
            self._known.add(request)
            self._fault(exchange)


@pytest.mark.parametrize("fault", READ_FAULTS, ids=name)
def test_every_read_of_a_run_fails_once(scene: Scene, fault: Fault) -> None:
    first = 2 if fault in PAGES else 1
    scene.proxy.script(Rule(EachRequestOnce(fault), method=READ, at=first, times=None))
    done = scene.run()
    assert done.code == DONE, done.stderr
    kinds = {seen.path for seen in scene.proxy.seen if seen.method == READ}
    scene.check_faults(len(kinds) + 1)
    scene.check_exactly_once()


@pytest.mark.parametrize("fault", PAGES, ids=name)
def test_a_page_in_place_of_the_first_answer_is_a_wrong_address(scene: Scene, fault: Fault) -> None:
    scene.proxy.script(Rule(fault))
    done = scene.run()
    assert done.code == ExitCode.REFUSED, done.stderr
    assert "LABEL_STUDIO_URL" in done.stderr
    assert scene.held() == {}
    assert scene.run().code == DONE
    scene.check_exactly_once()
