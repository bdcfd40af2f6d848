"""Model versions: immutable, whole or absent, verified."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from lsbatch.errors import ConfigError
from lsbatch_connectors.model_store import FsspecModelStore


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FsspecModelStore:
    """A store in a folder, and one on another file system."""
    url = str(tmp_path / "models") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/models"
    return FsspecModelStore(url, cache_dir=tmp_path / "cache")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The files of a model."""
    folder = tmp_path / "model"
    (folder / "parts").mkdir(parents=True)
    (folder / "model.ubj").write_bytes(b"trees")
    (folder / "parts" / "labels.json").write_text("[]")
    return folder


def test_what_is_published_comes_back(store: FsspecModelStore, model: Path) -> None:
    assert list(store.versions()) == []
    version = store.publish("digits", model, {"pipeline": "p", "metrics": {"accuracy": 0.9}})
    assert version.name.startswith("digits-20")
    assert [entry.name for entry in store.versions()] == [version.name]
    assert store.get(version.name).manifest["metrics"] == {"accuracy": 0.9}
    folder = store.fetch(version.name)
    assert (folder / "model.ubj").read_bytes() == b"trees"
    assert (folder / "parts" / "labels.json").read_text() == "[]"
    assert store.fetch(version.name) == folder


def test_versions_come_oldest_first(store: FsspecModelStore, model: Path) -> None:
    names = [store.publish("digits", model, {"number": number}).name for number in range(3)]
    assert [entry.name for entry in store.versions()] == names


def test_an_unknown_version_is_answered_with_those_there_are(store: FsspecModelStore, model: Path) -> None:
    name = store.publish("digits", model, {}).name
    with pytest.raises(ConfigError, match=name):
        store.get("digits-none")
    with pytest.raises(ConfigError, match="not the name"):
        store.fetch("../elsewhere")


def test_a_damaged_file_is_never_used(tmp_path: Path, model: Path) -> None:
    store = FsspecModelStore(str(tmp_path / "models"), cache_dir=tmp_path / "cache")
    name = store.publish("digits", model, {}).name
    (tmp_path / "models" / name / "model.ubj").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"model\.ubj is damaged"):
        store.fetch(name)
    (tmp_path / "models" / name / "model.ubj").unlink()
    with pytest.raises(ConfigError, match=r"model\.ubj is missing"):
        store.fetch(name)


@pytest.mark.parametrize("outside", ["../elsewhere/file", "/etc/passwd", "parts/../../../file"])
def test_a_manifest_cannot_name_files_elsewhere(outside: str, tmp_path: Path, model: Path) -> None:
    store = FsspecModelStore(str(tmp_path / "models"), cache_dir=tmp_path / "cache")
    name = store.publish("digits", model, {}).name
    manifest = tmp_path / "models" / name / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "files": {outside: "0" * 64}}))
    with pytest.raises(ConfigError, match="is not below the version's folder"):
        store.fetch(name)


def test_a_version_without_a_whole_manifest_does_not_exist(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FsspecModelStore(str(tmp_path / "models"), cache_dir=tmp_path / "cache")
    name = store.publish("digits", model, {}).name
    (tmp_path / "models" / "half-way").mkdir()
    manifest = tmp_path / "models" / name / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()))[:20])
    assert list(store.versions()) == []
    assert name in caplog.text


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").touch()
    store = FsspecModelStore(str(tmp_path / "file" / "models"), cache_dir=tmp_path / "cache")
    with pytest.raises(ConfigError, match="cannot be stored"):
        store.publish("digits", model, {})
