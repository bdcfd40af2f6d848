"""What the versions of a project look like: counts, times, scores, and what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lsbatch.entities import TaskPredictions
from lsbatch.ports import Backend, VersionCount
from lsbatch.version_choice import VERSIONLESS, name_of

__all__ = ["ProjectVersions", "Tally", "VersionSummary"]


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One model version of a project.

    Attributes:
        model_version: as it is stored; empty for predictions without one.
        predictions: how many carry it.
        tasks: how many tasks carry it.
        first: when the oldest prediction was created, in UTC; None when that was not read.
        last: when the newest was, in UTC.
        mean_score: of those that have a score; None when none has, or that was not read.
    """

    model_version: str
    predictions: int
    tasks: int
    first: datetime | None
    last: datetime
    mean_score: float | None


@dataclass
class Tally:
    """Sums over predictions as they stream by."""

    _rows: dict[str, _Sums] = field(default_factory=dict)

    def add(self, task: TaskPredictions) -> None:
        """Count the predictions of one more task."""
        for version in {prediction.model_version for prediction in task.predictions}:
            self._rows.setdefault(version, _Sums()).tasks += 1
        for prediction in task.predictions:
            sums = self._rows[prediction.model_version]
            sums.times.append(prediction.created_at)
            sums.times[:] = [min(sums.times), max(sums.times)]
            sums.predictions += 1
            if prediction.score is not None:
                sums.scored += 1
                sums.score += prediction.score

    def summaries(self) -> list[VersionSummary]:
        """One for each version, newest first."""
        found = [
            VersionSummary(
                version,
                sums.predictions,
                sums.tasks,
                sums.times[0],
                sums.times[-1],
                sums.score / sums.scored if sums.scored else None,
            )
            for version, sums in self._rows.items()
        ]
        return sorted(found, key=lambda summary: summary.last, reverse=True)


@dataclass
class _Sums:
    tasks: int = 0
    predictions: int = 0
    scored: int = 0
    score: float = 0.0
    times: list[datetime] = field(default_factory=list)


@dataclass(frozen=True)
class ProjectVersions:
    """The versions of a project and which one annotators see.

    Attributes:
        versions: newest first.
        active: the version, or the title of a live backend, that annotators see; empty for none.
        backends: the live backends.
        shows_predictions: whether annotators are shown predictions at all.
    """

    versions: Sequence[VersionSummary]
    active: str
    backends: Sequence[Backend]
    shows_predictions: bool

    @classmethod
    def counted(
        cls,
        counts: Sequence[VersionCount],
        surplus: dict[str, int],
        *,
        active: str,
        backends: Sequence[Backend],
        shows_predictions: bool,
    ) -> ProjectVersions:
        """Without what needs every prediction read: ``surplus`` says how many predictions are more than tasks."""
        found = [
            VersionSummary(
                entry.model_version,
                entry.predictions,
                entry.predictions - surplus.get(entry.model_version, 0),
                None,
                entry.latest,
                None,
            )
            for entry in counts
        ]
        return cls(found, active, backends, shows_predictions)

    def live(self, version: str) -> str:
        """Titles of the live backends that last said they serve this version."""
        return ", ".join(backend.title or backend.url for backend in self.backends if backend.model_version == version)

    def problems(self) -> Iterator[str]:
        """What looks wrong, each in words, with the command that helps."""
        for summary in self.versions:
            more, name = summary.predictions - summary.tasks, name_of(summary.model_version)
            if summary.model_version in VERSIONLESS:
                yield (
                    f"{summary.predictions:,} predictions have no version ({name}): nobody can tell what made them "
                    "(lsbatch delete-predictions --versionless)"
                )
            elif more > 0:
                yield (
                    f"{name}: {more:,} predictions more than tasks that carry it, so that some have it twice "
                    "(lsbatch delete-predictions --duplicates)"
                )
        carried = {summary.model_version for summary in self.versions}
        titles = {backend.title for backend in self.backends}
        if self.active and self.active not in carried | titles:
            yield f"annotators are to see {self.active!r}, which no prediction carries (lsbatch activate VERSION)"
        if carried and not self.active:
            yield "annotators see no version while they label (lsbatch activate VERSION)"
        if not self.shows_predictions:
            yield "the project shows annotators no predictions (lsbatch activate VERSION --show-predictions)"

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "active": self.active,
            "shows_predictions": self.shows_predictions,
            "backends": [
                {"title": entry.title, "model_version": entry.model_version, "url": entry.url}
                for entry in self.backends
            ],
            "versions": [
                {
                    "model_version": entry.model_version,
                    "predictions": entry.predictions,
                    "tasks": entry.tasks,
                    "first": None if entry.first is None else entry.first.isoformat(),
                    "last": entry.last.isoformat(),
                    "mean_score": entry.mean_score,
                    "active": entry.model_version == self.active,
                    "live": self.live(entry.model_version) or None,
                }
                for entry in self.versions
            ],
            "problems": list(self.problems()),
        }
