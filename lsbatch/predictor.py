"""Call a pipeline on the tasks of a chunk so that each task ends as one prediction or one dead letter, its own."""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
import math
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any

from lsbatch.entities import DeadLetter, Outcome, Prediction, Stage, Task
from lsbatch.errors import ConfigError, LsbatchError
from lsbatch.label_config import LabelConfig
from lsbatch.ports import Pipeline, PipelineContext, TaskFailure, TaskResult

__all__ = ["Predictor", "plain", "printing_aside", "raised"]

logger = logging.getLogger(__name__)
CAUSE_LENGTH = 500
#: Deepest nesting of a result: less than what JSON readers can follow, more than any region has.
MOST_DEPTH = 50
#: Where the line at fault is not: files of lsbatch and of the import system, and what comes from no file.
OURS = (str(Path(__file__).parent), str(Path(importlib.__file__).parent), "<")


class Predictor:
    """A pipeline and the label config that its results must fit.

    Args:
        pipeline: called from one thread at a time.
        label_config: of the project that takes the predictions.
        model_version: what every prediction carries.

    Attributes:
        takes_context: whether the pipeline's ``predict`` takes what an annotator has marked.
    """

    def __init__(self, pipeline: Pipeline, label_config: LabelConfig, model_version: str) -> None:
        self.pipeline = pipeline
        self.label_config = label_config
        self.model_version = model_version
        self.takes_context = _takes_context(pipeline)

    @classmethod
    def build(cls, pipeline: type[Pipeline], context: PipelineContext, *, name: str) -> Predictor:
        """The predictor of a pipeline that is built now.

        Args:
            pipeline: its class.
            context: what it is built from.
            name: of the pipeline, for messages.

        Raises:
            LsbatchError: the pipeline refuses, in its own words.
            ConfigError: ``build`` raised something else.
        """
        try:
            with printing_aside():
                built = pipeline.build(context)
        except LsbatchError:
            raise
        except (Exception, SystemExit) as error:  # somebody else's code
            raise ConfigError(f"pipeline {name} cannot be built: build() raised {raised(error)}") from error
        return cls(built, context.label_config, context.model_version)

    def warm_up(self) -> None:
        """Load what the first task would wait for, so that chunks are measured by their tasks alone."""
        self.label_config.why_invalid({"result": [], "model_version": self.model_version})

    def predict_chunk(self, tasks: Sequence[Task], context: Mapping[str, Any] | None = None) -> list[Outcome]:
        """One outcome for each task, in their order.

        A call that raises or returns a wrong number of results is repeated on both halves, until the task at fault is
        alone: k bad tasks among n cost about k log2(n) calls more.

        Args:
            tasks: any number.
            context: what an annotator has marked, see ``Pipeline``; a pipeline that does not take it is called plainly.
        """
        if not tasks:
            return []
        results = self._call(tasks, context)
        if isinstance(results, str):
            if len(tasks) == 1:
                return [_dead(tasks[0], "predict", results)]
            middle = len(tasks) // 2
            return self.predict_chunk(tasks[:middle], context) + self.predict_chunk(tasks[middle:], context)
        return [self._outcome(task, result) for task, result in zip(tasks, results, strict=True)]

    def _call(self, tasks: Sequence[Task], context: Mapping[str, Any] | None) -> list[TaskResult | TaskFailure] | str:
        """The pipeline's results, or why there are none that could be matched to the tasks."""
        # Copies in a tuple: a pipeline that shortens its tasks, or changes their data in place, must neither shift the
        # results nor spoil the next attempt.
        copies = tuple(Task(task.id, copy.deepcopy(task.data)) for task in tasks)
        marked = {"context": copy.deepcopy(context)} if context is not None and self.takes_context else {}
        try:
            with printing_aside():
                returned: object = self.pipeline.predict(copies, **marked)
                results = list(returned) if isinstance(returned, Iterable) else returned
        except (Exception, SystemExit) as error:  # somebody else's code: anything may come, exit() too
            logger.debug("the pipeline raised on %d tasks", len(tasks), exc_info=True)
            return f"the pipeline raised {raised(error)}"
        if not isinstance(results, list):
            return f"the pipeline returned {type(results).__name__} instead of a list of results"
        if len(results) != len(tasks):
            return f"the pipeline returned {len(results)} results for {len(tasks)} task{'s' * (len(tasks) != 1)}"
        return results

    def _outcome(self, task: Task, result: object) -> Outcome:
        if isinstance(result, TaskFailure):
            return _dead(task, "predict", result.cause)
        if not isinstance(result, Mapping) or "result" not in result:
            return _dead(task, "validate", f"the pipeline returned {type(result).__name__} without a 'result'")
        try:
            regions, score = plain(result["result"]), plain(result.get("score"))
        except ValueError as error:
            return _dead(task, "validate", str(error))
        except Exception as error:  # somebody else's objects: reading them may raise anything
            return _dead(task, "validate", f"the pipeline's result cannot be read: {raised(error)}")
        if not isinstance(regions, list) or isinstance(score, bool) or not isinstance(score, int | float | None):
            return _dead(task, "validate", "'result' must be a list and 'score' a number or None")
        why = self.label_config.why_invalid({"result": regions, "score": score, "model_version": self.model_version})
        if why:
            return _dead(task, "validate", f"the result does not fit the label config: {why}")
        return Prediction(task.id, regions, None if score is None else float(score), self.model_version)


def _takes_context(pipeline: Pipeline) -> bool:
    """Whether ``predict`` can be called with ``context=``."""
    try:
        parameters = inspect.signature(pipeline.predict).parameters.values()
    except (TypeError, ValueError, AttributeError):  # somebody else's object: nothing is known of it
        return False
    return any(
        entry.kind is entry.VAR_KEYWORD
        or (entry.name == "context" and entry.kind in (entry.KEYWORD_ONLY, entry.POSITIONAL_OR_KEYWORD))
        for entry in parameters
    )


def printing_aside() -> AbstractContextManager[object]:
    """Around somebody else's code: what it prints goes to stderr, since stdout is for data."""
    return redirect_stdout(sys.stderr)


def raised(error: BaseException) -> str:
    """What somebody else's code raised, in words: the error's type, its message, and the line that it comes from."""
    try:
        words = f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # somebody else's __str__
        words = type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    if not frames:
        return words
    path = Path(frames[-1].filename)
    # That it is an __init__.py says nothing without its folder.
    return f"{words} ({path.parent.name + '/' if path.stem == '__init__' else ''}{path.name} line {frames[-1].lineno})"


def _dead(task: Task, stage: Stage, cause: object) -> DeadLetter:
    # Somebody else's words: an exception instead of its text, or a text that cannot be stored.
    words = raised(cause) if isinstance(cause, BaseException) else str(cause)
    cause = words.encode("utf-8", "backslashreplace").decode()
    return DeadLetter(task.id, stage, cause if len(cause) <= CAUSE_LENGTH else cause[:CAUSE_LENGTH] + "...")


def plain(value: Any, *, depth: int = MOST_DEPTH) -> Any:
    """The same value in JSON's types: numpy scalars and arrays, tuples and mappings become Python's own.

    Raises:
        ValueError: NaN, an infinity, half a surrogate pair, something that JSON has no word for, or too deep a nesting.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the pipeline returned a text that is not Unicode: {error}") from error
        return value
    if value is None or isinstance(value, bool | int):
        # An int or str of a subclass (an Enum, numpy.str_) is written as its base type.
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the pipeline returned the number {value}")
        return float(value)
    if depth == 0:
        raise ValueError(f"the pipeline returned a result that is nested more than {MOST_DEPTH} deep")
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(entry, depth=depth - 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, depth=depth - 1) for entry in value]
    if hasattr(value, "tolist"):  # numpy, without importing it
        return plain(value.tolist(), depth=depth - 1)
    raise ValueError(f"the pipeline returned a {type(value).__name__}, which is not JSON")
