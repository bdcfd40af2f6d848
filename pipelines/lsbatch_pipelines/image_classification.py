"""Image with Choices: a small gray image and the directions of its edges into boosted trees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lsbatch.entities import Task
from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import (
    Evaluation,
    MediaReader,
    PipelineContext,
    TaskFailure,
    TaskResult,
    Trainable,
    TrainingTask,
)
from lsbatch_pipelines.choices import collect, evaluate, find_control, why_not, write_result
from lsbatch_pipelines.images import image_uri, look_at, opened
from lsbatch_pipelines.params import limited, named, read_params
from lsbatch_pipelines.xgboost_head import SEARCH_SPACE, Head, HeadOptions

__all__ = ["ImageClassification", "ImageOptions"]

Features = NDArray[np.float32]

#: Downloads at a time: most of an image's time is waiting for the server.
THREADS = 8
DIRECTIONS = 9
CELLS = 4
PIXELS = 8


@dataclass(frozen=True)
class ImageOptions:
    """``pipeline.params`` of image-classification."""

    #: Name of the Choices to fill; without it the first that can be, and for predictions that of the training.
    control: str = named()
    #: Most rounds of boosting; each grows one tree a label. Fewer where more stop helping.
    trees: int = limited(150, 1, 10_000)
    #: Most splits from a tree's root to a leaf.
    max_depth: int = limited(4, 1, 20)
    #: How much each tree corrects of what the trees before it left.
    learning_rate: float = limited(0.2, 0.001, 1.0)
    #: How far rare labels weigh more: 0 not at all, 1 until all labels weigh the same.
    balance: float = limited(0.5, 0.0, 1.0)
    #: Of all that is left to chance.
    seed: int = limited(0, 0, 2**31 - 1)
    #: Side in pixels of the square that an image is scaled to before its edges are looked at.
    size: int = limited(32, 16, 256, multiple_of=8)


class ImageClassification(Trainable):
    """Chooses labels for images.

    Args:
        media: reads the images; called from several threads.
        head: from features to labels.
        size: side in pixels of the square that images are scaled to.
        model_version: of its predictions.
        score: what their scores are, one of ``lsbatch_pipelines.calibration.SCORES``.
    """

    name: ClassVar[str] = "image-classification"

    def __init__(
        self, media: MediaReader, head: Head, size: int, model_version: str, score: str = "confidence"
    ) -> None:
        self.model_version = model_version
        self._score = score
        self._control = head.control
        self._media = media
        self._head = head
        self._size = size

    @classmethod
    def why_not(cls, label_config: LabelConfig) -> str | None:
        """See ``Pipeline.why_not``."""
        return why_not(label_config, "Image")

    @classmethod
    def build(cls, context: PipelineContext) -> Self:
        """See ``Pipeline.build``."""
        options = read_params(ImageOptions, context.params)
        head = Head.load(context.model_dir, context.label_config, "Image", name=options.control)
        # The features must be those of the training, whatever the parameters say now.
        size = int(head.extra.get("size", options.size))
        return cls(context.media, head, size, context.model_version, context.score)

    @classmethod
    def search_space(cls) -> Mapping[str, Sequence[Any]]:
        """See ``Trainable``: values of parameters that are worth trying."""
        return SEARCH_SPACE

    @classmethod
    def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Evaluation:
        """See ``Trainable.fit``."""
        options = read_params(ImageOptions, context.params)
        control = find_control(context.label_config, "Image", name=options.control)
        examples = collect(control, tasks, lambda batch: read_images(batch, control, context.media, options.size))
        grown = HeadOptions(options.trees, options.max_depth, options.learning_rate, 0.3, options.balance, options.seed)
        rows = np.stack(examples.rows)
        head = Head.fit(rows, examples.answers, control, grown, extra={"size": options.size}, cluster=context.cluster)
        head.save(model_dir)
        return evaluate(control, examples, head.predict(np.stack(examples.held_rows)))

    def predict(self, tasks: Sequence[Task]) -> Sequence[TaskResult | TaskFailure]:
        """See ``Pipeline.predict``. A task whose image cannot be read is a failure."""
        rows = read_images(tasks, self._control, self._media, self._size)
        readable = [row for row in rows if not isinstance(row, TaskFailure)]
        guesses = iter(self._head.predict(np.stack(readable), self._score)) if readable else iter(())
        return [row if isinstance(row, TaskFailure) else write_result(self._control, next(guesses)) for row in rows]

    def embed(self, tasks: Sequence[Task]) -> Sequence[Features | TaskFailure]:
        """See ``Pipeline``: the features that the model sees."""
        return read_images(tasks, self._control, self._media, self._size)


def read_images(tasks: Sequence[Task], control: Control, media: MediaReader, size: int) -> list[Features | TaskFailure]:
    """The features of each task's image, or why there are none, in the order of the tasks."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="media") as threads:
        return list(threads.map(lambda task: _read(task, control, media, size), tasks))


def _read(task: Task, control: Control, media: MediaReader, size: int) -> Features | TaskFailure:
    uri = image_uri(task, control)
    return uri if isinstance(uri, TaskFailure) else look_at(uri, media, lambda content: features(content, size))


def features(content: bytes, size: int) -> Features:
    """What is looked at of an image: shape (features,), float32, each about in [0, 1].

    8 x 8 gray pixels, and for each of 4 x 4 cells how strong its edges are in each of 9 directions (after Dalal and
    Triggs, Histograms of Oriented Gradients, 2005), normalized over the cell.

    Args:
        content: an image file of any kind that Pillow reads.
        size: side in pixels of the square that it is scaled to.

    Raises:
        Exception: not an image, a broken or too large one; of many kinds, since each decoder raises its own.
    """
    from PIL import Image  # here, since the driver only asks whether the pipeline fits

    with opened(content) as image:
        # A JPEG is decoded at the smallest size that suffices.
        image.draft("L", (size, size))
        gray = image.convert("L").resize((size, size), Image.Resampling.BICUBIC)
    small = np.asarray(gray.resize((PIXELS, PIXELS), Image.Resampling.BOX), dtype=np.float32) / 255
    return np.concatenate([small.ravel(), _edges(np.asarray(gray, dtype=np.float32) / np.float32(255))])


def _edges(gray: Features) -> Features:
    """Strength of edges by cell and direction, shape (4 * 4 * 9,)."""
    down, right = np.gradient(gray)
    strength = np.hypot(down, right)
    angle = np.mod(np.arctan2(down, right), np.pi) / np.pi * DIRECTIONS
    low = np.floor(angle).astype(int) % DIRECTIONS
    share = angle - np.floor(angle)
    side = gray.shape[0] // CELLS
    rows, columns = np.indices(gray.shape) // side
    cell = rows * CELLS + columns
    count = CELLS * CELLS * DIRECTIONS
    # Each pixel counts for the two nearest directions, so that a small turn changes little.
    histogram = np.bincount((cell * DIRECTIONS + low).ravel(), (strength * (1 - share)).ravel(), count)
    next_one = (low + 1) % DIRECTIONS
    histogram += np.bincount((cell * DIRECTIONS + next_one).ravel(), (strength * share).ravel(), count)
    cells = histogram.reshape(CELLS * CELLS, DIRECTIONS)
    norm = np.sqrt((cells**2).sum(axis=1, keepdims=True) + 0.1)
    return np.asarray(cells / norm, dtype=np.float32).ravel()
