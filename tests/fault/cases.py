"""Many small runs, each with faults of its own: where the faults strike, and how a few runs go side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fault.proxy import Fault, Rule, Seen, running
from fault.scene import TASKS, Scene
from ls_support import Studio

__all__ = ["Case", "Position", "each", "kind", "name", "positions"]

#: Runs at a time: much of their time they wait, for a limit or for the server.
SIDE_BY_SIDE = 2

#: What is done to a project of its own.
Case = Callable[[Scene], None]


def kind(seen: Seen) -> tuple[str, str]:
    """What a request asks for, equal for the same request to another project."""
    parts = ("N" if part.isdigit() else part for part in seen.path.split("/"))
    return seen.method, "/".join(parts)


@dataclass(frozen=True)
class Position:
    """A request of a run: the how-manieth of its kind."""

    method: str
    path: str
    number: int

    def rule(self, fault: Fault, times: int = 1) -> Rule:
        """The fault at this request, and at so many of its kind in all."""
        path = re.escape(self.path).replace("N", r"\d+")
        return Rule(fault, self.method, f"^{path}$", self.number, times)


def positions(seen: Iterable[Seen]) -> list[Position]:
    """Every request of a run, in order."""
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for request in seen:
        counts[kind(request)] += 1
        found.append(Position(*kind(request), counts[kind(request)]))
    return found


def name(fault: Fault) -> str:
    """The fault as the name of a test."""
    return re.sub(r"[^A-Za-z0-9.=]+", " ", repr(fault)).strip()


def each(studio: Studio, folder: Path, cases: Iterable[tuple[str, Case]], *, tasks: int = TASKS) -> None:
    """Run every case in a project of its own behind a proxy of its own, a few side by side.

    Raises:
        AssertionError: some failed; tells which, why, and what the proxy saw.
    """

    def run(numbered: tuple[int, tuple[str, Case]]) -> str:
        number, (title, case) = numbered
        with (
            running(studio.server.url) as proxy,
            Scene.make(studio, proxy, folder / str(number), tasks=tasks) as scene,
        ):
            try:
                case(scene)
            except AssertionError as error:
                return "\n    ".join([f"{title}: {error}", *map(str, proxy.seen)])
        return ""

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        told = list(pool.map(run, enumerate(cases)))
    assert told
    assert not any(told), "\n".join(message for message in told if message)
