"""A benchmark's section of ``RESULTS.md``: command, machine, table, and what missed its target."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

__all__ = ["Section", "Target", "cell", "render", "replace"]

Row = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A figure that was promised.

    Attributes:
        name: what it is, with its unit.
        measured: the figure.
        most: it must not be larger than this.
        least: it must not be smaller than this.
    """

    name: str
    measured: float
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool:
        """Whether the promise holds."""
        small_enough = self.most is None or self.measured <= self.most
        return small_enough and (self.least is None or self.measured >= self.least)

    def __str__(self) -> str:
        if self.most == self.least:
            limit = f"exactly {self.most:g}"
        else:
            limit = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{self.name}: {cell(self.measured)} ({limit})"


@dataclass
class Section:
    """What a benchmark found.

    Attributes:
        title: the same in every run, so that a later one replaces this one.
        columns: names of the table's columns; the first holds words, the others numbers.
        rows: as many cells each.
        targets: figures that were promised.
        notes: what must be known to read the table, a line each.
    """

    title: str
    columns: Row
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def cell(value: float) -> str:
    """A count as it is, or a measured number with the digits that can be trusted."""
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def render(section: Section, command: str, why: str) -> list[str]:
    """The section's lines.

    Args:
        section: what was found.
        command: how it can be found again.
        why: what made it miss its targets, in words; empty where nobody has looked.
    """
    missed = [target for target in section.targets if not target.met]
    kept = [target for target in section.targets if target.met]
    lines = [f"## {section.title}", "", f"`{command}`", "", _machine(), ""]
    lines += [*section.notes, *[""] * bool(section.notes)]
    lines += [_line(section.columns), "|---|" + "---:|" * (len(section.columns) - 1), *map(_line, section.rows), ""]
    if kept:
        lines.append(f"- Met: {'; '.join(map(str, kept))}.")
    if missed:
        lines.append(f"- Missed: {'; '.join(map(str, missed))}. {why}".rstrip())
    return lines


def replace(path: Path, section: Sequence[str], order: Sequence[str]) -> None:
    """Put a section in its place in the file, instead of an earlier one of the same title.

    Args:
        path: the file; made when missing.
        section: its lines, the heading first.
        order: the titles of all sections; the file is in this order, and others follow.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    head, *parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    found = {part.partition("\n")[0]: part.strip() for part in parts}
    found[section[0]] = "\n".join(section).strip()
    places = {f"## {title}": place for place, title in enumerate(order)}
    titles = sorted(found, key=lambda title: places.get(title, len(places)))
    path.write_text("\n\n".join([head.strip(), *(found[title] for title in titles)]) + "\n", encoding="utf-8")


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    models = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    packages = ("lsbatch", "label-studio", "label-studio-sdk", "distributed")
    installed = [f"{name} {metadata.version(name)}" for name in packages]
    parts = [
        f"{platform.system()} {platform.machine()}, {cores} cores ({models[0] if models else 'unknown'})",
        f"{memory:.0f} GB, Python {platform.python_version()}, {', '.join(installed)}",
        f"{datetime.datetime.now(datetime.UTC).date()}",
    ]
    return ", ".join(parts)
