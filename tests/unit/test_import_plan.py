"""Requests are planned by what they cost, and the cost is learned from answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsbatch.import_plan import ROW_SECONDS, TASK_SECONDS, TOUCHED_SECONDS, CostModel, Limits, Plan, Standing, plan

#: As the importer plans with its defaults: 85% of 45 s.
LIMITS = Limits(seconds=38.25, rows=50_000)

models = st.builds(
    CostModel,
    fixed=st.floats(min_value=0, max_value=100),
    per_row=st.floats(min_value=0.01, max_value=100),
    single=st.floats(min_value=1e-3, max_value=1),
)
standings = st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)).map(lambda pair: Standing(max(pair), min(pair)))
limits = st.builds(Limits, seconds=st.floats(min_value=0.1, max_value=600), rows=st.integers(1, 100_000))


# ------------------------------------------------------------------------------------------------ the plan


@given(rows=st.integers(0, 200_000), model=models, standing=standings, limits=limits)
def test_all_rows_are_in_the_plan_and_no_bulk_is_above_its_limits(
    rows: int, model: CostModel, standing: Standing, limits: Limits
) -> None:
    made = plan(rows, model, standing, limits)
    assert sum(made.bulks) + made.singles == rows
    spent = 0.0
    for size in made.bulks:
        assert 0 < size <= limits.rows
        assert model.seconds(size, standing) <= limits.seconds + 1e-6
        spent += model.seconds(size, standing)
        standing = standing.more(size)
    assert made.seconds == pytest.approx(spent + made.singles * model.single)
    assert 1 <= made.wait_for <= max([1, *made.bulks[:1]])


def every_way(rows: int, most: int) -> Iterator[tuple[int, ...]]:
    """Sizes of bulk requests, in any number and order, that bring some or all of the rows."""
    for count in range(rows + 1):
        for sizes in itertools.product(range(1, min(rows, most) + 1), repeat=count):
            if sum(sizes) <= rows:
                yield sizes


def cost(sizes: tuple[int, ...], rows: int, model: CostModel, standing: Standing, limits: Limits) -> float | None:
    """Seconds of these bulk requests and of single creates for the rest; None if one is above its limits."""
    seconds = (rows - sum(sizes)) * model.single
    for size in sizes:
        one = model.seconds(size, standing)
        if one > limits.seconds:
            return None
        seconds += one
        standing = standing.more(size)
    return seconds


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 6),
    model=models,
    standing=st.integers(0, 2_000).map(lambda tasks: Standing(tasks, tasks)),
    seconds=st.floats(min_value=1e-3, max_value=5),
    most=st.integers(1, 6),
)
def test_no_other_way_is_cheaper_where_all_tasks_hold_something(
    rows: int, model: CostModel, standing: Standing, seconds: float, most: int
) -> None:
    limits = Limits(seconds, most)
    made = plan(rows, model, standing, limits)
    costs = [cost(sizes, rows, model, standing, limits) for sizes in every_way(rows, most)]
    assert made.seconds <= min(found for found in costs if found is not None) + 1e-6


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 6), model=models, standing=standings, most=st.integers(1, 6))
def test_no_other_way_is_cheaper_by_more_than_what_the_rows_themselves_add(
    rows: int, model: CostModel, standing: Standing, most: int
) -> None:
    """Bulk requests are as large as may be: a smaller first one would only spare the recount of a few rows."""
    limits = Limits(600, most)
    made = plan(rows, model, standing, limits)
    grown = model.fixed * TOUCHED_SECONDS * rows * rows
    costs = [cost(sizes, rows, model, standing, limits) for sizes in every_way(rows, most)]
    assert made.seconds <= min(found for found in costs if found is not None) + grown + 1e-6


def test_fifty_new_tasks_of_a_predicted_project_are_created_one_by_one() -> None:
    made = plan(50, CostModel(), Standing(20_050, 20_000), LIMITS)
    assert (made.bulks, made.singles, made.wait_for) == ((), 50, 1)
    assert made.seconds < 5
    assert "50 single creates" in made.reason
    assert "one bulk request of 50 would take about 22" in made.reason


def test_an_empty_project_gets_all_in_one_request() -> None:
    made = plan(20_000, CostModel(), Standing(20_000, 0), LIMITS)
    assert (made.bulks, made.singles) == ((20_000,), 0)
    assert made.seconds < LIMITS.seconds
    assert made.reason.startswith("1 bulk request of up to 20,000, about ")


def test_a_project_too_large_for_any_bulk_request_gets_single_creates() -> None:
    made = plan(500, CostModel(), Standing(100_000, 100_000), LIMITS)
    assert (made.bulks, made.singles) == ((), 500)


def test_a_large_project_is_cut_at_the_time_limit() -> None:
    standing = Standing(100_000, 0)
    made = plan(100_000, CostModel(), standing, LIMITS)
    assert len(made.bulks) > 1
    assert made.bulks[0] == CostModel().largest(LIMITS.seconds, standing) < LIMITS.rows
    # Each request makes the next one dearer, and the project's own part is all that they could share.
    assert list(made.bulks[:-1]) == sorted(made.bulks[:-1], reverse=True)


def test_nothing_to_send() -> None:
    assert plan(0, CostModel(), Standing(20_000, 20_000), LIMITS) == Plan((), 0, 0.0, 1, "nothing to send")


def test_a_request_waits_for_as_much_as_the_project_makes_it_worth() -> None:
    rows, large = 50_000, Standing(20_000, 20_000)
    linear = CostModel.of_server(recounts=False)
    assert plan(rows, linear, large, LIMITS).wait_for == plan(rows, linear, Standing(100, 0), LIMITS).wait_for < 2_000
    recounting = plan(rows, CostModel.of_server(recounts=True), large, LIMITS)
    assert recounting.wait_for == recounting.bulks[0] > 10_000


def test_standing_grows_no_further_than_the_project() -> None:
    assert Standing(10, 4).more(3) == Standing(10, 7)
    assert Standing(10, 4).more(100) == Standing(10, 10)
    assert Standing(0, 0).more(5) == Standing(0, 0)


# ------------------------------------------------------------------------------------------------ learning


def linear_server(rows: int, _standing: Standing) -> float:
    """Imports cost what they bring, whatever the project's size."""
    return 1.1e-3 * rows


def default_server(rows: int, standing: Standing) -> float:
    """Label Studio in its default setting."""
    return 0.13e-3 * standing.tasks + 0.1e-3 * rows + 0.9e-3 * standing.touched


def slow_server(rows: int, standing: Standing) -> float:
    """Four times as slow a machine."""
    return 4 * default_server(rows, standing)


Server = Callable[[int, Standing], float]


def taught(server: Server, standing: Standing, sizes: list[int]) -> tuple[CostModel, Standing]:
    """What is known after bulk requests of these sizes."""
    model = CostModel()
    for size in sizes:
        model = model.learn(size, standing, server(size, standing))
        standing = standing.more(size)
    return model, standing


@pytest.mark.parametrize("sizes", [[1_000, 1_000, 1_000], [500, 5_000, 50], [20_000, 10_000, 5_000]], ids=str)
@pytest.mark.parametrize("standing", [Standing(60_000, 20_000), Standing(60_000, 60_000), Standing(200_000, 5_000)])
@pytest.mark.parametrize("server", [linear_server, default_server, slow_server], ids=["linear", "default", "slow"])
def test_three_answers_tell_what_the_next_request_costs(server: Server, standing: Standing, sizes: list[int]) -> None:
    model, standing = taught(server, standing, sizes)
    assert model.answers == len(sizes)
    for rows in (sizes[-1], 2 * sizes[-1]):
        assert model.seconds(rows, standing) == pytest.approx(server(rows, standing), rel=0.25)


def test_a_linear_server_is_found_to_be_one() -> None:
    """So the next request no longer waits until everything is predicted."""
    standing = Standing(60_000, 20_000)
    model, standing = taught(linear_server, standing, [1_000, 1_000, 1_000])
    assert model.fixed < 0.01
    assert plan(30_000, model, standing, LIMITS).wait_for < 2_500


def test_a_server_in_its_default_setting_is_not_taken_for_a_linear_one() -> None:
    model, standing = taught(default_server, Standing(60_000, 0), [20_000, 20_000, 10_000])
    assert 0.7 < model.fixed < 1.1
    assert plan(50, model, standing, LIMITS).bulks == ()


def test_one_answer_of_a_much_slower_server_is_enough_not_to_overrun_the_limit_by_much() -> None:
    standing = Standing(60_000, 30_000)
    model = CostModel().learn(5_000, standing, slow_server(5_000, standing))
    standing = standing.more(5_000)
    assert model.seconds(5_000, standing) > 0.8 * slow_server(5_000, standing)


def test_the_time_of_an_answer_itself_is_not_taken_for_that_of_its_rows() -> None:
    """A third of a second for ten rows is the way there and back."""
    standing = Standing(100, 0)
    model = CostModel().learn(10, standing, 0.33)
    assert model.seconds(10_000, standing) < 1.5 * CostModel().seconds(10_000, standing)


def test_small_requests_tell_nothing_of_what_a_row_costs() -> None:
    """What these requests hardly had keeps its measured figure, instead of taking whatever fits."""
    model, _ = taught(default_server, Standing(60_000, 60_000), [10, 10, 10])
    assert model.per_row == pytest.approx(1.0, abs=0.05)
    true = default_server(10, Standing(60_000, 60_000)) / Standing(60_000, 60_000).seconds
    assert model.fixed == pytest.approx(true, rel=0.01)


@given(
    answers=st.lists(
        st.tuples(st.integers(0, 100_000), standings, st.floats(min_value=0, max_value=3_600)), min_size=1, max_size=6
    )
)
def test_no_answer_spoils_the_model(answers: list[tuple[int, Standing, float]]) -> None:
    model = CostModel()
    for rows, standing, seconds in answers:
        model = model.learn(rows, standing, seconds).learn_single(rows, seconds)
    assert 0 <= model.fixed <= 100
    assert 0.01 <= model.per_row <= 100
    assert model.single >= 0
    made = plan(1_000, model, answers[-1][1], LIMITS)
    assert sum(made.bulks) + made.singles == 1_000


def test_single_creates_are_learned_too() -> None:
    model = CostModel()
    for _ in range(3):
        model = model.learn_single(100, 40.0)
    assert model.single == pytest.approx(0.4, rel=0.15)
    assert CostModel().learn_single(0, 1.0).single > 0


@given(model=models, standing=standings, rows=st.integers(0, 10_000), seconds=st.floats(min_value=0, max_value=100))
def test_what_was_learned_survives_as_json(model: CostModel, standing: Standing, rows: int, seconds: float) -> None:
    learned = model.learn(rows, standing, seconds)
    assert CostModel.from_json(json.loads(json.dumps(learned.to_json()))) == learned


@pytest.mark.parametrize("change", [{"fixed": "much"}, {"moments": [1, 2]}, {"moments": None}], ids=str)
def test_what_is_no_model_is_an_error(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        CostModel.from_json({**CostModel().to_json(), **change})
    with pytest.raises(KeyError):
        CostModel.from_json({})


def test_the_measured_figures_are_where_learning_begins() -> None:
    rows, standing = 1_000, Standing(2_000, 500)
    expected = 2_000 * TASK_SECONDS + 500 * TOUCHED_SECONDS + rows * ROW_SECONDS
    assert CostModel().seconds(rows, standing) == pytest.approx(expected)
    assert replace(CostModel(), fixed=2.0, per_row=3.0).seconds(0, standing) == pytest.approx(2 * standing.seconds)
