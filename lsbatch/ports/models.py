"""Where trained models are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lsbatch.entities import ModelVersion
from lsbatch.promotions import Promotion

__all__ = ["ModelStore"]


class ModelStore(Protocol):
    """Immutable model versions, and notes of which was in use when."""

    #: Where it is, for messages.
    url: str

    def check_writable(self) -> None:
        """Return if versions can be stored. May be repeated.

        Raises:
            ConfigError: they cannot.
        """
        ...

    def publish(self, name: str, folder: Path, manifest: Mapping[str, Any]) -> ModelVersion:
        """Store the folder's files under a new version ``<name>-<UTC time>-<short hash>``, all or nothing."""
        ...

    def adopt(self, folder: Path, manifest: Mapping[str, Any]) -> ModelVersion:
        """Store a version of another store under its own name, all or nothing. May be repeated.

        Args:
            folder: its files, as the manifest lists them.
            manifest: as that store gave it.

        Raises:
            ConfigError: manifest and files do not belong together, or another version has this name.
        """
        ...

    def versions(self) -> Sequence[ModelVersion]:
        """All complete versions, oldest first."""
        ...

    def get(self, version: str) -> ModelVersion:
        """The version of this exact name.

        Raises:
            ConfigError: there is none; the message names those that exist.
        """
        ...

    def fetch(self, version: str) -> Path:
        """A local folder with the version's files, verified against the hashes in its manifest. May be repeated."""
        ...

    def remove(self, version: str) -> None:
        """Delete a version; from the first moment on it is no version any more. May be repeated."""
        ...

    def promotions(self) -> Sequence[Promotion]:
        """All notes of promotions, oldest first."""
        ...

    def note(self, promotion: Promotion) -> None:
        """Add a note of a promotion, whole or not at all."""
        ...
