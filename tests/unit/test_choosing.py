"""Filters, times and task ids as people write them: what is read, and what is said of mistakes."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lsbatch.config.choosing import parse_filters, parse_ids, parse_time, read_filters, read_task_ids

TIME = "2026-01-01T00:00:00.000Z"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def item(column: str = "id", operator: str = "equal", kind: str = "Number", value: Any = 1, **more: Any) -> Any:
    """One filter of the data manager."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value, **more}


def both(*items: Any, conjunction: str = "and") -> Any:
    """Filters of the data manager."""
    return {"conjunction": conjunction, "items": list(items)}


@pytest.mark.parametrize(
    "value",
    [
        both(item()),
        both(item("data.text", "contains", "String", "soup"), item(), conjunction="or"),
        both(item("created_at", "in", "Datetime", {"min": TIME, "max": TIME})),
        both(item(child_filter=item("data.text", "regex", "String", "a+"))),
        both(item("id", "in_list", "Number", [1, 2]), item("data.x", "empty", "Unknown", True)),
        both(item("predictions_model_versions", "not_contains", "List", ["v1"])),
    ],
)
def test_good_filters_stay_as_they_are(value: Any) -> None:
    assert json.loads(parse_filters(json.dumps(value))) == value
    assert parse_filters(value) == parse_filters(json.dumps(value, indent=4)), "the form does not matter"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "is not JSON: "),
        ([item()], 'must be {"conjunction": '),
        ({"conjunction": "xor", "items": [item()]}, "conjunction: must be and or or, got 'xor'"),
        (both(), "items: must be a list of at least one filter"),
        (both(5), "items[0]: must be a mapping"),
        ({**both(item()), "conjuncton": "and"}, "conjuncton: unknown key; did you mean conjunction?"),
        (both(item(), item(operator="equals")), "items[1].operator: unknown operator 'equals'; did you mean equal?"),
        (both(item(operator="like")), "items[0].operator: unknown operator 'like', not one of equal, "),
        (both({**item(), "filter": "data.text"}), "items[0].filter: must be a column such as filter:tasks:id"),
        (both(item(kind="")), "items[0].type: must be a type"),
        (both({**item(), "vlaue": 1}), "items[0].vlaue: unknown key; did you mean value?"),
        (both(item(value="many")), "items[0].value: must be a number for type Number, got 'many'"),
        (both(item(operator="in", value=5)), 'items[0].value: must be {"min": ..., "max": ...} for operator in'),
        (both(item(operator="in", value={"min": 1, "max": "x"})), "items[0].value: must be a number"),
        (both(item(operator="in_list", value=5)), "items[0].value: must be a list for operator in_list"),
        (both(item(value=None)), "items[0].value: must be text, a number"),
        (both(item("created_at", "less", "Datetime", "2026-01-31")), "items[0].value: must be a time in UTC such as"),
        (both(item(child_filter=item(operator="is"))), "items[0].child_filter.operator: unknown operator 'is'"),
        (both(item(child_filter=item(child_filter=item()))), "items[0].child_filter.child_filter: unknown key"),
    ],
)
def test_a_mistake_is_named_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_filters(value)
    assert words in str(caught.value)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        parse_filters({"conjunction": "nor", "items": [item(operator="is"), item(kind="", value=None)]})
    assert [part.split(":")[0] for part in str(caught.value).split("; ") if ": " in part] == [
        "conjunction",
        "items[0].operator",
        "items[1].type",
        "items[1].value",
    ]


def test_filters_of_a_file(here: Path) -> None:
    good, bad = here / "good.json", here / "bad.json"
    good.write_text(json.dumps(both(item()), indent=2), encoding="utf-8")
    bad.write_text(json.dumps(both()), encoding="utf-8")
    assert read_filters(str(good)) == parse_filters(both(item()))
    with pytest.raises(ValueError, match=r"bad\.json: items: must be a list"):
        read_filters(str(bad))
    with pytest.raises(ValueError, match="neither JSON nor a file that can be read: No such file"):
        read_filters(str(here / "missing.json"))


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        (datetime(2026, 1, 31).date(), datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T08:30", datetime(2026, 1, 31, 8, 30, tzinfo=UTC)),
        ("2026-01-31 08:30:15Z", datetime(2026, 1, 31, 8, 30, 15, tzinfo=UTC)),
        ("2026-01-31T08:30+02:00", datetime(2026, 1, 31, 6, 30, tzinfo=UTC)),
        (" 7d ", NOW - timedelta(days=7)),
        ("1.5h", NOW - timedelta(minutes=90)),
        ("90s", NOW - timedelta(seconds=90)),
    ],
)
def test_times(value: Any, moment: datetime) -> None:
    assert parse_time(value, NOW) == moment
    assert parse_time(value, NOW).utcoffset() == timedelta(0)


@pytest.mark.parametrize("value", ["yesterday", "7", "7w", "", "-7d", "2026-02-30", "9999999999d", "2026-01-31T25:00"])
def test_what_is_no_time(value: str) -> None:
    with pytest.raises(ValueError, match="must be a date, a time such as"):
        parse_time(value, NOW)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("3\n1\n\n 2 \n1\n", (1, 2, 3)),
        ("[3, 1, 2, 2]", (1, 2, 3)),
        ("7\r\n8", (7, 8)),
        ('["5", 6]', (5, 6)),
        ("", ()),
        ("[]", ()),
    ],
)
def test_task_ids(text: str, ids: tuple[int, ...]) -> None:
    assert parse_ids(text) == ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\ntwo\n3", "line 2: 'two' is not a task id"),
        ("1\n\n-3\n0", "line 3: '-3' is not a task id; line 4: '0' is not a task id"),
        ("1.5", "line 1: '1.5'"),
        ("[1, true, null]", "element 2: 'True' is not a task id; element 3: 'None' is not a task id"),
        ("[1, ", "is not a JSON list"),
        ("\n".join("abcdefgh"), "line 5: 'e' is not a task id; and 3 more"),
    ],
)
def test_bad_task_ids_are_named_with_their_place(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_ids(text)
    assert words in str(caught.value)


def test_task_ids_of_files_and_of_stdin(here: Path) -> None:
    lines, table = here / "ids.txt", here / "ids.parquet"
    lines.write_text("\ufeff5\n4\n", encoding="utf-8")
    pq.write_table(pa.table({"score": [0.5, 0.25], "task_id": [9, 8]}), table)
    assert read_task_ids(str(lines)) == (4, 5)
    assert read_task_ids(str(table)) == (8, 9)
    assert read_task_ids("-", io.StringIO("2\n1")) == (1, 2)


def test_files_that_hold_no_task_ids(here: Path) -> None:
    table, torn = here / "other.parquet", here / "torn.parquet"
    pq.write_table(pa.table({"id": ["a"]}), table)
    torn.write_bytes(table.read_bytes()[:60])
    for name, words in [
        (table, "has no column id or task_id of whole numbers"),
        (torn, "is not a whole Parquet file"),
        (here / "missing", "cannot be read: No such file"),
        (here, "cannot be read: Is a directory"),
    ]:
        with pytest.raises(ValueError, match=words):
            read_task_ids(str(name))
    pq.write_table(pa.table({"id": pa.array([1, None, -2], pa.int64())}), table)
    with pytest.raises(ValueError, match="row 2: 'None' is not a task id; row 3: '-2'"):
        read_task_ids(str(table))
