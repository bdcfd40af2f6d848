"""A pipeline's own options: ``pipeline.params`` of the configuration, checked against a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from lsbatch.errors import ConfigError

__all__ = ["Range", "limited", "named", "read_params"]

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a field may hold, both ends included, and what each must be a multiple of (0 for anything)."""

    least: float
    most: float
    multiple_of: int = 0

    def __str__(self) -> str:
        multiple = f", a multiple of {self.multiple_of}" if self.multiple_of else ""
        return f"from {self.least:g} to {self.most:g}{multiple}"

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.multiple_of and value % self.multiple_of)


def limited(default: Any, least: float, most: float, *, multiple_of: int = 0) -> Any:
    """A field of an options dataclass with a default and a range."""
    return dataclasses.field(default=default, metadata={"range": Range(least, most, multiple_of)})


def named(default: str = "") -> Any:
    """A field of an options dataclass that holds a name."""
    return dataclasses.field(default=default, metadata={"range": None})


def read_params(options: type[Options], params: Mapping[str, Any]) -> Options:
    """The options that ``params`` give, defaults where they say nothing.

    Args:
        options: a frozen dataclass; fields of ``int`` and ``float`` were made by ``limited``, those of ``str`` by
            ``named``.
        params: as they stand in the configuration, unchecked.

    Raises:
        ConfigError: an unknown key, a wrong type or a number out of its range; names every such mistake.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    kinds = get_type_hints(options)
    mistakes, values = [], {}
    for key, value in params.items():
        if key not in fields:
            mistakes.append(f"pipeline.params.{key}: unknown; {_nearest(str(key), list(fields))}")
        elif why := _why_wrong(value, kinds[key], fields[key].metadata["range"]):
            mistakes.append(f"pipeline.params.{key}: {why}")
        else:
            values[key] = kinds[key](value)
    if mistakes:
        raise ConfigError("\n".join(mistakes), hint="Correct pipeline.params, or leave them out for the defaults.")
    return options(**values)


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _why_wrong(value: object, kind: type, allowed: Range | None) -> str:
    """Why the value is none of this kind and range, or an empty text."""
    if allowed is None:
        return "" if isinstance(value, str) and value else f"must be a name, got {value!r}"
    number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if number and isinstance(value, int | float) and math.isfinite(value) and value in allowed:
        return ""
    return f"must be a {'whole number' if kind is int else 'number'} {allowed}, got {value!r}"
