"""The tasks that a model learns from and is measured on, and which of several annotations of a task counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lsbatch.entities import Annotation, TaskId
from lsbatch.ports import AnnotationSource, Selection, TrainingTask
from lsbatch.progress import Progress
from lsbatch.quality.agreement import answer

__all__ = ["Consensus", "TrainingData", "choose", "is_held_out", "read_training_data"]

#: Which annotation of a task counts.
Consensus = Literal["latest", "first", "majority", "ground-truth"]


@dataclass
class TrainingData:
    """What people said.

    Attributes:
        tasks: ids ascending, each with the annotation that counts.
        used: of each of them: task id, annotation id, time of the annotation's last change.
        skipped: tasks without an annotation that counts.
    """

    tasks: list[TrainingTask] = field(default_factory=list)
    used: list[tuple[TaskId, int, str]] = field(default_factory=list)
    skipped: int = 0


def is_held_out(task: int, share: float) -> bool:
    """Whether a task is held out: by a hash of its id, so that it is so in every training, on every machine.

    What is held out of a smaller share is held out of a greater one too.
    """
    digest = hashlib.sha256(str(task).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def choose(annotations: Sequence[Annotation], which: Consensus) -> Annotation | None:
    """The annotation that counts, or None; those that the annotator cancelled never do.

    ``majority`` takes the latest of those that say what most say; where two say different things, the latest.
    """
    counting = sorted(
        (entry for entry in annotations if not entry.was_cancelled), key=lambda entry: (entry.updated_at, entry.id)
    )
    if which == "ground-truth":
        counting = [entry for entry in counting if entry.ground_truth]
    if not counting:
        return None
    if which == "majority":
        answers = [answer(entry.result) for entry in counting]
        votes = Counter(answers)
        return max(enumerate(counting), key=lambda place: (votes[answers[place[0]]], place[0]))[1]
    return counting[0] if which == "first" else counting[-1]


def read_training_data(
    source: AnnotationSource,
    selection: Selection,
    consensus: Consensus,
    holdout: float,
    progress: Progress,
    *,
    annotated_tasks: int,
) -> TrainingData:
    """All annotated tasks of a selection. They are held in memory, as what is learned from them will be.

    Args:
        source: where the annotations are.
        selection: of which tasks.
        consensus: which annotation of a task counts.
        holdout: share that is held out, in (0, 1).
        progress: told of every annotated task.
        annotated_tasks: about how many there are, for the progress bar.

    Raises:
        TransientError: the source did not answer.
        PermanentError: it refused.
    """
    data = TrainingData()
    with progress.stage("annotations", annotated_tasks) as meter:
        for entry in source.annotated(selection):
            meter.advance(1)
            annotation = choose(entry.annotations, consensus)
            if annotation is None:
                data.skipped += 1
                continue
            data.used.append((entry.task.id, annotation.id, annotation.updated_at))
            data.tasks.append(TrainingTask(entry.task, annotation.result, is_held_out(entry.task.id, holdout)))
    return data
