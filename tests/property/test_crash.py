"""A run that dies anywhere, and is given again until it ends, leaves the same as one that never died."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ls_support import TEXT_CONFIG, topic_region
from lsbatch.budget import ErrorBudget
from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import AmbiguousError
from lsbatch.executor import InProcessExecutor
from lsbatch.import_plan import Standing
from lsbatch.label_config import LabelConfig
from lsbatch.ledger import Ledger
from lsbatch.operations.predict import predict
from lsbatch.operations.run_setup import RunOptions, RunSetup
from lsbatch.ports import Selection
from lsbatch.predictor import Predictor
from lsbatch.progress import Silent
from lsbatch.report import RunReport
from lsbatch.run_dir import RunDir
from lsbatch.testing import Fault, MemoryProject
from run_support import HUGE, NOTHING, OPTIONS, VERSION, Clock, ClockStop, clocked

BAD = 13
#: Not ``large``: a single prediction that is too large is quarantined.
FAULTS: tuple[Fault, ...] = ("refuse", "lose before", "lose after", "half", "late")


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Life:
    """One process: it dies at a certain step, and does nothing more then.

    Attributes:
        steps: how many steps it has left; a step is a change of the ledger or of the server, before or after it.
    """

    steps: int

    def step(self) -> None:
        """Take one step, if there is one left."""
        self.steps -= 1
        if self.steps < 0:
            raise Crash


class MortalLedger(Ledger):
    """A ledger whose process may die before and after each of its commits."""

    life: Life

    @contextmanager
    def _transaction(self) -> Iterator[object]:  # type: ignore[override]
        self.life.step()
        with super()._transaction() as db:
            yield db
        self.life.step()


class MortalProject(MemoryProject):
    """A project whose client may die before a request leaves, and before its answer arrives."""

    life: Life

    def create(self, predictions: Sequence[Prediction]) -> int:
        """See ``PredictionSink.create``."""
        self.life.step()
        created = super().create(predictions)
        self.life.step()
        return created

    def delete(self, prediction_id: int) -> None:
        """See ``PredictionSink.delete``."""
        self.life.step()
        super().delete(prediction_id)
        self.life.step()


class Rules:
    """Fails on one task."""

    model_version = VERSION

    def predict(self, tasks: Sequence[Task]) -> list[dict[str, object]]:
        """One result a task."""
        if any(task.id == BAD for task in tasks):
            raise ValueError("told to")
        return [{"result": [topic_region("food")], "score": 0.5} for _ in tasks]


LABELS = LabelConfig(TEXT_CONFIG)


@dataclass(frozen=True)
class Recipe:
    """Builds ``Rules``."""

    key: str = "rules"

    def parcels(self) -> dict[str, bytes]:
        """Nothing."""
        return {}

    def __call__(self) -> Predictor:
        return Predictor(Rules(), LABELS, VERSION)  # type: ignore[arg-type]


def live(
    folder: Path, project: MortalProject, clock: Clock, life: Life, options: RunOptions, standing: Standing
) -> RunReport:
    """One process that works on the run until it ends or dies."""
    run = RunDir(folder)
    resumed = run.ledger.exists()
    project.life = MortalLedger.life = life
    with closing(MortalLedger(run.ledger)) as ledger:
        setup = RunSetup(
            source=project,
            sink=project,
            run=run,
            ledger=ledger,
            model_version=VERSION,
            project=1,
            options=options,
            open_executor=lambda _tasks: nullcontext(InProcessExecutor(Recipe())),
            progress=Silent(),
            standing=standing,
            stop=ClockStop(clock),
            resumed=resumed,
        )
        return predict(setup)


@settings(max_examples=60, deadline=None)
@given(
    tasks=st.integers(min_value=1, max_value=24),
    chunk_size=st.integers(min_value=1, max_value=9),
    batch_rows=st.integers(min_value=1, max_value=12),
    readers=st.integers(min_value=1, max_value=3),
    huge=st.booleans(),
    replaces=st.booleans(),
    deaths=st.lists(st.integers(min_value=0, max_value=60), max_size=4),
    faults=st.lists(st.sampled_from(FAULTS), max_size=3),
)
def test_dying_anywhere_changes_nothing(
    tasks: int,
    chunk_size: int,
    batch_rows: int,
    readers: int,
    huge: bool,
    replaces: bool,
    deaths: list[int],
    faults: list[Fault],
) -> None:
    project = MortalProject({number: Task(TaskId(number), {"text": "x"}) for number in range(1, tasks + 1)})
    older = [Prediction(TaskId(number), [], 0.1, version) for number in (2, 5) for version in ("v10", VERSION)]
    project.predictions = [row for row in older if row.task_id <= tasks]
    project.faults = list(faults)
    options = RunOptions(
        selection=Selection("" if replaces else VERSION),
        replace=replaces,
        chunk_size=chunk_size,
        readers=readers,
        budget=ErrorBudget(tasks=1),
        importing=replace(OPTIONS, batch_rows=batch_rows),
    )
    with tempfile.TemporaryDirectory() as folder, clocked() as clock:
        report = None
        for steps in [*deaths, 10_000, 10_000, 10_000]:
            try:
                report = live(Path(folder) / "run", project, clock, Life(steps), options, HUGE if huge else NOTHING)
            except (Crash, AmbiguousError):
                continue
            break
    assert report is not None
    assert report.audit is not None
    assert report.audit.passed
    held = Counter(int(row.task_id) for row in project.predictions if row.model_version == VERSION)
    assert held == dict.fromkeys((number for number in range(1, tasks + 1) if number != BAD), 1)
    assert [row.task_id for row in project.predictions if row.model_version == "v10"] == [
        number for number in (2, 5) if number <= tasks
    ]
    if replaces:
        assert all(row.score == 0.5 for row in project.predictions if row.model_version == VERSION)
    assert report.quarantined == (tasks >= BAD)
    assert report.audit.removed == 0
