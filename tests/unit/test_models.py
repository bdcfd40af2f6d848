"""Which version is in use; and versions on their way from store to store."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from lsbatch.errors import ConfigError
from lsbatch.operations import models
from lsbatch.promotions import Lineage, Promotion, in_use
from lsbatch_connectors.model_store import FsspecModelStore

LINEAGE = Lineage("p", "studio", 3)
OTHER = Lineage("p", "studio", 4)


@pytest.fixture
def store(tmp_path: Path) -> FsspecModelStore:
    """An empty store."""
    return FsspecModelStore(str(tmp_path / "models"), cache_dir=tmp_path / "cache")


def publish(store: FsspecModelStore, folder: Path, number: int = 0, *, pipeline: str = "p") -> str:
    """A version of project 3."""
    model = folder / f"files {number}"
    (model / "parts").mkdir(parents=True)
    (model / "model.ubj").write_bytes(bytes(range(256)) * (number + 1))
    (model / "parts" / "labels.json").write_text("[]")
    manifest = {"pipeline": pipeline, "server": "studio", "project": 3, "number": number, "pairs": [(1, "ü")]}
    return store.publish("m", model, manifest).name


@pytest.mark.parametrize(
    ("notes", "stack"),
    [
        ("+a +b", "ab"),
        ("+a +b -b", "a"),
        ("+a +b -b +c", "ac"),
        ("+a +b +a", "ba"),
        ("+a +b +a -a", "b"),
        ("+a -a", ""),
        ("-a", ""),
        # z is not stored any more.
        ("+a +z", "a"),
        ("", ""),
    ],
)
def test_what_is_in_use(notes: str, stack: str) -> None:
    found = [
        Promotion(note[1], LINEAGE, str(number), "promote" if note[0] == "+" else "rollback")
        for number, note in enumerate(notes.split())
    ]
    others = [Promotion("a", OTHER, "0"), Promotion("c", OTHER, "1")]
    assert in_use([*found, *others], LINEAGE, {"a", "b", "c"}) == list(stack)


def test_promote_and_roll_back(store: FsspecModelStore, tmp_path: Path) -> None:
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    assert models.champion(store, LINEAGE) is None
    with pytest.raises(ConfigError, match="no version is in use"):
        models.rollback(store, LINEAGE)
    assert models.promote(store, LINEAGE, first, why="good") == ""
    assert models.promote(store, LINEAGE, second, why="better") == first
    assert models.promote(store, LINEAGE, second, why="again") == second
    assert len(store.promotions()) == 2
    assert models.rollback(store, LINEAGE) == (second, first)
    found = models.champion(store, LINEAGE)
    assert found is not None
    assert found.name == first
    with pytest.raises(ConfigError, match=f"only {first} was ever in use"):
        models.rollback(store, LINEAGE)


def test_what_cannot_be_used_is_not_promoted(store: FsspecModelStore, tmp_path: Path) -> None:
    theirs = publish(store, tmp_path, pipeline="other")
    with pytest.raises(ConfigError, match="is of pipeline other, and project 3 is served by p"):
        models.promote(store, LINEAGE, theirs, why="")
    damaged = publish(store, tmp_path, 1)
    (tmp_path / "models" / damaged / "model.ubj").write_bytes(b"")
    with pytest.raises(ConfigError, match="damaged"):
        models.promote(store, LINEAGE, damaged, why="")
    with pytest.raises(ConfigError, match="there is no model version"):
        models.promote(store, LINEAGE, "none", why="")
    assert store.promotions() == []


def test_prune_never_takes_what_is_in_use_or_would_be(store: FsspecModelStore, tmp_path: Path) -> None:
    names = [publish(store, tmp_path, number) for number in range(6)]
    for name in names[:3]:
        models.promote(store, LINEAGE, name, why="")
    models.promote(store, OTHER, names[0], why="another project has it in use")
    assert models.prune(store, LINEAGE, 1) == [names[3], names[4]]
    assert [entry.name for entry in store.versions()] == [*names[:3], names[5]]
    assert models.prune(store, LINEAGE, 1) == []
    assert models.promoted(store, LINEAGE) == names[:3]


def test_an_archive_brings_the_same_version(store: FsspecModelStore, tmp_path: Path) -> None:
    name = publish(store, tmp_path)
    models.export_model(store, name, tmp_path / "model.zip")
    models.export_model(store, name, tmp_path / "again.zip")
    assert (tmp_path / "model.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    for url in (str(tmp_path / "elsewhere"), f"memory://{tmp_path.name}/models"):
        other = FsspecModelStore(url, cache_dir=tmp_path / "cache")
        for _ in range(2):
            assert models.import_model(other, tmp_path / "model.zip").manifest == store.get(name).manifest
        assert (other.fetch(name) / "model.ubj").read_bytes() == (store.fetch(name) / "model.ubj").read_bytes()
        assert [entry.name for entry in other.versions()] == [name]


def test_what_an_interrupted_removal_left_is_no_obstacle(store: FsspecModelStore, tmp_path: Path) -> None:
    name = publish(store, tmp_path)
    models.export_model(store, name, tmp_path / "model.zip")
    (tmp_path / "models" / name / "manifest.json").unlink()
    assert models.import_model(store, tmp_path / "model.zip").name == name
    assert [entry.name for entry in store.versions()] == [name]
    assert (store.fetch(name) / "model.ubj").is_file()


def rewrite(path: Path, changes: dict[str, bytes | None]) -> Path:
    """The archive with other contents of some files; None leaves one out."""
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
        for entry in source.namelist():
            content = changes.get(entry, source.read(entry))
            if content is not None:
                archive.writestr(entry, content)
    return target


def test_an_archive_that_was_tampered_with_is_refused(store: FsspecModelStore, tmp_path: Path) -> None:
    name = publish(store, tmp_path)
    good = tmp_path / "model.zip"
    models.export_model(store, name, good)
    manifest = store.get(name).manifest
    outside = {**manifest, "files": {"../model.ubj": manifest["files"]["model.ubj"]}}
    other = FsspecModelStore(str(tmp_path / "elsewhere"), cache_dir=tmp_path / "cache")
    for changes, words in (
        ({"model.ubj": b"other trees"}, "model.ubj is damaged"),
        ({"model.ubj": None}, "is no model archive"),
        ({"manifest.json": None}, "is no model archive"),
        ({"manifest.json": b"{"}, "is no model archive"),
        ({"manifest.json": b"[]"}, "lists no files"),
        ({"manifest.json": json.dumps({**manifest, "number": 7}).encode()}, "not the one that it was stored with"),
        ({"manifest.json": json.dumps({**manifest, "version": "x-1"}).encode()}, "not the one that it was stored with"),
        ({"manifest.json": json.dumps({**manifest, "format": 99}).encode()}, "stored by a newer lsbatch"),
        ({"manifest.json": json.dumps(outside).encode()}, "model archive"),
    ):
        with pytest.raises(ConfigError, match=words):
            models.import_model(other, rewrite(good, changes))
    (tmp_path / "text.zip").write_text("no archive")
    whole = good.read_bytes()
    place = whole.index(b"model.ubj") + len(b"model.ubj") + 10
    (tmp_path / "flipped.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    (tmp_path / "torn.zip").write_bytes(whole[: len(whole) // 2])
    for path in ("text.zip", "none.zip", "flipped.zip", "torn.zip"):
        with pytest.raises(ConfigError, match="is no model archive"):
            models.import_model(other, tmp_path / path)
    assert other.versions() == []
    assert models.import_model(other, good).name == name


def test_a_version_of_a_newer_lsbatch_is_left_alone(
    store: FsspecModelStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    path = tmp_path / "models" / new / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    assert [entry.name for entry in store.versions()] == [old]
    assert "stored by a newer lsbatch" in caplog.text
    with pytest.raises(ConfigError, match="stored by a newer lsbatch"):
        models.promote(store, LINEAGE, new, why="")


def test_a_half_written_version_is_none(store: FsspecModelStore, tmp_path: Path) -> None:
    name = publish(store, tmp_path)
    (tmp_path / "models" / name / "manifest.json").unlink()
    assert store.versions() == []
    assert models.trained(store, LINEAGE) == []


def test_a_promotion_that_is_torn_is_passed_over(
    store: FsspecModelStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = publish(store, tmp_path)
    models.promote(store, LINEAGE, name, why="")
    [note] = (tmp_path / "models" / "promotions").iterdir()
    (note.parent / "99990101T000000-torn.json").write_text('{"version": "')
    assert models.promoted(store, LINEAGE) == [name]
    assert "cannot be read" in caplog.text


def test_an_export_that_cannot_be_written_leaves_nothing(store: FsspecModelStore, tmp_path: Path) -> None:
    name = publish(store, tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        models.export_model(store, name, tmp_path / "nowhere" / "model.zip")
    shutil.rmtree(tmp_path / "models" / name / "parts")
    with pytest.raises(ConfigError, match="missing"):
        models.export_model(store, name, tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()
