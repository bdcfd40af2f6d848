"""Which stored predictions a deletion means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsbatch.entities import StoredPrediction, TaskId
from lsbatch.errors import ConfigError
from lsbatch.ports import VersionCount
from lsbatch.version_choice import Doomed, Which, known_version, name_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def counts(*versions: str) -> list[VersionCount]:
    """These versions, the newest first."""
    return [VersionCount(version, 1, NOW - timedelta(days=age)) for age, version in enumerate(versions)]


def prediction(number: int, version: str, *, days: int = 0, referenced: bool = False) -> StoredPrediction:
    """A prediction of task 1, so many days old."""
    return StoredPrediction(number, TaskId(1), [], 0.5, version, NOW - timedelta(days=days), referenced)


@pytest.mark.parametrize(
    ("which", "meant"),
    [
        (Which(model_versions=("v1",)), {"v1"}),
        (Which(model_versions=("v1", "old")), {"v1", "old"}),
        (Which(model_versions=("v1*",)), {"v1", "v10", "v1*"} - {"v1", "v10"}),
        (Which(model_versions=("v?",)), {"v1"}),
        (Which(model_versions=("[uv]1*",)), {"v1", "v10", "v1*"}),
        (Which(all_versions=True), {"v10", "v1", "old", "", "undefined", "v1*"}),
        (Which(all_but=("v10",)), {"v1", "old", "", "undefined", "v1*"}),
        (Which(all_but=("v1[0]", "old")), {"v1", "", "undefined", "v1*"}),
        (Which(all_but=("*",)), set()),
        (Which(keep_latest=1), {"v1", "old", "v1*"}),
        (Which(keep_latest=3), {"v1*"}),
        (Which(keep_latest=9), set()),
        (Which(versionless=True), {"", "undefined"}),
        (Which(duplicates=True), {"v10", "v1", "old", "", "undefined", "v1*"}),
    ],
    ids=lambda value: str(value) if isinstance(value, Which) else "",
)
def test_what_is_asked_for_means_exact_versions(which: Which, meant: set[str]) -> None:
    # A version that looks like a pattern is meant itself.
    assert which.resolve(counts("v10", "undefined", "v1", "old", "", "v1*")).versions == meant


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (Which(model_versions=("v2",)), "no prediction carries version 'v2': there are v1"),
        (Which(model_versions=("V1",)), "no prediction carries version 'V1'"),
        (Which(model_versions=("x*",)), "no version of the project matches 'x*'"),
        (Which(model_versions=("v*",)), "'v*' matches every version"),
        (Which(all_but=("v11",)), "no prediction carries version 'v11'"),
    ],
    ids=lambda value: str(value) if isinstance(value, Which) else "",
)
def test_a_slip_deletes_nothing(which: Which, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        which.resolve(counts("v1", "v10"))
    assert words in str(caught.value)


def test_an_unknown_version_of_an_empty_project() -> None:
    with pytest.raises(ConfigError, match="the project holds none at all"):
        known_version("v1", [])


def test_only_these_versions_of_a_task_go() -> None:
    rows = [prediction(1, "v1"), prediction(2, "v10"), prediction(3, "v1"), prediction(4, "")]
    gone, kept, spared = Doomed(frozenset({"v1"})).parted(rows)
    assert ([row.id for row in gone], [row.id for row in kept], spared) == ([1, 3], [2, 4], 0)


def test_what_annotations_came_from_stays() -> None:
    rows = [prediction(1, "v1", referenced=True), prediction(2, "v1"), prediction(3, "v2", referenced=True)]
    gone, kept, spared = Doomed(frozenset({"v1"})).parted(rows)
    assert ([row.id for row in gone], [row.id for row in kept], spared) == ([2], [1, 3], 1)
    gone, kept, spared = Doomed(frozenset({"v1"}), referenced=True).parted(rows)
    assert ([row.id for row in gone], [row.id for row in kept], spared) == ([1, 2], [3], 0)


def test_only_what_is_older_goes() -> None:
    rows = [prediction(1, "v1", days=31), prediction(2, "v1", days=30), prediction(3, "v1", days=29)]
    gone, _, _ = Doomed(frozenset({"v1"}), older_than=NOW - timedelta(days=30)).parted(rows)
    assert [row.id for row in gone] == [1]


def test_of_duplicates_the_oldest_stays() -> None:
    versions = ["v1", "v2", "v1", "v1", "", "", "undefined", "undefined", "v10"]
    rows = [prediction(number, version) for number, version in enumerate(versions)]
    gone, _, _ = Doomed(frozenset(versions), duplicates=True).parted(rows)
    assert [row.id for row in gone] == [2, 3]


def test_of_duplicates_the_one_that_an_annotation_came_from_stays() -> None:
    rows = [prediction(1, "v1"), prediction(2, "v1", referenced=True), prediction(3, "v1", referenced=True)]
    gone, kept, spared = Doomed(frozenset({"v1"}), duplicates=True).parted(rows)
    assert ([row.id for row in gone], [row.id for row in kept], spared) == ([1], [2, 3], 1)
    gone, kept, _ = Doomed(frozenset({"v1"}), duplicates=True, referenced=True).parted(rows)
    assert ([row.id for row in gone], [row.id for row in kept]) == ([1, 3], [2])


def test_a_version_is_shown_in_one_line() -> None:
    assert name_of("") == "(none)"
    assert name_of("v1\n\tö") == "v1\\x0a\\x09ö"


def test_a_duplicate_whose_oldest_is_another_version_stays() -> None:
    rows = [prediction(1, "v1"), prediction(2, "v2")]
    assert Doomed(frozenset({"v1", "v2"}), duplicates=True).parted(rows)[0] == []


ROWS = st.lists(st.tuples(st.sampled_from(["v1", "v10", "", "undefined"]), st.integers(0, 5), st.booleans()))


@given(ROWS, st.frozensets(st.sampled_from(["v1", "v10", "", "undefined"])), st.booleans(), st.booleans())
def test_nothing_is_lost_and_nothing_counted_twice(
    drawn: list[tuple[str, int, bool]], versions: frozenset[str], duplicates: bool, referenced: bool
) -> None:
    rows = [prediction(number, version, days=days, referenced=ref) for number, (version, days, ref) in enumerate(drawn)]
    doomed = Doomed(versions, duplicates=duplicates, referenced=referenced)
    gone, kept, spared = doomed.parted(rows)
    assert sorted(row.id for row in [*gone, *kept]) == [row.id for row in rows]
    assert all(row.model_version in versions for row in gone)
    assert referenced or not any(row.referenced for row in gone)
    assert spared <= sum(row.referenced for row in kept)
    if duplicates:
        assert {row.model_version for row in kept} == {row.model_version for row in rows}
