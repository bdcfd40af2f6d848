"""How much two regions of an image, or two spans, cover the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsbatch.entities import Region

__all__ = ["ENOUGH", "matched", "overlap"]

#: Intersection over union from which two shapes count as the same, as in PASCAL VOC (Everingham et al., 2010).
ENOUGH = 0.5
#: Side in cells of the grid that shapes are drawn on; coordinates are percent of the image.
GRID = 400
CORNERS = 48  # of a polygon that stands for an ellipse
Points = list[tuple[float, float]]


def overlap(one: Region, other: Region) -> float:
    """Intersection over union of two regions of one control, in [0, 1]; 0 where they cannot be compared.

    Rectangles, ellipses, polygons and key points are drawn on a grid of 400 x 400; spans are compared by their ends.
    """
    return _Shape(one).shared_with(_Shape(other))


def matched(ours: Sequence[Region], theirs: Sequence[Region]) -> list[float]:
    """The overlaps above 0 of those pairs of regions that overlap most in sum, each region at most once."""
    from scipy.optimize import linear_sum_assignment

    if not ours or not theirs:
        return []
    mine, others = list(map(_Shape, ours)), list(map(_Shape, theirs))
    shared = np.array([[one.shared_with(other) for other in others] for one in mine])
    rows, columns = linear_sum_assignment(-shared)
    return [float(share) for share in shared[rows, columns] if share > 0]


class _Shape:
    """What a region covers; drawn at most once.

    Args:
        region: of any kind.
    """

    def __init__(self, region: Region) -> None:
        value = region.get("value")
        self.value: Mapping[str, Any] | None = value if isinstance(value, Mapping) else None
        self.ends: tuple[float, float] | None = None
        self.corners: Points | None = None
        try:
            if self.value is not None:
                self.ends = _ends(self.value)
                self.corners = None if self.ends else _corners(self.value)
        except (KeyError, TypeError, ValueError):  # somebody else's regions
            self.value = None

    @cached_property
    def drawn(self) -> NDArray[np.bool_]:
        """The cells of the grid that it covers."""
        return _drawn(self.corners or [])

    def shared_with(self, other: _Shape) -> float:
        """Intersection over union, in [0, 1]."""
        if self.value is None or other.value is None:
            return 0.0
        if self.ends is not None and other.ends is not None:
            return _shared(self.ends, other.ends)
        if not self.corners or not other.corners:
            # A mask, which is equal or not; or two of different kinds.
            return float(self.value == other.value)
        if _box_apart(self.corners, other.corners):
            return 0.0
        union = int((self.drawn | other.drawn).sum())
        return float((self.drawn & other.drawn).sum() / union) if union else 0.0


def _ends(value: Mapping[str, Any]) -> tuple[float, float] | None:
    """First and last point of a span in a text, HTML, sound or time series; None for anything else."""
    offsets = value.get("globalOffsets")
    if isinstance(offsets, Mapping):  # of HTML, where start and end are paths
        return float(offsets["start"]), float(offsets["end"])
    if "start" in value and "end" in value:
        return float(value["start"]), float(value["end"])
    return None


def _shared(one: tuple[float, float], other: tuple[float, float]) -> float:
    if one == other:
        return 1.0
    common = min(one[1], other[1]) - max(one[0], other[0])
    union = max(one[1], other[1]) - min(one[0], other[0])
    return max(0.0, common / union) if union > 0 else 0.0


def _corners(value: Mapping[str, Any]) -> Points | None:
    """The corners of a shape in percent of the image; None where it has none, as a mask."""
    if "points" in value:
        return [(float(x), float(y)) for x, y in value["points"]]
    if "x" not in value or "y" not in value:
        return None
    x, y = float(value["x"]), float(value["y"])
    angle = math.radians(float(value.get("rotation") or 0))
    if "radiusX" in value:
        wide, high = float(value["radiusX"]), float(value["radiusY"])
        steps = (2 * math.pi * step / CORNERS for step in range(CORNERS))
        return [_turned(wide * math.cos(step), high * math.sin(step), x, y, angle) for step in steps]
    # A key point has a width too, of its mark.
    wide, high = float(value.get("width") or 0), float(value.get("height") or value.get("width") or 0)
    return [_turned(a, b, x, y, angle) for a, b in ((0, 0), (wide, 0), (wide, high), (0, high))]


def _turned(a: float, b: float, x: float, y: float, angle: float) -> tuple[float, float]:
    return x + a * math.cos(angle) - b * math.sin(angle), y + a * math.sin(angle) + b * math.cos(angle)


def _box_apart(mine: Points, theirs: Points) -> bool:
    """Whether the boxes around two shapes share nothing, which spares drawing most pairs."""
    for axis in (0, 1):
        own, other = [point[axis] for point in mine], [point[axis] for point in theirs]
        if max(own) < min(other) or max(other) < min(own):
            return True
    return False


def _drawn(corners: Points) -> NDArray[np.bool_]:
    from PIL import Image, ImageDraw

    image = Image.new("1", (GRID, GRID))
    ImageDraw.Draw(image).polygon([(x / 100 * GRID, y / 100 * GRID) for x, y in corners], fill=1)
    return np.asarray(image, dtype=bool)
