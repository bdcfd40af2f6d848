"""What pipelines for one ``Choices`` control share: reading annotations, writing predictions, measuring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import Evaluation, LabelMetrics, TaskFailure, TaskResult, TrainingTask

__all__ = [
    "Answer",
    "Examples",
    "Guess",
    "collect",
    "evaluate",
    "find_control",
    "read_answer",
    "why_not",
    "write_result",
]

#: The labels that a person chose for one task. Empty is an answer too where several labels may be chosen.
Answer = frozenset[str]
#: What a pipeline makes of one task: a text, or a vector of features.
Row = TypeVar("Row")

FEWEST_TRAINING_TASKS = 10
BATCH_TASKS = 64


@dataclass(frozen=True, slots=True)
class Guess:
    """The labels predicted for one task, in the label config's order, and the confidence in them in [0, 1]."""

    labels: tuple[str, ...]
    score: float


# ------------------------------------------------------------------------------------------------ the control


def why_not(label_config: LabelConfig, *object_tags: str) -> str | None:
    """Why there is no ``Choices`` on one of these object tags that can be predicted, or None if there is."""
    reasons = [_unservable(control) for control in label_config.find_all("Choices", *object_tags)]
    if None in reasons:
        return None
    return "; ".join(filter(None, reasons)) or f"it has no Choices on {' or '.join(object_tags)}"


def _unservable(control: Control) -> str | None:
    """Why this ``Choices`` cannot be predicted, or None."""
    if not control.data_key:
        return f"{control.object_tag} '{control.to_name}' shows no single key of the task's data"
    if control.object_tag != "Image" and control.object_attributes.get("valueType") == "url":
        return f"{control.object_tag} '{control.to_name}' shows what is behind an address (valueType), not a text"
    if "true" in (control.attributes.get("perRegion"), control.attributes.get("perItem")):
        return f"Choices '{control.name}' is about single regions or items (perRegion, perItem), not about the task"
    if control.attributes.get("allowNested") == "true":
        return f"Choices '{control.name}' has choices within choices (allowNested)"
    if len(control.labels) < 2:
        return f"Choices '{control.name}' has fewer than 2 choices of its own"
    return None


def find_control(label_config: LabelConfig, *object_tags: str, name: str = "") -> Control:
    """The ``Choices`` that is predicted: that of this name, else the first one that can be.

    Args:
        label_config: of the project.
        object_tags: on one of which it must be.
        name: of the control; empty for any.

    Raises:
        ConfigError: there is none that can be predicted, or none of this name.
    """
    controls = [control for control in label_config.find_all("Choices", *object_tags) if not _unservable(control)]
    if not controls:
        raise ConfigError(f"the label config cannot be served: {why_not(label_config, *object_tags)}")
    for control in controls:
        if name in ("", control.name):
            return control
    there = ", ".join(repr(control.name) for control in controls)
    raise ConfigError(f"pipeline.params.control: there is no Choices {name!r} that can be predicted; there are {there}")


# ------------------------------------------------------------------------------------------------ regions


def read_answer(control: Control, result: Sequence[Mapping[str, Any]]) -> Answer | TaskFailure:
    """The labels that an annotation's result gives for the control, or why it cannot be learned from.

    Nothing chosen is an empty answer where several labels may be chosen, else a failure.
    """
    chosen: set[str] = set()
    for region in result:
        if region.get("from_name") != control.name:
            continue
        value = region.get("value")
        choices = value.get("choices") if isinstance(value, Mapping) else None
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            return TaskFailure(f"the annotation's region of '{control.name}' holds no list of choices")
        chosen.update(choices)
    if unknown := sorted(chosen.difference(control.labels)):
        names = ", ".join(repr(label) for label in unknown)
        return TaskFailure(f"the label config has no choice {names} in '{control.name}'")
    if not control.multiple and len(chosen) != 1:
        return TaskFailure(f"the annotation has {len(chosen)} choices for '{control.name}', exactly 1 is needed")
    return frozenset(chosen)


def write_result(control: Control, guess: Guess) -> TaskResult:
    """The guess as Label Studio writes a prediction; no labels give no region."""
    region = {
        "from_name": control.name,
        "to_name": control.to_name,
        "type": "choices",
        "value": {"choices": list(guess.labels)},
        "score": guess.score,
    }
    return {"result": [region] if guess.labels else [], "score": guess.score}


# ------------------------------------------------------------------------------------------------ training


@dataclass
class Examples(Generic[Row]):
    """What is learned from, and what is measured on: rows and answers of equal length, ascending by task id.

    Attributes:
        rows: of the tasks that are learned from.
        answers: the answers to ``rows``.
        held_rows: of the tasks that are held out.
        held_answers: the answers to ``held_rows``.
        unread: task id and cause of tasks that could not be used.
    """

    rows: list[Row] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    held_rows: list[Row] = field(default_factory=list)
    held_answers: list[Answer] = field(default_factory=list)
    unread: list[tuple[TaskId, str]] = field(default_factory=list)


def collect(
    control: Control,
    tasks: Iterable[TrainingTask],
    read_rows: Callable[[Sequence[Task]], Iterable[Row | TaskFailure]],
) -> Examples[Row]:
    """Read the tasks a few at a time, so that only their rows stay in memory, and check that they suffice.

    Args:
        control: the control to learn.
        tasks: in any order.
        read_rows: gives one row or failure for each task, in their order.

    Raises:
        ConfigError: fewer than 10 usable tasks to learn from, only one answer among them, or none held out.
    """
    usable: list[tuple[TaskId, bool, Answer, Row]] = []
    examples: Examples[Row] = Examples()
    for batch in _batches(tasks):
        answered = []
        for entry in batch:
            answer = read_answer(control, entry.result)
            if isinstance(answer, TaskFailure):
                examples.unread.append((entry.task.id, answer.cause))
            else:
                answered.append((entry, answer))
        rows = read_rows([entry.task for entry, _ in answered])
        for (entry, answer), row in zip(answered, rows, strict=True):
            if isinstance(row, TaskFailure):
                examples.unread.append((entry.task.id, row.cause))
            else:
                usable.append((entry.task.id, entry.held_out, answer, row))
    # The model must not depend on the order in which the tasks came.
    for _, held_out, answer, row in sorted(usable, key=lambda entry: entry[0]):
        (examples.held_rows if held_out else examples.rows).append(row)
        (examples.held_answers if held_out else examples.answers).append(answer)
    _check(control, examples)
    return examples


def _batches(tasks: Iterable[TrainingTask]) -> Iterator[list[TrainingTask]]:
    remaining = iter(tasks)
    while batch := list(islice(remaining, BATCH_TASKS)):
        yield batch


def _check(control: Control, examples: Examples[Row]) -> None:
    more = ""
    if examples.unread:
        task, cause = examples.unread[0]
        more = f"; {len(examples.unread)} cannot be used, such as task {task}: {cause}"
    if len(examples.rows) < FEWEST_TRAINING_TASKS:
        raise ConfigError(
            f"too few annotations for '{control.name}': {len(examples.rows)} usable, at least {FEWEST_TRAINING_TASKS}"
            f" are needed{more}",
            hint="Annotate more tasks, or name another Choices in pipeline.params.control. Tasks held out for the"
            " evaluation (retrain.holdout) are not counted here.",
        )
    answers = set(examples.answers)
    if len(answers) < 2:
        only = ", ".join(sorted(*answers)) or "nothing chosen"
        raise ConfigError(
            f"all {len(examples.answers)} annotations for '{control.name}' have the same answer: {only}{more}",
            hint="Annotate tasks of at least one other label.",
        )
    if not examples.held_rows:
        raise ConfigError(
            f"no annotated task is held out, so the model cannot be measured ({len(examples.rows)} to learn from)",
            hint="Annotate more tasks, or raise retrain.holdout.",
        )


# ------------------------------------------------------------------------------------------------ evaluation


def evaluate(control: Control, examples: Examples[Row], guesses: Sequence[Guess]) -> Evaluation:
    """Compare the guesses for the held-out tasks with their answers.

    The baseline always gives the most frequent answer of the tasks learned from. A ratio of nothing to nothing, such
    as the precision of a label that was never guessed, is 0.
    """
    truths = examples.held_answers
    guessed = [frozenset(guess.labels) for guess in guesses]
    counts = Counter(examples.answers)
    # Among equally frequent answers the choice must not depend on the order of sets.
    usual = min(counts, key=lambda answer: (-counts[answer], sorted(answer)))
    return Evaluation(
        trained_on=len(examples.rows),
        held_out=len(truths),
        accuracy=_ratio(sum(guess == truth for guess, truth in zip(guessed, truths, strict=True)), len(truths)),
        baseline=_ratio(sum(truth == usual for truth in truths), len(truths)),
        per_label=tuple(_metrics(label, guessed, truths) for label in control.labels),
        unread=tuple(sorted(examples.unread)),
    )


def _metrics(label: str, guessed: Sequence[Answer], truths: Sequence[Answer]) -> LabelMetrics:
    support = sum(label in truth for truth in truths)
    given = sum(label in guess for guess in guessed)
    right = sum(label in guess and label in truth for guess, truth in zip(guessed, truths, strict=True))
    return LabelMetrics(
        label=label,
        precision=_ratio(right, given),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, given + support),
        support=support,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
