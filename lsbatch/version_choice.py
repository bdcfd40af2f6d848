"""Which stored predictions a deletion means: pure, by exact versions."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from lsbatch.entities import StoredPrediction
from lsbatch.errors import ConfigError
from lsbatch.ports import VersionCount

__all__ = ["VERSIONLESS", "Doomed", "Which", "known_version", "name_of"]

#: What Label Studio stores where no version was given: nothing, or this text.
VERSIONLESS = frozenset({"", "undefined"})
_WILD = frozenset("*?[")


@dataclass(frozen=True)
class Which:
    """Which predictions go, as it was asked for: exactly one of these is set.

    Attributes:
        model_versions: of these versions; a name with ``*``, ``?`` or ``[...]`` that is no version stands for all
            versions that match it.
        all_versions: all.
        all_but: of all versions but these, predictions without a version included; likewise.
        keep_latest: of all versions but the so many whose newest prediction is the newest. Predictions without a
            version are no version.
        older_than: created before this time, in UTC.
        duplicates: those of a version that the task carries already; the oldest stays, or what an annotation came from.
        versionless: those without a version.
    """

    model_versions: tuple[str, ...] = ()
    all_versions: bool = False
    all_but: tuple[str, ...] = ()
    keep_latest: int | None = None
    older_than: datetime | None = None
    duplicates: bool = False
    versionless: bool = False

    def resolve(self, versions: Sequence[VersionCount]) -> Doomed:
        """What that means for a project with these versions, newest first.

        Raises:
            ConfigError: a version that nothing carries (names the nearest), a pattern that matches none or all.
        """
        known = [entry.model_version for entry in versions]
        named = [version for version in known if version not in VERSIONLESS]
        if self.model_versions:
            return Doomed(frozenset(_matching(self.model_versions, known, all_allowed=False)))
        if self.all_but:
            return Doomed(frozenset(known) - _matching(self.all_but, known, all_allowed=True))
        if self.keep_latest is not None:
            return Doomed(frozenset(named[self.keep_latest :]))
        if self.versionless:
            return Doomed(frozenset(VERSIONLESS.intersection(known)))
        return Doomed(frozenset(known), older_than=self.older_than, duplicates=self.duplicates)


@dataclass(frozen=True)
class Doomed:
    """Which predictions go.

    Attributes:
        versions: of exactly these; the empty text is none.
        older_than: of these, only what was created before this time, in UTC.
        duplicates: of these, only what its task carries besides the one of its version that stays.
        referenced: also what annotations came from.
    """

    versions: frozenset[str]
    older_than: datetime | None = None
    duplicates: bool = False
    referenced: bool = False

    @property
    def whole_versions(self) -> bool:
        """Whether all of these versions goes, wherever it is."""
        return self.older_than is None and not self.duplicates

    def parted(
        self, predictions: Iterable[StoredPrediction]
    ) -> tuple[list[StoredPrediction], list[StoredPrediction], int]:
        """What goes and what stays of one task's predictions (oldest first), and how many stay for an annotation."""
        gone: list[StoredPrediction] = []
        kept: list[StoredPrediction] = []
        spared = 0
        rows = list(predictions)
        first = _kept_of_each(rows)
        for prediction in rows:
            version = prediction.model_version
            # What has no version cannot be told to be the same model's.
            double = first[version] != prediction.id and version not in VERSIONLESS
            chosen = version in self.versions and (
                (self.older_than is None or prediction.created_at < self.older_than) and (not self.duplicates or double)
            )
            if chosen and (self.referenced or not prediction.referenced):
                gone.append(prediction)
            else:
                kept.append(prediction)
                spared += chosen
        return gone, kept, spared


def _kept_of_each(predictions: Iterable[StoredPrediction]) -> dict[str, int]:
    """The id that stays of several of a version: the oldest that an annotation came from, else the oldest."""
    found: dict[str, StoredPrediction] = {}
    for prediction in predictions:
        before = found.get(prediction.model_version)
        if before is None or (prediction.referenced and not before.referenced):
            found[prediction.model_version] = prediction
    return {version: prediction.id for version, prediction in found.items()}


def known_version(version: str, known: Sequence[str]) -> str:
    """The version, if predictions carry it.

    Raises:
        ConfigError: none does; names the nearest versions that there are.
    """
    if version in known:
        return version
    named = [entry for entry in known if entry]
    near = difflib.get_close_matches(version, named, n=3, cutoff=0.5) or named[:3]
    there = f"there are {', '.join(map(name_of, near))}" if near else "the project holds none at all"
    raise ConfigError(
        f"no prediction carries version {version!r}: {there}", hint="lsbatch versions lists all of the project."
    )


def name_of(version: str) -> str:
    """The version as people see it: in one line, whatever is in it."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in version) or "(none)"


def _matching(names: Sequence[str], known: Sequence[str], *, all_allowed: bool) -> frozenset[str]:
    """Versions that are named, or match a pattern.

    Raises:
        ConfigError: one of the names or patterns stands for no version, or a pattern for every one.
    """
    found: set[str] = set()
    for name in names:
        if name in known or not _WILD.intersection(name):
            found.add(known_version(name, known))
            continue
        matching = [version for version in known if fnmatch.fnmatchcase(version, name)]
        if not matching:
            raise ConfigError(
                f"no version of the project matches {name!r}", hint="lsbatch versions lists all of the project."
            )
        if len(matching) == len(known) > 1 and not all_allowed:
            raise ConfigError(f"{name!r} matches every version of the project", hint="If you mean it: --all-versions.")
        found.update(matching)
    return frozenset(found)
