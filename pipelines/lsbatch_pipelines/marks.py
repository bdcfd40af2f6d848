"""What an annotator has marked on an image with smart tools, read from Label Studio's context of the call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import TaskFailure

__all__ = ["Box", "Marks", "Stroke", "regions_of", "smart_controls"]

#: Tags of the tools whose marks are understood. In lower case they are the types of their regions.
BOXES, POINTS, BRUSHES = ("RectangleLabels", "Rectangle"), ("KeyPointLabels", "KeyPoint"), ("BrushLabels", "Brush")
TYPES = {tag.lower(): kind for kind in (BOXES, POINTS, BRUSHES) for tag in kind}
Point = tuple[float, float]

#: In percent of the image (degrees for a rotation): nothing is drawn so far outside.
FAR = 1e6
#: Longest side of an image, in pixels; a larger number is none that a browser says.
LONGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: corner and size in percent of the image's width and height, turned about that corner.

    Attributes:
        x: of its upper left corner before it was turned, in percent of the width.
        y: of the same, in percent of the height.
        width: above 0, in percent of the width.
        height: above 0, in percent of the height.
        rotation: in degrees, clockwise.
    """

    x: float
    y: float
    width: float
    height: float
    rotation: float

    def corners(self, width: float, height: float) -> list[Point]:
        """Its four corners in pixels of an image of this size; they may lie outside of it."""
        left, top = self.x * width / 100, self.y * height / 100
        right, down = self.width * width / 100, self.height * height / 100
        # The angle is one of pixels: in percent of two different lengths a turned square is none.
        cos, sin = math.cos(math.radians(self.rotation)), math.sin(math.radians(self.rotation))
        steps = ((0.0, 0.0), (right, 0.0), (right, down), (0.0, down))
        return [(left + dx * cos - dy * sin, top + dx * sin + dy * cos) for dx, dy in steps]


@dataclass(frozen=True, slots=True)
class Stroke:
    """A stroke of the brush: Label Studio's run lengths of an image with four channels."""

    rle: Sequence[int]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Marks:
    """All marks on one image, those that an annotator made for the same object.

    Attributes:
        label: of the last mark that has one; empty where none has.
        size: width and height in pixels of the image in the browser, or None where no mark says.
        boxes: rectangles around the object.
        inside: points on the object, in percent of width and height.
        outside: points beside it.
        strokes: of a brush, on the object.
    """

    label: str
    size: tuple[int, int] | None
    boxes: tuple[Box, ...]
    inside: tuple[Point, ...]
    outside: tuple[Point, ...]
    strokes: tuple[Stroke, ...]

    @classmethod
    def read(cls, regions: Sequence[Mapping[str, Any]]) -> Marks | TaskFailure:
        """The marks among the regions, or why they cannot be used."""
        known = [region for region in regions if region.get("type") in TYPES]
        if not known:
            there = ", ".join(sorted({repr(region.get("type")) for region in regions})) or "nothing"
            return TaskFailure(f"nothing is marked with a rectangle, a key point or a brush; there is {there}")
        if any(region.get("image_rotation") for region in known):
            return TaskFailure("the image is turned in the labeling interface; turn it back, then mark the object")
        try:
            boxes = tuple(_box(region) for region in known if TYPES[region["type"]] is BOXES)
            strokes = tuple(_stroke(region) for region in known if TYPES[region["type"]] is BRUSHES)
            points = [(_point(region), _positive(region)) for region in known if TYPES[region["type"]] is POINTS]
        except ValueError as error:
            return TaskFailure(str(error))
        inside = tuple(point for point, positive in points if positive)
        outside = tuple(point for point, positive in points if not positive)
        if not boxes and not strokes and not inside:
            return TaskFailure("all key points are negative; mark at least one point on the object")
        labels = [label for region in known if (label := _label(region))]
        sizes = {size for region in known if (size := _size(region))}
        if len(sizes) > 1:
            return TaskFailure(f"the marks are on images of {len(sizes)} sizes, and one object is on one image")
        last = labels[-1] if labels else ""
        return cls(last, next(iter(sizes), None), boxes, inside, outside, strokes)


def smart_controls(label_config: LabelConfig, *object_tags: str, tags: Sequence[str]) -> list[Control]:
    """Controls of these tags, on one of these object tags, whose marks Label Studio sends while they are made."""
    return [
        control
        for control in label_config.controls
        if control.tag in tags
        and control.object_tag in object_tags
        and "true" in (control.attributes.get("smart"), control.attributes.get("smartOnly"))
    ]


def regions_of(context: Mapping[str, Any], to_name: str = "") -> list[Mapping[str, Any]]:
    """The regions of a context that have a value, those on one object if it is named; nothing of it is trusted."""
    found = context.get("result")
    regions = found if isinstance(found, list) else []
    return [
        region
        for region in regions
        if isinstance(region, Mapping)
        and isinstance(region.get("value"), Mapping)
        and isinstance(region.get("type"), str)
        and isinstance(region.get("to_name"), str)
        and to_name in ("", region.get("to_name"))
    ]


# ------------------------------------------------------------------------------------------------ one region


def _numbers(region: Mapping[str, Any], *keys: str) -> list[float]:
    found = [region["value"].get(key) for key in keys]
    # NaN is the one number that is not itself.
    if not all(isinstance(value, int | float) and value == value and not isinstance(value, bool) for value in found):
        raise ValueError(f"a mark of type {region['type']} holds no numbers for {', '.join(keys)}")
    if not all(abs(value) <= FAR for value in found):
        raise ValueError(f"a mark of type {region['type']} lies far outside of the image, by {', '.join(keys)}")
    return [float(value) for value in found]


def _box(region: Mapping[str, Any]) -> Box:
    x, y, width, height = _numbers(region, "x", "y", "width", "height")
    rotation = _numbers(region, "rotation")[0] if region["value"].get("rotation") is not None else 0.0
    if width <= 0 or height <= 0:
        raise ValueError("the rectangle has no size; draw it around the object")
    return Box(x, y, width, height, rotation)


def _point(region: Mapping[str, Any]) -> Point:
    x, y = _numbers(region, "x", "y")
    if not (0 <= x <= 100 and 0 <= y <= 100):
        raise ValueError("a key point lies outside of the image")
    return x, y


def _stroke(region: Mapping[str, Any]) -> Stroke:
    rle, size = region["value"].get("rle"), _size(region)
    if not isinstance(rle, list) or not all(isinstance(byte, int) and 0 <= byte <= 255 for byte in rle) or not size:
        raise ValueError("a stroke of the brush holds no run lengths, or not the size of its image")
    return Stroke(rle, *size)


def _positive(region: Mapping[str, Any]) -> bool:
    """Whether a point is on the object: 1 or true, and so is one that says nothing."""
    said = region.get("is_positive")
    return said is None or bool(said)


def _label(region: Mapping[str, Any]) -> str:
    """The first label of a region, which stands below its type; of tools without labels of their own, in ``labels``."""
    for key in (region["type"], "labels"):
        found = region["value"].get(key)
        if isinstance(found, list) and found and isinstance(found[0], str):
            return found[0]
    return ""


def _size(region: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = region.get("original_width"), region.get("original_height")
    if type(width) is int and type(height) is int and 0 < width <= LONGEST and 0 < height <= LONGEST:
        return width, height
    return None
