"""Folders that travel to workers which share no disk with the driver: the model's files, the user's own pipeline."""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["located", "pack", "places", "unpack"]

_arrived: dict[str, Path] = {}


def pack(folder: Path, files: Iterable[Path]) -> bytes:
    """A zip archive of these files, named relative to ``folder``."""
    content = io.BytesIO()
    # Files of container images may be dated 1970, which zip cannot say.
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(files):
            archive.write(path, path.relative_to(folder).as_posix())
    return content.getvalue()


def unpack(folder: str, archive: bytes, below: Path) -> None:
    """In a worker: lay out what stands in ``folder`` on the driver's machine, in place of what arrived for it before.

    Modules that were imported from what arrived before are imported anew, since a worker may outlive a run. May be
    repeated.

    Args:
        folder: absolute path on the driver's machine.
        archive: what ``pack`` made of it.
        below: where it may be laid out on this machine.
    """
    place = below / hashlib.sha256(folder.encode() + b"\0" + archive).hexdigest()[:16]
    before = _arrived.get(folder)
    if before == place:
        return
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        content.extractall(place)
    if before is not None:
        _forget(before)
    _arrived[folder] = place


def located(folder: str) -> Path:
    """Where the driver's folder is on this machine: where it arrived, else at the same path."""
    return _arrived.get(folder, Path(folder))


def places() -> tuple[Path, ...]:
    """Where everything is that arrived so far; equal as long as nothing else arrives."""
    return tuple(_arrived[folder] for folder in sorted(_arrived))


def _forget(place: Path) -> None:
    sys.path[:] = [entry for entry in sys.path if entry != str(place)]
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{place}/"):
            del sys.modules[name]
    importlib.invalidate_caches()
