"""How far one prediction agrees with one annotation, whatever the label config asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from lsbatch.entities import Region
from lsbatch.label_config import Control, LabelConfig
from lsbatch.quality.shapes import ENOUGH, matched

__all__ = [
    "Kind",
    "agreement",
    "answer",
    "character_error_rate",
    "controls_of",
    "f1",
    "kind_of",
    "labels_of",
    "number_of",
    "of_control",
    "shared_by_label",
    "text_of",
]

#: How values of a control are compared.
Kind = Literal["labels", "spans", "shapes", "text", "number"]

KINDS: dict[str, Kind] = {
    "TextArea": "text",
    "Number": "number",
    "Rating": "number",
    "Labels": "spans",
    "HyperTextLabels": "spans",
    "ParagraphLabels": "spans",
    "TimeSeriesLabels": "spans",
    "TimelineLabels": "spans",
    **dict.fromkeys(("RectangleLabels", "Rectangle", "EllipseLabels", "Ellipse", "PolygonLabels", "Polygon"), "shapes"),
    **dict.fromkeys(("KeyPointLabels", "KeyPoint", "BrushLabels", "Brush", "BitmaskLabels"), "shapes"),
}


def kind_of(control: Control) -> Kind:
    """How values of this control are compared; what is not known by its tag, as sets of equal values."""
    return KINDS.get(control.tag, "labels")


def of_control(control: Control, result: Sequence[Region]) -> list[Region]:
    """The regions of a result that belong to a control."""
    return [region for region in result if isinstance(region, Mapping) and region.get("from_name") == control.name]


def controls_of(label_config: LabelConfig, results: Iterable[Sequence[Region]]) -> list[Control]:
    """The controls that any of these results fills, in the order of the config."""
    named = {region.get("from_name") for result in results for region in result if isinstance(region, Mapping)}
    return [control for control in label_config.controls if control.name in named]


def agreement(controls: Sequence[Control], predicted: Sequence[Region], said: Sequence[Region]) -> float:
    """How far a prediction says what a person said, in [0, 1]: the mean over the controls, 1 where there are none.

    Labels count as right or wrong; spans and shapes by F1 of those found (spans exactly, shapes from an intersection
    over union of 0.5) with the right label; texts by 1 minus their character error rate; numbers by how far they are
    off in proportion.
    """
    if not controls:
        return 1.0
    found = [_agreement(control, of_control(control, predicted), of_control(control, said)) for control in controls]
    return sum(found) / len(found)


def _agreement(control: Control, predicted: Sequence[Region], said: Sequence[Region]) -> float:
    kind = kind_of(control)
    if kind in ("spans", "shapes"):
        enough = 1.0 if kind == "spans" else ENOUGH
        shares = [share for each in shared_by_label(predicted, said).values() for share in each]
        return f1(sum(share >= enough for share in shares), len(predicted), len(said))
    if kind == "text":
        ours, theirs = text_of(predicted), text_of(said)
        return max(0.0, 1 - character_error_rate(ours, theirs))
    if kind == "number":
        guess, truth = number_of(predicted), number_of(said)
        if guess is None or truth is None:
            return float(guess == truth)
        return max(0.0, 1 - abs(guess - truth) / max(abs(truth), 1.0))
    return float(answer(predicted) == answer(said))


def f1(right: int, given: int, there: int) -> float:
    """F1 of counts: 1 where there was nothing to find and nothing was given."""
    return 2 * right / (given + there) if given + there else 1.0


def shared_by_label(predicted: Sequence[Region], said: Sequence[Region]) -> dict[tuple[str, ...], list[float]]:
    """Of the labels that both sides carry, how much each matched pair of regions overlaps, in (0, 1]."""
    found = {}
    for labels in set(map(labels_of, predicted)) & set(map(labels_of, said)):
        ours = [region for region in predicted if labels_of(region) == labels]
        theirs = [region for region in said if labels_of(region) == labels]
        found[labels] = matched(ours, theirs)
    return found


def labels_of(region: Region) -> tuple[str, ...]:
    """The labels that a region carries, sorted: what stands in its value under its type, as ``rectanglelabels``."""
    value = region.get("value")
    if not isinstance(value, Mapping):
        return ()
    found = value.get(str(region.get("type", "")), value.get("labels"))
    return tuple(sorted(map(str, found))) if isinstance(found, list) else ()


def answer(regions: Sequence[Region]) -> str:
    """The values of regions as one text: the same for the same values, whatever their ids, order and scores."""
    values = [_canonical(region) for region in regions if isinstance(region, Mapping)]
    return json.dumps(sorted(values), ensure_ascii=False)


def _canonical(region: Region) -> str:
    value = region.get("value")
    if isinstance(value, Mapping) and isinstance(value.get("choices"), list):
        # The order in which they were ticked says nothing.
        value = {**value, "choices": sorted(map(str, value["choices"]))}
    return json.dumps([region.get("from_name"), value], sort_keys=True, ensure_ascii=False, default=str)


def text_of(regions: Sequence[Region]) -> str:
    """All texts that the regions hold, a line each."""
    return "\n".join(line for region in regions for line in _lines(region.get("value")))


def character_error_rate(given: str, there: str) -> float:
    """Characters to put in, take out or change (Levenshtein, 1965), as a share of those that should be there."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(given, there) / max(len(there), 1)


def _lines(value: Any) -> list[str]:
    text = value.get("text") if isinstance(value, Mapping) else None
    return [text] if isinstance(text, str) else [str(line) for line in text] if isinstance(text, list) else []


def number_of(regions: Sequence[Region]) -> float | None:
    """The number that the first region gives, or None."""
    for region in regions:
        value = region.get("value")
        found = (value.get("number"), value.get("rating")) if isinstance(value, Mapping) else ()
        for number in found:
            if isinstance(number, int | float) and not isinstance(number, bool):
                return float(number)
    return None
