"""From marks to the object they are about: GrabCut, on no more pixels than an annotator waits for.

Rother, Kolmogorov and Blake, GrabCut: interactive foreground extraction using iterated graph cuts, 2004. Its time
grows with the pixels, so it runs on the part of the image that the marks are about, scaled down, and closely only at
the edges of what was found there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsbatch.errors import ConfigError

__all__ = ["Seeds", "Segment", "opencv", "segment"]

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

#: How far around the marks is looked at, as a share of their extent.
MARGIN = 0.3
#: Pixels of the first look.
COARSE_PIXELS = 40_000
#: How far the edges that it finds may be off, in its pixels.
BAND = 2.5
#: Radius of a key point, as a share of the shorter side of what is looked at.
POINT_RADIUS = 0.012
#: How far a colour may be from that of a point to be taken for the object at first: lightness, and each of two hues.
ALIKE = (28, 14, 14)
#: Points of a stroke from which alike colours are looked for.
STROKE_POINTS = 25
#: Noise that is added, in steps of 255; less than a camera's.
GRAIN = 1
#: Pieces smaller than this share of the largest are dropped.
SMALLEST_PIECE = 0.05


def opencv() -> Any:
    """The module ``cv2``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"interactive-segmentation needs OpenCV, which cannot be imported: {error}",
            hint="Run pip install 'lsbatch[interactive]'.",
        ) from error
    return cv2


@dataclass(frozen=True)
class Seeds:
    """What is known of the object, in pixels of the image.

    Attributes:
        boxes: each of shape (4, 2), float64, the corners of a rectangle around it.
        inside: shape (n, 2), float64, points on it.
        outside: shape (n, 2), float64, points beside it.
        stroke: shape (height, width), True where a brush has painted it; None for no brush.
    """

    boxes: Sequence[NDArray[np.float64]]
    inside: NDArray[np.float64]
    outside: NDArray[np.float64]
    stroke: Flags | None = None


@dataclass(frozen=True)
class Segment:
    """An object that was found.

    Attributes:
        mask: shape (height, width), True where it is.
        stability: intersection over union of what the last two cuts found, in [0, 1].
    """

    mask: Flags
    stability: float


@dataclass(frozen=True)
class _Window:
    """A part of the image: ``left <= x < right`` and ``top <= y < bottom``, seen at ``scale``."""

    left: int
    top: int
    right: int
    bottom: int
    scale: float

    @classmethod
    def around(cls, points: NDArray[np.float64], shape: Sequence[int], pixels: int) -> _Window | None:
        """What lies around these points, at no more than so many pixels; None where that is outside of the image."""
        height, width = shape[:2]
        least, most = points.min(axis=0), points.max(axis=0)
        margin = (most - least) * MARGIN + 4
        left, top = np.maximum(np.floor(least - margin), 0).astype(int)
        right, bottom = np.minimum(np.ceil(most + margin), (width, height)).astype(int)
        if right - left < 2 or bottom - top < 2:
            return None
        scale = min(1.0, float(np.sqrt(pixels / ((right - left) * (bottom - top)))))
        return cls(int(left), int(top), int(right), int(bottom), scale)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as it is seen."""
        width, height = (self.right - self.left) * self.scale, (self.bottom - self.top) * self.scale
        return max(2, round(width)), max(2, round(height))

    def seen(self, cv: Any, pixels: NDArray[Any], how: int) -> NDArray[Any]:
        """This part of an array of pixels, scaled."""
        part = pixels[self.top : self.bottom, self.left : self.right]
        return np.ascontiguousarray(cv.resize(part, self.size, interpolation=how))

    def moved(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Points of the image as points of what is seen."""
        shares = (points - (self.left, self.top)) / (self.right - self.left, self.bottom - self.top)
        return np.asarray(np.floor(shares * self.size), dtype=np.int32)

    def back(self, cv: Any, mask: Flags, shape: Sequence[int]) -> Flags:
        """A mask of what is seen as a mask of the image, with smooth edges."""
        size = (self.right - self.left, self.bottom - self.top)
        large = cv.resize(mask.astype(np.uint8) * 255, size, interpolation=cv.INTER_LINEAR)
        whole = np.zeros(shape[:2], dtype=np.bool_)
        whole[self.top : self.bottom, self.left : self.right] = large > 127
        return whole


def segment(image: Bytes, seeds: Seeds, *, pixels: int, iterations: int) -> Segment | None:
    """The object that the marks are about, or None where nothing stands out there. The same marks give the same.

    A coarse look finds the object, a fine one its edges: all but a band around these is then known, without which some
    images, such as scanned pages, would take a minute.

    Args:
        image: shape (height, width, 3), red, green, blue.
        seeds: at least one box, point inside or painted pixel.
        pixels: most that are looked at closely.
        iterations: of GrabCut, at least 1.
    """
    cv = opencv()
    whole = np.array([(0, 0), (image.shape[1], image.shape[0])], dtype=np.float64)
    around = np.concatenate(seeds.boxes) if seeds.boxes else whole
    window = _Window.around(around, image.shape, min(pixels, COARSE_PIXELS))
    first = None if window is None else _look(cv, image, seeds, window, None, iterations)
    if window is None or first is None:
        return None
    rows, columns = np.nonzero(first.mask)
    extent = np.array([(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)], dtype=np.float64)
    closer = _Window.around(extent, image.shape, pixels)
    if closer is None or closer.scale <= window.scale:
        return first
    # Where that finds nothing, the coarse look is the better answer.
    return _look(cv, image, seeds, closer, (first.mask, BAND / window.scale), 1) or first


def _look(
    cv: Any, image: Bytes, seeds: Seeds, window: _Window, before: tuple[Flags, float] | None, iterations: int
) -> Segment | None:
    """What GrabCut finds in a window.

    Args:
        cv: OpenCV.
        image: the whole image.
        seeds: what is known from the marks.
        window: where to look.
        before: what an earlier look found, and how many pixels of the image its edges may be off; None at first.
        iterations: of GrabCut.
    """
    small = window.seen(cv, image, cv.INTER_AREA)
    stroke = None
    if seeds.stroke is not None:
        # A thin stroke must not vanish when it is scaled down.
        stroke = window.seen(cv, seeds.stroke.astype(np.uint8) * 255, cv.INTER_AREA) > 25
    known = _known(cv, small, seeds, window, stroke)
    sure = known == cv.GC_FGD
    if before is not None:
        mask, reach = before
        guess = window.seen(cv, mask.astype(np.uint8), cv.INTER_NEAREST)
        known = _banded(cv, known, guess, max(2, round(reach * window.scale)))
    mask, stability = _cut(cv, small, known, iterations)
    mask = _tidied(cv, mask, None if seeds.boxes else sure)
    return Segment(window.back(cv, mask, image.shape), stability) if mask.any() else None


def _banded(cv: Any, known: Bytes, guess: Bytes, reach: int) -> Bytes:
    """What is known when all but a band around the edges of a mask is taken from it; what was marked stays."""
    kernel = cv.getStructuringElement(cv.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    banded = np.where(guess > 0, cv.GC_PR_FGD, cv.GC_PR_BGD).astype(np.uint8)
    banded[cv.erode(guess, kernel) > 0] = cv.GC_FGD
    banded[cv.dilate(guess, kernel) == 0] = cv.GC_BGD
    marked = (known == cv.GC_FGD) | (known == cv.GC_BGD)
    return np.asarray(np.where(marked, known, banded), dtype=np.uint8)


def _known(cv: Any, small: Bytes, seeds: Seeds, window: _Window, stroke: Flags | None) -> Bytes:
    """What is known of each pixel before the first cut, in GrabCut's own four values."""
    known: Bytes = np.full(small.shape[:2], cv.GC_BGD if seeds.boxes else cv.GC_PR_BGD, dtype=np.uint8)
    for box in seeds.boxes:
        cv.fillPoly(known, [window.moved(box)], cv.GC_PR_FGD)
    inside = window.moved(seeds.inside)
    if not seeds.boxes:
        starts = [inside, _some(stroke)]
        known[_alike(cv, small, np.concatenate(starts))] = cv.GC_PR_FGD
    if stroke is not None:
        known[stroke] = cv.GC_FGD
    radius = max(1, round(min(small.shape[:2]) * POINT_RADIUS))
    for points, value in ((inside, cv.GC_FGD), (window.moved(seeds.outside), cv.GC_BGD)):
        for x, y in points:
            cv.circle(known, (int(x), int(y)), radius, value, thickness=-1)
    return known


def _some(stroke: Flags | None) -> NDArray[np.int32]:
    """A few points of a stroke, evenly chosen, shape (n, 2)."""
    if stroke is None:
        return np.zeros((0, 2), dtype=np.int32)
    rows, columns = np.nonzero(stroke)
    chosen = np.linspace(0, len(rows) - 1, min(STROKE_POINTS, len(rows))).astype(int)
    return np.stack([columns[chosen], rows[chosen]], axis=1).astype(np.int32)


def _alike(cv: Any, small: Bytes, starts: NDArray[np.int32]) -> Flags:
    """Pixels of a colour like that at a start, and connected with it."""
    smooth = cv.medianBlur(cv.cvtColor(small, cv.COLOR_RGB2LAB), 5)
    height, width = small.shape[:2]
    found = np.zeros((height + 2, width + 2), dtype=np.uint8)
    flags = 4 | cv.FLOODFILL_FIXED_RANGE | cv.FLOODFILL_MASK_ONLY | (1 << 8)
    for x, y in starts:
        start = (int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1)))
        cv.floodFill(smooth, found, start, 0, ALIKE, ALIKE, flags)
    return np.asarray(found[1:-1, 1:-1] > 0)


def _cut(cv: Any, small: Bytes, known: Bytes, iterations: int) -> tuple[Flags, float]:
    """The object, and how little the last iteration changed; what is known is changed in place."""

    def now() -> Flags:
        return np.asarray((known == cv.GC_FGD) | (known == cv.GC_PR_FGD))

    begun = now()
    if begun.all() or not begun.any():
        # No background to tell it from, such as a rectangle around the whole image; or no object at all.
        return begun, 0.0
    # GrabCut's clusters begin at random places.
    cv.setRNGSeed(0)
    small = _grained(small)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv.grabCut(small, known, None, *models, 1, cv.GC_INIT_WITH_MASK)
    before = begun
    for _ in range(iterations - 1):
        before = now()
        if before.all() or not before.any():
            return before, 0.0
        cv.grabCut(small, known, None, *models, 1, cv.GC_EVAL)
    after = now()
    either = int((before | after).sum())
    return after, int((before & after).sum()) / either if either else 0.0


def _grained(small: Bytes) -> Bytes:
    """With a little noise, the same each time: where all colours are equal, a cut can take minutes to be found."""
    grain = np.random.default_rng(0).integers(-GRAIN, GRAIN + 1, small.shape, dtype=np.int16)
    return np.asarray((small + grain).clip(0, 255), dtype=np.uint8)


def _tidied(cv: Any, mask: Flags, sure: Flags | None) -> Flags:
    """Without specks and pinholes; of the pieces, those that were marked, or where none was, the large ones."""
    kernel = cv.getStructuringElement(cv.MORPH_ELLIPSE, (3, 3))
    clean = cv.morphologyEx(mask.astype(np.uint8), cv.MORPH_OPEN, kernel)
    clean = cv.morphologyEx(clean, cv.MORPH_CLOSE, kernel)
    count, pieces, stats, _ = cv.connectedComponentsWithStats(clean, connectivity=8)
    if count < 2:
        return np.zeros_like(mask)
    areas = stats[1:, cv.CC_STAT_AREA]
    kept = np.nonzero(areas >= areas.max() * SMALLEST_PIECE)[0] + 1
    if sure is not None:
        marked = np.unique(pieces[sure])
        kept = marked[marked > 0]
    return np.asarray(np.isin(pieces, kept))
