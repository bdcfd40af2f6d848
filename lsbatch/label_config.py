"""What a project's labeling config allows, and why a prediction does not fit it.

The one core module that imports the SDK: ``LabelInterface.validate_prediction`` is the very code that the server runs
on an import, so the verdict here is the server's, before the request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lsbatch.errors import RefusedError

__all__ = ["Control", "LabelConfig"]


@dataclass(frozen=True, slots=True)
class Control:
    """A control tag bound to the object tag that it labels.

    Attributes:
        name: the control's name, ``from_name`` in regions.
        tag: its tag, such as ``Choices``; in lower case this is a region's ``type``.
        to_name: the object's name.
        object_tag: the object's tag, such as ``Text``.
        data_key: the key of the task's data that the object shows.
        labels: the values that a region may carry, in the order of the config. Where a label has an alias, the alias.
        multiple: several labels may be chosen for one task.
    """

    name: str
    tag: str
    to_name: str
    object_tag: str
    data_key: str
    labels: tuple[str, ...]
    multiple: bool


class LabelConfig:
    """A labeling config. Built from text in each process: ``LabelInterface`` itself cannot be pickled.

    Raises:
        RefusedError: the text is empty, is not XML, or is refused by Label Studio's own validation.
    """

    def __init__(self, text: str) -> None:
        from label_studio_sdk.label_interface import LabelInterface

        self.text = text
        if not text.strip():
            raise RefusedError("the project has no label config", hint="Set one in the project's Labeling Interface.")
        try:
            self._interface: Any = LabelInterface(text)
        except Exception as error:  # the SDK raises several unrelated kinds here
            raise RefusedError(f"the project's label config cannot be read: {error}") from error

    def __reduce__(self) -> tuple[type[LabelConfig], tuple[str]]:
        return (LabelConfig, (self.text,))

    @cached_property
    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def controls(self) -> tuple[Control, ...]:
        """All controls that label an object, in the order of the config."""
        objects = {tag.name: tag for tag in self._interface.objects}
        found = []
        for tag in self._interface.controls:
            to_name = next((name for name in tag.to_name if name in objects), None)
            if to_name is None:
                continue
            found.append(
                Control(
                    name=tag.name,
                    tag=tag.tag,
                    to_name=to_name,
                    object_tag=objects[to_name].tag,
                    data_key=objects[to_name].value_name or "",
                    labels=tuple(tag.labels),
                    multiple=str(tag.attr.get("choice", "")).startswith("multiple"),
                )
            )
        return tuple(found)

    def find(self, tag: str, *object_tags: str) -> Control | None:
        """The first control of this tag on one of these object tags, or None."""
        for control in self.controls:
            if control.tag == tag and control.object_tag in object_tags:
                return control
        return None

    def why_invalid(self, prediction: Mapping[str, Any]) -> str | None:
        """Why Label Studio would refuse this prediction (``result`` and ``score``), or None if it fits."""
        errors: list[Any] = self._interface.validate_prediction(dict(prediction), return_errors=True)
        # A relation's errors come as a list inside the list.
        return "; ".join(word for error in errors for word in (error if isinstance(error, list) else [error])) or None
