"""Learn from a project's annotations, measure on tasks that were held back, and store the model as a new version."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lsbatch.entities import AnnotatedTask, Annotation, ModelVersion, TaskId
from lsbatch.errors import LsbatchError, PipelineError
from lsbatch.ports import AnnotationSource, Evaluation, ModelStore, PipelineContext, Trainable, TrainingTask
from lsbatch.predictor import printing_aside, raised
from lsbatch.progress import Progress

__all__ = ["Choice", "RetrainOptions", "RetrainReport", "choose", "is_held_out", "retrain"]

#: Which annotation of a task counts.
Choice = Literal["latest", "first", "ground-truth"]


@dataclass(frozen=True)
class RetrainOptions:
    """How to learn.

    Attributes:
        name: the first part of the version's name.
        pipeline: the pipeline's name, for the manifest.
        server: the Label Studio whose annotations they are, as state folders name it, for the manifest.
        project: id of the project there, for the manifest.
        holdout: share of the annotated tasks that the model is measured on, in (0, 1).
        annotations: which annotation of a task counts.
        libraries: name and version of the libraries in use, for the manifest.
    """

    name: str
    pipeline: str
    server: str
    project: int
    holdout: float = 0.2
    annotations: Choice = "latest"
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RetrainReport:
    """The stored version and what was measured; ``skipped`` tasks had no annotation that counts."""

    version: ModelVersion
    evaluation: Evaluation
    skipped: int

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return {"model_version": self.version.name, "skipped": self.skipped, **_metrics(self.evaluation)}


def is_held_out(task: int, share: float) -> bool:
    """Whether a task is held out: by a hash of its id, so that it is so in every training, on every machine."""
    digest = hashlib.sha256(str(task).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def choose(annotations: Sequence[Annotation], which: Choice) -> Annotation | None:
    """The annotation that counts, or None; those that the annotator cancelled never do."""
    counting = sorted(
        (entry for entry in annotations if not entry.was_cancelled), key=lambda entry: (entry.updated_at, entry.id)
    )
    if which == "ground-truth":
        counting = [entry for entry in counting if entry.ground_truth]
    if not counting:
        return None
    return counting[0] if which == "first" else counting[-1]


def retrain(
    source: AnnotationSource,
    store: ModelStore,
    pipeline: type[Trainable],
    context: PipelineContext,
    options: RetrainOptions,
    progress: Progress,
    *,
    annotated_tasks: int,
) -> RetrainReport:
    """Train, evaluate and publish. Nothing is stored when anything fails. May be repeated: each call is a new version.

    Args:
        source: where the annotations are.
        store: takes the version.
        pipeline: its ``fit`` is called once.
        context: what the pipeline is built from, without a model.
        options: how to learn.
        progress: told of every annotated task.
        annotated_tasks: about how many tasks have annotations, for the progress bar.

    Raises:
        ConfigError: too few annotations, or one label only.
        PipelineError: ``fit`` raised something else, or returned something else.
        TransientError: the source did not answer.
    """
    tasks = _Tasks(source.annotated(), options, progress, annotated_tasks)
    with tempfile.TemporaryDirectory(prefix="lsbatch-model-") as folder:
        evaluation = _fit(pipeline, context, tasks, Path(folder), options.pipeline)
        manifest = {
            "pipeline": options.pipeline,
            "server": options.server,
            "project": options.project,
            "params": dict(context.params),
            "label_config_hash": context.label_config.hash,
            "annotations": {"which": options.annotations, "held_out_share": options.holdout, "tasks": tasks.used},
            "metrics": _metrics(evaluation),
            "libraries": dict(options.libraries),
        }
        version = store.publish(options.name, Path(folder), manifest)
    return RetrainReport(version, evaluation, tasks.skipped)


def _fit(
    pipeline: type[Trainable], context: PipelineContext, tasks: Iterable[TrainingTask], folder: Path, name: str
) -> Evaluation:
    try:
        with printing_aside():
            evaluation: object = pipeline.fit(context, iter(tasks), folder)
    except LsbatchError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code: anything may come, exit() too
        raise PipelineError(f"pipeline {name} cannot be trained: fit() raised {raised(error)}") from error
    if not isinstance(evaluation, Evaluation):
        raise PipelineError(
            f"pipeline {name}: fit() returned {type(evaluation).__name__} instead of an Evaluation",
            hint="The contract is lsbatch.ports.Trainable.",
        )
    return evaluation


def _metrics(evaluation: Evaluation) -> dict[str, Any]:
    value = asdict(evaluation)
    value["unread"] = [{"task": task, "cause": cause} for task, cause in evaluation.unread]
    return value


class _Tasks:
    """The training tasks as they arrive, and a note of each: its annotation and the time of its last change."""

    def __init__(self, annotated: Iterator[AnnotatedTask], options: RetrainOptions, progress: Progress, total: int):
        self._annotated = annotated
        self._options = options
        self._progress = progress
        self._total = total
        self.used: list[tuple[TaskId, int, str]] = []
        self.skipped = 0

    def __iter__(self) -> Iterator[TrainingTask]:
        with self._progress.stage("annotations", self._total) as meter:
            for entry in self._annotated:
                meter.advance(1)
                annotation = choose(entry.annotations, self._options.annotations)
                if annotation is None:
                    self.skipped += 1
                    continue
                self.used.append((entry.task.id, annotation.id, annotation.updated_at))
                yield TrainingTask(entry.task, annotation.result, is_held_out(entry.task.id, self._options.holdout))
        # What comes now has no bar: the pipeline alone knows how far it is.
        if self.used:
            self._progress.say(f"training {self._options.pipeline} from {len(self.used):,} annotated tasks")
