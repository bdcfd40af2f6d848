"""Drawing ahead changes neither elements, nor order, nor errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lsbatch.prefetch import prefetched


def test_elements_come_in_order() -> None:
    with prefetched(iter(range(50)), 3) as elements:
        assert list(elements) == list(range(50))


def test_it_draws_ahead_but_not_further_than_it_may() -> None:
    drawn: list[int] = []
    third = threading.Event()

    def source() -> Iterator[int]:
        for number in range(10):
            drawn.append(number)
            if number == 2:
                third.set()
            yield number

    with prefetched(source(), 2) as elements:
        assert third.wait(10)
        assert len(drawn) == 3
        assert next(elements) == 0


def test_an_error_comes_where_its_element_would_have() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("told to")

    with prefetched(source(), 2) as elements:
        assert next(elements) == 1
        with pytest.raises(ValueError, match="told to"):
            next(elements)
