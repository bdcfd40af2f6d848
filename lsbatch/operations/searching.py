"""Which parameters serve best: sets of them are tried on parts of the training tasks, side by side on Dask workers."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsbatch.errors import ConfigError, LsbatchError
from lsbatch.operations.retrain import fit
from lsbatch.ports import PipelineContext, Trainable, TrainingTask

__all__ = ["PARTS", "Trial", "best", "draw", "run_trial", "trials"]

#: Parts that the training tasks are dealt into; each set of parameters is measured on each.
PARTS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of parameters on one part.

    Attributes:
        number: of the set; 0 is what is configured.
        params: the set.
        part: the part to measure on.
    """

    number: int
    params: Mapping[str, Any]
    part: int


def draw(space: Mapping[str, Sequence[Any]], configured: Mapping[str, Any], sets: int) -> list[dict[str, Any]]:
    """So many different sets of parameters: the configured one, then random ones, always the same for the same space.

    Args:
        space: values to choose from, by name; those that the configuration sets are not changed.
        configured: ``pipeline.params``.
        sets: how many, the configured one included.
    """
    chance = random.Random(0)  # noqa: S311 not for secrets
    free = {name: list(values) for name, values in sorted(space.items()) if name not in configured}
    found = [dict(configured)]
    possible = 1
    for values in free.values():
        possible *= len(values)
    while len(found) < min(sets, possible + 1):
        drawn = {**configured, **{name: chance.choice(values) for name, values in free.items()}}
        if drawn not in found:
            found.append(drawn)
    return found


def trials(sets: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """Every set on every part."""
    return [Trial(number, params, part) for number, params in enumerate(sets) for part in range(PARTS)]


def run_trial(
    pipeline: type[Trainable], context: PipelineContext, tasks: Iterable[TrainingTask], trial: Trial
) -> float:
    """Accuracy on the trial's part of the tasks that are not held out, after learning from the others.

    Raises:
        LsbatchError: as ``lsbatch.operations.retrain.fit``.
    """
    parted = [
        dataclasses.replace(entry, held_out=_part(int(entry.task.id)) == trial.part)
        for entry in tasks
        if not entry.held_out
    ]
    with tempfile.TemporaryDirectory(prefix="lsbatch-trial-") as folder:
        found = fit(pipeline, dataclasses.replace(context, params=trial.params), parted, Path(folder), "")
    return found.accuracy


def _part(task: int) -> int:
    return int.from_bytes(hashlib.sha256(f"part {task}".encode()).digest()[:8], "big") % PARTS


def best(
    sets: Sequence[Mapping[str, Any]],
    run: Callable[[Sequence[Trial]], Iterable[tuple[Trial, float | LsbatchError]]],
    say: Callable[[str], None],
) -> Mapping[str, Any]:
    """The set with the best mean accuracy; of equals, the first.

    Args:
        sets: to choose from, the configured one first.
        run: carries trials out, in any order.
        say: told what was found.

    Raises:
        ConfigError: no set could be tried on every part; with the reason.
    """
    found: dict[int, list[float]] = {}
    failed: dict[int, LsbatchError] = {}
    for trial, outcome in run(trials(sets)):
        if isinstance(outcome, LsbatchError):
            failed[trial.number] = outcome
        else:
            found.setdefault(trial.number, []).append(outcome)
    means = {number: sum(each) / len(each) for number, each in found.items() if number not in failed}
    if not means:
        raise ConfigError(f"no set of parameters could be tried: {next(iter(failed.values()))}")
    winner = min(means, key=lambda number: (-means[number], number))
    ours = f"{means[0]:.3f}" if 0 in means else "could not be tried"
    say(f"tried {len(sets)} sets of parameters: best {means[winner]:.3f} with {dict(sets[winner])}, configured {ours}")
    return sets[winner]
