"""Look at everything that a run needs, without writing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from lsbatch.entities import Prediction
from lsbatch.errors import ExitCode, LsbatchError
from lsbatch.ports import Selection, TaskSource
from lsbatch.predictor import Predictor

__all__ = ["Finding", "check", "try_tasks"]

#: Tasks that are predicted without writing.
TRIED_TASKS = 3

#: A check: what it found, in words, or an error.
Check = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    passed: bool
    detail: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.DONE


def check(checks: Iterator[tuple[str, Check]]) -> Iterator[Finding]:
    """Carry out the checks in order and stop at the first that fails: those after it could only fail for it."""
    for subject, look in checks:
        try:
            detail = look()
        except LsbatchError as error:
            yield Finding(subject, False, str(error), error.hint, error.exit_code)
            return
        yield Finding(subject, True, detail)


def try_tasks(source: TaskSource, predictor: Predictor) -> str:
    """Predict the first three tasks of the project; returns what came out.

    Raises:
        LsbatchError: all of them failed; the message has the causes.
    """
    tasks = [task for page in source.pages(Selection(limit=TRIED_TASKS)) for task in page.tasks]
    if not tasks:
        return "the project has no tasks yet"
    lines, good = [], 0
    for outcome in islice(predictor.predict_chunk(tasks), TRIED_TASKS):
        if isinstance(outcome, Prediction):
            good += 1
            score = "no score" if outcome.score is None else f"score {outcome.score:.2f}"
            lines.append(f"task {outcome.task_id}: {len(outcome.result)} region(s), {score}")
        else:
            lines.append(f"task {outcome.task_id}: {outcome.stage}: {outcome.cause}")
    text = "; ".join(lines)
    if not good:
        error = LsbatchError(text, hint="The pipeline fails on the first tasks of the project: fit it to their data.")
        error.exit_code = ExitCode.REFUSED
        raise error
    return text
