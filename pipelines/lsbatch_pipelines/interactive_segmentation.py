"""Image with smart tools and BrushLabels or PolygonLabels: from a rectangle, a click or a stroke to the object."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lsbatch.entities import Task
from lsbatch.errors import ConfigError
from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import MediaReader, Pipeline, PipelineContext, TaskFailure, TaskResult
from lsbatch_pipelines.grabcut import Seeds, Segment, opencv, segment
from lsbatch_pipelines.images import MOST_PIXELS, image_uri, look_at, opened
from lsbatch_pipelines.marks import BOXES, BRUSHES, POINTS, Marks, regions_of, smart_controls
from lsbatch_pipelines.masks import brush_codec, brush_value, painted, polygon_value
from lsbatch_pipelines.params import limited, named, read_params

__all__ = ["InteractiveSegmentation", "InteractiveSegmentationOptions"]

Bytes = NDArray[np.uint8]

OUTPUTS = ("BrushLabels", "PolygonLabels")
PROMPTS = (*BOXES, *POINTS, *BRUSHES)
#: Images that stay decoded, since people click on the same one again and again.
KEPT_IMAGES = 4
#: Pixels of an image that is kept; a larger one is scaled down.
KEPT_PIXELS = 4_000_000
#: How far the ratio of width to height may be from the browser's, as a share.
RATIO_TOLERANCE = 0.02

NOTHING_MARKED = (
    "interactive-segmentation answers what an annotator marks, and nothing is marked; connect it as a live backend with"
    " interactive preannotations, or name another pipeline for a batch"
)


@dataclass(frozen=True)
class InteractiveSegmentationOptions:
    """``pipeline.params`` of interactive-segmentation."""

    #: Name of the BrushLabels or PolygonLabels to fill; without it the first that has the label of the mark.
    control: str = named()
    #: Of GrabCut; more take longer.
    iterations: int = limited(3, 1, 20)
    #: Most pixels that are looked at closely; a larger part of an image is scaled down to them.
    pixels: int = limited(250_000, 10_000, 4_000_000)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image as the browser shows it, and its size in pixels before it was scaled down."""

    pixels: Bytes
    width: int
    height: int


class InteractiveSegmentation(Pipeline):
    """Finds the object that an annotator has marked.

    Without a mark there is nothing to find, and each task is a ``TaskFailure``: an empty result would be stored as a
    prediction that the image is empty, a hundred thousand times by a batch that was started by mistake.

    Args:
        media: reads the images.
        outputs: the controls that it may fill.
        options: see there.
        model_version: of its predictions.
    """

    name: ClassVar[str] = "interactive-segmentation"
    model_version: str = "interactive-segmentation-1"

    def __init__(
        self,
        media: MediaReader,
        outputs: Sequence[Control],
        options: InteractiveSegmentationOptions,
        model_version: str = "",
    ) -> None:
        self.model_version = model_version or type(self).model_version
        self._media = media
        self._outputs = outputs
        self._options = options
        self._pictures: OrderedDict[str, _Picture] = OrderedDict()

    @classmethod
    def why_not(cls, label_config: LabelConfig) -> str | None:
        """See ``Pipeline.why_not``. Only where there is a smart tool, so that no other project is given to it."""
        prompts = smart_controls(label_config, "Image", tags=PROMPTS)
        if not prompts:
            return 'it has no RectangleLabels, KeyPointLabels or BrushLabels with smart="true" on Image'
        if not _outputs(label_config):
            return "it has no BrushLabels or PolygonLabels on an Image with a smart tool, one that shows a single key"
        return None

    @classmethod
    def build(cls, context: PipelineContext) -> Self:
        """See ``Pipeline.build``."""
        options = read_params(InteractiveSegmentationOptions, context.params)
        outputs = _outputs(context.label_config)
        if not outputs:
            raise ConfigError(f"the label config cannot be served: {cls.why_not(context.label_config)}")
        named = [control for control in outputs if options.control in ("", control.name)]
        if not named:
            there = ", ".join(repr(control.name) for control in outputs)
            raise ConfigError(
                f"pipeline.params.control: there is no {' or '.join(OUTPUTS)} {options.control!r} that can be filled;"
                f" there are {there}"
            )
        # Here and not at the first click, which somebody waits for.
        opencv()
        if any(control.tag in BRUSHES for control in context.label_config.controls):
            brush_codec()
        return cls(context.media, named, options, context.model_version)

    def predict(
        self, tasks: Sequence[Task], context: Mapping[str, Any] | None = None
    ) -> Sequence[TaskResult | TaskFailure]:
        """See ``Pipeline.predict``. All marks of the context are about one object, with the label of the last mark.

        An empty context gets an empty result, which is shown to nobody and stored nowhere.

        The score is the stability of the mask: intersection over union of what the last two cuts found.
        """
        if context is None:
            return [TaskFailure(NOTHING_MARKED) for _ in tasks]
        # Label Studio asks again when the marks are taken away, as after each answer that is accepted.
        return [self._answer(task, context) if regions_of(context) else {"result": []} for task in tasks]

    def _answer(self, task: Task, context: Mapping[str, Any]) -> TaskResult | TaskFailure:
        shown = {control.to_name for control in self._outputs}
        marks = Marks.read([region for region in regions_of(context) if region.get("to_name") in shown])
        if isinstance(marks, TaskFailure):
            return marks
        control = self._output(context, marks.label)
        if isinstance(control, TaskFailure):
            return control
        picture = self._picture(task, control)
        if isinstance(picture, TaskFailure):
            return picture
        if why := _why_another(picture, marks.size):
            return TaskFailure(why)
        try:
            seeds = _seeds(marks, picture.pixels)
        except ValueError as error:
            return TaskFailure(str(error))
        found = segment(picture.pixels, seeds, pixels=self._options.pixels, iterations=self._options.iterations)
        if found is None:
            return TaskFailure("nothing stands out where the mark is; a rectangle must hold the whole object")
        return _result(control, marks.label, found, marks.size or (picture.width, picture.height))

    def _output(self, context: Mapping[str, Any], label: str) -> Control | TaskFailure:
        """The control to fill: on the image that is marked, and with the label of the mark."""
        if not label:
            return TaskFailure("the mark has no label; choose one before you mark the object")
        marked = {region.get("to_name") for region in regions_of(context)}
        there = [control for control in self._outputs if control.to_name in marked]
        for control in there:
            if label in control.labels:
                return control
        names = " and ".join(f"{control.tag} '{control.name}'" for control in there)
        return TaskFailure(f"{names} has no label {label!r}, which the mark has; add it to the label config")

    def _picture(self, task: Task, control: Control) -> _Picture | TaskFailure:
        """The task's image, from memory if it was looked at lately."""
        uri = image_uri(task, control)
        if isinstance(uri, TaskFailure):
            return uri
        if uri in self._pictures:
            self._pictures.move_to_end(uri)
            return self._pictures[uri]
        picture = look_at(uri, self._media, _decoded)
        if isinstance(picture, _Picture):
            self._pictures[uri] = picture
            while len(self._pictures) > KEPT_IMAGES:
                self._pictures.popitem(last=False)
        return picture


def _outputs(label_config: LabelConfig) -> list[Control]:
    """The controls that can be filled: on an image of one key that has a smart tool too."""
    smart = {control.to_name for control in smart_controls(label_config, "Image", tags=PROMPTS)}
    return [
        control
        for control in label_config.controls
        if control.tag in OUTPUTS and control.object_tag == "Image" and control.data_key and control.to_name in smart
    ]


def _decoded(content: bytes) -> _Picture:
    """The image of a file, turned as its EXIF data say, as a browser does.

    Raises:
        Exception: as ``opened``.
    """
    from PIL import Image, ImageOps

    with opened(content) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    width, height = upright.size
    if width * height > KEPT_PIXELS:
        scale = (KEPT_PIXELS / (width * height)) ** 0.5
        upright = upright.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BOX)
    return _Picture(np.asarray(upright, dtype=np.uint8), width, height)


def _why_another(picture: _Picture, size: tuple[int, int] | None) -> str:
    """Why the image in the browser cannot be the one that was read, or an empty text."""
    if size is None:
        return ""
    width, height = size
    if width * height > MOST_PIXELS:
        return f"the mark says that the image has {width} x {height} pixels, more than {MOST_PIXELS:,}"
    # The browser may have got a smaller copy, whose percentages are the same; not another cut of it.
    if abs(width * picture.height / (height * picture.width) - 1) > max(RATIO_TOLERANCE, 2 / min(size)):
        return (
            f"the image has {picture.width} x {picture.height} pixels, but {width} x {height} where it was marked;"
            " its address gives two different images, or its EXIF data are read in two ways"
        )
    return ""


def _seeds(marks: Marks, pixels: Bytes) -> Seeds:
    """The marks in pixels.

    Raises:
        ValueError: a rectangle lies outside of the image, or a stroke cannot be read or is empty.
    """
    height, width = pixels.shape[:2]
    boxes = [np.array(box.corners(width, height), dtype=np.float64) for box in marks.boxes]
    if any((box.max(axis=0) <= 0).any() or (box.min(axis=0) >= (width, height)).any() for box in boxes):
        raise ValueError("the rectangle lies outside of the image")
    stroke = None
    for part in marks.strokes:
        mask = painted(part, width, height)
        stroke = mask if stroke is None else stroke | mask
    if stroke is not None and not stroke.any():
        raise ValueError("the stroke of the brush is empty")
    scale = np.array([width, height], dtype=np.float64) / 100
    inside, outside = (np.array(points, dtype=np.float64).reshape(-1, 2) for points in (marks.inside, marks.outside))
    return Seeds(boxes, inside * scale, outside * scale, stroke)


def _result(control: Control, label: str, found: Segment, size: tuple[int, int]) -> TaskResult | TaskFailure:
    """The object as a region of the control.

    Args:
        control: that is filled.
        label: that the object gets.
        found: the object.
        size: width and height in pixels of the image in the browser.
    """
    mask = found.mask
    if mask.shape != size[::-1]:
        cv = opencv()
        mask = cv.resize(mask.astype(np.uint8) * 255, size, interpolation=cv.INTER_LINEAR) > 127
    shape = brush_value(mask) if control.tag == "BrushLabels" else polygon_value(mask) if mask.any() else None
    if shape is None:
        return TaskFailure("what stands out where the mark is, is too small for a polygon")
    kind, score = control.tag.lower(), round(found.stability, 6)
    region = {
        "from_name": control.name,
        "to_name": control.to_name,
        "type": kind,
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": {**shape, kind: [label]},
        "score": score,
    }
    return {"result": [region], "score": score}
