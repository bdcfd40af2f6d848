"""Single creates side by side, and the import while inference goes on: exactly one prediction per task all the same."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lsbatch.entities import Prediction
from lsbatch.errors import AmbiguousError, BudgetError, ExitCode, PermanentError, StoppedError
from lsbatch.import_plan import CostModel, Limits, Plan, Standing, plan
from lsbatch.operations import importing
from lsbatch.operations.importing import MARGIN, SERVER_SETTING, Importer
from lsbatch.operations.sending import MOST_STALLS, Sender
from lsbatch.progress import Silent
from lsbatch.testing import Fault, MemoryProject
from run_support import (
    ALL,
    CHUNK_TASKS,
    CHUNKS,
    HUGE,
    NOTHING,
    OPTIONS,
    SENDING,
    VERSION,
    ClockStop,
    Scene,
    add_chunk,
    chunk_ids,
    prediction,
)

#: Longest wait of a test for another thread, in seconds.
PATIENCE = 20
FAULTS: tuple[Fault, ...] = ("refuse", "lose before", "lose after", "half", "late")
LARGE = replace(OPTIONS, batch_rows=50_000)
#: A bulk request costs 22 s before its first row; the clock of the tests does not count them.
PREDICTED = Standing(20_000, 20_000)


class Crash(BaseException):
    """The process dies here."""


Script = Callable[[Prediction, int], None]


@dataclass
class Scripted(MemoryProject):
    """A project whose single creates are scripted: ``before`` and ``after`` get the row and the number of its attempt.

    Attributes:
        before: may raise; nothing is stored then.
        after: may raise; the row is stored.
        attempts: of each task.
        inside: single creates that are under way.
        seen: how many were under way as each began, in this round.
        rounds: the same of the rounds before; what the project holds is read between two of them.
    """

    before: Script = lambda *_: None
    after: Script = lambda *_: None
    attempts: Counter[int] = field(default_factory=Counter)
    inside: int = 0
    seen: list[int] = field(default_factory=list)
    rounds: list[list[int]] = field(default_factory=list)

    def create_one(self, prediction: Prediction) -> None:
        """See ``PredictionSink.create_one``."""
        with self.lock:
            self.attempts[prediction.task_id] += 1
            number = self.attempts[prediction.task_id]
            self.inside += 1
            self.seen.append(self.inside)
        try:
            self.before(prediction, number)
            super().create_one(prediction)
            self.after(prediction, number)
        finally:
            with self.lock:
                self.inside -= 1

    def count_carriers(self, model_version: str, task_ids: list[int]) -> int:  # type: ignore[override]
        """See ``PredictionSink.count_carriers``."""
        self.rounds.append(self.seen)
        self.seen = []
        return super().count_carriers(model_version, task_ids)  # type: ignore[arg-type]


@pytest.fixture
def project(scene: Scene) -> Scripted:
    """The scene's project, scripted."""
    project = Scripted(scene.project.tasks)
    scene.project = project
    return project


def cut() -> AmbiguousError:
    """No answer at all."""
    return AmbiguousError("no answer")


def failed(words: str = "500") -> AmbiguousError:
    """Label Studio itself answers that it failed: it no longer works on the request."""
    return AmbiguousError(words, finished=True)


def denied() -> PermanentError:
    """The token is not valid any more."""
    return PermanentError("401", status=401)


# ------------------------------------------------------------------------------------------------ one by one


def test_as_many_creates_are_under_way_as_there_are_writers(scene: Scene, project: Scripted) -> None:
    together = threading.Barrier(SENDING.writers, timeout=PATIENCE)

    def script(_row: Prediction, _number: int) -> None:
        together.wait()

    project.before = script
    importer = scene.importer(standing=HUGE)
    importer.run()
    assert max(project.seen) == SENDING.writers
    assert scene.one_each()
    assert (importer.sent.imported, importer.sent.requests) == (ALL, ALL)
    assert scene.states() == ["imported"] * CHUNKS
    assert scene.clock.slept == []


@pytest.mark.parametrize("writers", [1, 3])
@pytest.mark.parametrize("place", [0, 5, ALL - 1])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_at_a_single_create(scene: Scene, fault: Fault, place: int, writers: int) -> None:
    quiet: list[Fault] = [""] * place
    scene.project.faults = [*quiet, fault]
    scene.importer(replace(OPTIONS, sending=replace(SENDING, writers=writers)), standing=HUGE).run()
    assert scene.one_each()
    assert scene.project.faults == []
    assert scene.states() == ["imported"] * CHUNKS
    assert scene.ledger.unsettled() == []
    assert scene.audit().removed == 0


def test_every_answer_lost_once(scene: Scene, project: Scripted) -> None:
    def lose(_row: Prediction, number: int) -> None:
        if number == 1:
            raise cut()

    project.after = lose
    importer = scene.importer(standing=HUGE)
    importer.run()
    assert scene.one_each()
    assert importer.sent.imported == ALL
    assert set(project.attempts.values()) == {1}


def test_a_create_that_may_still_arrive_is_waited_for_beside_one_that_failed(scene: Scene, project: Scripted) -> None:
    """A round brings several answers: the one that Label Studio gave itself must not end the wait for the other."""
    together = threading.Barrier(2, timeout=PATIENCE)

    def script(row: Prediction, number: int) -> None:
        if number > 1 or row.task_id not in (1, 2):
            return
        together.wait()
        if row.task_id == 2:
            raise failed()
        project.late.append(row)
        project.late_reads = 4
        raise cut()

    project.before = script
    scene.importer(standing=HUGE).run()
    assert project.attempts[1] == 1
    assert project.attempts[2] == 2
    assert scene.one_each()


@pytest.mark.parametrize("words", ["500: database is locked", "500: something else"])
def test_a_locked_database_is_left_to_one_writer(scene: Scene, project: Scripted, words: str) -> None:
    together = threading.Barrier(SENDING.writers, timeout=PATIENCE)

    def script(row: Prediction, number: int) -> None:
        if number == 1 and row.task_id in chunk_ids(0)[: SENDING.writers]:
            together.wait()
            raise failed(words)

    project.before = script
    scene.importer(standing=HUGE).run()
    assert scene.one_each()
    [first, *_], later = project.rounds, [*project.rounds[1:], project.seen]
    assert max(first) == SENDING.writers
    if "locked" in words:
        assert [number for seen in later for number in seen if number != 1] == []


def test_a_round_of_doubt_is_not_followed_by_the_next_at_once(scene: Scene, project: Scripted) -> None:
    """A database may be locked for as long as somebody else's bulk import takes."""

    def script(_row: Prediction, number: int) -> None:
        if number < MOST_STALLS:
            raise failed("500: database is locked")

    project.before = script
    scene.importer(replace(OPTIONS, sending=replace(SENDING, writers=1)), standing=HUGE).run()
    assert scene.one_each()
    assert sum(scene.clock.slept) >= 2


def test_one_task_that_always_fails_does_not_keep_the_others_back(scene: Scene, project: Scripted) -> None:
    def script(row: Prediction, _number: int) -> None:
        if row.task_id == 1:
            raise failed()

    project.before = script
    importer = scene.importer(replace(OPTIONS, sending=replace(SENDING, writers=1)), standing=HUGE)
    with pytest.raises(AmbiguousError):
        importer.run()
    assert scene.one_each(1)
    assert scene.states() == ["sending"] * CHUNKS
    project.before = lambda *_: None
    scene.importer(standing=HUGE).run()
    assert scene.one_each()
    assert scene.states() == ["imported"] * CHUNKS


def test_a_deleted_task_and_a_refused_one_are_quarantined_alone(scene: Scene, project: Scripted) -> None:
    def script(row: Prediction, _number: int) -> None:
        if row.task_id == 14:
            raise PermanentError("the score is too long", status=400)

    project.before = script
    for task in (1, 22):
        project.delete_task(task)
    scene.importer(standing=HUGE).run()
    assert scene.one_each(14)
    assert [(int(letter.task_id), letter.cause) for letter in scene.ledger.dead_letters()] == [
        (1, "the task was deleted after the export"),
        (14, "Label Studio refuses the prediction: the score is too long"),
        (22, "the task was deleted after the export"),
    ]
    assert scene.states() == ["imported"] * CHUNKS
    assert scene.audit().passed


def test_a_refusal_of_all_ends_the_run_and_what_was_under_way_counts(scene: Scene, project: Scripted) -> None:
    """The token is revoked while three creates are under way: two of them are stored."""
    together = threading.Barrier(SENDING.writers, timeout=PATIENCE)
    revoked = threading.Event()

    def script(row: Prediction, _number: int) -> None:
        if revoked.is_set():
            raise denied()
        together.wait()
        if row.task_id == 1:
            revoked.set()
            raise denied()
        assert revoked.wait(PATIENCE)

    project.before = script
    importer = scene.importer(standing=HUGE)
    with pytest.raises(PermanentError):
        importer.run()
    assert scene.held() == {2: 1, 3: 1}
    assert importer.sent.imported == 2
    assert scene.states() == ["sending"] * CHUNKS
    project.before = lambda *_: None
    scene.importer(standing=HUGE).run()
    assert scene.one_each()
    assert scene.audit().removed == 0


def test_a_refusal_before_anything_is_stored_leaves_the_chunks_predicted(scene: Scene, project: Scripted) -> None:
    def script(_row: Prediction, _number: int) -> None:
        raise denied()

    project.before = script
    with pytest.raises(PermanentError):
        scene.importer(standing=HUGE).run()
    assert scene.states() == ["predicted"] * CHUNKS
    assert scene.ledger.unsettled() == []


def test_a_refusal_beside_a_doubt_leaves_the_batch_to_be_read_back(
    scene: Scene, project: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=PATIENCE)
    noted = threading.Event()
    original = Sender._taken

    def taken(sender: Sender, row: Prediction, *given: Any) -> None:
        original(sender, row, *given)
        if row.task_id == 1:
            noted.set()

    def script(row: Prediction, _number: int) -> None:
        if row.task_id in (1, 2):
            together.wait()
        if row.task_id == 1:
            raise cut()
        assert noted.wait(PATIENCE)
        raise denied()

    monkeypatch.setattr(Sender, "_taken", taken)
    project.before = script
    with pytest.raises(PermanentError):
        scene.importer(standing=HUGE).run()
    assert scene.states() == ["sending"] * CHUNKS
    assert len(scene.ledger.unsettled()) == 1


def test_a_refusal_after_a_doubt_leaves_the_batch_to_be_read_back(scene: Scene, project: Scripted) -> None:
    def script(_row: Prediction, _number: int) -> None:
        raise denied() if project.rounds else cut()

    project.before = script
    with pytest.raises(PermanentError):
        scene.importer(standing=HUGE).run()
    assert scene.states() == ["sending"] * CHUNKS
    assert len(scene.ledger.unsettled()) == 1


def test_the_ledger_is_told_of_creates_that_leave_at_most_once_a_second(
    scene: Scene, project: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(scene.ledger, "leaving", lambda _batch: told.append(scene.clock.now))
    sender = Sender(project, scene.ledger, VERSION, replace(SENDING, writers=1), ClockStop(scene.clock))
    rows = [prediction(task) for task in chunk_ids(0)]
    batch = scene.ledger.intend(scene.ledger.chunks()[:1])
    sender.singles(batch, rows)
    assert len(told) == 1
    project.before = lambda *_: scene.clock.sleep(1)
    sender.singles(batch, rows)
    # The first of these leaves as the clock still stands where it was told.
    assert len(told) == CHUNK_TASKS
    assert sender.sent.requests == 2 * CHUNK_TASKS


# ------------------------------------------------------------------------------------------------ a stop in the middle


def ask(stop: ClockStop) -> None:
    """Somebody asks for the end."""
    stop.ask("told to", ExitCode.INTERRUPTED)


@pytest.mark.parametrize("stored", [1, 5])
def test_a_stop_after_a_few_creates_leaves_the_batch_to_be_read_back(
    scene: Scene, project: Scripted, stored: int
) -> None:
    stop = ClockStop(scene.clock)

    def script(_row: Prediction, _number: int) -> None:
        if len(project.predictions) >= stored:
            ask(stop)

    project.after = script
    importer = scene.importer(replace(OPTIONS, sending=replace(SENDING, writers=1)), standing=HUGE, stop=stop)
    with pytest.raises(StoppedError):
        importer.run()
    assert stored <= len(project.predictions) < ALL
    assert importer.sent.imported == len(project.predictions)
    assert scene.states() == ["sending"] * CHUNKS
    scene.importer(standing=HUGE).run()
    assert scene.one_each()
    assert scene.audit().removed == 0


def test_a_stop_between_two_requests_of_a_batch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = ClockStop(scene.clock)
    original = MemoryProject.create

    def stopping(project: MemoryProject, rows: list[Prediction]) -> int:
        ask(stop)
        return original(project, rows)

    options = replace(OPTIONS, sending=replace(SENDING, max_body_bytes=350))
    with monkeypatch.context() as patch:
        patch.setattr(MemoryProject, "create", stopping)
        with pytest.raises(StoppedError):
            scene.importer(options, stop=stop).run()
    assert scene.states() == ["sending", "predicted", "predicted"]
    scene.importer(options).run()
    assert scene.one_each()


@pytest.mark.parametrize("standing", [HUGE, NOTHING], ids=["singles", "bulk"])
def test_a_stop_while_the_server_takes_nothing_leaves_the_chunks_predicted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, standing: Standing
) -> None:
    """The server asks to wait, and during the wait somebody asks to stop: surely nothing was stored."""
    stop = ClockStop(scene.clock)
    scene.project.faults = ["refuse"] * ALL

    def interrupted(_seconds: float) -> None:
        ask(stop)
        stop.check()

    monkeypatch.setattr(stop, "sleep", interrupted)
    with pytest.raises(StoppedError):
        scene.importer(standing=standing, stop=stop).run()
    assert scene.states() == ["predicted"] * CHUNKS
    assert scene.ledger.unsettled() == []
    scene.project.faults = []
    scene.importer(standing=standing).run()
    assert scene.one_each()


@pytest.mark.parametrize("standing", [HUGE, NOTHING], ids=["singles", "bulk"])
def test_a_stop_while_a_doubt_is_settled_leaves_the_batch_to_be_read_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, standing: Standing
) -> None:
    stop = ClockStop(scene.clock)
    scene.project.faults = ["lose after"]

    def read(*_: object) -> int:
        ask(stop)
        return 0

    monkeypatch.setattr(MemoryProject, "count_carriers", read)
    with pytest.raises(StoppedError):
        scene.importer(standing=standing, stop=stop).run()
    assert scene.states()[0] == "sending"
    monkeypatch.undo()
    scene.importer(standing=standing).run()
    assert scene.one_each()
    assert scene.audit().removed == 0


def test_a_run_that_was_asked_to_stop_before_sends_nothing(scene: Scene) -> None:
    stop = ClockStop(scene.clock)
    ask(stop)
    importer = scene.importer(stop=stop)
    with pytest.raises(StoppedError, match="told to"):
        importer.run()
    assert (importer.sent.requests, scene.states()) == (0, ["predicted"] * CHUNKS)


# ------------------------------------------------------------------------------------------------ while it predicts


class Plans:
    """Every plan that an importer makes, and a way to wait for the next ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limits: list[Limits] = []
        self._made = threading.Semaphore(0)

        def noting(rows: int, model: CostModel, standing: Standing, limits: Limits) -> Plan:
            self.limits.append(limits)
            self._made.release()
            return plan(rows, model, standing, limits)

        monkeypatch.setattr(importing, "plan", noting)

    def wait(self) -> None:
        """Until what is known now was decided upon: of two plans from now on, the first did not lead to a request."""
        while self._made.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self._made.acquire(timeout=PATIENCE)


Rows = Callable[[list[Prediction]], object]


def watch(
    monkeypatch: pytest.MonkeyPatch, *, before: Rows = lambda _rows: None, after: Rows = lambda _rows: None
) -> None:
    """Have these called around each request that brings rows to a project."""
    original = MemoryProject.create

    def watched(project: MemoryProject, rows: list[Prediction]) -> int:
        before(rows)
        created = original(project, rows)
        after(rows)
        return created

    monkeypatch.setattr(MemoryProject, "create", watched)


def infer(importer: Importer, expected: int, inference: Callable[[], None]) -> None:
    """Import while this goes on."""
    with importer.alongside(expected):
        inference()


def import_thread() -> threading.Thread:
    """The thread that imports."""
    [thread] = [thread for thread in threading.enumerate() if thread.name == "import"]
    return thread


@pytest.mark.parametrize("standing", [HUGE, NOTHING], ids=["singles", "bulk"])
def test_what_is_cheap_is_imported_while_inference_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, standing: Standing
) -> None:
    arrived = threading.Semaphore(0)
    watch(monkeypatch, after=lambda rows: arrived.release(len(rows)))
    with scene.importer(standing=standing).alongside(2 * CHUNK_TASKS) as importer:
        for rows in (ALL, CHUNK_TASKS, CHUNK_TASKS):
            for _ in range(rows):
                assert arrived.acquire(timeout=PATIENCE), "nothing is sent before inference ends"
            if len(scene.ledger.chunks()) < CHUNKS + 2:
                importer.offer(add_chunk(scene, len(scene.ledger.chunks())))
    assert scene.one_each()
    assert scene.states() == ["imported"] * (CHUNKS + 2)
    assert importer.sent.imported == ALL + 2 * CHUNK_TASKS


def test_what_costs_a_recount_waits_for_the_end_of_inference(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = Plans(monkeypatch)
    with scene.importer(LARGE, standing=PREDICTED).alongside(20_000) as importer:
        for number in (CHUNKS, CHUNKS + 1):
            importer.offer(add_chunk(scene, number))
            plans.wait()
            assert importer.sent.requests == 0
    assert scene.one_each()
    # Of 20,000 that were expected 20 came: for so few no recount is worth it.
    assert importer.sent.requests == ALL + 2 * CHUNK_TASKS


def test_tasks_that_failed_are_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last chunk has come, and some of its tasks will not: the request leaves all the same."""
    sent = threading.Event()
    watch(monkeypatch, after=lambda _rows: sent.set())
    dead = tuple(int(task) for task in chunk_ids(CHUNKS)[:2])
    with scene.importer(LARGE).alongside(CHUNK_TASKS) as importer:
        importer.offer(add_chunk(scene, CHUNKS, dead))
        assert sent.wait(PATIENCE)
    assert scene.one_each(*dead)
    assert importer.sent.requests == 1


def test_an_error_of_the_import_ends_inference_at_the_next_chunk(scene: Scene) -> None:
    scene.project.faults = ["denied"]
    importer = scene.importer()

    def inference() -> None:
        import_thread().join(PATIENCE)
        importer.offer(add_chunk(scene, CHUNKS))
        pytest.fail("inference goes on")

    with pytest.raises(PermanentError, match="401"):
        infer(importer, CHUNK_TASKS, inference)
    assert scene.states() == ["predicted"] * (CHUNKS + 1)


def test_an_error_of_the_import_after_the_last_chunk_ends_the_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.project.faults = ["denied"] * ALL
    with pytest.raises(PermanentError, match="401"):
        infer(scene.importer(LARGE, standing=PREDICTED), 20_000, Plans(monkeypatch).wait)
    assert scene.states() == ["predicted"] * CHUNKS


def test_a_bug_of_the_import_is_not_swallowed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(monkeypatch, before=lambda _rows: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        infer(scene.importer(), 0, lambda: import_thread().join(PATIENCE))


def test_a_stop_of_the_import_lets_what_is_in_flight_be_kept(scene: Scene) -> None:
    stop = ClockStop(scene.clock)
    importer = scene.importer(stop=stop)

    def inference() -> None:
        thread = import_thread()
        ask(stop)
        thread.join(PATIENCE)
        importer.offer(add_chunk(scene, CHUNKS))

    with pytest.raises(StoppedError):
        infer(importer, CHUNK_TASKS, inference)
    assert scene.states()[CHUNKS:] == ["predicted"]


def test_nothing_is_sent_after_the_error_budget_is_spent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = Plans(monkeypatch)
    importer = scene.importer(LARGE, standing=PREDICTED)

    def inference() -> None:
        importer.offer(add_chunk(scene, CHUNKS))
        plans.wait()
        raise BudgetError("too many")

    with pytest.raises(BudgetError):
        infer(importer, 20_000, inference)
    assert importer.sent.requests == 0
    assert scene.states() == ["predicted"] * (CHUNKS + 1)


def test_a_request_under_way_is_finished_when_inference_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, go_on = threading.Event(), threading.Event()
    watch(monkeypatch, before=lambda _rows: under_way.set() or go_on.wait(PATIENCE))  # type: ignore[func-returns-value]
    importer = scene.importer()

    def closing(*, forget: bool = False) -> None:
        Importer._close(importer, forget=forget)
        go_on.set()

    def inference() -> None:
        assert under_way.wait(PATIENCE)
        raise BudgetError("too many")

    # The request goes on only after the context has begun to end.
    monkeypatch.setattr(importer, "_close", closing)
    with pytest.raises(BudgetError):
        infer(importer, 0, inference)
    assert importer.sent.requests == 1
    assert scene.states() == ["imported", "predicted", "predicted"]


def test_a_process_that_must_end_at_once_does_not_wait_for_an_answer(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, go_on = threading.Event(), threading.Event()
    watch(monkeypatch, before=lambda _rows: under_way.set() or go_on.wait(PATIENCE))  # type: ignore[func-returns-value]

    def inference() -> None:
        assert under_way.wait(PATIENCE)
        raise Crash

    with pytest.raises(Crash):
        infer(scene.importer(), 0, inference)
    thread = import_thread()
    assert thread.daemon
    assert scene.states()[0] == "sending"
    go_on.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# ------------------------------------------------------------------------------------------------ replacing older ones


@dataclass
class Older(MemoryProject):
    """A project whose client may die before and after each change.

    Attributes:
        steps: changes before it dies; negative for never.
    """

    steps: int = -1

    def step(self) -> None:
        """Take one step."""
        if self.steps == 0:
            raise Crash
        self.steps -= 1

    def create(self, predictions: list[Prediction]) -> int:  # type: ignore[override]
        """See ``PredictionSink.create``."""
        self.step()
        created = super().create(predictions)
        self.step()
        return created

    def delete(self, prediction_id: int) -> None:
        """See ``PredictionSink.delete``."""
        self.step()
        super().delete(prediction_id)
        self.step()


@pytest.mark.parametrize("standing", [HUGE, NOTHING], ids=["singles", "bulk"])
@pytest.mark.parametrize("steps", range(-1, 16))
def test_replacing_deletes_exactly_the_older_ones_also_over_a_crash(
    scene: Scene, steps: int, standing: Standing
) -> None:
    of_version = [prediction(task, 0.1) for task in (1, 2, 2, 12, 24)]
    others = [prediction(2, 0.1, "v10"), prediction(23, 0.1, "v0")]
    scene.project = Older(scene.project.tasks, predictions=[*of_version, *others], steps=steps)
    options = replace(OPTIONS, sending=replace(SENDING, writers=1))
    try:
        scene.importer(options, replace=True, standing=standing).run()
    except Crash:
        scene.project.steps = -1
        scene.importer(options, check_first=True, replace=True, standing=standing).run()
    else:
        assert steps == -1
    assert scene.one_each()
    scores = {row.score for row in scene.project.predictions if row.model_version == VERSION}
    assert scores == {0.5}, "an older one stayed"
    assert [row for row in scene.project.predictions if row.model_version != VERSION] == others
    assert scene.ledger.replaced_count() == len(of_version)


# ------------------------------------------------------------------------------------------------ what is learned


def test_a_request_that_was_too_large_limits_those_that_follow(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    watch(monkeypatch, before=lambda rows: sizes.append(len(rows)))
    for number in range(CHUNKS, 6):
        add_chunk(scene, number)
    scene.project.most_rows = 5
    scene.importer(replace(OPTIONS, batch_rows=ALL)).run()
    assert scene.one_each()
    # The first of twelve is halved until it goes through; nothing larger than that is tried again.
    assert sizes[:2] == [12, 6]
    assert max(sizes[2:]) <= 3
    assert sum(sizes) == 12 + 6 + 6 * CHUNK_TASKS


def cutting(scene: Scene, monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Run an import whose first request is cut after so long; the time limits of all its plans."""
    plans = Plans(monkeypatch)
    scene.project.faults = ["lose before"]
    with monkeypatch.context() as patch:
        watch(patch, before=lambda _rows: scene.clock.sleep(seconds if scene.project.faults else 0))
        scene.importer().run()
    assert scene.one_each()
    return [limits.seconds for limits in plans.limits]


def test_a_connection_that_was_cut_lowers_the_time_limit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_, last = cutting(scene, monkeypatch, 20)
    assert first == pytest.approx(MARGIN * OPTIONS.request_seconds)
    assert last == pytest.approx(MARGIN * 20)


def test_a_connection_that_was_cut_at_once_is_no_time_limit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is restarted cuts a request after no time: single creates for all the rest would be no answer."""
    assert set(cutting(scene, monkeypatch, 0.2)) == {MARGIN * OPTIONS.request_seconds}


def test_a_single_create_that_was_cut_is_no_time_limit_of_bulk_requests(scene: Scene, project: Scripted) -> None:
    def lose(_row: Prediction, number: int) -> None:
        if number == 1:
            scene.clock.sleep(6)
            raise cut()

    project.after = lose
    importer = scene.importer(standing=HUGE)
    importer.run()
    assert importer.sent.ambiguous > 0
    assert importer.sent.cut_seconds is None


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        """See ``Progress.say``."""
        self.said.append(message)


def test_the_administrator_is_told_once_where_the_server_recounts(scene: Scene) -> None:
    progress = Told()
    for number in range(CHUNKS, CHUNKS + 3):
        add_chunk(scene, number)
    scene.importer(standing=HUGE, progress=progress).run()
    assert [SERVER_SETTING in line for line in progress.said] == [True]
    scene.importer(standing=Standing(1_000, 1_000), progress=progress).run()
    assert len(progress.said) == 1
