"""``retrain`` on a configured project."""

from __future__ import annotations

from lsbatch.operations.retrain import RetrainReport, retrain
from lsbatch.progress import Progress
from lsbatch.wiring import Bench

__all__ = ["retrain_project"]


def retrain_project(bench: Bench, progress: Progress) -> RetrainReport:
    """Train the configured pipeline from the project's annotations and store the version."""
    return retrain(
        bench.project,
        bench.store,
        bench.trainable,
        bench.training_context,
        bench.retrain_options,
        progress,
        annotated_tasks=bench.info.annotated_count,
    )
