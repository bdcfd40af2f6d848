"""Reading the image of a task: what every pipeline for images shares."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from lsbatch.entities import Task
from lsbatch.errors import PipelineError, TransientError
from lsbatch.label_config import Control
from lsbatch.ports import MediaReader, TaskFailure

if TYPE_CHECKING:
    # Loaded where an image is opened: the driver only asks whether a pipeline fits.
    from PIL.Image import Image

__all__ = ["MOST_PIXELS", "image_uri", "look_at", "opened"]

#: What a pipeline makes of an image.
Seen = TypeVar("Seen")
#: Of an image before it is scaled; more would take gigabytes.
MOST_PIXELS = 89_000_000


def image_uri(task: Task, control: Control) -> str | TaskFailure:
    """The address of the image that the control's object shows, or why there is none."""
    key = control.data_key
    if key not in task.data:
        there = ", ".join(map(str, task.data)) or "nothing"
        return TaskFailure(f"the task's data has no key {key!r}; it has {there}")
    uri = task.data[key]
    if not isinstance(uri, str) or not uri:
        kind = "null" if uri is None else type(uri).__name__
        return TaskFailure(f"the task's {key!r} is {'empty' if uri == '' else kind}, not the address of an image")
    return uri


def look_at(uri: str, media: MediaReader, look: Callable[[bytes], Seen]) -> Seen | TaskFailure:
    """What ``look`` makes of the image's file, or why it cannot be read.

    Args:
        uri: of the image.
        media: reads it.
        look: may raise whatever a decoder raises.
    """
    from PIL import UnidentifiedImageError

    content = b""
    try:
        content = media.read(uri)
        return look(content)
    except (PipelineError, TransientError) as error:
        return TaskFailure(str(error))
    except UnidentifiedImageError:
        # Such as the login page of what lies behind the address.
        kind = "HTML, XML or SVG" if content.lstrip()[:1] == b"<" else "of no kind that Pillow knows"
        return TaskFailure(f"the image cannot be read: it is {kind}")
    except Exception as error:  # on a broken file Pillow's decoders raise OSError, SyntaxError, struct.error and more
        return TaskFailure(f"the image cannot be read: {str(error) or type(error).__name__}")


@contextmanager
def opened(content: bytes) -> Iterator[Image]:
    """The image of a file of any kind that Pillow reads, not decoded yet.

    Raises:
        Exception: not an image, a broken or too large one; of many kinds, since each decoder raises its own.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        # Pillow itself refuses only at twice this size, and warns below.
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
        yield image
