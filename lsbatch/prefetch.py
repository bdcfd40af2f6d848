"""Draw from an iterator in a thread, a little ahead of who needs it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["prefetched"]

T = TypeVar("T")


@contextmanager
def prefetched(source: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """The same elements in the same order, up to ``most`` of them drawn ahead in a thread from now on.

    What the source raises is raised where its element would have come. The thread ends with the context, after the
    element that it is drawing at the time.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(most)
    closed = threading.Event()

    def put(more: bool, element: T | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                ready.put((more, element), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        try:
            for element in source:
                if not put(True, element):
                    return
        except BaseException as error:  # raised again by who draws
            put(False, error)
        else:
            put(False, None)

    def elements() -> Iterator[T]:
        while True:
            more, element = ready.get()
            if more:
                yield element  # type: ignore[misc]
            elif isinstance(element, BaseException):
                raise element
            else:
                return

    # A daemon: an interrupted process does not wait for the answer to a request.
    thread = threading.Thread(target=draw, name="prefetch", daemon=True)
    thread.start()
    try:
        yield elements()
    finally:
        closed.set()
