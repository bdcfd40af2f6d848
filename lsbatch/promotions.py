"""Which model version is in use: the one promoted last, or the one before it after a rollback."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Lineage", "Promotion", "in_use"]

Kind = Literal["promote", "rollback"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a model serves: one pipeline on one project of one server. A store may hold models of several."""

    pipeline: str
    server: str
    project: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """A note that a version is in use from now on.

    Attributes:
        version: the version; at a rollback, the one that was in use until then.
        lineage: for what.
        at: ISO 8601 time in UTC.
        kind: whether it comes into use or goes out of it.
        why: in words.
    """

    version: str
    lineage: Lineage
    at: str
    kind: Kind = "promote"
    why: str = ""


def in_use(promotions: Iterable[Promotion], lineage: Lineage, versions: Collection[str]) -> list[str]:
    """Versions that were promoted and not rolled back, each once; the last is in use, the one before would be next.

    Args:
        promotions: oldest first, of any lineage.
        lineage: of which.
        versions: those that exist.
    """
    stack: list[str] = []
    for entry in promotions:
        if entry.lineage != lineage:
            continue
        stack = [version for version in stack if version != entry.version]
        if entry.kind == "promote":
            stack.append(entry.version)
    return [version for version in stack if version in versions]
