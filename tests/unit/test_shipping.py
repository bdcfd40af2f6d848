"""What travels to workers that share no disk with the driver, and what they do with it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsbatch import executor, shipping
from lsbatch.entities import Task, TaskId
from lsbatch.label_config import LabelConfig
from lsbatch.pipeline_spec import MediaSpec, PipelineSpec
from lsbatch.predictor import Predictor
from lsbatch.run_dir import tasks_table
from lsbatch.shipping import located, pack, places, unpack
from lsbatch_connectors.label_studio import ConnectionOptions
from lsbatch_connectors.media import MediaOptions
from odd_pipeline import CONFIG, Odd, Recipe


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker to which nothing has been sent yet."""
    monkeypatch.setattr(shipping, "_arrived", {})
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def folder_with(place: Path, **files: str) -> Path:
    """A folder of Python modules."""
    for name, text in files.items():
        path = place / (name.replace("__in__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def files(folder: Path) -> list[Path]:
    """Every file below it."""
    return [path for path in folder.rglob("*") if path.is_file()]


def spec(folder: Path, pipeline: str, model: Path | None = None) -> PipelineSpec:
    """A recipe."""
    media = MediaSpec(MediaOptions(base_url="http://a"), ConnectionOptions("http://a", "token"))
    return PipelineSpec(pipeline, str(folder), {}, CONFIG, "v", None if model is None else str(model), media)


# ------------------------------------------------------------------------------------------------ there and back


def test_what_is_packed_arrives(tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", mine="A = 1", mine__in__deep__in__er="B = 2")
    (here / "weights.bin").write_bytes(bytes(range(256)))
    unpack(str(here), pack(here, files(here)), tmp_path / "there")
    place = located(str(here))
    assert place.is_relative_to(tmp_path / "there")
    assert {path.relative_to(place): path.read_bytes() for path in files(place)} == {
        path.relative_to(here): path.read_bytes() for path in files(here)
    }


def test_what_did_not_arrive_is_where_it_is(tmp_path: Path) -> None:
    assert located(str(tmp_path)) == tmp_path
    assert places() == ()


def test_a_file_of_1970_can_be_packed(tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", mine="A = 1")
    os.utime(here / "mine.py", (0, 0))
    unpack(str(here), pack(here, files(here)), tmp_path / "there")
    assert (located(str(here)) / "mine.py").read_text() == "A = 1"


def test_a_long_path_on_the_drivers_machine_is_no_name_that_is_too_long(tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", mine="A = 1")
    far = "/" + "/".join(["very-long-folder-name"] * 40)
    unpack(far, pack(here, files(here)), tmp_path / "there")
    assert (located(far) / "mine.py").is_file()


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", mine="A = 1")
    archive = pack(here, files(here))
    unpack(str(here), archive, tmp_path / "there")
    before = places()
    (located(str(here)) / "mine.py").write_text("changed since")
    unpack(str(here), archive, tmp_path / "there")
    assert places() == before
    assert (located(str(here)) / "mine.py").read_text() == "changed since"


def test_a_worker_that_outlives_a_run_imports_the_next_code_anew(tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", outlived_mine="import outlived_beside\nA = outlived_beside.A")
    found = []
    for number in (1, 2):
        (here / "outlived_beside.py").write_text(f"A = {number}")
        unpack(str(here), pack(here, files(here)), tmp_path / "there")
        sys.path.insert(0, str(located(str(here))))
        found.append(importlib.import_module("outlived_mine").A)
    assert found == [1, 2]
    assert len([entry for entry in sys.path if entry.startswith(str(tmp_path / "there"))]) == 1


def test_a_predictor_is_built_anew_for_what_arrives_anew(tmp_path: Path) -> None:
    built: list[tuple[Path, ...]] = []

    class Counting(Recipe):
        def __call__(self) -> Predictor:
            built.append(places())
            return Predictor(Odd(), LabelConfig(CONFIG), "v")  # type: ignore[arg-type]

    here = folder_with(tmp_path / "here", mine="A = 1")
    table = tasks_table([Task(TaskId(1), {"text": "x"})])
    for text in ("A = 1", "A = 1", "A = 2"):
        (here / "mine.py").write_text(text)
        os.utime(here / "mine.py", (1_700_000_000, 1_700_000_000))
        unpack(str(here), pack(here, files(here)), tmp_path / "there")
        executor.predict_table(Counting(key="shipped"), table)
    assert len(built) == len(set(built)) == 2


# ------------------------------------------------------------------------------------------------ what is sent


def packed(tmp_path: Path, recipe: PipelineSpec) -> dict[str, list[str]]:
    """The files that travel, by the folder that they are from."""
    found = {}
    for folder, archive in recipe.parcels().items():
        unpack(folder, archive, tmp_path / "there")
        place = located(folder)
        found[folder] = sorted(path.relative_to(place).as_posix() for path in files(place))
    return found


def test_a_module_travels_with_those_beside_it(tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", mine="", words="", tests__in__other="")
    (here / "data.csv").write_text("")
    (here / ".lsbatch").mkdir()
    (here / ".lsbatch" / "ledger.py").write_text("")
    assert packed(tmp_path, spec(here, "mine:Told")) == {str(here): ["mine.py", "words.py"]}


def test_a_package_travels_whole(tmp_path: Path) -> None:
    here = folder_with(tmp_path / "here", mine__in____init__="", mine__in__sub__in__told="", beside="")
    (here / "mine" / "labels.json").write_text("{}")
    (here / "mine" / "__pycache__").mkdir()
    (here / "mine" / "__pycache__" / "old.pyc").write_bytes(b"")
    expected = ["beside.py", "mine/__init__.py", "mine/labels.json", "mine/sub/told.py"]
    assert packed(tmp_path, spec(here, "mine.sub.told:Told")) == {str(here): expected}


def test_an_installed_pipeline_sends_its_model_alone(tmp_path: Path) -> None:
    model = tmp_path / "models" / "v"
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "weights.ubj").write_bytes(b"1")
    here = folder_with(tmp_path / "here", mine="")
    assert packed(tmp_path, spec(here, "text-classification", model)) == {str(model): ["deep/weights.ubj"]}
    assert packed(tmp_path, spec(here, "lsbatch_pipelines.text_classification:TextClassification")) == {}
