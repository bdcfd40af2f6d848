"""How operations say how far they are, without knowing who listens."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Meter", "Progress", "Silent"]


class Meter(Protocol):
    """One stage under way."""

    def advance(self, tasks: int) -> None:
        """So many more tasks are done."""
        ...


class Progress(Protocol):
    """Shows stages."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Meter]:
        """A stage of ``total`` tasks, from entering to leaving the context."""
        ...

    def say(self, message: str) -> None:
        """One line for the person who watches."""
        ...

    def refresh(self) -> None:
        """Show that time passes, though nothing is done."""
        ...


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Meter]:
        """See ``Progress.stage``."""
        return self

    def say(self, message: str) -> None:
        """See ``Progress.say``."""

    def refresh(self) -> None:
        """See ``Progress.refresh``."""

    def advance(self, tasks: int) -> None:
        """See ``Meter.advance``."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *details: object) -> None:
        return None
