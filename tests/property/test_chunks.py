"""Chunks and import batches partition the tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lsbatch.chunks import Chunk, ChunkSizer, ChunkState, plan_batches, rechunk


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
    predicted=st.lists(st.integers(min_value=0, max_value=50)),
    most_rows=st.integers(min_value=1, max_value=60),
)
def test_batches_partition_the_chunks(predicted: list[int], most_rows: int) -> None:
    chunks = [Chunk(number, ChunkState.PREDICTED, number, number, 50, rows) for number, rows in enumerate(predicted)]
    batches = list(plan_batches(chunks, most_rows))
    assert [chunk for batch in batches for chunk in batch] == chunks
    assert all(len(batch) == 1 or sum(chunk.predicted for chunk in batch) <= most_rows for batch in batches)


@given(st.lists(st.tuples(st.integers(min_value=0, max_value=5_000), st.floats(min_value=0, max_value=100))))
def test_the_size_of_a_chunk_stays_within_its_limits(learned: list[tuple[int, float]]) -> None:
    sizer = ChunkSizer()
    for tasks, seconds in learned:
        before = sizer.tasks
        sizer.learn(tasks, seconds)
        assert ChunkSizer.LEAST <= sizer.tasks <= min(ChunkSizer.MOST, max(4 * before, ChunkSizer.LEAST))
