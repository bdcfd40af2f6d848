"""Draw from iterators in threads, a little ahead of who needs it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["prefetched", "side_by_side"]

T = TypeVar("T")


class _Drawer(Generic[T]):
    """A thread for each source, and one bounded queue for all of them."""

    def __init__(self, sources: Sequence[Iterator[T]], most: int) -> None:
        self._ready: queue.Queue[tuple[int, T | None, BaseException | None]] = queue.Queue(most)
        self._closed = threading.Event()
        self._left = len(sources)
        for number, source in enumerate(sources):
            # A daemon: an interrupted process does not wait for the answer to a request.
            threading.Thread(target=self._draw, args=(number, source), name=f"read-{number}", daemon=True).start()

    def _put(self, number: int, element: T | None, error: BaseException | None = None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put((number, element, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _draw(self, number: int, source: Iterator[T]) -> None:
        try:
            for element in source:
                if not self._put(number, element):
                    return
        except BaseException as error:  # raised again by who draws
            self._put(number, None, error)
        else:
            self._put(number, None)

    def elements(self) -> Iterator[tuple[int, T | None]]:
        while self._left:
            number, element, error = self._ready.get()
            if error is not None:
                raise error
            self._left -= element is None
            yield number, element

    def close(self) -> None:
        self._closed.set()


@contextmanager
def side_by_side(sources: Sequence[Iterator[T]], most: int) -> Iterator[Iterator[tuple[int, T | None]]]:
    """The elements of several iterators as they come, each with the number of its source; None tells a source's end.

    Elements of one source keep their order; None may not be one. Up to ``most`` are drawn ahead, in a thread for each
    source, from now on. What a source raises is raised where its element would have come. The threads end with the
    context, after the element that each is drawing at the time.
    """
    drawer = _Drawer(sources, most)
    try:
        yield drawer.elements()
    finally:
        drawer.close()


@contextmanager
def prefetched(source: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """The same elements in the same order, up to ``most`` of them drawn ahead, as ``side_by_side`` does for several."""
    with side_by_side([source], most) as pairs:
        yield (element for _, element in pairs if element is not None)
