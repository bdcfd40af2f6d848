"""Which stored model version is in use: promote, roll back, prune, and carry versions from store to store."""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from lsbatch.entities import ModelVersion
from lsbatch.errors import ConfigError
from lsbatch.ports import ModelStore
from lsbatch.promotions import Kind, Lineage, Promotion, in_use

__all__ = [
    "champion",
    "export_model",
    "import_model",
    "promote",
    "promoted",
    "prune",
    "rollback",
    "trained",
]

MANIFEST = "manifest.json"
#: Of an archive's files together; more is no model of ours.
MOST_BYTES = 20_000_000_000
BLOCK = 1 << 20


def trained(store: ModelStore, lineage: Lineage) -> list[ModelVersion]:
    """Versions that belong to a lineage, oldest first: trained for it, or promoted to it."""
    noted = {entry.version for entry in store.promotions() if entry.lineage == lineage}
    own = {"pipeline": lineage.pipeline, "server": lineage.server, "project": lineage.project}.items()
    return [entry for entry in store.versions() if entry.name in noted or own <= entry.manifest.items()]


def promoted(store: ModelStore, lineage: Lineage) -> list[str]:
    """Versions that are promoted, the one in use last."""
    return in_use(store.promotions(), lineage, {entry.name for entry in store.versions()})


def champion(store: ModelStore, lineage: Lineage) -> ModelVersion | None:
    """The version in use, or None."""
    names = promoted(store, lineage)
    return store.get(names[-1]) if names else None


def promote(store: ModelStore, lineage: Lineage, version: str, *, why: str) -> str:
    """Use this version from now on; the one that was in use, or an empty text.

    Raises:
        ConfigError: there is no such version, it is of another pipeline, or one of its files is damaged.
    """
    found = store.get(version)
    if (theirs := found.manifest.get("pipeline")) != lineage.pipeline:
        raise ConfigError(
            f"model {version} is of pipeline {theirs}, and project {lineage.project} is served by {lineage.pipeline}",
            hint="Name the pipeline with --pipeline, or choose another version: lsbatch models",
        )
    store.fetch(version)
    before = promoted(store, lineage)
    if not before or before[-1] != version:
        _note(store, lineage, version, "promote", why)
    return before[-1] if before else ""


def rollback(store: ModelStore, lineage: Lineage) -> tuple[str, str]:
    """Use again what was in use before; the version that goes and the one that comes.

    Raises:
        ConfigError: there is none before, or one of its files is damaged.
    """
    names = promoted(store, lineage)
    if len(names) < 2:
        there = f"only {names[0]} was ever in use" if names else "no version is in use"
        raise ConfigError(f"nothing to go back to: {there}", hint="lsbatch models lists all; models promote takes one.")
    store.fetch(names[-2])
    _note(store, lineage, names[-1], "rollback", f"back to {names[-2]}")
    return names[-1], names[-2]


def prune(store: ModelStore, lineage: Lineage, keep: int) -> list[str]:
    """Delete all but the newest versions of a lineage; the one in use and the one before it stay in any case.

    Args:
        store: where they are.
        lineage: of which.
        keep: how many stay.
    """
    versions = [entry.name for entry in trained(store, lineage)]
    others = {entry.version for entry in store.promotions() if entry.lineage != lineage}
    staying = {*versions[len(versions) - keep :], *promoted(store, lineage)[-2:], *others}
    doomed = [version for version in versions if version not in staying]
    for version in doomed:
        store.remove(version)
    return doomed


def _note(store: ModelStore, lineage: Lineage, version: str, kind: Kind, why: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    store.note(Promotion(version, lineage, now, kind, why))


# ------------------------------------------------------------------------------------------------ archives


def export_model(store: ModelStore, version: str, path: Path) -> None:
    """Write a version into one file, whole or not at all: a ZIP with the manifest and the files that it lists.

    Raises:
        ConfigError: there is no such version, it is damaged, or the file cannot be written.
    """
    found, folder = store.get(version), store.fetch(version)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            # No times, so that the same version is the same archive.
            _put(archive, MANIFEST, json.dumps(found.manifest, indent=2, ensure_ascii=False).encode())
            for relative in found.manifest["files"]:
                _put(archive, relative, (folder / relative).read_bytes())
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def import_model(store: ModelStore, path: Path) -> ModelVersion:
    """Store the version of an archive under its own name, once its hashes are found right. May be repeated.

    Raises:
        ConfigError: the file is no such archive, was changed, or another version has its name.
    """
    with tempfile.TemporaryDirectory(prefix="lsbatch-model-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                manifest = _unpack(archive, Path(folder))
        # What zipfile raises on a file that is none, on one that was damaged, and on kinds that it cannot read.
        except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
            raise ConfigError(
                f"{path} is no model archive: {error}", hint="Make one with lsbatch models export VERSION FILE."
            ) from error
        return store.adopt(Path(folder), manifest)


def _unpack(archive: zipfile.ZipFile, folder: Path) -> dict[str, Any]:
    """The manifest of an archive; writes the files that it lists below a folder, and no others.

    Raises:
        KeyError: a file is not in the archive.
        ValueError: the manifest lists none, a name leads out of the folder, or they are too large to be a model.
    """
    if archive.getinfo(MANIFEST).file_size > MOST_BYTES:
        raise ValueError(f"its manifest is larger than {MOST_BYTES:,} bytes")
    manifest = json.loads(archive.read(MANIFEST))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError("its manifest lists no files")
    names = sorted(manifest["files"])
    if sum(archive.getinfo(name).file_size for name in names) > MOST_BYTES:
        raise ValueError(f"it holds more than {MOST_BYTES:,} bytes")
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name:
            raise ValueError(f"{name!r} is not below the version's folder")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, target.open("wb") as file:
            while block := source.read(BLOCK):
                file.write(block)
    return manifest
