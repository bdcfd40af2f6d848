"""Chunks partition the tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lsbatch.chunks import ChunkSizer, rechunk, rechunk_parts


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=30)),
    wanted=st.integers(min_value=1, max_value=20),
    most_weight=st.integers(min_value=1, max_value=200),
)
def test_chunks_partition_the_tasks(sizes: list[int], wanted: int, most_weight: int) -> None:
    numbers = iter(range(sum(sizes)))
    pages = [[next(numbers) for _ in range(size)] for size in sizes]
    chunks = list(rechunk(pages, ChunkSizer(wanted), weigh=lambda number: number % 50, most_weight=most_weight))
    assert [number for chunk in chunks for number in chunk] == list(range(sum(sizes)))
    assert all(1 <= len(chunk) <= wanted for chunk in chunks)
    assert all(len(chunk) == 1 or sum(number % 50 for number in chunk) <= most_weight for chunk in chunks)


@given(
    pages=st.lists(st.tuples(st.integers(min_value=0, max_value=3), st.integers(min_value=0, max_value=9))),
    ended=st.sets(st.integers(min_value=0, max_value=3)),
    wanted=st.integers(min_value=1, max_value=7),
)
def test_chunks_of_several_parts_mix_nothing(pages: list[tuple[int, int]], ended: set[int], wanted: int) -> None:
    numbers = iter(range(1_000))
    drawn: list[tuple[int, list[tuple[int, int]] | None]] = [
        (part, [(part, next(numbers)) for _ in range(size)]) for part, size in pages
    ]
    everything = [element for _, page in drawn for element in page or ()]
    drawn += [(part, None) for part in ended]
    chunks = list(rechunk_parts(drawn, ChunkSizer(wanted)))
    assert sorted(element for chunk in chunks for element in chunk) == sorted(everything)
    assert all(1 <= len(chunk) <= wanted and len({part for part, _ in chunk}) == 1 for chunk in chunks)
    for part in range(4):
        of_part = [element for chunk in chunks for element in chunk if element[0] == part]
        assert of_part == sorted(of_part)


@given(st.lists(st.tuples(st.integers(min_value=0, max_value=5_000), st.floats(min_value=0, max_value=100))))
def test_the_size_of_a_chunk_stays_within_its_limits(learned: list[tuple[int, float]]) -> None:
    sizer = ChunkSizer()
    for tasks, seconds in learned:
        before = sizer.tasks
        sizer.learn(tasks, seconds)
        assert ChunkSizer.LEAST <= sizer.tasks <= min(ChunkSizer.MOST, max(4 * before, ChunkSizer.LEAST))
