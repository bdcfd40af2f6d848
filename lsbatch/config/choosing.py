"""What people write to choose tasks: data-manager filters, task ids, times. Each mistake is named with its place."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

__all__ = ["is_json", "parse_filters", "parse_ids", "parse_time", "read_filters", "read_task_ids"]

#: What Label Studio 1.23 knows (``data_manager/managers.py``).
OPERATORS = (
    *("equal", "not_equal", "less", "greater", "less_or_equal", "greater_or_equal"),
    *("in", "not_in", "in_list", "not_in_list", "empty", "contains", "not_contains", "regex"),
)
#: Operators whose value the server turns into a number or a time.
COMPARISONS = frozenset(OPERATORS) - {"in_list", "not_in_list", "empty", "contains", "not_contains", "regex"}
COLUMN = "filter:tasks:"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
AGES = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
ID_COLUMNS = ("id", "task_id")
MOST_NAMED = 5


# ------------------------------------------------------------------------------------------------ filters


def parse_filters(value: object) -> str:
    """Data-manager filters as compact JSON text, from such text or from the mapping itself.

    Raises:
        ValueError: they are none; says everything that is wrong, each with its place.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError('must be {"conjunction": "and" or "or", "items": [...]}')
    mistakes = _strangers("", value, _FILTERS)
    if value.get("conjunction") not in ("and", "or"):
        mistakes.append(f"conjunction: must be and or or, got {value.get('conjunction')!r}")
    items = value.get("items")
    if not isinstance(items, list) or not items:
        mistakes.append("items: must be a list of at least one filter")
    else:
        mistakes += [words for place, item in enumerate(items) for words in _item(f"items[{place}]", item)]
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return json.dumps(value, separators=(",", ":"))


_FILTERS = ("conjunction", "items")
_ITEM = ("filter", "operator", "type", "value", "child_filter")


def _strangers(place: str, value: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    return [f"{place}{key}: unknown key{_nearest(str(key), known)}" for key in value if key not in known]


def _nearest(word: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else f", not one of {', '.join(known)}"


def _item(place: str, item: object, *, child: bool = False) -> Iterator[str]:
    """What is wrong with one filter."""
    if not isinstance(item, Mapping):
        yield f"{place}: must be a mapping with filter, operator, type and value"
        return
    yield from _strangers(f"{place}.", item, _ITEM[:-1] if child else _ITEM)
    column, operator, kind = item.get("filter"), item.get("operator"), item.get("type")
    if not isinstance(column, str) or not column.startswith(COLUMN) or column == COLUMN:
        yield f"{place}.filter: must be a column such as filter:tasks:id or filter:tasks:data.text, got {column!r}"
    if operator not in OPERATORS:
        yield f"{place}.operator: unknown operator {operator!r}{_nearest(str(operator), OPERATORS)}"
    if not isinstance(kind, str) or not kind:
        yield f"{place}.type: must be a type such as Number, String, Datetime, Boolean or List, got {kind!r}"
    if words := _wrong_value(operator, kind, item.get("value")):
        yield f"{place}.value: {words}"
    if not child and item.get("child_filter") is not None:
        yield from _item(f"{place}.child_filter", item["child_filter"], child=True)


def _wrong_value(operator: object, kind: object, value: object) -> str:
    """Why the server could not use the value, or nothing."""
    if operator in ("in", "not_in"):
        if not isinstance(value, Mapping) or set(value) != {"min", "max"}:
            return f'must be {{"min": ..., "max": ...}} for operator {operator}'
        return next((words for end in ("min", "max") if (words := _wrong_end(kind, value[end]))), "")
    if operator in ("in_list", "not_in_list"):
        return "" if isinstance(value, list) else f"must be a list for operator {operator}"
    if value is None or isinstance(value, Mapping):
        return "must be text, a number, true, false or a list"
    return _wrong_end(kind, value) if operator in COMPARISONS else ""


def _wrong_end(kind: object, value: Any) -> str:
    try:
        if kind == "Number":
            float(value)
        elif kind == "Datetime":
            datetime.strptime(value, TIME_FORMAT)
    except (TypeError, ValueError):
        wanted = "a number" if kind == "Number" else "a time in UTC such as 2026-01-31T00:00:00.000Z"
        return f"must be {wanted} for type {kind}, got {value!r}"
    return ""


def is_json(text: str) -> bool:
    """Whether filters stand in the text itself, not in a file that it names."""
    return text.lstrip().startswith(("{", "["))


def read_filters(text: str) -> str:
    """Filters as compact JSON, from JSON text or from the file that the text names.

    Raises:
        ValueError: the file cannot be read, or as ``parse_filters``.
    """
    if is_json(text):
        return parse_filters(text)
    try:
        content = Path(text).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{text} is neither JSON nor a file that can be read: {_words(error)}") from None
    try:
        return parse_filters(content)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def _words(error: Exception) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else "it is not UTF-8 text"


# ------------------------------------------------------------------------------------------------ times


def parse_time(value: object, now: datetime) -> datetime:
    """A time in UTC: of an ISO date or time (UTC where it names no zone), or so long before ``now`` as ``7d`` says.

    Raises:
        ValueError: it is neither.
    """
    text = value.isoformat() if isinstance(value, date) else str(value).strip()
    try:
        if age := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text, re.ASCII):
            return now.astimezone(UTC) - timedelta(**{AGES[age[2]]: float(age[1])})
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a date, a time such as 2026-01-31T08:00, or an age such as 7d or 12h") from None


# ------------------------------------------------------------------------------------------------ task ids


def parse_ids(text: str) -> tuple[int, ...]:
    """Task ids, ascending, each once, from a JSON list or from one id a line; empty lines are passed over.

    Raises:
        ValueError: something else stands there; names the first few places.
    """
    if text.lstrip().startswith("["):
        try:
            entries: list[Any] = json.loads(text)
        except ValueError as error:
            raise ValueError(f"is not a JSON list: {error}") from None
        return _ids((f"element {place}", entry) for place, entry in enumerate(entries, 1))
    return _ids((f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _ids(entries: Iterable[tuple[str, Any]]) -> tuple[int, ...]:
    found: set[int] = set()
    bad: list[str] = []
    for place, entry in entries:
        if (isinstance(entry, int) and not isinstance(entry, bool) and entry > 0) or (
            isinstance(entry, str) and re.fullmatch(r"0*[1-9]\d{0,18}", entry, re.ASCII)
        ):
            found.add(int(entry))
        else:
            bad.append(f"{place}: {str(entry)[:40]!r} is not a task id")
    if bad:
        more = f"; and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
        raise ValueError("; ".join(bad[:MOST_NAMED]) + more)
    return tuple(sorted(found))


def read_task_ids(name: str, stdin: TextIO | None = None) -> tuple[int, ...]:
    """Task ids of a file (lines, a JSON list, or Parquet with a column ``id`` or ``task_id``), or of stdin for ``-``.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    if name == "-":
        return parse_ids((stdin or sys.stdin).read())
    try:
        with Path(name).open("rb") as file:
            if file.peek(4).startswith(b"PAR1"):
                return _parquet_ids(Path(name))
            return parse_ids(file.read().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} cannot be read: {_words(error)}") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _parquet_ids(path: Path) -> tuple[int, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        column = next((name for name in ID_COLUMNS if name in schema.names), None)
        if column is None or not pa.types.is_integer(schema.field(column).type):
            raise ValueError(f"has no column {' or '.join(ID_COLUMNS)} of whole numbers")
        values = pq.read_table(path, columns=[column]).column(column).to_pylist()
    except pa.ArrowInvalid as error:
        raise ValueError(f"is not a whole Parquet file: {error}") from None
    return _ids((f"row {number}", value) for number, value in enumerate(values, 1))
