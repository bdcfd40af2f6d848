"""Outages: a question that fails at the start, answers that are never given, a server that is away for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from fault.cases import Case, Position, each, name, positions
from fault.faults import Answer, Cut, Outage
from fault.proxy import Fault, Rule, running
from fault.scene import DONE, Scene
from ls_support import Studio


@pytest.mark.parametrize("fault", [Cut(after=False), Answer(503), Outage(0.4, answered=False)], ids=name)
def test_a_fault_at_the_question_whether_the_server_recounts(scene: Scene, fault: Fault) -> None:
    scene.proxy.script(Rule(fault, method="POST"))
    done = scene.run()
    scene.check_faults(1)
    assert done.code == DONE, done.stderr
    scene.check_exactly_once()


@pytest.mark.parametrize("fault", [Answer(504, after=True), Cut(after=True)], ids=name)
def test_no_bulk_request_is_ever_answered(scene: Scene, fault: Fault) -> None:
    scene.proxy.script(Rule(fault, method="POST", times=None))
    done = scene.run()
    assert done.code == DONE, done.stderr
    scene.check_exactly_once()


def test_a_connection_is_refused_before_each_request(studio: Studio, tmp_path: Path) -> None:
    with running(studio.server.url) as proxy, Scene.make(studio, proxy, tmp_path / "recorded") as recorded:
        assert recorded.run().code == DONE
        places = positions(proxy.seen)[:-1]

    def refused(place: Position) -> Case:
        def case(scene: Scene) -> None:
            scene.proxy.script(place.rule(Outage(0.4, answered=True)))
            done = scene.run()
            assert done.code == DONE, done.stderr
            scene.check_exactly_once()

        return case

    each(studio, tmp_path, [(f"after {place}", refused(place)) for place in places])
