"""Immutable model versions in a folder or on any fsspec URL.

    <url>/<version>/manifest.json    where the model comes from, and the SHA-256 of each file
    <url>/<version>/...              the files that the pipeline stored
    <url>/promotions/<time>.json     which version came into use, or went out of it

A version exists when its manifest does: the manifest is written last, and deleted first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lsbatch.entities import ModelVersion, check_model_version
from lsbatch.errors import ConfigError
from lsbatch.ports import ModelStore
from lsbatch.promotions import Lineage, Promotion

__all__ = ["FsspecModelStore"]

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"
PARTIAL = ".partial-"
PROMOTIONS = "promotions"
#: Of manifests: raised when an older lsbatch could not read them any more.
FORMAT = 1
#: What a manifest says beside what ``publish`` was given.
OWN_KEYS = ("version", "created_at", "files", "format")
BLOCK = 1 << 20


class FsspecModelStore(ModelStore):
    """Model versions below one URL.

    Args:
        url: a folder, or an fsspec URL such as ``s3://bucket/models``.
        cache_dir: where versions of a store that is not a local folder are copied to.

    Raises:
        ConfigError: the URL's scheme needs a package that is not installed.
    """

    def __init__(self, url: str, *, cache_dir: Path) -> None:
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"models.url: {url}: {error}", hint="Install the fsspec package of that scheme."
            ) from error
        self._local = isinstance(self._fs, LocalFileSystem)
        key = hashlib.sha256(url.encode()).hexdigest()[:12]
        self._cache = cache_dir / key

    def publish(self, name: str, folder: Path, manifest: Mapping[str, Any]) -> ModelVersion:
        """See ``ModelStore.publish``. The same content in the same second is the same version.

        Raises:
            ConfigError: the store cannot be written.
        """
        now = datetime.now(UTC)
        files = {path.relative_to(folder).as_posix(): _fingerprint(path) for path in sorted(_files(folder))}
        plain = json.loads(json.dumps(manifest, default=str))
        version = check_model_version(f"{name}-{now:%Y%m%dT%H%M%SZ}-{_digest(files, plain)}")
        created = now.isoformat(timespec="microseconds")
        return self._store(
            folder, {**plain, "version": version, "created_at": created, "files": files, "format": FORMAT}
        )

    def adopt(self, folder: Path, manifest: Mapping[str, Any]) -> ModelVersion:
        """See ``ModelStore.adopt``.

        Raises:
            ConfigError: as there, or the store cannot be written.
        """
        whole = _checked(dict(manifest))
        version = check_model_version(str(whole["version"]))
        given = {key: value for key, value in whole.items() if key not in OWN_KEYS}
        if not version.endswith(f"-{_digest(whole['files'], given)}"):
            raise ConfigError(f"model {version}: its manifest is not the one that it was stored with")
        for relative, expected in whole["files"].items():
            if why := _why_unusable(folder / relative, expected):
                raise ConfigError(f"model {version}: {relative} {why}")
        if self._fs.exists(f"{self._root}/{version}/{MANIFEST}"):
            if self._manifest(version) != whole:
                raise ConfigError(f"model {version} is in {self.url} already, and is another one")
            return ModelVersion(version, whole)
        return self._store(folder, whole)

    def check_writable(self) -> None:
        """See ``ModelStore.check_writable``."""
        probe = f"{self._root}/{PARTIAL}{uuid.uuid4().hex}"
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the model cannot be stored in {self.url}: {error.strerror or error}",
            hint="Free space there or make it writable, or set models.url (LSBATCH_MODELS_URL).",
        )

    def _store(self, folder: Path, whole: dict[str, Any]) -> ModelVersion:
        """Store files and manifest under the manifest's version."""
        version, files = str(whole["version"]), whole["files"]
        partial, final = f"{self._root}/{PARTIAL}{uuid.uuid4().hex}", f"{self._root}/{version}"
        # A local folder is renamed when it is whole. An object store has no such rename: there the manifest comes last.
        target = partial if self._local else final
        try:
            self._fs.makedirs(target, exist_ok=True)
            for relative in files:
                self._fs.makedirs(f"{target}/{relative}".rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(folder / relative), f"{target}/{relative}")
            self._fs.pipe_file(f"{target}/{MANIFEST}", json.dumps(whole, indent=2, ensure_ascii=False).encode())
            if self._local and not self._fs.exists(f"{final}/{MANIFEST}"):
                # What an interrupted removal left is no version.
                shutil.rmtree(final, ignore_errors=True)
                Path(partial).rename(final)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            if self._local and Path(partial).exists():
                shutil.rmtree(partial)
        return ModelVersion(version, whole)

    def versions(self) -> Sequence[ModelVersion]:
        """See ``ModelStore.versions``; those with a damaged manifest are left out with a warning."""
        if not self._fs.exists(self._root):
            return []
        self._fs.invalidate_cache()
        found = []
        for path in self._fs.ls(self._root, detail=False):
            name = str(path).rstrip("/").rpartition("/")[2]
            if name.startswith(PARTIAL) or not self._fs.exists(f"{path}/{MANIFEST}"):
                continue
            try:
                found.append(ModelVersion(name, self._manifest(name)))
            except ConfigError as error:
                logger.warning("%s; left out", error)
        return sorted(found, key=lambda version: (str(version.manifest.get("created_at", "")), version.name))

    def get(self, version: str) -> ModelVersion:
        """See ``ModelStore.get``."""
        if "/" in version or "\\" in version or version.startswith("."):
            raise ConfigError(f"{version!r} is not the name of a model version")
        if not self._fs.exists(f"{self._root}/{version}/{MANIFEST}"):
            names = [entry.name for entry in self.versions()]
            there = f"there are {', '.join(names[-5:])}" if names else "it is empty"
            raise ConfigError(
                f"there is no model version {version} in {self.url}: {there}",
                hint="Train one with lsbatch retrain, or correct pipeline.model_version (--model-version).",
            )
        return ModelVersion(version, self._manifest(version))

    def fetch(self, version: str) -> Path:
        """See ``ModelStore.fetch``.

        Raises:
            ConfigError: there is no such version, or one of its files is missing or damaged.
        """
        files: dict[str, str] = dict(self.get(version).manifest["files"])
        if self._local:
            folder = Path(self._root) / version
        else:
            folder = self._cache / version
            if not folder.exists():
                self._copy(version, files, folder)
        for relative, expected in files.items():
            if why := _why_unusable(folder / relative, expected):
                raise ConfigError(
                    f"model {version}: {folder / relative} {why}",
                    hint="Train again with lsbatch retrain, or choose another version with --model-version.",
                )
        return folder

    def remove(self, version: str) -> None:
        """See ``ModelStore.remove``.

        Raises:
            ConfigError: the store cannot be written.
        """
        folder = f"{self._root}/{version}"
        try:
            if self._fs.exists(f"{folder}/{MANIFEST}"):
                self._fs.rm_file(f"{folder}/{MANIFEST}")
            if self._fs.exists(folder):
                self._fs.rm(folder, recursive=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def promotions(self) -> Sequence[Promotion]:
        """See ``ModelStore.promotions``; damaged notes are left out with a warning."""
        folder = f"{self._root}/{PROMOTIONS}"
        if not self._fs.exists(folder):
            return []
        self._fs.invalidate_cache()
        found = []
        for path in sorted(str(path) for path in self._fs.ls(folder, detail=False)):
            if path.rpartition("/")[2].startswith(PARTIAL):
                continue
            try:
                entry = json.loads(self._fs.cat_file(path))
                found.append(Promotion(**{**entry, "lineage": Lineage(**entry["lineage"])}))
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("the promotion %s cannot be read: %s; left out", path, error)
        return found

    def note(self, promotion: Promotion) -> None:
        """See ``ModelStore.note``.

        Raises:
            ConfigError: the store cannot be written.
        """
        folder = f"{self._root}/{PROMOTIONS}"
        # Times of one clock have one length, so that names sort as times do.
        stamp = "".join(sign for sign in promotion.at if sign.isdigit() or sign == "T")
        final, partial = f"{folder}/{stamp}-{uuid.uuid4().hex[:8]}.json", f"{folder}/{PARTIAL}{uuid.uuid4().hex}"
        content = json.dumps(asdict(promotion), ensure_ascii=False).encode()
        try:
            self._fs.makedirs(folder, exist_ok=True)
            if self._local:
                Path(partial).write_bytes(content)
                Path(partial).rename(final)
            else:
                self._fs.pipe_file(final, content)
        except OSError as error:
            raise self._unwritable(error) from error

    def _copy(self, version: str, files: Mapping[str, str], folder: Path) -> None:
        partial = self._cache / f"{PARTIAL}{uuid.uuid4().hex}"
        try:
            for relative in files:
                (partial / relative).parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(f"{self._root}/{version}/{relative}", str(partial / relative))
            if not folder.exists():
                partial.rename(folder)
        except OSError as error:
            raise ConfigError(f"model {version} cannot be fetched from {self.url}: {error}") from error
        finally:
            if partial.exists():
                shutil.rmtree(partial)

    def _manifest(self, version: str) -> dict[str, Any]:
        path = f"{self._root}/{version}/{MANIFEST}"
        try:
            manifest = json.loads(self._fs.cat_file(path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the manifest of model {version} is damaged: {error}") from error
        return _checked(manifest, version)


def _checked(manifest: Any, version: str = "") -> dict[str, Any]:
    """The manifest, if it is one.

    Raises:
        ConfigError: it is not, or comes from a newer lsbatch.
    """
    try:
        name = version or str(manifest["version"])
        if not isinstance(manifest["files"], dict):
            raise TypeError("'files' is no mapping")
        if outside := [path for path in manifest["files"] if not _is_inside(path)]:
            raise ValueError(f"{outside[0]!r} is not below the version's folder")
        newer = int(manifest.get("format", FORMAT)) > FORMAT
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"the manifest of model {version or 'to import'} is damaged: {error}") from error
    if newer:
        raise ConfigError(f"model {name} was stored by a newer lsbatch", hint="Upgrade: pip install -U lsbatch")
    return dict(manifest)


def _digest(files: Mapping[str, str], manifest: Mapping[str, Any]) -> str:
    """The last part of a version's name: 8 hex digits of the SHA-256 of what it holds and says."""
    return hashlib.sha256(json.dumps([files, manifest], sort_keys=True).encode()).hexdigest()[:8]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _why_unusable(path: Path, expected: str) -> str:
    """Why a version's file cannot be used, or an empty text."""
    try:
        return "" if _fingerprint(path) == expected else "is damaged: its SHA-256 is not that of the manifest"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _fingerprint(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
