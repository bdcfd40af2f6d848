"""What a project's labeling config allows, and why a prediction does not fit it.

The one core module that imports the SDK: ``LabelInterface.validate_prediction`` is the very code that the server runs
on an import, so the verdict here is the server's, before the request. It takes seconds to load, so that it is loaded
when the first prediction is judged; which controls there are is read without it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from xml.etree import ElementTree

from lsbatch.errors import RefusedError

__all__ = ["Control", "LabelConfig"]

#: Tags that give a control its labels.
LABEL_TAGS = ("Label", "Choice", "Relation")
#: Tags with the attributes of a control that label nothing.
NO_CONTROLS = ("Filter",)


@dataclass(frozen=True, slots=True)
class Control:
    """A control tag bound to the object tag that it labels.

    Attributes:
        name: the control's name, ``from_name`` in regions.
        tag: its tag, such as ``Choices``; in lower case this is a region's ``type``.
        to_name: the object's name.
        object_tag: the object's tag, such as ``Text``.
        data_key: the one key of the task's data that the object shows; empty where it shows a list, or a fixed text.
        labels: the values that a region may carry, in the order of the config. Where a label has an alias, the alias.
        multiple: several labels may be chosen for one task.
        attributes: of the control's tag, as they stand in the config.
        object_attributes: of the object's tag.
    """

    name: str
    tag: str
    to_name: str
    object_tag: str
    data_key: str
    labels: tuple[str, ...]
    multiple: bool
    attributes: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    object_attributes: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


class LabelConfig:
    """A labeling config. Built from text in each process: ``LabelInterface`` itself cannot be pickled.

    Raises:
        RefusedError: the text is empty, or is not XML.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if not text.strip():
            raise RefusedError("the project has no label config", hint="Set one in the project's Labeling Interface.")
        try:
            # The server's text: Python's expat refuses entities that grow without end.
            self._tree = ElementTree.fromstring(text)  # noqa: S314
        except ElementTree.ParseError as error:
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
        named = {tag.attrib["name"]: tag for tag in self._tree.iter() if tag.get("name")}
        controls = [name for name, tag in named.items() if tag.get("toName") and tag.tag not in NO_CONTROLS]
        labels = self._labels(controls)
        found = []
        for name in controls:
            tag = named[name]
            shown = (other for other in tag.attrib["toName"].split(",") if _shows(named.get(other)))
            if (to_name := next(shown, None)) is not None:
                found.append(_control(tag, named[to_name], labels[name]))
        return tuple(found)

    def _labels(self, controls: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The labels of each control: those below it, but not below a control inside it."""
        found: dict[str, dict[str, None]] = {name: {} for name in controls}

        def walk(tag: ElementTree.Element, control: str) -> None:
            for child in tag:
                if child.tag in LABEL_TAGS and control and (label := child.get("alias") or child.get("value")):
                    found[control][label] = None
                walk(child, child.get("name", "") if child.get("name") in found else control)

        walk(self._tree, self._tree.get("name", "") if self._tree.get("name") in found else "")
        return {name: tuple(labels) for name, labels in found.items()}

    def find(self, tag: str, *object_tags: str) -> Control | None:
        """The first control of this tag on one of these object tags, or None."""
        return next(self.find_all(tag, *object_tags), None)

    def find_all(self, tag: str, *object_tags: str) -> Iterator[Control]:
        """Every control of this tag on one of these object tags, in the order of the config."""
        return (entry for entry in self.controls if entry.tag == tag and entry.object_tag in object_tags)

    @cached_property
    def _interface(self) -> Any:
        from label_studio_sdk.label_interface import LabelInterface

        try:
            return LabelInterface(self.text)
        except Exception as error:  # the SDK raises several unrelated kinds here
            raise RefusedError(f"the project's label config cannot be read: {error}") from error

    def why_invalid(self, prediction: Mapping[str, Any]) -> str | None:
        """Why Label Studio would refuse this prediction (``result`` and ``score``), or None if it fits.

        Raises:
            RefusedError: Label Studio's own code cannot read the label config.
        """
        interface = self._interface
        try:
            errors: list[Any] = interface.validate_prediction(dict(prediction), return_errors=True)
        except Exception as error:  # a region of a strange form, such as a number: the SDK trips over it
            return f"it has not the form of a prediction: {type(error).__name__}: {error}"
        # A relation's errors come as a list inside the list.
        return "; ".join(word for error in errors for word in (error if isinstance(error, list) else [error])) or None


def _shows(tag: ElementTree.Element | None) -> bool:
    """Whether the tag is an object: named, with a value, and no control itself."""
    return tag is not None and not tag.get("toName") and bool(tag.get("value") or tag.get("valueList"))


def _control(tag: ElementTree.Element, shown: ElementTree.Element, labels: tuple[str, ...]) -> Control:
    value = shown.get("value", "")
    return Control(
        name=tag.attrib["name"],
        tag=tag.tag,
        to_name=shown.attrib["name"],
        object_tag=shown.tag,
        # "$text" is a key; "Read $text" and "$first, $second" are not.
        data_key=value[1:] if re.fullmatch(r"\$[^\s,$]+", value) else "",
        labels=labels,
        multiple=tag.get("choice", "").startswith("multiple"),
        attributes=dict(tag.attrib),
        object_attributes=dict(shown.attrib),
    )
