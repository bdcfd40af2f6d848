"""How a broken rule is told."""

from __future__ import annotations

__all__ = ["must"]


def must(holds: bool, rule: str) -> None:
    """Raise ``AssertionError`` with the rule that does not hold."""
    if not holds:
        raise AssertionError(rule)
