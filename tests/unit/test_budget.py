"""How many tasks may fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsbatch.budget import ErrorBudget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0", ErrorBudget(tasks=0)),
        ("20", ErrorBudget(tasks=20)),
        (" 20 ", ErrorBudget(tasks=20)),
        ("1%", ErrorBudget(share=0.01)),
        ("0.5 %", ErrorBudget(share=0.005)),
        ("0%", ErrorBudget(share=0.0)),
        ("100%", ErrorBudget(share=1.0)),
    ],
)
def test_a_number_or_a_share(text: str, budget: ErrorBudget) -> None:
    assert ErrorBudget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "%", "-1", "1.5", "101%", "1e3", "many", "1%%", "1 2", "0x10", "nan%"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a number of tasks such as 20, or a share of them such as 1%"):
        ErrorBudget.parse(text)


@pytest.mark.parametrize(
    ("text", "selected", "allowed"),
    [
        ("1%", 0, 0),
        # One task in a few may fail; of a hundred no more than one.
        ("1%", 1, 1),
        ("1%", 100, 1),
        ("1%", 101, 2),
        ("1%", 100_000, 1_000),
        # Not 8: the share of a decimal number is not exact in binary.
        ("7%", 100, 7),
        ("0%", 1_000, 0),
        ("100%", 7, 7),
        ("3", 1_000_000, 3),
        ("3", 0, 3),
    ],
)
def test_a_share_is_rounded_up(text: str, selected: int, allowed: int) -> None:
    assert ErrorBudget.parse(text).allowed(selected) == allowed


@given(tenths=st.integers(0, 1000), selected=st.integers(0, 1_000_000))
def test_a_share_allows_no_more_than_it_says_but_for_less_than_one_task(tenths: int, selected: int) -> None:
    allowed = ErrorBudget.parse(f"{tenths / 10}%").allowed(selected)
    assert 0 <= allowed * 1_000 - tenths * selected < 1_000
