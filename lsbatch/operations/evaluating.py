"""Predictions in a project against the annotations that people made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lsbatch.entities import AnnotatedTask, TaskId
from lsbatch.errors import ExitCode
from lsbatch.label_config import LabelConfig
from lsbatch.operations.training_data import Consensus, choose
from lsbatch.ports import AnnotationSource, PredictionStore, Selection
from lsbatch.progress import Progress
from lsbatch.quality.intervals import Interval
from lsbatch.quality.scorecard import Scorecard, VersionQuality, compared

__all__ = ["EvaluationReport", "evaluate"]

#: Annotated tasks whose predictions are read at a time.
TASKS = 300


@dataclass
class EvaluationReport:
    """What was measured of each version, the newest first.

    Attributes:
        project: its id.
        annotated: tasks with an annotation that counts.
        versions: by version.
        reference: the version that the others are compared with.
        differences: by version, on how many tasks it was compared with ``reference``, and how much it agrees more.
    """

    project: int
    annotated: int = 0
    versions: list[VersionQuality] = field(default_factory=list)
    reference: str = ""
    differences: dict[str, tuple[int, Interval]] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """Of a process that did this."""
        return ExitCode.DONE

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "project": self.project,
            "annotated": self.annotated,
            "reference": self.reference or None,
            "versions": [
                {**version.to_json(), "difference": self._difference(version.model_version)}
                for version in self.versions
            ],
        }

    def _difference(self, version: str) -> dict[str, Any] | None:
        if version not in self.differences:
            return None
        tasks, interval = self.differences[version]
        return {"tasks": tasks, **interval.to_json()}


def evaluate(
    source: AnnotationSource,
    store: PredictionStore,
    label_config: LabelConfig,
    versions: Sequence[str],
    selection: Selection,
    consensus: Consensus,
    progress: Progress,
    *,
    project: int,
    annotated_tasks: int,
    trained: Mapping[str, Collection[int]],
) -> EvaluationReport:
    """Compare predictions of these versions with what people said. Reads only; may be repeated.

    Args:
        source: where the annotations are.
        store: where the predictions are.
        label_config: of the project.
        versions: which, the reference first.
        selection: of which tasks.
        consensus: which annotation of a task counts.
        progress: told of every annotated task.
        project: its id, for the report.
        annotated_tasks: about how many there are, for the progress bar.
        trained: by version, tasks that it was trained on: to be right there proves nothing, so they are left out.

    Raises:
        TransientError: the server did not answer, or not completely.
    """
    report = EvaluationReport(project)
    cards = {version: Scorecard(version, label_config) for version in versions}
    with progress.stage("annotations", annotated_tasks) as meter:
        for group in _groups(source.annotated(selection)):
            _add(report, cards, store, group, consensus, trained)
            meter.advance(len(group))
    report.versions = [card.result() for card in cards.values()]
    if report.versions:
        first = report.versions[0]
        report.reference = first.model_version
        for version in report.versions[1:]:
            if (found := compared(version, first)) is not None:
                report.differences[version.model_version] = found
    return report


def _groups(tasks: Iterator[AnnotatedTask]) -> Iterator[list[AnnotatedTask]]:
    while group := list(islice(tasks, TASKS)):
        yield group


def _add(
    report: EvaluationReport,
    cards: Mapping[str, Scorecard],
    store: PredictionStore,
    group: Sequence[AnnotatedTask],
    consensus: Consensus,
    trained: Mapping[str, Collection[int]],
) -> None:
    said = {entry.task.id: annotation for entry in group if (annotation := choose(entry.annotations, consensus))}
    report.annotated += len(said)
    if not said or not cards:
        return
    newest: dict[tuple[str, TaskId], Any] = {}
    for page in store.holding(Selection(task_ids=tuple(sorted(map(int, said)))), list(cards)):
        for task in page:
            # Oldest first: of duplicates, the newest counts.
            newest.update({(entry.model_version, task.task_id): entry for entry in task.predictions})
    for version, card in cards.items():
        for task_id, annotation in said.items():
            prediction = newest.get((version, task_id))
            if task_id in trained.get(version, ()):
                card.trained_on += 1
            elif prediction is None:
                card.without += 1
            else:
                card.add(prediction, annotation)
