"""The text nodes that a browser makes of a HyperText: their XPaths and their places in the text.

Label Studio takes scripts, frames and comments out, and the browser closes and adds tags that HTML allows to leave out.
Both are followed as far as documents in the wild need it; tags that are closed in a wrong order are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

__all__ = ["Nodes", "TextNode", "text_nodes"]


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


VOID = _tags("area base br col embed hr img input link meta param source track wbr")
#: Taken out by Label Studio, with all that is in them.
REMOVED = _tags("script iframe")
#: Before anything else these belong to the head of the document, not to its body.
HEAD = _tags("base link meta title style template noscript")
#: Text in them is counted, but never seen.
UNSEEN = _tags("style template title")
#: These end a paragraph that is still open.
AFTER_PARAGRAPH = _tags(
    "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer form h1 h2 h3"
    " h4 h5 h6 header hgroup hr main menu nav ol p pre section summary table ul"
)
#: No mention goes on from outside of one of these to its inside, or back.
BLOCKS = AFTER_PARAGRAPH | _tags("li dt dd tr td th thead tbody tfoot caption option br body style template title")
HEADINGS = _tags("h1 h2 h3 h4 h5 h6")
#: What a start tag closes, and what it does not look beyond.
CELLS, ROWS, SECTIONS = _tags("td th"), _tags("tr td th"), _tags("thead tbody tfoot")
CLOSES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "li": (_tags("li p"), _tags("ul ol menu td th table")),
    "option": (_tags("option"), _tags("select")),
    **dict.fromkeys(("dt", "dd"), (_tags("dt dd p"), _tags("dl td th table"))),
    **dict.fromkeys(CELLS, (CELLS, _tags("tr table"))),
    "tr": (ROWS, _tags("table")),
    **dict.fromkeys(SECTIONS, (SECTIONS | ROWS | {"caption"}, _tags("table"))),
    **dict.fromkeys(AFTER_PARAGRAPH, (_tags("p"), _tags("td th table caption button object"))),
}
#: What a browser puts between a tag and the one around it.
BETWEEN = {("table", "tr"): "tbody", ("table", "td"): "tbody", ("table", "th"): "tbody"}
BETWEEN |= {(section, cell): "tr" for section in SECTIONS for cell in CELLS}


@dataclass(frozen=True, slots=True)
class TextNode:
    """A text node.

    Attributes:
        path: its XPath from the body, such as ``/p[1]/text()[2]``.
        start: the global offset of its first character, in code points.
        text: its characters.
    """

    path: str
    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Nodes:
    """All text nodes of a document, its text with a line break for each ``<br>``, and the parts that blocks divide."""

    nodes: Sequence[TextNode]
    text: str
    segments: Sequence[tuple[int, int]]


def text_nodes(html: str, *, inline: bool) -> Nodes:
    """The text nodes of a document.

    Args:
        html: as it stands in the task.
        inline: it is put into the page, where it has neither head nor body of its own.
    """
    reader = _Reader(in_body=inline)
    # What browsers do before they parse.
    reader.feed(html.replace("\r\n", "\n").replace("\r", "\n"))
    reader.close()
    return reader.nodes()


@dataclass
class _Element:
    tag: str
    path: str
    children: Counter[str] = field(default_factory=Counter)

    def child(self, name: str) -> str:
        """The path of a new child of this name."""
        self.children[name] += 1
        return f"{self.path}/{name}[{self.children[name]}]"


class _Reader(HTMLParser):
    """Follows the tags, and collects text nodes.

    Args:
        in_body: the body has begun.
    """

    def __init__(self, *, in_body: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._in_body = in_body
        self._open = [_Element("body", "")]
        self._away = ""
        self._pending: list[str] = []
        self._found: list[TextNode] = []
        self._pieces: list[str] = []
        self._length = 0
        self._breaks = {0}
        self._unseen: set[int] = set()
        self._after_pre = False

    def nodes(self) -> Nodes:
        """What was found."""
        self._end_text()
        places = sorted({*self._breaks, self._length})
        segments = [(begin, end) for begin, end in pairwise(places) if begin not in self._unseen]
        return Nodes(self._found, "".join(self._pieces), segments)

    # -------------------------------------------------------------------------------------------- what the parser calls

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """A start tag."""
        if self._away:
            return
        if tag in ("html", "head", "body"):
            self._in_body = self._in_body or tag == "body"
        elif tag in REMOVED or (not self._in_body and tag in HEAD):
            self._away = "" if tag in VOID else tag
        else:
            self._in_body = True
            self._start(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """A tag with a slash at its end, which in HTML is a start tag."""
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """An end tag."""
        if self._away:
            self._away = "" if tag == self._away else self._away
        elif tag in ("p", "br") and not self._is_open(tag):
            # Browsers make an element of these two.
            self._start(tag)
            self._leave(tag)
        elif tag not in ("body", "html"):
            self._leave(tag)

    def handle_data(self, data: str) -> None:
        """Text."""
        if self._away:
            return
        if not self._in_body:
            data = data.lstrip(" \t\n\f")
            self._in_body = bool(data)
        if self._after_pre:
            data = data.removeprefix("\n")
        self._after_pre = False
        if data:
            self._pending.append(data)

    # -------------------------------------------------------------------------------------------- the tree

    def _start(self, tag: str) -> None:
        closes, barriers = CLOSES.get(tag, (frozenset(), frozenset()))
        for place in range(len(self._open) - 1, 0, -1):
            if self._open[place].tag in barriers:
                break
            if self._open[place].tag in closes:
                self._leave_from(place)
        if tag in HEADINGS and self._open[-1].tag in HEADINGS:
            self._leave_from(len(self._open) - 1)
        while between := BETWEEN.get((self._open[-1].tag, tag)):
            self._enter(between)
        self._enter(tag)
        if tag in VOID:
            self._open.pop()
        self._after_pre = tag in ("pre", "listing", "textarea")

    def _enter(self, tag: str) -> None:
        self._end_text()
        self._break(tag)
        self._open.append(_Element(tag, self._open[-1].child(tag)))
        if tag == "br":
            self._pieces.append("\n")
            self._length += 1
            self._break(tag)

    def _is_open(self, tag: str) -> bool:
        return any(element.tag == tag for element in self._open[1:])

    def _leave(self, tag: str) -> None:
        for place in range(len(self._open) - 1, 0, -1):
            if self._open[place].tag == tag:
                self._leave_from(place)
                return

    def _leave_from(self, place: int) -> None:
        self._end_text()
        for element in self._open[place:]:
            self._break(element.tag)
        del self._open[place:]

    def _break(self, tag: str) -> None:
        if tag in BLOCKS:
            self._breaks.add(self._length)

    def _end_text(self) -> None:
        """Text between two tags is one node, whatever was taken out of it."""
        text = "".join(self._pending)
        self._pending.clear()
        if not text:
            return
        if any(element.tag in UNSEEN for element in self._open):
            self._breaks.update((self._length, self._length + len(text)))
            self._unseen.add(self._length)
        self._found.append(TextNode(self._open[-1].child("text()"), self._length, text))
        self._pieces.append(text)
        self._length += len(text)
