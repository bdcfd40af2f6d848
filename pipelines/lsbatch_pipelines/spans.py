"""What pipelines for ``Labels`` on texts need: the control, the text of a task, regions read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsbatch.entities import Task
from lsbatch.errors import ConfigError
from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import TaskFailure, TrainingTask
from lsbatch_pipelines.documents import Document, HtmlDocument
from lsbatch_pipelines.mentions import words_of
from lsbatch_pipelines.texts import task_text

__all__ = [
    "Span",
    "find_control",
    "labels_of",
    "places",
    "read_document",
    "read_example",
    "servable",
    "why_not",
    "write_region",
]

OBJECT_TAGS = ("Text", "HyperText")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A labeled part of a text, ``start <= place < end`` in code points, from its first word to its last."""

    start: int
    end: int
    label: str


# ------------------------------------------------------------------------------------------------ the control


def why_not(label_config: LabelConfig) -> str | None:
    """Why there is no ``Labels`` on a text that can be served, or None if there is."""
    reasons = [_unservable(control) for control in label_config.find_all("Labels", *OBJECT_TAGS)]
    if None in reasons:
        return None
    return "; ".join(filter(None, reasons)) or f"it has no Labels on {' or '.join(OBJECT_TAGS)}"


def _unservable(control: Control) -> str | None:
    """Why the spans of this ``Labels`` cannot be found, or None."""
    if not control.data_key:
        return f"{control.object_tag} '{control.to_name}' shows no single key of the task's data"
    if control.object_attributes.get("valueType") == "url":
        return f"{control.object_tag} '{control.to_name}' shows what is behind an address (valueType), not a text"
    if control.object_attributes.get("encoding", "none") != "none":
        return f"{control.object_tag} '{control.to_name}' shows a text that is encoded (encoding)"
    if not control.labels:
        return f"Labels '{control.name}' has no labels of its own"
    return None


def servable(label_config: LabelConfig) -> list[Control]:
    """Every ``Labels`` on a text that can be served."""
    return [control for control in label_config.find_all("Labels", *OBJECT_TAGS) if not _unservable(control)]


def find_control(label_config: LabelConfig, name: str) -> Control:
    """The ``Labels`` of this name, else the first one that can be served.

    Raises:
        ConfigError: there is none.
    """
    controls = servable(label_config)
    if not controls:
        raise ConfigError(f"the label config cannot be served: {why_not(label_config)}")
    for control in controls:
        if name in ("", control.name):
            return control
    there = ", ".join(repr(control.name) for control in controls)
    raise ConfigError(f"pipeline.params.control: there is no Labels {name!r} that can be served; there are {there}")


# ------------------------------------------------------------------------------------------------ regions


def read_document(task: Task, control: Control) -> Document | TaskFailure:
    """The text of a task as Label Studio shows it, or why there is none."""
    text = task_text(task, control)
    if isinstance(text, TaskFailure):
        return text
    if control.object_tag == "HyperText":
        return HtmlDocument.read(text, inline=control.object_attributes.get("inline") == "true")
    return Document(text)


def labels_of(region: Mapping[str, Any]) -> list[str]:
    """The labels of a region; none where it has no list of them."""
    found = region["value"].get("labels")
    return found if isinstance(found, list) and all(isinstance(label, str) for label in found) else []


def write_region(control: Control, document: Document, place: tuple[int, int], labels: Sequence[str]) -> dict[str, Any]:
    """A region of the control, as Label Studio writes it.

    Args:
        control: that is filled.
        document: the text.
        place: start and end in it.
        labels: what it gets.
    """
    value = {**document.value(*place), "labels": list(labels)}
    return {"from_name": control.name, "to_name": control.to_name, "type": "labels", "value": value}


def places(document: Document, regions: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Where these regions are; those that cannot be placed stand in nobody's way."""
    found = []
    for region in regions:
        try:
            found.append(document.place(region["value"]))
        except ValueError:
            continue
    return found


def read_example(entry: TrainingTask, control: Control) -> tuple[Document, list[Span]] | TaskFailure:
    """The text of an annotated task and its spans, in their order, from first word to last."""
    document = read_document(entry.task, control)
    if isinstance(document, TaskFailure):
        return document
    spans: set[Span] = set()
    for region in entry.result:
        if region.get("from_name") != control.name:
            continue
        value = region.get("value")
        labels = labels_of(region) if isinstance(value, Mapping) else []
        if unknown := sorted(set(labels) - set(control.labels)):
            return TaskFailure(f"the label config has no label {unknown[0]!r} in '{control.name}'")
        if not labels or value is None:
            return TaskFailure(f"the annotation's region of '{control.name}' holds no list of labels")
        try:
            start, end = document.place(value)
        except ValueError as error:
            return TaskFailure(str(error))
        # Blanks at the ends, which a mouse catches easily, are no part of it.
        text = document.text[start:end]
        start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
        if words_of(document.text[start:end]):
            spans.update(Span(start, end, label) for label in labels)
    return document, sorted(spans)
