"""Whether a live answer is the stored prediction: pure."""

from __future__ import annotations

import json
from typing import Any

from lsbatch.entities import StoredPrediction
from lsbatch.ports import LiveAnswer

__all__ = ["difference"]

#: The same model rounds differently in the last digits when it predicts tasks in batches of another size.
SCORE_TOLERANCE = 1e-6
#: Characters of a value that are shown.
VALUE_LENGTH = 80
#: Keys that name a region by its id.
REFERENCES = ("from_id", "to_id", "parentID")


def difference(stored: StoredPrediction, answer: LiveAnswer) -> str:
    """What differs first between a stored prediction and a live one, in words; empty when nothing does.

    Values are compared as JSON has them. Two scores are the same within ``SCORE_TOLERANCE``. Ids of regions may be
    made up anew with each prediction: which regions share one, and which one a relation names, is what counts.
    """
    if answer.model_version != stored.model_version:
        return f"model_version: {stored.model_version!r} stored, {answer.model_version!r} live"
    if not _same_score(stored.score, answer.score):
        return f"score: {stored.score} stored, {answer.score} live"
    return _first(_renamed(_json(stored.result)), _renamed(_json(answer.result)), "result")


def _json(value: object) -> Any:
    return json.loads(json.dumps(value, default=list))


def _renamed(result: Any) -> Any:
    """The regions with each id replaced by the place of the first region that has it, references too."""
    if not isinstance(result, list) or not all(isinstance(region, dict) for region in result):
        return result
    places: dict[Any, int] = {}
    names = [region.get("id", (place,)) for place, region in enumerate(result)]
    names = [name if isinstance(name, str | tuple) else json.dumps(name) for name in names]
    for place, name in enumerate(names):
        places.setdefault(name, place)
    return [
        {
            **{
                key: places.get(value, value) if key in REFERENCES and isinstance(value, str) else value
                for key, value in region.items()
            },
            "id": places[name],
        }
        for name, region in zip(names, result, strict=True)
    ]


def _first(stored: Any, live: Any, path: str) -> str:
    """Path and both values of the first place at which two JSON values differ."""
    if isinstance(stored, dict) and isinstance(live, dict):
        for key in [*stored, *(key for key in live if key not in stored)]:
            if key not in stored or key not in live:
                return f"{path}.{key}: only {'stored' if key in stored else 'live'}"
            if key == "score" and _same_score(stored[key], live[key]):
                continue
            if found := _first(stored[key], live[key], f"{path}.{key}"):
                return found
        return ""
    if isinstance(stored, list) and isinstance(live, list):
        if len(stored) != len(live):
            return f"{path}: {len(stored)} stored, {len(live)} live"
        pairs = enumerate(zip(stored, live, strict=True))
        return next(filter(None, (_first(one, other, f"{path}[{at}]") for at, (one, other) in pairs)), "")
    # To Python true is 1; to JSON it is not.
    if stored == live and isinstance(stored, bool) is isinstance(live, bool):
        return ""
    return f"{path}: {_shown(stored)} stored, {_shown(live)} live"


def _same_score(stored: object, live: object) -> bool:
    numbers = [value for value in (stored, live) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < 2:
        return stored is live is None
    return abs(numbers[0] - numbers[1]) <= SCORE_TOLERANCE


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_LENGTH else text[:VALUE_LENGTH] + "..."
