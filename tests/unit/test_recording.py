"""What lies on the disk while a run goes, and after each kind of end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ls_support import TEXT_CONFIG, topic_region
from lsbatch.budget import ErrorBudget
from lsbatch.cli.boundary import OutOfTime, Terminated
from lsbatch.entities import Task, TaskId
from lsbatch.errors import BudgetError, ConfigError, ExitCode, StoppedError, TransientError
from lsbatch.executor import InProcessExecutor
from lsbatch.label_config import LabelConfig
from lsbatch.ledger import Ledger
from lsbatch.operations import recording
from lsbatch.operations.predict import predict
from lsbatch.operations.run_setup import RunOptions, RunSetup
from lsbatch.operations.runs import run_state
from lsbatch.ports import Selection
from lsbatch.predictor import Predictor
from lsbatch.progress import Silent
from lsbatch.report import RunReport
from lsbatch.run_dir import RunDir, disk_errors, write_json
from lsbatch.run_log import logged
from lsbatch.testing import MemoryProject
from run_support import OPTIONS, SENDING, VERSION, Clock, ClockStop, clocked

TASKS, CHUNK = 6, 2
LABELS = LabelConfig(TEXT_CONFIG)
#: A run that sends at once what a chunk brings, and tries nothing again.
IMPORTING = replace(OPTIONS, batch_rows=CHUNK, sending=replace(SENDING, retry_seconds=0))


class Scripted:
    """Calls the script with each task before it is predicted.

    Args:
        script: may raise.
    """

    model_version = VERSION

    def __init__(self, script: Callable[[Task], object]) -> None:
        self._script = script

    def predict(self, tasks: Sequence[Task]) -> list[dict[str, object]]:
        """One result a task."""
        for task in tasks:
            self._script(task)
        return [{"result": [topic_region("food")], "score": 0.5} for _ in tasks]


@dataclass
class Recipe:
    """Builds ``Scripted``."""

    script: Callable[[Task], object]
    # An id would come again, and with it the predictor that the process keeps for it.
    key: str = field(default_factory=lambda: f"scripted-{uuid4()}")

    def parcels(self) -> dict[str, bytes]:
        """Nothing."""
        return {}

    def __call__(self) -> Predictor:
        return Predictor(Scripted(self.script), LABELS, VERSION)  # type: ignore[arg-type]


@dataclass
class Bench:
    """A run of six tasks in memory.

    Attributes:
        run: its files.
        clock: its time.
        project: where from and where to.
        script: called with each task.
        options: of the run.
        stop: of the run.
    """

    run: RunDir
    clock: Clock
    project: MemoryProject = field(default_factory=MemoryProject)
    script: Callable[[Task], object] = lambda _task: None
    options: RunOptions = field(
        default_factory=lambda: RunOptions(Selection(VERSION), chunk_size=CHUNK, importing=IMPORTING)
    )

    def __post_init__(self) -> None:
        self.project.tasks = {number: Task(TaskId(number), {"text": "x"}) for number in range(1, TASKS + 1)}
        self.stop = ClockStop(self.clock)
        self.run.create({"model_version": VERSION})

    def predict(self, *, resumed: bool = False) -> RunReport:
        """Run or go on."""
        with closing(Ledger(self.run.ledger)) as ledger:
            return predict(
                RunSetup(
                    source=self.project,
                    sink=self.project,
                    run=self.run,
                    ledger=ledger,
                    model_version=VERSION,
                    project=1,
                    options=self.options,
                    open_executor=lambda _tasks: nullcontext(InProcessExecutor(Recipe(self.script))),
                    progress=Silent(),
                    stop=self.stop,
                    resumed=resumed,
                )
            )

    def results(self) -> dict[str, Any]:
        """The report as it lies on the disk."""
        return dict(json.loads(self.run.results.read_bytes()))

    def letters(self) -> list[int]:
        """The quarantined tasks as they lie on the disk."""
        lines = (self.run.path / "dead_letters.jsonl").read_text().splitlines()
        return [json.loads(line)["task"] for line in lines]

    def held(self) -> list[int]:
        """The tasks that have a prediction."""
        return sorted(int(row.task_id) for row in self.project.predictions)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A run that has not begun."""
    with clocked() as clock:
        yield Bench(RunDir(tmp_path / "run"), clock)


def failing(*tasks: int) -> Callable[[Task], object]:
    """Fails on these tasks."""

    def script(task: Task) -> None:
        if task.id in tasks:
            raise ValueError("told to")

    return script


# ------------------------------------------------------------------------------------------------ while it goes


def test_the_report_is_there_from_the_beginning_and_grows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "WRITE_SECONDS", 0.0)
    seen: list[tuple[str, int, int | None]] = []

    def script(task: Task) -> None:
        report = bench.results()
        seen.append((report["state"], report["predicted"], report["exit_code"]))

    bench.script = script
    bench.predict()
    assert seen == [("running", done, None) for done in (0, 0, 2, 2, 4, 4)]
    assert run_state(bench.run) == "finished"


def test_the_report_is_not_written_for_each_chunk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def noting(path: Path, value: Any) -> None:
        written.append(value["state"])
        write_json(path, value)

    monkeypatch.setattr(recording, "write_json", noting)
    monkeypatch.setattr(recording, "WRITE_SECONDS", 1_000_000.0)
    bench.predict()
    assert written == ["running", "finished"]


# ------------------------------------------------------------------------------------------------ how it ends


def test_a_finished_run(bench: Bench) -> None:
    report = bench.predict()
    found = bench.results()
    assert (found["state"], found["exit_code"], found["error"]) == ("finished", 0, "")
    assert found == json.loads(json.dumps(report.to_json()))
    assert (found["selected"], found["predicted"], found["imported"], found["confirmed"]) == (TASKS,) * 4
    assert found["audit"]["passed"] is True
    assert bench.letters() == []


def test_a_run_with_a_failed_task(bench: Bench) -> None:
    bench.script = failing(4)
    bench.predict()
    found = bench.results()
    assert (found["state"], found["exit_code"], found["quarantined"], found["allowed"]) == ("finished", 3, 1, 1)
    [(cause, count)] = found["causes"].items()
    assert ("ValueError: told to" in cause, count) == (True, 1)
    assert bench.letters() == [4]
    assert bench.held() == [1, 2, 3, 5, 6]


def test_an_audit_that_fails_has_its_own_code(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryProject, "count_carriers", lambda *_: 0)
    bench.predict()
    found = bench.results()
    assert (found["state"], found["exit_code"], found["audit"]["passed"]) == ("finished", 7, False)


def ask(bench: Bench, code: ExitCode) -> Callable[[Task], object]:
    """Somebody asks for the end while the third task is predicted."""
    return lambda task: bench.stop.ask("told to", code) if task.id == 3 else None


@pytest.mark.parametrize("code", [ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.TEMPORARY])
def test_a_run_that_is_asked_to_stop_keeps_the_chunk_in_flight(bench: Bench, code: ExitCode) -> None:
    bench.script = ask(bench, code)
    with pytest.raises(StoppedError):
        bench.predict()
    found = bench.results()
    assert (found["state"], found["exit_code"]) == ("stopped", int(code))
    assert found["predicted"] == 4
    assert "told to" in found["error"]
    bench.stop = ClockStop(bench.clock)
    again: list[int] = []
    bench.script = lambda task: again.append(task.id)
    assert bench.predict(resumed=True).selected == TASKS
    assert again == [5, 6]
    assert bench.held() == list(range(1, TASKS + 1))


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (TransientError("not now"), "failed", 75),
        (ConfigError("no such model"), "failed", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (Terminated(), "interrupted", 143),
        (OutOfTime(), "interrupted", 75),
        (RuntimeError("a bug"), "interrupted", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_whatever_ends_a_run_is_on_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str, code: int
) -> None:
    def broken(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_predictions", broken)
        with pytest.raises(type(error)):
            bench.predict()
    found = bench.results()
    assert (found["state"], found["exit_code"], found["error"]) == (state, code, str(error))
    assert found["selected"] == CHUNK
    assert bench.predict(resumed=True).state == "finished"
    assert bench.held() == list(range(1, TASKS + 1))


def test_a_disk_that_is_full_at_the_end_does_not_hide_what_ended_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(run: RunDir, _letters: object) -> None:
        with disk_errors(run.path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDir, "write_dead_letters", full)
    bench.script = ask(bench, ExitCode.INTERRUPTED)
    with pytest.raises(StoppedError):
        bench.predict()
    assert run_state(bench.run) == "running"


# ------------------------------------------------------------------------------------------------ the error budget


def test_a_spent_budget_ends_the_run_where_it_stands(bench: Bench) -> None:
    reached: list[int] = []

    def script(task: Task) -> None:
        reached.append(task.id)
        if task.id in (3, 4):
            raise ValueError("told to")

    bench.script = script
    bench.options = replace(bench.options, chunk_size=4)
    with pytest.raises(BudgetError, match=r"2 of 6 tasks failed, 1 may \(run\.max_failures\).*told to") as caught:
        bench.predict()
    assert "dead_letters.jsonl" in caught.value.hint
    assert max(reached) == 4, "chunks after the one that spent the budget were predicted"
    found = bench.results()
    assert (found["state"], found["exit_code"]) == ("over budget", 4)
    assert bench.letters() == [3, 4]
    assert bench.held() == [], "the chunk that spent the budget was sent"


@pytest.mark.parametrize(("budget", "ends"), [("1", True), ("2", False), ("33%", False), ("0", True), ("100%", False)])
def test_the_budget_is_a_number_or_a_share(bench: Bench, budget: str, ends: bool) -> None:
    bench.options = replace(bench.options, budget=ErrorBudget.parse(budget))
    bench.script = failing(2, 5)
    if ends:
        with pytest.raises(BudgetError):
            bench.predict()
    else:
        assert bench.predict().exit_code is ExitCode.QUARANTINED
        assert bench.held() == [1, 3, 4, 6]


def test_a_run_over_budget_that_goes_on_sends_nothing_before_more_is_allowed(bench: Bench) -> None:
    """It holds predictions that were never sent: they must not leave before the budget is looked at."""
    allowing = replace(bench.options, budget=ErrorBudget(tasks=2))
    bench.script = failing(3, 4)
    bench.options = replace(allowing, dry_run=True)
    assert bench.predict().predicted == TASKS - 2
    bench.options = replace(allowing, budget=ErrorBudget(tasks=1))
    with pytest.raises(BudgetError):
        bench.predict(resumed=True)
    assert bench.held() == []
    bench.options = allowing
    assert bench.predict(resumed=True).quarantined == 2
    assert bench.held() == [1, 2, 5, 6]


def test_a_dry_run_spends_the_budget_too_and_sends_nothing(bench: Bench) -> None:
    bench.options = replace(bench.options, dry_run=True)
    report = bench.predict()
    assert (report.predicted, report.imported, report.audit, bench.held()) == (TASKS, 0, None, [])
    bench.script = failing(3, 4)
    with pytest.raises(BudgetError):
        Bench.predict(replace(bench, run=RunDir(bench.run.path.with_name("other"))))


# ------------------------------------------------------------------------------------------------ the log


def lines(path: Path) -> list[dict[str, str]]:
    """What a log holds."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_log_is_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log.jsonl"
    with logged(path):
        logging.getLogger("lsbatch.operations.importing").info("import plan: %d\nrequests é", 3)
        logging.getLogger("lsbatch_connectors.label_studio").warning("slow")
        logging.getLogger("lsbatch.x").debug("every request")
        logging.getLogger("somebody.else").error("not ours")
        try:
            raise ValueError("told to")
        except ValueError:
            logging.getLogger("lsbatch_pipelines.y").exception("failed")
    found = lines(path)
    assert [(line["level"], line["message"]) for line in found] == [
        ("info", "import plan: 3\nrequests é"),
        ("warning", "slow"),
        ("error", "failed"),
    ]
    assert found[0]["logger"] == "lsbatch.operations.importing"
    assert found[0]["time"].endswith("+00:00")
    assert "ValueError: told to" in found[2]["traceback"]


def test_the_next_process_goes_on_with_the_log(tmp_path: Path) -> None:
    logger = logging.getLogger("lsbatch.x")
    for number in range(2):
        with logged(tmp_path / "log.jsonl"):
            logger.info("process %d", number)
        logger.info("between")
    assert [line["message"] for line in lines(tmp_path / "log.jsonl")] == ["process 0", "process 1"]


def test_the_log_leaves_the_loggers_as_they_were(tmp_path: Path) -> None:
    logger = logging.getLogger("lsbatch")
    before = (logger.level, list(logger.handlers))
    with logged(tmp_path / "log.jsonl"):
        assert logger.isEnabledFor(logging.INFO)
    assert (logger.level, list(logger.handlers)) == before


def test_a_more_talkative_terminal_does_not_make_the_log_longer(tmp_path: Path) -> None:
    logger = logging.getLogger("lsbatch")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with logged(tmp_path / "log.jsonl"):
            logger.debug("every request")
            assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)
    assert lines(tmp_path / "log.jsonl") == []


def test_a_full_disk_cuts_the_log_short_and_nothing_else() -> None:
    with logged(Path("/dev/full")):
        logging.getLogger("lsbatch.x").warning("no room for this")


def test_a_log_that_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file") as caught, logged(tmp_path / "file" / "log.jsonl"):
        pytest.fail("there is no log")
    assert "LSBATCH_STATE_DIR" in caught.value.hint


def test_tasks_that_failed_before_do_not_spend_the_budget(bench: Bench) -> None:
    """The same few bad tasks are selected by every run of the version: they must not stop each of them."""

    def script(task: Task) -> None:
        if task.id in (3, 4):
            raise ValueError("told to")

    bench.script = script
    bench.options = replace(bench.options, budget=ErrorBudget(tasks=0), known_failures=frozenset({3, 4}))
    report = bench.predict()
    assert (report.quarantined, report.exit_code) == (2, ExitCode.QUARANTINED)
    assert sorted(bench.held()) == [1, 2, 5, 6]
