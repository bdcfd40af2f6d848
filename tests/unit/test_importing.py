"""Whatever an answer hides: exactly one prediction per task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lsbatch.entities import Prediction
from lsbatch.errors import AmbiguousError, PermanentError, TransientError
from lsbatch.operations import sending
from lsbatch.operations.sending import MOST_STALLS
from lsbatch.testing import Fault, MemoryProject
from run_support import ALL, CHUNK_TASKS, CHUNKS, OPTIONS, SENDING, Scene, chunk_ids, predicted_run, prediction

#: All faults after which one run of the importer still brings everything to the server.
FAULTS: tuple[Fault, ...] = ("refuse", "lose before", "lose after", "half", "late", "short", "large")


class Crash(BaseException):
    """The process dies here."""


def die_while_sending(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies while it waits for the answer to its first request, of which nothing is stored."""

    def dying(*_: object) -> int:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(MemoryProject, "create", dying)
        with pytest.raises(Crash):
            scene.importer().run()


@pytest.mark.parametrize("place", range(CHUNKS))
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_at_each_request(scene: Scene, fault: Fault, place: int) -> None:
    quiet: list[Fault] = [""] * place
    scene.project.faults = [*quiet, fault]
    scene.importer().run()
    assert scene.one_each()
    assert scene.project.faults == []
    assert scene.states() == ["imported"] * CHUNKS
    assert scene.ledger.unsettled() == []
    assert scene.audit().passed
    assert scene.audit().confirmed == ALL
    assert scene.audit().removed == 0


@pytest.mark.parametrize("second", FAULTS)
@pytest.mark.parametrize("first", FAULTS)
def test_two_faults_in_a_row(scene: Scene, first: Fault, second: Fault) -> None:
    scene.project.faults = ["", first, second]
    scene.importer().run()
    assert scene.one_each()
    assert scene.states() == ["imported"] * CHUNKS


def test_nothing_is_read_back_when_the_server_says_all_is_stored(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryProject, "carriers", lambda *_: pytest.fail("a read-back"))
    importer = scene.importer()
    importer.run()
    assert (importer.sent.imported, importer.sent.requests) == (ALL, CHUNKS)
    assert scene.clock.slept == []


def test_an_imported_run_sends_nothing_again(scene: Scene) -> None:
    scene.importer().run()
    again = scene.importer()
    again.run()
    assert (again.sent.imported, again.sent.requests) == (0, 0)


def test_rows_that_appear_late_are_waited_for_and_not_sent_twice(scene: Scene) -> None:
    """A request that was never answered may be at work for ``write_seconds``: reading once would be too early."""
    scene.project.faults = ["late"]
    scene.project.late_reads = 6
    importer = scene.importer()
    importer.run()
    assert scene.one_each()
    assert importer.sent.requests == CHUNKS
    assert len(scene.clock.slept) >= 5


def test_what_stays_away_is_sent_again_only_after_the_server_cannot_be_at_work(scene: Scene) -> None:
    scene.project.faults = ["lose before"]
    started = scene.clock.now
    importer = scene.importer()
    importer.run()
    assert importer.sent.requests == CHUNKS + 1
    assert scene.clock.now - started >= SENDING.write_seconds + SENDING.settle_seconds


def test_time_spent_on_refused_requests_does_not_shorten_the_wait(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait counts from the request that was not answered, not from the first one that was refused."""

    def refused_for_long(project: MemoryProject, rows: list[Prediction]) -> int:
        scene.clock.sleep(4)
        return original(project, rows)

    def at_once(call: object, *, seconds: float, sleep: object) -> object:
        for _ in range(2):
            try:
                return call()  # type: ignore[operator]
            except TransientError:
                continue
        raise AssertionError("refused three times")

    original = MemoryProject.create
    monkeypatch.setattr(MemoryProject, "create", refused_for_long)
    monkeypatch.setattr(sending, "retry_transient", at_once)
    scene.project.faults = ["refuse", "lose before"]
    started = scene.clock.now
    scene.importer(replace(OPTIONS, batch_rows=ALL)).run()
    # The refused request, the wait for the one without an answer (its own 4 s included), the stall, the last request.
    assert scene.clock.now - started >= 4 + SENDING.write_seconds + SENDING.settle_seconds + 2 + 4
    assert scene.one_each()


def test_an_answer_of_the_server_itself_is_not_waited_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 500 of Label Studio ends the request: what is not there now never comes."""
    original = MemoryProject.create

    def answered(project: MemoryProject, rows: list[Prediction]) -> int:
        try:
            return original(project, rows)
        except AmbiguousError as error:
            raise AmbiguousError(str(error), finished=True) from error

    monkeypatch.setattr(MemoryProject, "create", answered)
    scene.project.faults = ["lose before"]
    scene.importer().run()
    assert scene.one_each()
    assert sum(scene.clock.slept) < SENDING.settle_seconds


def test_a_request_that_is_too_large_is_halved_and_stays_halved(scene: Scene) -> None:
    scene.project.most_rows = 2
    importer = scene.importer()
    importer.run()
    assert scene.one_each()
    assert importer.sent.requests == 1 + 2 * CHUNKS


def test_a_single_prediction_that_is_too_large_is_quarantined(scene: Scene) -> None:
    scene.project.most_rows = 0
    scene.importer().run()
    assert scene.held() == {}
    assert {letter.stage for letter in scene.ledger.dead_letters()} == {"import"}
    assert scene.ledger.quarantined() == ALL
    assert scene.states() == ["imported"] * CHUNKS


@pytest.mark.parametrize("limit", [1, 350, 1_000_000])
def test_requests_keep_the_limit_of_bytes(scene: Scene, limit: int) -> None:
    importer = scene.importer(replace(OPTIONS, sending=replace(SENDING, max_body_bytes=limit)))
    importer.run()
    assert scene.one_each()
    # A prediction counts about 104 bytes here; one that is larger than the limit is sent alone.
    assert importer.sent.requests == {1: ALL, 350: 2 * CHUNKS, 1_000_000: CHUNKS}[limit]


@pytest.mark.parametrize("fault", ["denied", "refuse"])
def test_what_surely_took_nothing_leaves_the_chunks_predicted(scene: Scene, fault: Fault) -> None:
    scene.project.faults = ["", fault, fault]
    with pytest.raises((PermanentError, TransientError)):
        scene.importer(replace(OPTIONS, sending=replace(SENDING, retry_seconds=0))).run()
    assert scene.states() == ["imported", "predicted", "predicted"]
    assert scene.ledger.unsettled() == []
    scene.project.faults = []
    scene.importer().run()
    assert scene.one_each()


def test_a_batch_of_which_a_part_is_stored_is_read_back_later(scene: Scene) -> None:
    scene.project.most_rows = 2
    scene.project.faults = ["large", "", "denied"]
    with pytest.raises(PermanentError):
        scene.importer().run()
    assert scene.states() == ["sending", "predicted", "predicted"]
    scene.importer().run()
    assert scene.one_each()


def test_a_server_that_never_answers_ends_the_run_for_now(scene: Scene) -> None:
    scene.project.faults = ["lose before"] * MOST_STALLS
    with pytest.raises(AmbiguousError):
        scene.importer().run()
    assert scene.states() == ["sending", "predicted", "predicted"]
    scene.importer().run()
    assert scene.one_each()


def test_a_server_that_stores_a_little_each_time_is_not_given_up(scene: Scene) -> None:
    scene.project.faults = ["half"] * MOST_STALLS
    scene.importer(replace(OPTIONS, batch_rows=ALL)).run()
    assert scene.one_each()


def test_a_deleted_task_is_quarantined_alone(scene: Scene) -> None:
    for task in (1, 12, 24):
        scene.project.delete_task(task)
    scene.importer().run()
    assert scene.one_each()
    letters = [(int(letter.task_id), letter.stage, letter.cause) for letter in scene.ledger.dead_letters()]
    assert letters == [(task, "import", "the task was deleted after the export") for task in (1, 12, 24)]
    assert scene.audit().passed


def test_a_project_that_was_emptied_takes_nothing(scene: Scene) -> None:
    scene.project.tasks.clear()
    scene.importer().run()
    assert scene.ledger.quarantined() == ALL
    assert scene.audit().expected == 0


def test_a_prediction_that_is_refused_is_found_by_halving(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryProject.create

    def picky(project: MemoryProject, rows: list[Prediction]) -> int:
        if any(row.task_id in (3, 22) for row in rows):
            raise PermanentError("value too long", status=400)
        return original(project, rows)

    monkeypatch.setattr(MemoryProject, "create", picky)
    scene.importer(replace(OPTIONS, batch_rows=ALL)).run()
    assert scene.one_each(3, 22)
    assert [int(letter.task_id) for letter in scene.ledger.dead_letters()] == [3, 22]
    assert "value too long" in next(scene.ledger.dead_letters()).cause


def test_predictions_dropped_without_a_word_are_quarantined(scene: Scene) -> None:
    """A server that finds a label invalid says 201 and counts less than was sent."""
    scene.project.invalid = frozenset({2, 3, 14})
    scene.importer().run()
    assert scene.one_each(2, 3, 14)
    assert [int(letter.task_id) for letter in scene.ledger.dead_letters()] == [2, 3, 14]
    assert scene.audit().passed


def test_a_count_that_is_too_large_is_no_reason_to_send_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite servers repeat a request by themselves: the surplus is the audit's to remove."""
    original = MemoryProject.create

    def doubling(project: MemoryProject, rows: list[Prediction]) -> int:
        return original(project, rows) + original(project, rows)

    monkeypatch.setattr(MemoryProject, "create", doubling)
    importer = scene.importer()
    importer.run()
    assert importer.sent.requests == CHUNKS
    assert scene.audit().removed == ALL
    assert scene.one_each()


def test_chunks_without_predictions_send_nothing(tmp_path: Path) -> None:
    dead = tuple(int(task) for task in chunk_ids(1))
    with predicted_run(tmp_path, dead=dead) as scene:
        importer = scene.importer()
        importer.run()
        assert importer.sent.requests == CHUNKS - 1
        assert scene.states() == ["imported"] * CHUNKS
        assert scene.one_each(*dead)


def test_what_others_sent_since_is_left_out_when_asked(scene: Scene) -> None:
    scene.project.predictions = [prediction(1), prediction(2, version="v10"), *map(prediction, chunk_ids(2))]
    importer = scene.importer(check_first=True)
    importer.run()
    assert scene.one_each()
    assert importer.sent.imported == ALL - CHUNK_TASKS - 1


# ------------------------------------------------------------------------------------------------ after a crash


def test_a_resumed_run_waits_for_a_request_that_was_under_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    die_while_sending(scene, monkeypatch)
    assert scene.states() == ["sending", "predicted", "predicted"]
    scene.clock.now += 4
    resumed = scene.clock.now
    scene.importer().run()
    assert scene.one_each()
    assert scene.clock.now - resumed >= SENDING.write_seconds - 4 + SENDING.settle_seconds


def test_a_resumed_run_counts_the_wait_from_the_last_request_of_a_batch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of several requests may be under way for long: its last request is the one to wait for."""
    original = MemoryProject.create
    calls: list[int] = []

    def slow_then_dying(project: MemoryProject, rows: list[Prediction]) -> int:
        calls.append(len(rows))
        if len(calls) == 2:
            raise Crash
        created = original(project, rows)
        scene.clock.sleep(SENDING.write_seconds * 2)
        return created

    options = replace(OPTIONS, sending=replace(SENDING, max_body_bytes=350))
    with monkeypatch.context() as patch:
        patch.setattr(MemoryProject, "create", slow_then_dying)
        with pytest.raises(Crash):
            scene.importer(options).run()
    scene.project.late = [prediction(task) for task in chunk_ids(0)[calls[0] :]]
    scene.project.late_reads = 4
    scene.importer(options).run()
    assert scene.audit().removed == 0
    assert scene.one_each()


def test_a_clock_that_was_set_back_does_not_wait_longer_than_a_request_takes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_while_sending(scene, monkeypatch)
    scene.clock.now -= 100_000
    resumed = scene.clock.now
    scene.importer().run()
    assert scene.clock.now - resumed < 2 * (SENDING.write_seconds + SENDING.settle_seconds)
    assert scene.one_each()


def test_settle_sends_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    die_while_sending(scene, monkeypatch)
    importer = scene.importer()
    importer.settle()
    assert (importer.sent.requests, scene.held()) == (0, {})
    assert sum(scene.clock.slept) >= SENDING.write_seconds
