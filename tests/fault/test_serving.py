"""``lsbatch serve`` as a real process: its processes are killed, hang, and are told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from fault.live import Live, Load, Prober, gone, live
from fault.proxy import running as proxied
from fault.waiting import until
from ls_support import Studio, annotate, lsbatch, text_tasks

#: Times of other processes are looked at, and the machine may have something else to do just then.
pytestmark = pytest.mark.flaky(reruns=2)
#: Longest time of one call of the pipeline, in seconds, and most tasks of one.
QUICK = {"LSBATCH_SERVE_TASK_SECONDS": "2", "LSBATCH_SERVE_MAX_BATCH_SIZE": "8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of all servers, with their models."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def project(studio: Studio) -> int:
    """A project with annotations to learn from."""
    return studio.make_project(annotate(text_tasks(120)))


@pytest.fixture(scope="module")
def server(studio: Studio, folder: Path, project: int) -> Iterator[Live]:
    """One for all tests that leave it as it was; what it wrote holds no secret and no traceback."""
    with live(studio, folder, project, **QUICK) as server:
        until(lambda: server.get("/ready").json()["status"] == "untrained")
        untrained = server.predict("soup")
        assert (server.get("/ready").status_code, untrained.status_code) == (503, 503)
        assert "no model is trained yet" in untrained.json()["detail"]
        assert server.post("/setup", {}).json() == {"model_version": ""}
        trained = server.train()
        assert trained["job_status"] == "finished", trained
        assert server.until_ready() in trained["outcome"]
        yield server
        processes = server.all_processes
        ended = server.end()
        assert ended.code == 0, ended.stderr
        assert gone(processes)


def labels(answer: httpx.Response) -> list[str]:
    """The label of each result, or its error."""
    assert answer.status_code == 200, answer.text
    return [row.get("error") or row["result"][0]["value"]["choices"][0] for row in answer.json()["results"]]


# ------------------------------------------------------------------------------------------------ its processes


def test_the_first_training_makes_the_first_model(server: Live) -> None:
    assert labels(server.predict("soup", "goal")) == ["food", "sport"]


def test_a_killed_model_costs_nobody_but_the_task_at_fault(server: Live) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.predict, *["SLOW"] * 10) for _ in range(8)]
        until(lambda: b"lsbatch_queue_tasks 0.0" not in server.get("/metrics").content)
        [model] = server.models
        model.kill()
        assert all(labels(answer.result()) == ["food"] * 10 for answer in answers)
    # Now that nothing is under way: the next request is no worse off.
    [model] = server.models
    model.kill()
    assert gone([model])
    assert labels(server.predict("soup")) == ["food"]
    found = labels(server.predict("soup", "DIE", "goal"))
    assert (found[0], found[2]) == ("food", "sport")
    assert "exit code 9" in found[1]


def test_a_model_that_hangs_is_killed_with_all_that_it_started(server: Live) -> None:
    labels(server.predict("soup"))
    [model] = server.models
    before = [model, *model.children(recursive=True)]
    assert len(before) > 1
    found = labels(server.predict("soup", "HANG", "goal"))
    assert (found[0], found[2]) == ("food", "sport")
    assert "longer than 2 s" in found[1]
    assert gone(before)


def test_a_killed_training_is_told_and_the_next_one_works(server: Live, folder: Path) -> None:
    before = server.until_ready()
    with hanging_fit(folder):
        training = server.post("/train").json()["job"]
        process = fitting(folder)
        helpers = process.children(recursive=True)
        assert server.status(training)["job_status"] == "started"
        assert helpers
        process.kill()
        until(lambda: server.status(training)["job_status"] == "failed")
        assert "signal 9" in server.status(training)["error"]
        assert gone(helpers)
        assert labels(server.predict("soup")) == ["food"]
    assert server.until_ready() == before
    assert server.train()["job_status"] == "finished"
    server.until_ready(before)


class hanging_fit:  # noqa: N801 - it reads as a statement
    """Inside, every training hangs."""

    def __init__(self, folder: Path) -> None:
        self._flags = folder / "fit-hangs", folder / "fitting"

    def __enter__(self) -> None:
        self._flags[0].touch()
        self._flags[1].unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self._flags[0].unlink()


def fitting(folder: Path) -> psutil.Process:
    """The process of the training, as soon as it hangs."""
    note = folder / "fitting"
    until(lambda: note.exists() and bool(note.read_text()), seconds=60)
    return psutil.Process(int(note.read_text()))


# ------------------------------------------------------------------------------------------------ many clients


def test_two_hundred_clients_notice_neither_a_training_nor_another_version(server: Live) -> None:
    before = server.until_ready()
    seconds = float(os.environ.get("LSBATCH_TEST_LOAD_SECONDS", "5"))
    load, prober = Load(server, 200, pause=0.2), Prober(server)

    async def main() -> None:
        enough = asyncio.Event()
        asking = asyncio.create_task(load.run(enough))
        training = await asyncio.to_thread(server.train)
        assert training["job_status"] == "finished"
        await asyncio.to_thread(server.until_ready, before)
        await asyncio.sleep(seconds)
        enough.set()
        await asking

    asyncio.run(main())
    times, waits = prober.end()
    own = [took - waited for took, waited in zip(times, waits, strict=True)]
    print(f"{load.statuses} /health {len(times)} times, longest {max(times):.3f} s, {max(own):.3f} s of its own")  # noqa: T201
    assert not load.failures, load.failures[:3]
    assert load.statuses[200] > 200
    assert load.versions[0] == before
    assert len(load.versions) == 2
    assert len(times) > 50
    # Less where the machine has something else to do.
    assert max(own) < 0.2


# ------------------------------------------------------------------------------------------------ the end


def test_sigterm_answers_what_is_under_way(studio: Studio, folder: Path, project: int, server: Live) -> None:
    with live(studio, folder, project, login=False) as mine, ThreadPoolExecutor(9) as pool:
        mine.until_ready()
        with hanging_fit(folder):
            mine.post("/train")
            fitting(folder)
            slow = [pool.submit(mine.predict, *["SLOW"] * 10) for _ in range(8)]
            until(lambda: b"lsbatch_queue_tasks 0.0" not in mine.get("/metrics").content)
            processes = mine.all_processes
            mine.process.send(signal.SIGTERM)
            mine.process.until_said("what is under way is answered first")
            until(lambda: mine.get("/ready").status_code == 503)
            assert mine.get("/ready").json()["status"] == "draining"
            refused = mine.predict("soup")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert mine.post("/train").status_code == 503
            assert all(labels(answer.result()) == ["food"] * 10 for answer in slow)
            ended = mine.ended()
    assert ended.code == 0, ended.stderr
    assert len(processes) > 3
    assert gone(processes)


def test_a_second_signal_ends_at_once(studio: Studio, folder: Path, project: int, server: Live) -> None:
    (folder / "hanging").unlink(missing_ok=True)
    with live(studio, folder, project) as mine:
        mine.until_ready()
        thread = threading.Thread(target=_ignored, args=(mine, "HANG"))
        thread.start()
        mine.process.until_there("hanging")
        processes = mine.all_processes
        mine.process.send(signal.SIGTERM)
        mine.process.until_said("once more ends at once")
        mine.process.send(signal.SIGTERM)
        assert not mine.process.goes_on(5)
        ended = mine.ended()
        assert ended.code == 143
        assert "got no answer" in ended.stderr
        thread.join()
    assert gone(processes)


def _ignored(server: Live, *texts: str) -> None:
    try:
        server.predict(*texts)
    except httpx.HTTPError:
        return


def test_a_killed_server_leaves_no_process(studio: Studio, folder: Path, project: int, server: Live) -> None:
    (folder / "hanging").unlink(missing_ok=True)
    with live(studio, folder, project, "--workers", "2") as mine, hanging_fit(folder):
        mine.until_ready()
        thread = threading.Thread(target=_ignored, args=(mine, "HANG"))
        thread.start()
        mine.post("/train")
        fitting(folder)
        mine.process.until_there("hanging")
        processes = mine.all_processes
        assert mine.end(signal.SIGKILL).code == -signal.SIGKILL
        thread.join()
    # Two models and a training, each with a process of its own, and what Python keeps beside them.
    assert len(processes) >= 7
    assert gone(processes)


def test_a_killed_server_leaves_nothing_of_a_model_that_waits(
    studio: Studio, folder: Path, project: int, server: Live
) -> None:
    with live(studio, folder, project) as mine:
        mine.until_ready()
        processes = mine.all_processes
        assert any("sleep" in process.name() for process in processes)
        assert mine.end(signal.SIGKILL).code == -signal.SIGKILL
    assert gone(processes)


# ------------------------------------------------------------------------------------------------ the beginning


def test_label_studio_may_come_later(studio: Studio, folder: Path, project: int, server: Live) -> None:
    with proxied(studio.server.url) as proxy:
        proxy.down()
        away = {"LABEL_STUDIO_URL": proxy.url}
        with live(studio, folder, project, **away) as mine:
            assert mine.get("/health").status_code == 200
            until(lambda: mine.get("/ready").json()["problem"])
            assert mine.get("/ready").status_code == 503
            answer = mine.predict("soup")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            proxy.up()
            # Models are kept by the server's address, and this is another one.
            until(lambda: mine.get("/ready").json()["status"] == "untrained", seconds=60)
            assert mine.train()["job_status"] == "finished"
            assert mine.until_ready()
            assert labels(mine.predict("soup")) == ["food"]
            assert mine.end().code == 0


def test_a_taken_port_and_an_open_door_are_mistakes(studio: Studio, folder: Path, project: int) -> None:
    (folder / "mine.py").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        everywhere = "0.0.0.0"  # noqa: S104 - it is refused
        for more, words in ((["--port", port], f"127.0.0.1:{port}"), (["--host", everywhere], "BASIC_AUTH_USER")):
            done = lsbatch("serve", "--project", str(project), *more, cwd=folder, server=studio.server)
            assert done.returncode == 2, done.stderr
            assert words in done.stderr
