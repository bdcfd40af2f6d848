"""The rules of ``lsbatch.ports.Pipeline``, checked."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lsbatch.entities import DeadLetter, Task
from lsbatch.label_config import LabelConfig
from lsbatch.ports import MediaReader, Pipeline, PipelineContext
from lsbatch.predictor import Predictor, plain
from lsbatch.testing.memory_media import MemoryMedia
from lsbatch.testing.rules import must

__all__ = ["check_pipeline"]


def check_pipeline(
    pipeline: type[Pipeline],
    *,
    label_config: str,
    tasks: Sequence[Task],
    model_dir: Path | None = None,
    params: Mapping[str, Any] | None = None,
    media: MediaReader | None = None,
    contexts: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Check that a pipeline keeps the rules of ``lsbatch.ports.Pipeline`` on these tasks, all of them good ones.

    Args:
        pipeline: its class.
        label_config: the text of one that it can serve.
        tasks: what it is tried on.
        model_dir: the folder of its model's files.
        params: as ``pipeline.params``.
        media: reads what the tasks point at.
        contexts: what an annotator has marked on each of the tasks. With them the tasks are predicted as the live
            backend does, one by one, and not as a batch.

    Raises:
        AssertionError: a rule is broken; says which.
    """
    config = LabelConfig(label_config)
    _check_importable(pipeline)
    why = pipeline.why_not(config)
    must(why is None, f"why_not() refuses the label config: {why}")
    other = cast("object", pipeline.why_not(LabelConfig("<View/>")))
    must(other is None or (isinstance(other, str) and other != ""), "why_not() must give words or None")
    built = pipeline.build(PipelineContext(config, dict(params or {}), media or MemoryMedia(), "check-1", model_dir))
    must(list(built.predict([])) == [], "no tasks must give no results")
    if contexts is None:
        _check_batch(built, config, tasks)
    else:
        _check_marked(built, config, tasks, contexts)


def _check_batch(built: Pipeline, config: LabelConfig, tasks: Sequence[Task]) -> None:
    """One result for each task, whatever other tasks are in the call."""
    together = list(built.predict(tasks))
    must(len(together) == len(tasks), f"predict() gave {len(together)} results for {len(tasks)} tasks")
    for outcome in Predictor(built, config, "check-1").predict_chunk(tasks):
        if isinstance(outcome, DeadLetter):
            raise AssertionError(f"task {outcome.task_id}: {outcome.stage}: {outcome.cause}")
    backwards = list(built.predict(tasks[::-1]))[::-1]
    for place, (task, result) in enumerate(zip(tasks, together, strict=True)):
        alone = list(built.predict([task]))
        must(len(alone) == 1, f"predict() gave {len(alone)} results for task {task.id} alone")
        must(_same(alone[0], result), f"task {task.id} alone gives another result than among others")
        must(_same(backwards[place], result), f"task {task.id} gives another result when the order is turned round")


def _check_marked(
    built: Pipeline, config: LabelConfig, tasks: Sequence[Task], contexts: Sequence[Mapping[str, Any]]
) -> None:
    """An answer to each mark, the same each time, and never an exception without one."""
    predictor = Predictor(built, config, "check-1")
    must(predictor.takes_context, "predict() takes no keyword context")
    for task, context in zip(tasks, contexts, strict=True):
        first, second = (predictor.predict_chunk([task], context)[0] for _ in range(2))
        if isinstance(first, DeadLetter):
            raise AssertionError(f"task {task.id}: {first.stage}: {first.cause}")
        must(first == second, f"task {task.id} gives another result when the same mark comes again")
    plainly = list(built.predict(tasks))
    must(len(plainly) == len(tasks), f"predict() gave {len(plainly)} results for {len(tasks)} tasks without a mark")


def _check_importable(pipeline: type[Pipeline]) -> None:
    """Workers get the name of a pipeline, not the class."""
    found: object = importlib.import_module(pipeline.__module__)
    for name in pipeline.__qualname__.split("."):
        found = getattr(found, name, None)
    place = f"{pipeline.__module__}:{pipeline.__qualname__}"
    must(found is pipeline, f"workers cannot import {place}: define the class at the top of a module")


def _same(one: object, other: object) -> bool:
    """Whether two results are the same but for the rounding of numbers, which may depend on the size of a batch."""
    return isinstance(one, Mapping) and isinstance(other, Mapping) and _alike(plain(one), plain(other))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    return bool(one == other)
