"""Where a text mentions what is known: whole words, compared word by word, so that line breaks and spaces are alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Mention", "Needles", "Words", "words_of"]

#: The words of a mention, in their order; signs count as words of their own.
Words = tuple[str, ...]

#: Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, Han. Each character is a word there.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
#: Accents and vowel signs that are no letters to Python, but belong to the word: Latin, Hebrew, Arabic, Indic.
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u200c\u200d"
#: A number with its points and commas, a character of such a script, letters and digits, or a single sign.
WORD = re.compile(rf"\d+(?:[.,]\d+)+(?!\w)|[{UNSPACED}]|(?:[^\W{UNSPACED}]|[{MARKS}])+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Mention:
    """Words that were found at ``start <= place < end``, in code points of the text."""

    words: Words
    start: int
    end: int


def words_of(text: str) -> Words:
    """The words of a text."""
    return tuple(match.group() for match in WORD.finditer(text))


class Needles:
    """Words that are looked for.

    Args:
        needles: each with at least one word.
        case: capitals and small letters differ.
    """

    def __init__(self, needles: Iterable[Words], *, case: bool = True) -> None:
        self._case = case
        # By the first word, the longest first: a text is walked once, however many needles there are.
        self._by_first: dict[str, dict[int, set[Words]]] = {}
        for needle in needles:
            folded = self._folded(needle)
            self._by_first.setdefault(folded[0], {}).setdefault(len(folded), set()).add(folded)
        self._lengths = {first: sorted(found, reverse=True) for first, found in self._by_first.items()}

    def find(self, text: str, segments: Iterable[tuple[int, int]] | None = None) -> Iterator[Mention]:
        """The mentions in their order, without overlaps; where several begin at a word, the longest.

        Args:
            text: that is searched.
            segments: start and end of the parts that a mention does not leave; None for the whole text.
        """
        for begin, end in [(0, len(text))] if segments is None else segments:
            found = list(WORD.finditer(text, begin, end))
            words = [match.group() for match in found]
            folded = self._folded(words)
            place = 0
            while place < len(found):
                length = self._longest(folded, place)
                if length:
                    last = found[place + length - 1]
                    yield Mention(tuple(words[place : place + length]), found[place].start(), last.end())
                place += length or 1

    def _longest(self, words: Words, place: int) -> int:
        """How many words the longest needle at a place has, or 0."""
        for length in self._lengths.get(words[place], ()):
            if words[place : place + length] in self._by_first[words[place]][length]:
                return length
        return 0

    def _folded(self, words: Sequence[str]) -> Words:
        return tuple(words) if self._case else tuple(word.casefold() for word in words)
