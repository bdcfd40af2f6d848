"""A predicted run on the disk, the project that lacks its predictions, and time that passes only while one waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsbatch import ledger as ledger_module
from lsbatch import retry
from lsbatch.chunks import Chunk
from lsbatch.entities import DeadLetter, Prediction, Task, TaskId
from lsbatch.import_plan import Standing
from lsbatch.ledger import Ledger
from lsbatch.operations import importing, sending
from lsbatch.operations.auditing import audit
from lsbatch.operations.importing import Importer, ImportOptions, ImportSetup
from lsbatch.operations.sending import SendOptions
from lsbatch.progress import Progress, Silent
from lsbatch.report import AuditProof
from lsbatch.run_dir import RunDir, predictions_table
from lsbatch.stopping import Stop
from lsbatch.testing import MemoryProject

VERSION = "v1"
CHUNKS, CHUNK_TASKS = 3, 4
ALL = CHUNKS * CHUNK_TASKS
SENDING = SendOptions(write_seconds=10, settle_seconds=3, retry_seconds=0.5)
OPTIONS = ImportOptions(batch_rows=CHUNK_TASKS, sending=SENDING)


#: A project that costs a bulk request nothing but its rows.
NOTHING = Standing(0, 0)
#: A project so large that every bulk request would take too long.
HUGE = Standing(1_000_000, 1_000_000)


class Clock:
    """Stands still until somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


class ClockStop(Stop):
    """Whose waits take no time but that of the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def sleep(self, seconds: float) -> None:
        """See ``Stop.sleep``."""
        self._clock.sleep(seconds)
        self.check()


@dataclass
class Scene:
    """A run, its ledger, the project that takes its predictions, and the time of all three."""

    run: RunDir
    ledger: Ledger
    project: MemoryProject
    clock: Clock = field(default_factory=Clock)

    def importer(
        self,
        options: ImportOptions = OPTIONS,
        *,
        check_first: bool = False,
        replace: bool = False,
        standing: Standing = NOTHING,
        stop: Stop | None = None,
        progress: Progress | None = None,
    ) -> Importer:
        """A new importer of the run's predictions."""
        return Importer(
            ImportSetup(
                self.project,
                self.run,
                self.ledger,
                VERSION,
                options,
                progress or Silent(),
                standing=standing,
                stop=stop or ClockStop(self.clock),
                check_first=check_first,
                replace=replace,
            )
        )

    def audit(self) -> AuditProof:
        """What the audit says now."""
        return audit(self.project, self.run, self.ledger, VERSION, Silent())

    def held(self) -> dict[int, int]:
        """How many predictions of the version each task has."""
        counts = Counter(int(row.task_id) for row in self.project.predictions if row.model_version == VERSION)
        return dict(sorted(counts.items()))

    def one_each(self, *but: int) -> bool:
        """Whether each task of the project but these has exactly one prediction of the version."""
        return self.held() == {task: 1 for task in sorted(self.project.tasks) if task not in but}

    def states(self) -> list[str]:
        """How far each chunk has come."""
        return [chunk.state.value for chunk in self.ledger.chunks()]


def chunk_ids(number: int) -> list[TaskId]:
    """The task ids of a chunk: with holes between chunks, as on a server with several projects."""
    return [TaskId(number * 10 + place) for place in range(1, CHUNK_TASKS + 1)]


def prediction(task: int, score: float | None = 0.5, version: str = VERSION) -> Prediction:
    """A prediction, of the run's version."""
    return Prediction(TaskId(task), [], score, version)


@contextmanager
def predicted_run(folder: Path, *, dead: tuple[int, ...] = ()) -> Iterator[Scene]:
    """A run of three predicted chunks, and the project that lacks them. Refused requests are repeated without a wait.

    Args:
        folder: where the run is made.
        dead: tasks that were quarantined by inference.
    """
    run = RunDir(folder / "run")
    run.create({})
    with clocked() as clock:
        scene = Scene(run, Ledger(run.ledger), MemoryProject(), clock)
        for number in range(CHUNKS):
            add_chunk(scene, number, dead)
        yield scene
    scene.ledger.close()


@contextmanager
def clocked() -> Iterator[Clock]:
    """Time that passes only while somebody waits; refused requests are repeated without a wait."""
    clock = Clock()
    time = SimpleNamespace(time=clock, monotonic=clock)
    with pytest.MonkeyPatch.context() as patch:
        for module in (importing, sending, ledger_module):
            patch.setattr(module, "time", time)
        patch.setattr(retry, "_backoff", lambda _state: 0.0)
        yield clock


def add_chunk(scene: Scene, number: int, dead: tuple[int, ...] = ()) -> Chunk:
    """One more chunk of the run, exported and predicted by now, and its tasks in the project.

    Args:
        scene: the run and the project.
        number: the next one.
        dead: tasks that were quarantined by inference.
    """
    ids = chunk_ids(number)
    scene.project.tasks |= {int(task): Task(task, {}) for task in ids}
    scene.ledger.exported(scene.ledger.plan(ids[0], ids[-1], len(ids)))
    rows = [prediction(task) for task in ids if task not in dead]
    scene.run.write_predictions(number, predictions_table(rows))
    letters = [DeadLetter(task, "predict", "told to") for task in ids if task in dead]
    return scene.ledger.predicted(number, len(rows), letters)
