"""A list of known texts: what people marked, with which label, and how often it stood there unmarked.

Stored as ``spans.json``: the control, what a text must reach to be predicted, and one entry a text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lsbatch.entities import TaskId
from lsbatch.label_config import Control
from lsbatch.ports import Evaluation, LabelMetrics
from lsbatch_pipelines.documents import Document
from lsbatch_pipelines.mentions import Mention, Needles, Words, words_of
from lsbatch_pipelines.spans import Span

__all__ = ["Entry", "Gazetteer", "evaluate"]

SPANS = "spans.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A known text.

    Attributes:
        text: as it was marked, with single blanks between words.
        label: the one that it was marked with most often.
        marked: how often it was marked with it.
        mentions: how often it stood in the texts, marked or not.
    """

    text: str
    label: str
    marked: int
    mentions: int

    @property
    def share(self) -> float:
        """Share of its mentions that carried the label, in [0, 1]."""
        return self.marked / self.mentions


class Gazetteer:
    """Known texts, and how they are found.

    Args:
        control: name of the control that it was learned for.
        entries: no two with the same words.
        least_share: share of its mentions that must have been marked, in [0, 1].
        least_marked: how often a text must have been marked.
    """

    def __init__(self, control: str, entries: Sequence[Entry], least_share: float, least_marked: int) -> None:
        self.control = control
        self.entries = tuple(entries)
        self.least_share = least_share
        self.least_marked = least_marked
        self._by_words = {words_of(entry.text): entry for entry in entries}
        # Those that are not predicted are looked for too: the York in a New York is none.
        self._needles = Needles(self._by_words)

    @classmethod
    def fit(
        cls,
        control: Control,
        examples: Sequence[tuple[Document, Sequence[Span]]],
        *,
        least_share: float,
        least_marked: int,
    ) -> Self:
        """Count what is marked, and what stands there unmarked. The same examples give the same, in any order."""
        marked: Counter[tuple[Words, str]] = Counter()
        for document, spans in examples:
            marked.update((words_of(document.text[span.start : span.end]), span.label) for span in set(spans))
        known = {words for words, _ in marked}
        mentions = _mentions(known, examples)
        entries = []
        for words in sorted(known):
            # Among labels that are as frequent, the first of the label config.
            label = max(control.labels, key=lambda label: marked[words, label])
            entries.append(Entry(" ".join(words), label, marked[words, label], mentions[words]))
        return cls(control.name, entries, least_share, least_marked)

    def find(self, document: Document) -> Iterator[tuple[Span, float]]:
        """The known texts in a document, without overlaps, and the share of each."""
        for mention in self._needles.find(document.text, document.segments):
            entry = self._by_words[mention.words]
            if entry.share >= self.least_share and entry.marked >= self.least_marked:
                yield Span(mention.start, mention.end, entry.label), entry.share

    def save(self, folder: Path) -> None:
        """Write ``spans.json``."""
        content = {
            "control": self.control,
            "least_share": self.least_share,
            "least_marked": self.least_marked,
            "entries": [[entry.text, entry.label, entry.marked, entry.mentions] for entry in self.entries],
        }
        (folder / SPANS).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            OSError, ValueError, KeyError, TypeError: missing or damaged.
        """
        stored: dict[str, Any] = json.loads((folder / SPANS).read_text(encoding="utf-8"))
        entries = [Entry(str(text), str(label), int(part), int(all_)) for text, label, part, all_ in stored["entries"]]
        if not all(words_of(entry.text) and 0 <= entry.marked <= entry.mentions > 0 for entry in entries):
            raise ValueError("an entry of spans.json has no words, or was marked more often than it stood there")
        return cls(str(stored["control"]), entries, float(stored["least_share"]), int(stored["least_marked"]))


def _mentions(known: Iterable[Words], examples: Sequence[tuple[Document, Sequence[Span]]]) -> Counter[Words]:
    """How often each stands in the texts: where a prediction would find it, and where it was marked all the same."""
    needles = Needles(known)
    counts: Counter[Words] = Counter()
    for document, spans in examples:
        found: list[Mention] = list(needles.find(document.text, document.segments))
        counts.update(mention.words for mention in found)
        places = {(mention.start, mention.end) for mention in found}
        beside = {(span.start, span.end) for span in spans} - places
        counts.update(words_of(document.text[start:end]) for start, end in beside)
    return counts


def evaluate(
    control: Control,
    trained_on: int,
    truths: Sequence[Sequence[Span]],
    guesses: Sequence[Sequence[Span]],
    unread: Sequence[tuple[TaskId, str]] = (),
) -> Evaluation:
    """Compare spans, which are right if start, end and label are.

    Accuracy is the share of tasks whose spans are all right, none too few and none too many. The baseline marks
    nothing, the most frequent answer that texts have in common. Precision, recall and support count spans.

    Args:
        control: gives the order of the labels.
        trained_on: number of tasks.
        truths: what people marked in each held-out task.
        guesses: what was found in them.
        unread: task id and cause of tasks that could not be used.
    """
    right = [set(truth) & set(guess) for truth, guess in zip(truths, guesses, strict=True)]
    same = sum(set(truth) == set(guess) for truth, guess in zip(truths, guesses, strict=True))
    return Evaluation(
        trained_on=trained_on,
        held_out=len(truths),
        accuracy=_ratio(same, len(truths)),
        baseline=_ratio(sum(not truth for truth in truths), len(truths)),
        per_label=tuple(
            _metrics(label, _count(label, right), _count(label, guesses), _count(label, truths))
            for label in control.labels
        ),
        unread=tuple(unread),
    )


def _count(label: str, spans: Sequence[Iterable[Span]]) -> int:
    return sum(span.label == label for each in spans for span in set(each))


def _metrics(label: str, right: int, given: int, support: int) -> LabelMetrics:
    precision, recall, f1 = _ratio(right, given), _ratio(right, support), _ratio(2 * right, given + support)
    return LabelMetrics(label, precision, recall, f1, support)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
