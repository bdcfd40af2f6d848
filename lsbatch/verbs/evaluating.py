"""``evaluate`` on a configured project."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from lsbatch.errors import ConfigError
from lsbatch.operations.evaluating import EvaluationReport, evaluate
from lsbatch.operations.training_data import is_held_out
from lsbatch.progress import Progress
from lsbatch.verbs.composing import chosen_tasks
from lsbatch.version_choice import VERSIONLESS, known_version
from lsbatch.wiring import Bench

__all__ = ["evaluate_project"]


def evaluate_project(
    bench: Bench, versions: Sequence[str], progress: Progress, *, include_trained: bool = False
) -> EvaluationReport:
    """Compare the configured project's predictions with its annotations. Reads only.

    Args:
        bench: the configuration; its selection narrows the tasks.
        versions: which, the first is the one that others are compared with; empty for all, the active one first.
        progress: told how far it is.
        include_trained: also count tasks that a version was trained on.

    Raises:
        ConfigError: no prediction carries a version that is named, or the project holds none.
        TransientError: the server did not answer, or not completely.
    """
    known = [entry.model_version for entry in bench.project.versions() if entry.model_version not in VERSIONLESS]
    for version in versions:
        known_version(version, known)
    active = bench.info.active_version
    wanted = list(dict.fromkeys(versions)) or sorted(known, key=lambda version: version != active)
    if not wanted:
        raise ConfigError(
            f"project {bench.project_id} holds no predictions to evaluate",
            hint=f"Make some: lsbatch predict --project {bench.project_id}",
        )
    return evaluate(
        bench.project,
        bench.project,
        bench.label_config,
        wanted,
        # What narrows a prediction, such as untouched_only in the file, would leave no annotated task.
        chosen_tasks(bench, progress, replace(bench.selection, untouched_only=False)),
        bench.config.retrain.consensus,
        progress,
        project=bench.project_id,
        annotated_tasks=bench.info.annotated_count,
        trained={} if include_trained else _trained(bench, wanted),
    )


def _trained(bench: Bench, versions: Collection[str]) -> Mapping[str, frozenset[int]]:
    """By version, the tasks that it learned from, as far as its model is in the store."""
    found = {}
    for model in bench.store.versions():
        annotations = model.manifest.get("annotations")
        if model.name not in versions or not isinstance(annotations, Mapping):
            continue
        share, used = annotations.get("held_out_share"), annotations.get("tasks")
        if isinstance(share, int | float) and isinstance(used, list):
            tasks = (int(entry[0]) for entry in used)
            found[model.name] = frozenset(task for task in tasks if not is_held_out(task, share))
    return found
