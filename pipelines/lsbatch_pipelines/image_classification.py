"""Image with Choices: a small gray image and the directions of its edges into boosted trees."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lsbatch.entities import Task
from lsbatch.errors import PipelineError, TransientError
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
from lsbatch_pipelines.params import limited, named, read_params
from lsbatch_pipelines.xgboost_head import Head, HeadOptions

__all__ = ["ImageClassification", "ImageOptions"]

Features = NDArray[np.float32]

#: Downloads at a time: most of an image's time is waiting for the server.
THREADS = 8
DIRECTIONS = 9
CELLS = 4
PIXELS = 8
#: Of an image before it is scaled; more would take gigabytes.
MOST_PIXELS = 89_000_000


@dataclass(frozen=True)
class ImageOptions:
    """``pipeline.params`` of image-classification."""

    #: Name of the Choices to fill; without it the first that can be, and for predictions that of the training.
    control: str = named()
    #: Rounds of boosting; each grows one tree a label.
    trees: int = limited(150, 1, 10_000)
    #: Most splits from a tree's root to a leaf.
    max_depth: int = limited(4, 1, 20)
    #: How much each tree corrects of what the trees before it left.
    learning_rate: float = limited(0.2, 0.001, 1.0)
    #: Side in pixels of the square that an image is scaled to before its edges are looked at.
    size: int = limited(32, 16, 256, multiple_of=8)


class ImageClassification(Trainable):
    """Chooses labels for images.

    Args:
        media: reads the images; called from several threads.
        head: from features to labels.
        size: side in pixels of the square that images are scaled to.
        model_version: of its predictions.
    """

    name: ClassVar[str] = "image-classification"

    def __init__(self, media: MediaReader, head: Head, size: int, model_version: str) -> None:
        self.model_version = model_version
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
        return cls(context.media, head, size, context.model_version)

    @classmethod
    def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Evaluation:
        """See ``Trainable.fit``."""
        options = read_params(ImageOptions, context.params)
        control = find_control(context.label_config, "Image", name=options.control)
        examples = collect(control, tasks, lambda batch: read_images(batch, control, context.media, options.size))
        grown = HeadOptions(options.trees, options.max_depth, options.learning_rate, share_of_features=0.3)
        rows = np.stack(examples.rows)
        head = Head.fit(rows, examples.answers, control, grown, extra={"size": options.size})
        head.save(model_dir)
        return evaluate(control, examples, head.predict(np.stack(examples.held_rows)))

    def predict(self, tasks: Sequence[Task]) -> Sequence[TaskResult | TaskFailure]:
        """See ``Pipeline.predict``. A task whose image cannot be read is a failure."""
        rows = read_images(tasks, self._control, self._media, self._size)
        readable = [row for row in rows if not isinstance(row, TaskFailure)]
        guesses = iter(self._head.predict(np.stack(readable))) if readable else iter(())
        return [row if isinstance(row, TaskFailure) else write_result(self._control, next(guesses)) for row in rows]


def read_images(tasks: Sequence[Task], control: Control, media: MediaReader, size: int) -> list[Features | TaskFailure]:
    """The features of each task's image, or why there are none, in the order of the tasks."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="media") as threads:
        return list(threads.map(lambda task: _read(task, control, media, size), tasks))


def _read(task: Task, control: Control, media: MediaReader, size: int) -> Features | TaskFailure:
    from PIL import UnidentifiedImageError  # here, since the driver only asks whether the pipeline fits

    key = control.data_key
    if key not in task.data:
        there = ", ".join(map(str, task.data)) or "nothing"
        return TaskFailure(f"the task's data has no key {key!r}; it has {there}")
    uri = task.data[key]
    if not isinstance(uri, str) or not uri:
        kind = "null" if uri is None else type(uri).__name__
        return TaskFailure(f"the task's {key!r} is {'empty' if uri == '' else kind}, not the address of an image")
    content = b""
    try:
        content = media.read(uri)
        return features(content, size)
    except (PipelineError, TransientError) as error:
        return TaskFailure(str(error))
    except UnidentifiedImageError:
        # Such as the login page of what lies behind the address.
        kind = "HTML, XML or SVG" if content.lstrip()[:1] == b"<" else "of no kind that Pillow knows"
        return TaskFailure(f"the image cannot be read: it is {kind}")
    except Exception as error:  # on a broken file Pillow's decoders raise OSError, SyntaxError, struct.error and more
        return TaskFailure(f"the image cannot be read: {str(error) or type(error).__name__}")


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
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        # Pillow itself refuses only at twice this size, and warns below.
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
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
