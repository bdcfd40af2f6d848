"""Reading the text of a task: what every pipeline for texts shares."""

from __future__ import annotations

from lsbatch.entities import Task
from lsbatch.label_config import Control
from lsbatch.ports import TaskFailure

__all__ = ["task_text"]


def task_text(task: Task, control: Control) -> str | TaskFailure:
    """The text that the control's object shows, as it stands in the task, or why there is none."""
    key = control.data_key
    if key not in task.data:
        there = ", ".join(map(str, task.data)) or "nothing"
        return TaskFailure(f"the task's data has no key {key!r}; it has {there}")
    text = task.data[key]
    if not isinstance(text, str):
        return TaskFailure(f"the task's {key!r} is {'null' if text is None else type(text).__name__}, not a text")
    return text
