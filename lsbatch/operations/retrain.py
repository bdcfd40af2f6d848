"""Learn from a project's annotations, measure on tasks that were held back, and use the model only if it is good."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lsbatch.entities import ModelVersion, Outcome, TaskId
from lsbatch.errors import ConfigError, ExitCode, LsbatchError, PipelineError
from lsbatch.operations.gate import Gate, judge, predicted
from lsbatch.operations.training_data import Consensus, TrainingData, is_held_out, read_training_data
from lsbatch.ports import AnnotationSource, Evaluation, ModelStore, PipelineContext, Selection, Trainable, TrainingTask
from lsbatch.predictor import Predictor, printing_aside, raised
from lsbatch.progress import Progress
from lsbatch.promotions import Lineage, Promotion

__all__ = ["RetrainOptions", "RetrainReport", "RetrainSetup", "fit", "retrain"]

#: Sets of parameters and the training data to the best of them.
Search = Callable[[PipelineContext, Sequence[TrainingTask]], Mapping[str, Any]]


@dataclass(frozen=True)
class RetrainOptions:
    """How to learn.

    Attributes:
        name: the first part of the version's name.
        lineage: what the model is for.
        holdout: share of the annotated tasks that the model is measured on, in (0, 1).
        consensus: which annotation of a task counts.
        min_annotations: fewer annotated tasks are refused.
        most_regression: how much worse than the version in use a new one may be, in [0, 1].
        since_last: train only if an annotation changed since the last version was trained.
        libraries: name and version of the libraries in use, for the manifest.
        selection: the settings that chose the tasks, for the manifest.
    """

    name: str
    lineage: Lineage
    holdout: float = 0.2
    consensus: Consensus = "latest"
    min_annotations: int = 0
    most_regression: float = 0.01
    since_last: bool = False
    libraries: Mapping[str, str] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RetrainSetup:
    """All that a training works with.

    Attributes:
        source: where the annotations are.
        store: takes the version.
        pipeline: its ``fit`` is called once, besides a search.
        context: what the pipeline is built from, without a model.
        options: how to learn.
        selection: tasks to learn from and to measure on.
        champion: the version in use, or None.
        last: the version trained last, or None.
        search: finds parameters first; None for those of the context.
        annotated_tasks: about how many tasks have annotations, for the progress bar.
    """

    source: AnnotationSource
    store: ModelStore
    pipeline: type[Trainable]
    context: PipelineContext
    options: RetrainOptions
    selection: Selection = field(default_factory=Selection)
    champion: ModelVersion | None = None
    last: ModelVersion | None = None
    search: Search | None = None
    annotated_tasks: int = 0


@dataclass(frozen=True)
class RetrainReport:
    """What came of it.

    Attributes:
        version: the stored version; None where nothing was new.
        evaluation: what the pipeline measured.
        gate: the comparison with the version in use.
        skipped: tasks without an annotation that counts.
        last: the version trained last, where nothing was new since.
        in_use: the version in use from now on; empty where there is none.
    """

    version: ModelVersion | None
    evaluation: Evaluation | None = None
    gate: Gate | None = None
    skipped: int = 0
    last: str = ""
    in_use: str = ""

    @property
    def promoted(self) -> bool:
        """Whether the new version is in use from now on."""
        return self.gate is not None and self.gate.passed

    @property
    def exit_code(self) -> ExitCode:
        """Of a process that did this."""
        return ExitCode.DONE if self.version is None or self.promoted else ExitCode.GATE_FAILED

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's types."""
        if self.version is None or self.evaluation is None or self.gate is None:
            nothing = {"model_version": None, "nothing_new_since": self.last, "skipped": self.skipped}
            return {**nothing, "in_use": self.in_use or None}
        return {
            "model_version": self.version.name,
            "promoted": self.promoted,
            "in_use": self.in_use or None,
            "skipped": self.skipped,
            "gate": self.gate.to_json(),
            "params": self.version.manifest["params"],
            **_metrics(self.evaluation, self.gate),
        }


def retrain(setup: RetrainSetup, progress: Progress) -> RetrainReport:
    """Train, measure, store, and promote what is good enough. Nothing is stored when anything fails.

    May be repeated: each call is a new version. A version that is not promoted stays in the store.

    Raises:
        ConfigError: too few annotations, one label only, no held-out task to measure on, or no place for the model.
        PipelineError: ``fit`` raised something else, or returned something else.
        TransientError: the source did not answer.
    """
    options, context = setup.options, setup.context
    setup.store.check_writable()
    data = read_training_data(
        setup.source,
        setup.selection,
        options.consensus,
        options.holdout,
        progress,
        annotated_tasks=setup.annotated_tasks,
    )
    if options.since_last and setup.last is not None and _same(setup.last, data, setup):
        return RetrainReport(None, skipped=data.skipped, last=setup.last.name, in_use=_in_use(setup, progress))
    if len(data.tasks) < options.min_annotations:
        raise ConfigError(
            f"{len(data.tasks):,} annotated tasks, at least {options.min_annotations:,} are wanted"
            " (retrain.min_annotations)",
            hint="Annotate more tasks, or give a smaller --min-annotations.",
        )
    if setup.search is not None:
        context = dataclasses.replace(context, params=setup.search(context, data.tasks))
    if data.tasks:
        progress.say(f"training {options.lineage.pipeline} from {len(data.tasks):,} annotated tasks")
    with tempfile.TemporaryDirectory(prefix="lsbatch-model-") as name:
        folder = Path(name)
        evaluation = fit(setup.pipeline, context, data.tasks, folder, options.lineage.pipeline)
        gate = _gate(setup, context, data, evaluation, folder, progress)
        manifest = {
            **asdict(options.lineage),
            "params": dict(context.params),
            "label_config_hash": context.label_config.hash,
            "annotations": {
                "consensus": options.consensus,
                "held_out_share": options.holdout,
                "selection": dict(options.selection),
                "tasks": data.used,
            },
            "metrics": _metrics(evaluation, gate),
            "gate": gate.to_json(),
            "parent": setup.champion.name if setup.champion else None,
            "libraries": dict(options.libraries),
        }
        version = setup.store.publish(options.name, folder, manifest)
    before = setup.champion.name if setup.champion else ""
    if gate.passed:
        _promote(setup, version.name, gate.verdict)
    return RetrainReport(version, evaluation, gate, data.skipped, in_use=version.name if gate.passed else before)


def _promote(setup: RetrainSetup, version: str, why: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    setup.store.note(Promotion(version, setup.options.lineage, now, why=why))


def _in_use(setup: RetrainSetup, progress: Progress) -> str:
    """The version in use; the one trained last, if the training that let it pass was killed before it could say so."""
    last = setup.last
    gate = last.manifest.get("gate") if last else None
    noted = {entry.version for entry in setup.store.promotions()}
    if last is not None and isinstance(gate, Mapping) and gate.get("passed") is True and last.name not in noted:
        _promote(setup, last.name, "it passed; the training was interrupted before it was promoted")
        progress.say(f"{last.name} is promoted now: its training was interrupted before that")
        return last.name
    return setup.champion.name if setup.champion else ""


def _same(last: ModelVersion, data: TrainingData, setup: RetrainSetup) -> bool:
    """Whether a version was trained on these very annotations, under this label config."""
    before = last.manifest.get("annotations")
    if not isinstance(before, Mapping) or last.manifest.get("label_config_hash") != setup.context.label_config.hash:
        return False
    used = [list(entry) for entry in data.used]
    return (before.get("tasks"), before.get("consensus")) == (used, setup.options.consensus)


def _gate(
    setup: RetrainSetup,
    context: PipelineContext,
    data: TrainingData,
    evaluation: Evaluation,
    folder: Path,
    progress: Progress,
) -> Gate:
    unread = {task for task, _ in evaluation.unread}
    share = _common_share(setup)
    tasks = [
        entry
        for entry in data.tasks
        if entry.held_out and is_held_out(entry.task.id, share) and entry.task.id not in unread
    ]
    if not tasks:
        raise ConfigError(
            "no annotated task is held out, so that the model cannot be measured",
            hint="Annotate more tasks, or raise retrain.holdout (--holdout).",
        )
    ours = _outcomes(setup, context, folder, "challenger", tasks, progress)
    champion = _champion(setup, context, tasks, progress)
    return judge(
        context.label_config,
        tasks,
        ours,
        evaluation.baseline if champion is None else champion,
        version=setup.champion.name if setup.champion is not None and champion is not None else "",
        most_regression=setup.options.most_regression,
    )


def _common_share(setup: RetrainSetup) -> float:
    """The share of tasks that neither the new model nor the one in use was trained on."""
    annotations = setup.champion.manifest.get("annotations") if setup.champion else None
    share = annotations.get("held_out_share") if isinstance(annotations, Mapping) else None
    return min(setup.options.holdout, float(share)) if isinstance(share, int | float) else setup.options.holdout


def _champion(
    setup: RetrainSetup, context: PipelineContext, tasks: Sequence[TrainingTask], progress: Progress
) -> list[Outcome] | None:
    """What the version in use says of the tasks; None where there is none, or none that can still be used."""
    if setup.champion is None:
        return None
    params = setup.champion.manifest.get("params")
    try:
        folder = setup.store.fetch(setup.champion.name)
        theirs = dataclasses.replace(context, params=params if isinstance(params, Mapping) else context.params)
        return _outcomes(setup, theirs, folder, setup.champion.name, tasks, progress)
    except ConfigError as error:
        progress.say(f"warning: {setup.champion.name} cannot be compared with: {error}")
        return None


def _outcomes(
    setup: RetrainSetup,
    context: PipelineContext,
    folder: Path,
    version: str,
    tasks: Sequence[TrainingTask],
    progress: Progress,
) -> list[Outcome]:
    context = dataclasses.replace(context, model_version=version, model_dir=folder)
    predictor = Predictor.build(setup.pipeline, context, name=setup.options.lineage.pipeline)
    return predicted(predictor, tasks, progress, "measure")


def fit(
    pipeline: type[Trainable], context: PipelineContext, tasks: Sequence[TrainingTask], folder: Path, name: str
) -> Evaluation:
    """Let a pipeline learn.

    Raises:
        LsbatchError: it cannot, in its own words.
        PipelineError: ``fit`` raised something else, or returned something else.
    """
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


def _metrics(evaluation: Evaluation, gate: Gate) -> dict[str, Any]:
    value = asdict(evaluation)
    unread: list[tuple[TaskId, str]] = list(evaluation.unread)
    value["unread"] = [{"task": task, "cause": cause} for task, cause in unread]
    return {**value, "calibration_error": gate.calibration_error}
