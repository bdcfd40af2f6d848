"""Masks of an image as Label Studio writes them: run lengths of a brush, or the outline of a polygon."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsbatch_pipelines.grabcut import opencv
from lsbatch_pipelines.marks import Stroke

__all__ = ["brush_codec", "brush_value", "painted", "polygon_value"]

Flags = NDArray[np.bool_]

#: How far a polygon may be from the outline, as a share of its length.
TOLERANCE = 0.002
#: Channels of an image of the brush: red, green, blue and opacity.
CHANNELS = 4


@cache
def brush_codec() -> Any:
    """The SDK's module for run lengths; it takes seconds to load, and with it come libraries for other formats."""
    from label_studio_sdk.converter import brush

    return brush


def brush_value(mask: Flags) -> dict[str, Any]:
    """The value of a region of ``Brush`` or ``BrushLabels``.

    Args:
        mask: shape (height, width), of the size that the image has in the browser.
    """
    # 255 is opaque: Label Studio takes the numbers for pixels that it draws.
    return {"format": "rle", "rle": brush_codec().mask2rle(mask.astype(np.uint8) * 255)}


def painted(stroke: Stroke, width: int, height: int) -> Flags:
    """What a brush has painted, shape (height, width), at this size.

    Raises:
        ValueError: the run lengths are none, or of another size than they say.
    """
    count = stroke.width * stroke.height * CHANNELS
    # The first four bytes say how many numbers follow, and whoever decodes them takes memory for as many.
    if int.from_bytes(bytes(stroke.rle[:4]), "big") != count:
        raise ValueError(f"a stroke of the brush is not of {stroke.width} x {stroke.height} pixels")
    try:
        pixels = brush_codec().decode_rle(stroke.rle)
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"a stroke of the brush cannot be decoded: {error}") from error
    opaque = pixels.reshape(stroke.height, stroke.width, CHANNELS)[:, :, 3] > 0
    size = np.ix_(_nearest(stroke.height, height), _nearest(stroke.width, width))
    return np.asarray(opaque[size])


def _nearest(source: int, target: int) -> NDArray[np.int64]:
    """For each of ``target`` places along a side the nearest of ``source`` places."""
    return np.asarray(np.arange(target, dtype=np.int64) * source // target)


def polygon_value(mask: Flags) -> dict[str, Any] | None:
    """The value of a region of ``Polygon`` or ``PolygonLabels``: the outline of the largest piece, without its holes.

    None where that is too small for three corners.

    Args:
        mask: shape (height, width).
    """
    cv = opencv()
    outlines, _ = cv.findContours(mask.astype(np.uint8), cv.RETR_EXTERNAL, cv.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv.contourArea)
    corners = cv.approxPolyDP(largest, TOLERANCE * cv.arcLength(largest, True), True).reshape(-1, 2)
    if len(corners) < 3:
        return None
    # An outline goes through the middles of pixels.
    shares = (corners + 0.5) / (mask.shape[1], mask.shape[0]) * 100
    return {"points": [[round(float(x), 3), round(float(y), 3)] for x, y in shares], "closed": True}
