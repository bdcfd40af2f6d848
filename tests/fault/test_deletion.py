"""Deleted is exactly what was planned, and accepted is each prediction once, whatever request goes wrong."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import running as processes
from fault.cases import name
from fault.faults import Answer, CommitTwice, Cut, LateCommit, Outage, OwnError, Stall, Trickle, Truncate
from fault.proxy import Fault, FaultProxy, Rule, running
from fault.waiting import until
from ls_support import TOPICS, Studio, text_tasks, topic_region
from lsbatch.acceptance import Bar
from lsbatch.deletion_report import DeletionReport
from lsbatch.errors import ExitCode
from lsbatch.operations.accepting import AcceptOptions, AcceptReport, accept, choose
from lsbatch.operations.counters import Recount
from lsbatch.operations.deleting import DeleteOptions
from lsbatch.operations.deletion import Begun, DeletionSetup, carry_out, counted
from lsbatch.operations.deletion_plan import write_plan
from lsbatch.operations.in_flight import InFlight
from lsbatch.ports import Selection
from lsbatch.progress import Silent
from lsbatch.run_dir import RunDir
from lsbatch.stopping import Stop
from lsbatch.version_choice import Doomed
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient, LabelStudioProject

TASKS = 6
FAULTS: tuple[Fault, ...] = (
    Cut(after=False),
    Cut(after=True),
    Stall(after=True),
    Outage(0.4, answered=True),
    LateCommit(),
    Truncate(),
    Trickle(),
    CommitTwice(),
    Answer(429, retry_after="1"),
    Answer(404),
    Answer(200, after=True),
    Answer(502),
    Answer(504, after=True),
    OwnError(after=False),
    OwnError(after=True),
)
BULK, SINGLE, VERSION = "/api/dm/actions", r"/api/predictions/\d+/$", "/model-versions/$"


@dataclass
class Place:
    """A project behind the proxy: v1 on all tasks and twice on the first, v10 on the first two, which annotators see.

    Attributes:
        studio: the real server.
        proxy: in front of it.
        store: knows only the proxy.
        project: its id.
        folder: of the deletion.
    """

    studio: Studio
    proxy: FaultProxy
    store: LabelStudioProject
    project: int
    folder: Path

    @classmethod
    @contextmanager
    def make(cls, studio: Studio, folder: Path) -> Iterator[Place]:
        """A new project."""
        project = studio.make_project(text_tasks(TASKS))
        ids = studio.task_ids(project)
        rows = [(task, "v1") for task in ids] + [(task, "v10") for task in ids[:2]] + [(ids[0], "v1")]
        with studio.http as http:
            body = [
                {"task": task, "result": [topic_region(TOPICS[task % 3])], "score": 0.9, "model_version": version}
                for task, version in rows
            ]
            http.post(f"/api/projects/{project}/import/predictions", json=body).raise_for_status()
            http.patch(f"/api/projects/{project}/", json={"model_version": "v10"}).raise_for_status()
        with running(studio.server.url) as proxy:
            options = ConnectionOptions(
                proxy.url, studio.server.token, connect_seconds=1, read_seconds=2, write_seconds=2, retry_seconds=8
            )
            client = LabelStudioClient(options)
            try:
                # The first answer tells a gateway's page from a wrong address.
                client.get("/api/version")
                yield cls(studio, proxy, LabelStudioProject(client, project), project, folder)
            finally:
                client.close()

    def held(self) -> Counter[str]:
        """Predictions of each version."""
        return Counter(row[0] for rows in self.studio.predictions(self.project).values() for row in rows)

    def delete(self, *, request_seconds: float = 45.0) -> DeletionReport:
        """Delete v1."""
        run, progress, stop = RunDir(self.folder), Silent(), Stop()
        doomed = Doomed(frozenset({"v1"}))
        preview = write_plan(self.store, Selection(), doomed, run.plan, None, progress, stop, expected=TASKS)
        begun = Begun(preview, counted(self.store), "v10", alike=True, backup="")
        options = DeleteOptions(request_seconds, write_seconds=2.0, retry_seconds=8.0, writers=1)
        report = DeletionReport("run", self.project)
        recount = Recount(allowed=True, seconds=1.0, most_seconds=45.0)
        setup = DeletionSetup(self.store, self.store, run, options, recount, progress, stop)
        carry_out(setup, begun, report, resumed=False)
        return report

    def accept(self) -> AcceptReport:
        """Accept v10."""
        bar, progress, stop = Bar("v10", 0.5), Silent(), Stop()
        chosen = choose(self.store, Selection(), bar, None, progress, stop, expected=TASKS)
        report = AcceptReport("run", self.project, "v10")
        options = AcceptOptions(write_seconds=2.0, settle_seconds=0.4, retry_seconds=8.0)
        accept(self.store, chosen, bar, report, options, InFlight(self.folder / "in_flight.json"), progress, stop)
        return report

    def annotations(self) -> list[int]:
        """How many annotations each task has, in order of the tasks."""
        with self.studio.http as http:
            params = {"project": self.project, "page_size": 100, "include": "id,total_annotations"}
            rows = http.get("/api/tasks", params=params).raise_for_status().json()["tasks"]
        return [row["total_annotations"] for row in sorted(rows, key=lambda row: int(row["id"]))]

    def fired(self) -> int:
        """How many requests were broken."""
        return sum(bool(seen.fault) for seen in self.proxy.seen)


@pytest.fixture
def place(studio: Studio, tmp_path: Path) -> Iterator[Place]:
    """A new project behind a proxy."""
    with Place.make(studio, tmp_path) as place:
        yield place


WAYS = (("POST", BULK, 45.0), ("DELETE", VERSION, 45.0), ("DELETE", SINGLE, 0.001))
#: Each fault at one of the ways, the next one at the next way, and some at all of them.
AT_WAYS = [(fault, WAYS[place % 3]) for place, fault in enumerate(FAULTS)]
AT_WAYS += [(fault, WAYS[(place + more) % 3]) for place, fault in enumerate(FAULTS[:3]) for more in (1, 2)]


@pytest.mark.parametrize(
    ("fault", "way"),
    AT_WAYS,
    ids=[f"{name(fault)} at {way[0]} {number}" for number, (fault, way) in enumerate(AT_WAYS)],
)
def test_a_fault_at_each_way_to_delete(place: Place, fault: Fault, way: tuple[str, str, float]) -> None:
    method, path, request_seconds = way
    place.proxy.script(Rule(fault, method, path))
    report = place.delete(request_seconds=request_seconds)
    assert place.fired() == 1, [str(seen) for seen in place.proxy.seen]
    assert place.held() == {"v10": 2}
    assert report.exit_code is ExitCode.DONE
    assert report.stale_counters == 0
    assert place.studio.active_version(place.project) == "v10"


@pytest.mark.parametrize("fault", FAULTS[1::2], ids=name)
def test_a_fault_at_an_acceptance(place: Place, fault: Fault) -> None:
    place.proxy.script(Rule(fault, "POST", BULK))
    report = place.accept()
    assert place.fired() == 1
    assert place.annotations() == [1, 1, 0, 0, 0, 0]
    assert (report.accepted, report.missing, report.twice) == (2, 0, 0)
    assert place.accept().accepted == 0
    assert place.annotations() == [1, 1, 0, 0, 0, 0]


def test_no_action_ever_leaves_without_tasks(place: Place) -> None:
    place.delete()
    place.accept()
    place.accept()
    actions = [seen for seen in place.proxy.seen if seen.path.startswith(BULK)]
    assert len(actions) == 2
    # The server takes an empty list for all tasks of the project.
    assert all(seen.size > len('{"selectedItems": {"all": false, "included": []}}') for seen in actions)


#: Requests of a deletion by which it has come so far: the first bulk action, a single delete, and the last read-back.
MOMENTS = (("POST", BULK, 1), ("DELETE", SINGLE, 1), ("GET", VERSION, 4))


@pytest.mark.parametrize(
    ("number", "moments"), [(signal.SIGKILL, MOMENTS), (signal.SIGINT, MOMENTS[1:2])], ids=["SIGKILL", "SIGINT"]
)
def test_an_interrupted_deletion_goes_on_where_it_was(
    studio: Studio, tmp_path: Path, number: signal.Signals, moments: Sequence[tuple[str, str, int]]
) -> None:
    def interrupted(method: str, path: str, at: int) -> None:
        folder = tmp_path / f"{method}-{at}"
        folder.mkdir()
        with Place.make(studio, folder) as place:
            server = replace(studio.server, url=place.proxy.url)
            limits = {"LSBATCH_IMPORT_REQUEST_SECONDS": "0.001", "LSBATCH_LABEL_STUDIO_WRITE_SECONDS": "2"}
            words = f"delete-predictions --project {place.project} --model-version v1 --yes --json".split()
            place.proxy.script(Rule(Stall(after=True), method, path, at))
            with processes.running(*words, cwd=folder, server=server, **limits) as process:
                until(lambda: place.fired() == 1)
                process.send(number)
                code = process.end().code
            assert code in (-number, 128 + number), path
            place.proxy.script()
            with processes.running(*words, cwd=folder, server=server, **limits) as process:
                again = process.end()
            assert again.code == 0, (path, again.stderr)
            assert "continuing run" in again.stderr
            report = json.loads(again.stdout)
            assert (report["deleted"], report["versions"]) == (TASKS + 1, {"v1": TASKS + 1}), path
            assert place.held() == {"v10": 2}
            assert studio.active_version(place.project) == "v10"
            [backup] = folder.rglob("backups/*.parquet")
            assert report["backup"] == str(backup)

    for moment in moments:
        interrupted(*moment)
