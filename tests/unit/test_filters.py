"""The data manager's filters: exact sets of ids, and addresses that a server takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsbatch_connectors.label_studio import filters


def matched(items: list[filters.Filter], ids: set[int]) -> set[int]:
    """Which ids the server's filters leave."""
    for entry in items:
        value: Any = entry["value"]
        keep = {
            "in": lambda task, value=value: value["min"] <= task <= value["max"],
            "in_list": lambda task, value=value: task in value,
            "not_in_list": lambda task, value=value: task not in value,
        }[entry["operator"]]
        ids = {task for task in ids if keep(task)}
    return ids


@given(st.sets(st.integers(1, 3_000), min_size=1), st.sets(st.integers(1, 3_000)))
def test_groups_match_the_ids_and_nothing_else(wanted: set[int], others: set[int]) -> None:
    ids = sorted(wanted)
    groups = list(filters.exactly(ids))
    assert [task for _, part in groups for task in part] == ids
    for items, part in groups:
        assert matched(items, wanted | others) == set(part)


@pytest.mark.parametrize("step", [1, 2, 3, 50, 10_000_000])
def test_an_address_stays_within_what_gunicorn_takes(step: int) -> None:
    ids = range(10**12, 10**12 + step * 5_000, step)
    others = [*filters.untouched(), filters.not_carrying("a-version-of-some-length-20260131")]
    for items, _ in filters.exactly(ids, others):
        assert len(quote_plus(filters.query([*items, *others]))) <= filters.ADDRESS_LENGTH


def test_consecutive_ids_are_one_group_and_few_holes_do_not_part_them() -> None:
    assert len(list(filters.exactly(range(5, 20_005)))) == 1
    assert len(list(filters.exactly([task for task in range(20_000) if task % 100]))) == 1


def test_a_group_is_never_larger_than_the_server_should_look_at() -> None:
    sizes = [len(part) for _, part in filters.exactly(range(120_000))]
    assert sizes == [filters.GROUP_IDS, filters.GROUP_IDS, 20_000]


def test_filters_of_somebody_else_are_added_to_ours_whatever_their_conjunction() -> None:
    a, b, c = filters.shown_with(1), filters.shown_with(2), filters.shown_with(3)
    either, both = {"conjunction": "or", "items": [a, b]}, {"conjunction": "and", "items": [b, c]}
    assert filters.alternatives([]) == [[]]
    assert filters.alternatives([both]) == [[b, c]]
    assert filters.alternatives([either]) == [[a], [b]]
    assert filters.alternatives([either, both]) == [[a, b, c], [b, b, c]]
    assert filters.alternatives([either, either]) == [[a, a], [a, b], [b, a], [b, b]]
    assert filters.alternatives([{"conjunction": "or", "items": []}, both]) == [[b, c]]


def test_versions_part_the_tasks_into_every_mixture() -> None:
    parts = filters.by_versions(["v1", "w"])
    assert sorted(sorted(carried) for _, carried in parts) == [[], ["v1"], ["v1", "w"], ["w"]]
    for items, carried in parts:
        assert {item["value"][0] for item in items if item["operator"] == "contains"} == carried
        assert {item["value"][0] for item in items if item["operator"] == "not_contains"} == {"v1", "w"} - carried
    assert filters.by_versions([]) == [([], frozenset())]


def test_times_of_creation_are_written_as_the_data_manager_writes_them() -> None:
    since, until = filters.created(datetime(2026, 1, 31, 8, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    assert (since["operator"], since["value"]) == ("greater_or_equal", "2026-01-31T08:00:00.000000Z")
    assert (until["operator"], until["value"]) == ("less", "2026-02-01T00:00:00.000000Z")
    assert filters.created(None, None) == []
