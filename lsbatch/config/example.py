"""``pipeline.example.yaml``, made from the schema so that the two cannot drift apart."""

from __future__ import annotations

import textwrap
from typing import Any

from lsbatch.config.described import Setting, sections, settings

__all__ = ["render_example"]

WIDTH = 100
HEAD = """\
# Every setting of lsbatch with its default. Copy what you change into pipeline.yaml (lsbatch init does).
# Flags and environment variables are stronger: LSBATCH_<SECTION>_<KEY>, such as LSBATCH_DASK_WORKERS=4.
# An empty value means what its comment says. The token belongs into LABEL_STUDIO_API_KEY, not into this file.
"""


def render_example() -> str:
    """The text of a file that names every key and, as it is, changes nothing."""
    lines = [HEAD]
    opened = ""
    for setting in settings().values():
        if setting.section and setting.section != opened:
            opened = setting.section
            lines += [f"# {sections()[opened]}", f"{opened}:"]
        lines += _entry(setting, "  " if setting.section else "")
        if not setting.section or _last(setting):
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _last(setting: Setting) -> bool:
    return [entry.path for entry in settings().values() if entry.section == setting.section][-1] == setting.path


def _entry(setting: Setting, indent: str) -> list[str]:
    text = setting.description + (f" Example: {setting.example}" if setting.example else "")
    comment = textwrap.wrap(text, WIDTH - len(indent) - 2, break_long_words=False)
    value = _yaml(setting.default)
    return [*(f"{indent}# {line}" for line in comment), f"{indent}{setting.key}:{' ' if value else ''}{value}"]


def _yaml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return "{}" if value == {} else str(value)
