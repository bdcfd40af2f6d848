"""Folders that travel to workers which share no disk with the driver: the model's files, the user's own pipeline."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["arrived", "located", "pack"]

_arrived: dict[str, Path] = {}


def pack(folder: Path, files: Iterable[Path]) -> bytes:
    """A zip archive of these files, named relative to ``folder``."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            archive.write(path, path.relative_to(folder).as_posix())
    return content.getvalue()


def arrived(folder: str, place: Path) -> None:
    """In a worker: what stands in ``folder`` on the driver's machine lies in ``place`` on this one."""
    _arrived[folder] = place


def located(folder: str) -> Path:
    """Where the driver's folder is on this machine: where it arrived, else at the same path."""
    return _arrived.get(folder, Path(folder))
