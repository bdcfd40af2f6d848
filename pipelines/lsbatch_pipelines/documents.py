"""Texts as Label Studio shows them, with the offsets that its regions have.

Offsets are code points: Label Studio converts what the browser counts. In a Text each character is one, and so is each
``\\r`` and ``\\n``. In a HyperText there are global offsets, which count the characters of all text nodes and each
``<br>`` as one, and an XPath with an offset inside of its text node, which Label Studio takes first; that one stays in
UTF-16 units, as the browser gives it.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lsbatch_pipelines.html_nodes import TextNode, text_nodes

__all__ = ["Document", "HtmlDocument"]


@dataclass(frozen=True)
class Document:
    """A plain text.

    Attributes:
        text: its characters, at their offsets.
        segments: start and end of the parts that no mention leaves, in their order.
    """

    text: str
    segments: Sequence[tuple[int, int]] | None = None

    def value(self, start: int, end: int) -> dict[str, Any]:
        """The value of a region at these offsets, without its labels."""
        return {"start": start, "end": end, "text": self.text[start:end]}

    def place(self, value: Mapping[str, Any]) -> tuple[int, int]:
        """The offsets of a region's value.

        Raises:
            ValueError: it has none, or there stands another text than it says.
        """
        start, end = _offsets(value, self.text)
        self._check(value, start, end)
        return start, end

    def _check(self, value: Mapping[str, Any], start: int, end: int) -> None:
        said = value.get("text")
        # The browser writes line breaks as it likes.
        if isinstance(said, str) and _squeezed(said) != _squeezed(self.text[start:end]):
            raise ValueError(f"at {start} to {end} stands {_short(self.text[start:end])}, not {_short(said)} as marked")


@dataclass(frozen=True)
class HtmlDocument(Document):
    """A HyperText.

    Attributes:
        nodes: its text nodes, in their order.
    """

    nodes: Sequence[TextNode] = field(default=())

    @classmethod
    def read(cls, html: str, *, inline: bool) -> HtmlDocument:
        """The text nodes that a browser makes of it.

        Args:
            html: as it stands in the task.
            inline: it is put into the page, and not into a frame of its own.
        """
        found = text_nodes(html, inline=inline)
        return cls(found.text, found.segments, found.nodes)

    def value(self, start: int, end: int) -> dict[str, Any]:
        """See ``Document.value``: both kinds of offsets."""
        first, last = self._node(start), self._node(end - 1)
        return {
            "start": first.path,
            "end": last.path,
            "startOffset": _utf16(first.text[: start - first.start]),
            "endOffset": _utf16(last.text[: end - last.start]),
            "globalOffsets": {"start": start, "end": end},
            "text": self.text[start:end],
        }

    def place(self, value: Mapping[str, Any]) -> tuple[int, int]:
        """See ``Document.place``. Global offsets count; an XPath may be unknown here, but must not lead elsewhere.

        Raises:
            ValueError: as ``Document.place``; or the browser makes another tree of the HTML.
        """
        paths = self._by_path(value, "start"), self._by_path(value, "end")
        given = value.get("globalOffsets")
        if not isinstance(given, Mapping):
            if None in paths:
                raise ValueError("the marked span has no global offsets, and no XPath to a text of the document")
            given = dict(zip(("start", "end"), paths, strict=True))
        start, end = _offsets(given, self.text)
        if any(path not in (None, place) for path, place in zip(paths, (start, end), strict=True)):
            raise ValueError("the browser reads this HTML otherwise: its XPath and its global offsets do not agree")
        if None in paths and not isinstance(value.get("text"), str):
            raise ValueError("the browser reads this HTML otherwise: its XPath leads nowhere")
        self._check(value, start, end)
        return start, end

    def _node(self, offset: int) -> TextNode:
        """The text node of the character at an offset."""
        return self.nodes[bisect.bisect_right([node.start for node in self.nodes], offset) - 1]

    def _by_path(self, value: Mapping[str, Any], side: str) -> int | None:
        """The offset that an XPath gives, or None if there is no such text node."""
        path, inside = value.get(side), value.get(f"{side}Offset")
        node = next((node for node in self.nodes if node.path == path), None)
        if node is None or not isinstance(inside, int) or isinstance(inside, bool) or inside < 0:
            return None
        units = node.text.encode("utf-16-le", "surrogatepass")[: 2 * inside]
        return node.start + len(units.decode("utf-16-le", "ignore"))


def _offsets(value: Mapping[str, Any], text: str) -> tuple[int, int]:
    start, end = value.get("start"), value.get("end")
    if any(isinstance(place, bool) or not isinstance(place, int | float) for place in (start, end)):
        raise ValueError("the marked span has no numbers for its start and end")
    assert isinstance(start, int | float)
    assert isinstance(end, int | float)
    if not 0 <= start < end <= len(text):
        raise ValueError(f"the marked span from {start} to {end} is empty, or outside of the {len(text)} characters")
    return int(start), int(end)


def _utf16(text: str) -> int:
    """Units of UTF-16 that a text has."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _squeezed(text: str) -> str:
    """Without blanks and line breaks, those that Label Studio has written as a backslash and an n too."""
    return re.sub(r"\s|\\n", "", text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
