"""Other processes die or stand in the way: a Dask worker, Label Studio itself, a second run."""

from __future__ import annotations

import json
import os
import queue
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import running as process
from fault.gate import Gate
from fault.proxy import Exchange, Rule, running
from fault.scene import DONE, LIMITS, TEMPORARY, Scene
from fault.waiting import until
from ls_support import Studio
from lsbatch.local_server import LocalServer, start

# ------------------------------------------------------------------------------------------------ a worker


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_is_killed_in_a_chunk(scene: Scene, workers: str) -> None:
    gate = Gate(scene)
    command = (*scene.command, *gate.arguments, "--workers", workers)
    with process.running(*command, cwd=scene.folder, server=scene.server, **LIMITS) as run:
        victim = gate.reached()
        assert victim != run.process.pid
        gate.open()
        os.kill(victim, signal.SIGKILL)
        ended = run.end()
    assert ended.code == DONE, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["predicted"], report["quarantined"]) == (len(scene.ids), 0)
    scene.check_exactly_once()


# ------------------------------------------------------------------------------------------------ two runs


def test_a_second_run_at_the_same_time_does_nothing(scene: Scene) -> None:
    gate = Gate(scene)
    first = scene.start(*gate.arguments)
    gate.reached()
    second = scene.run(*gate.arguments, "--no-resume")
    assert second.code == TEMPORARY, second.stderr
    assert str(first.pid) in second.stderr
    assert set(scene.held().values()) <= {1}
    # Another version is another matter.
    other = scene.run("--model-version", "told-0")
    assert other.code == DONE, other.stderr
    gate.open()
    done = first.done()
    assert done.code == DONE, done.stderr
    scene.check_exactly_once()
    assert scene.held("told-0") == scene.held()
    again = scene.run(*gate.arguments)
    assert (again.code, again.report["selected"]) == (DONE, 0)
    scene.check_exactly_once()


def test_a_second_run_waits_for_the_first(scene: Scene) -> None:
    gate = Gate(scene)
    first = scene.start(*gate.arguments)
    gate.reached()
    second = scene.start(*gate.arguments, "--wait", "60s")
    until(lambda: str(first.pid) in second.said)
    gate.open()
    assert first.done().code == DONE
    waited = second.done()
    assert (waited.code, waited.report["selected"]) == (DONE, 0), waited.stderr
    scene.check_exactly_once()


def test_a_killed_run_leaves_no_lock(scene: Scene) -> None:
    gate = Gate(scene)
    first = scene.start(*gate.arguments)
    gate.reached()
    first.kill()
    assert first.done().code == -signal.SIGKILL
    gate.open()
    assert scene.run(*gate.arguments).code == DONE
    scene.check_exactly_once()


# ------------------------------------------------------------------------------------------------ Label Studio


class Mortal:
    """A Label Studio of one's own, behind a proxy, that is killed and started again on the same data.

    The proxy's address stays; the port behind it changes.
    """

    def __init__(self, data: Path, template: Path, stack: ExitStack) -> None:
        self.data = data
        self._template = template
        self._stack = stack
        self._killed: queue.Queue[int] = queue.Queue()
        self._server = self._start()
        self.proxy = stack.enter_context(running(self._server.url))

    def _start(self) -> LocalServer:
        return self._stack.enter_context(start(self.data, template=self._template))

    @property
    def studio(self) -> Studio:
        """The server as it runs now."""
        return Studio(self._server)

    def kill(self) -> None:
        """SIGKILL to it and all its processes; its port refuses connections then."""
        os.killpg(self._server.process.pid, signal.SIGKILL)
        self._killed.put(self._server.process.wait())

    def revive(self) -> None:
        """Wait until it was killed, and start it again."""
        self._killed.get(timeout=60)
        self._server = self._start()
        self.proxy.upstream = self._server.url
        self.proxy.up()


class KillsLabelStudio:
    """Label Studio dies of a request: in its transaction, or between its commit and its answer."""

    def __init__(self, mortal: Mortal, *, committed: bool) -> None:
        self._mortal = mortal
        self._committed = committed
        # SQLite's: there as long as a transaction has changed something.
        self._journal = mortal.data / "label_studio.sqlite3-journal"
        self.in_transaction = False

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(exchange.forward)
            until(lambda: answer.done() or (not self._committed and self._journal.exists()))
            self.in_transaction = not answer.done()
            self._mortal.proxy.down()
            self._mortal.kill()
            answer.exception()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory, studio_template: Path) -> Iterator[Mortal]:
    """A Label Studio that may be killed."""
    with ExitStack() as stack:
        yield Mortal(tmp_path_factory.mktemp("mortal") / "data", studio_template, stack)


#: One request for all tasks, and time for it.
LARGE = {
    "LSBATCH_IMPORT_BATCH_ROWS": "400",
    "LSBATCH_IMPORT_SETTLE_SECONDS": "1",
    "LSBATCH_LABEL_STUDIO_WRITE_SECONDS": "5",
}


@pytest.mark.parametrize("committed", [False, True], ids=["in its transaction", "after its commit"])
@pytest.mark.parametrize("patience", ["1", "60"], ids=["gives up and is run again", "waits"])
def test_label_studio_is_killed_in_a_bulk_import(
    mortal: Mortal, tmp_path: Path, committed: bool, patience: str
) -> None:
    with Scene.make(mortal.studio, mortal.proxy, tmp_path, tasks=400) as scene:
        fault = KillsLabelStudio(mortal, committed=committed)
        mortal.proxy.script(Rule(fault, rows=100))
        run = scene.start(
            "--chunk-size", "200", plugins=(), **{**LARGE, "LSBATCH_LABEL_STUDIO_RETRY_SECONDS": patience}
        )
        done = run.done() if patience == "1" else None
        mortal.revive()
        scene.studio = mortal.studio
        if done is not None:
            assert done.code == TEMPORARY, done.stderr
            run = scene.start(plugins=(), **LARGE)
        done = run.done()
        assert done.code == DONE, done.stderr
        assert "Traceback" not in done.stderr
        assert fault.in_transaction is not committed
        scene.check_exactly_once()
