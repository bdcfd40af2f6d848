"""Compare what a live backend answers with the predictions that are stored, of the same model version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lsbatch.entities import StoredPrediction, Task
from lsbatch.errors import ConfigError, ExitCode
from lsbatch.operations.comparing import difference
from lsbatch.ports import LiveAnswer, LiveBackend, PredictionStore, ProjectInfo, Selection, TaskSource
from lsbatch.progress import Progress

__all__ = ["Difference", "Verification", "sample", "verify"]

#: Tasks in one request, about as many as Label Studio sends for a page of its data manager.
REQUEST_TASKS = 32
#: Tasks that are read whole to draw from, in a request or two.
FEW_TASKS = 1_000
#: Else, places of the project that tasks are drawn from: two or three small requests each.
PLACES = 20
MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Difference:
    """A task, and what of it differs or failed, in words."""

    task: int
    what: str


@dataclass
class Verification:
    """What a comparison found.

    Attributes:
        url: of the backend.
        model_version: that it serves, and that the stored predictions carry.
        sampled: tasks that were drawn.
        equal: whose live answer is the stored prediction.
        different_count: whose live answer is another.
        failed_count: that the backend gave no prediction for.
        missing: whose stored prediction was gone when it was read.
        different: the first of them.
        failed: the first of them.
    """

    url: str
    model_version: str
    sampled: int = 0
    equal: int = 0
    different_count: int = 0
    failed_count: int = 0
    missing: int = 0
    different: list[Difference] = field(default_factory=list)
    failed: list[Difference] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Tasks with both, a stored prediction and a live one."""
        return self.equal + self.different_count

    @property
    def exit_code(self) -> ExitCode:
        """What the process should end with: a task without a live prediction is not what is stored either."""
        return ExitCode.AUDIT_FAILED if self.different_count or self.failed_count else ExitCode.DONE

    def add(self, task: int, answer: LiveAnswer, stored: StoredPrediction) -> None:
        """Count one task."""
        if answer.error:
            self.failed_count += 1
            self.failed += [Difference(task, answer.error)][: MOST_NAMED - len(self.failed)]
        elif what := difference(stored, answer):
            self.different_count += 1
            self.different += [Difference(task, what)][: MOST_NAMED - len(self.different)]
        else:
            self.equal += 1

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "url": self.url,
            "model_version": self.model_version,
            "sampled": self.sampled,
            "compared": self.compared,
            "equal": self.equal,
            "different": self.different_count,
            "failed": self.failed_count,
            "missing": self.missing,
            "differences": [{"task": entry.task, "what": entry.what} for entry in self.different],
            "failures": [{"task": entry.task, "what": entry.what} for entry in self.failed],
            "exit_code": int(self.exit_code),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the table for people."""
        found = [
            ("backend", self.url),
            ("model version", self.model_version),
            ("compared", f"{self.compared:,} of {self.sampled:,} tasks"),
            ("equal", f"{self.equal:,}"),
            ("different", f"{self.different_count:,}"),
            ("without an answer", f"{self.failed_count:,}"),
        ]
        if self.missing:
            found.append(("deleted meanwhile", f"{self.missing:,}"))
        return found


def verify(
    source: TaskSource,
    store: PredictionStore,
    backend: LiveBackend,
    info: ProjectInfo,
    progress: Progress,
    *,
    count: int,
    seed: int = 0,
) -> Verification:
    """Ask the backend for tasks that carry a prediction of the version that it serves, and compare. May be repeated.

    Args:
        source: the project's tasks.
        store: its predictions.
        backend: that is asked.
        info: the project.
        progress: told of every task.
        count: tasks to compare, at most.
        seed: of the choice of tasks.

    Raises:
        ConfigError: no task carries a prediction of that version.
        TransientError: the backend or the server cannot be reached.
        RefusedError: the backend wants basic auth, or serves another project.
    """
    version = backend.version(info)
    found = Verification(backend.url, version)
    tasks = sample(source, store, version, count, seed)
    if not tasks:
        raise ConfigError(
            f"no task of project {info.id} carries a prediction of {version}, which {backend.url} serves",
            hint=f"Store some first: lsbatch predict --project {info.id} --model-version {version}",
        )
    found.sampled = len(tasks)
    with progress.stage("verify", len(tasks)) as meter:
        for at in range(0, len(tasks), REQUEST_TASKS):
            part = tasks[at : at + REQUEST_TASKS]
            stored = _stored(store, version, part)
            asked = [task for task in part if task.id in stored]
            found.missing += len(part) - len(asked)
            if asked:
                for task, answer in zip(asked, backend.predict(info, asked), strict=True):
                    found.add(task.id, answer, stored[task.id])
            meter.advance(len(part))
    return found


def sample(source: TaskSource, store: PredictionStore, version: str, count: int, seed: int) -> list[Task]:
    """At most so many tasks that carry the version, drawn from all of them, ids ascending.

    Of many, they are drawn from places spread over the project, so that what is read does not grow with it. The same
    project and seed give the same tasks.
    """
    dice = random.Random(seed)  # noqa: S311 - nothing secret
    carrying = sum(entry.predictions for entry in store.versions() if entry.model_version == version)
    if carrying <= max(FEW_TASKS, 2 * count):
        every = _carrying(source, version, 1, None, None)
        return sorted(dice.sample(every, min(count, len(every))), key=lambda task: task.id)
    chosen: dict[int, Task] = {}
    ranges = source.split(Selection(with_version=version), min(PLACES, count))
    for place, (first, last) in enumerate(ranges, start=1):
        wanted = count * place // len(ranges) - len(chosen)
        start = dice.randint(first, last)
        found = _carrying(source, version, start, last, wanted)
        found += _carrying(source, version, first, start - 1, wanted - len(found))
        chosen |= {task.id: task for task in found}
    return [chosen[key] for key in sorted(chosen)]


def _carrying(source: TaskSource, version: str, first: int, last: int | None, limit: int | None) -> list[Task]:
    """The tasks of a range that carry the version, at most so many, lowest ids first."""
    if (limit is not None and limit <= 0) or (last is not None and last < first):
        return []
    pages = source.pages(Selection(with_version=version, limit=limit), after=first - 1, last=last)
    return [task for page in pages for task in page.tasks]


def _stored(store: PredictionStore, version: str, tasks: Sequence[Task]) -> dict[int, StoredPrediction]:
    """Of each of these tasks the newest prediction of this version, as annotators see it first."""
    ids = tuple(int(task.id) for task in tasks)
    found: dict[int, StoredPrediction] = {}
    for page in store.holding(Selection(task_ids=ids), {version}):
        for task in page:
            for entry in task.predictions:
                if entry.model_version == version:
                    found[task.task_id] = entry
    return found
