"""A small project behind the fault proxy, runs of ``lsbatch predict`` on it, and what must hold afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from fault.driver import Done, Driver, Plugin
from fault.proxy import FaultProxy
from ls_support import USER_PIPELINE, Studio, environment, text_tasks
from lsbatch.local_server import LocalServer

__all__ = ["CHUNK", "DONE", "LIMITS", "TASKS", "TEMPORARY", "VERSION", "Scene"]

TASKS, CHUNK = 8, 4
VERSION = "told-1"
DONE, TEMPORARY = 0, 75

#: Limits so low that a fault costs a second or two, and yet longer than Label Studio takes on a busy machine.
LIMITS = {
    "LSBATCH_LABEL_STUDIO_CONNECT_SECONDS": "1",
    "LSBATCH_LABEL_STUDIO_READ_SECONDS": "1",
    "LSBATCH_LABEL_STUDIO_WRITE_SECONDS": "1",
    "LSBATCH_LABEL_STUDIO_RETRY_SECONDS": "6",
    "LSBATCH_IMPORT_SETTLE_SECONDS": "0.3",
    "LSBATCH_IMPORT_BATCH_ROWS": str(CHUNK),
}


@retry(retry=retry_if_exception_type(httpx.HTTPError), stop=stop_after_attempt(5), reraise=True)
def _make_project(studio: Studio, tasks: int) -> int:
    # Label Studio on SQLite answers 500, or not at all, when another scene's import holds the database for too long.
    return studio.make_project(text_tasks(tasks))


@dataclass
class Scene:
    """A project of a few tasks, and a working directory of runs on it.

    Attributes:
        studio: the real server.
        proxy: in front of it; runs know only its address.
        folder: the working directory, with the pipeline ``mine:Told``.
        project: its id.
        ids: the tasks that a run must predict.
        drivers: the runs so far.
    """

    studio: Studio
    proxy: FaultProxy
    folder: Path
    project: int
    ids: list[int]
    drivers: list[Driver] = field(default_factory=list)

    @classmethod
    @contextmanager
    def make(cls, studio: Studio, proxy: FaultProxy, folder: Path, *, tasks: int = TASKS) -> Iterator[Scene]:
        """A new project in a new folder; forgets the proxy's script. No run outlives the context."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.py").write_text(USER_PIPELINE)
        proxy.script()
        project = _make_project(studio, tasks)
        scene = cls(studio, proxy, folder, project, studio.task_ids(project))
        try:
            yield scene
        finally:
            for driver in scene.drivers:
                driver.close()

    @property
    def server(self) -> LocalServer:
        """The server as runs know it."""
        return replace(self.studio.server, url=self.proxy.url)

    @property
    def command(self) -> list[str]:
        """The command of every run."""
        words = ["predict", "--project", str(self.project), "--pipeline", "mine:Told", "--json"]
        return [*words, "--workers", "0", "--chunk-size", str(CHUNK)]

    def start(self, *more: str, plugins: Sequence[Plugin] = (), **environ: str) -> Driver:
        """A run, under way."""
        settings = environment(self.server, **{**LIMITS, **environ})
        driver = Driver([*self.command, *more], cwd=self.folder, environment=settings, plugins=plugins)
        self.drivers.append(driver)
        return driver

    def run(self, *more: str, plugins: Sequence[Plugin] = (), **environ: str) -> Done:
        """A run from its start to its end; whatever ends it, it shows no traceback and no token."""
        done = self.start(*more, plugins=plugins, **environ).done()
        assert "Traceback" not in done.stderr, done.stderr
        assert self.server.token not in done.stdout + done.stderr
        return done

    def finish(self, done: Done) -> Done:
        """Run again if a run asks for that, after whatever was in its way has gone; that must end well.

        Raises:
            AssertionError: the run ended in another way, or the second one does not end with 0.
        """
        if done.code == TEMPORARY:
            self.proxy.script()
            done = self.run()
        assert done.code == DONE, (done.code, done.stderr)
        return done

    def check_faults(self, least: int) -> None:
        """Make sure that the script was not in vain.

        Raises:
            AssertionError: fewer requests than that were broken.
        """
        fired = sum(bool(seen.fault) for seen in self.proxy.seen)
        assert fired >= least, f"{fired} of {least} faults came about"

    def held(self, version: str = VERSION) -> dict[int, int]:
        """How many predictions of a version each task has on the server."""
        found = self.studio.predictions(self.project)
        counts = {task: Counter(held for held, _, _ in rows)[version] for task, rows in found.items()}
        return dict(sorted(counts.items()))

    def check_exactly_once(self) -> None:
        """The proof: exactly one prediction of the version on each task.

        Raises:
            AssertionError: one is missing, or there is one too many.
        """
        assert self.held() == dict.fromkeys(self.ids, 1)
