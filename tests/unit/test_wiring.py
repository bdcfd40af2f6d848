"""From configured names to objects: folders, models and pipelines of one project of one server."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_support import TEXT_CONFIG, topic_region
from lsbatch.config import Loaded, load
from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import ConfigError, LsbatchError, RefusedError
from lsbatch.label_config import LabelConfig
from lsbatch.pipeline_spec import choose_pipeline
from lsbatch.promotions import Lineage, Promotion
from lsbatch.server_key import server_key
from lsbatch.wiring import Bench
from scripted_http import Answer, ScriptedServer, scripted_server

TOKEN = "0123456789abcdef0123456789abcdef01234567"
IMAGE_CONFIG = TEXT_CONFIG.replace("<Text", "<Image")
PIPELINE = """
class Rules:
    model_version = "rules-1"

    @classmethod
    def why_not(cls, label_config):
        return None if label_config.find("Choices", "Text") else "no Choices on Text"

    @classmethod
    def build(cls, context):
        return cls()

    def predict(self, tasks):
        value = {"choices": ["food"]}
        region = {"from_name": "topic", "to_name": "text", "type": "choices", "value": value}
        return [{"result": [region]} for _ in tasks]


class Outer:
    class Inner(Rules):
        model_version = ""


class Learner(Rules):
    @classmethod
    def fit(cls, context, tasks, model_dir):
        raise AssertionError("nothing is trained here")


class Picky(Rules):
    @classmethod
    def why_not(cls, label_config):
        raise KeyError("schema")


class Forgetful:
    def predict(self, tasks):
        return []


def function(tasks):
    return []
"""


@pytest.fixture(autouse=True)
def _fresh_imports() -> Iterator[None]:
    """What a test imports from its folder is no module of the next test."""
    paths, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = paths
    for name in set(sys.modules) - modules:
        if name.startswith("mine"):
            del sys.modules[name]


class Place:
    """A working directory with a Label Studio; what is made for it is closed when the test ends."""

    def __init__(self, folder: Path, server: ScriptedServer) -> None:
        self.folder = folder
        self.server = server
        self._made: list[Bench] = []

    def bench(self, *, url: str = "", **flags: Any) -> Bench:
        """Everything for project 3; dots of the flags are written ``__``."""
        given_flags = {"project": 3} | {name.replace("__", "."): value for name, value in flags.items()}
        return self.loaded(load(None, environ=self.environ(url), flags=given_flags, cwd=self.folder))

    def loaded(self, loaded: Loaded) -> Bench:
        """Everything for a configuration."""
        self._made.append(Bench(loaded))
        return self._made[-1]

    def environ(self, url: str = "") -> dict[str, str]:
        """The server's address, or another, and a token."""
        return {"LABEL_STUDIO_URL": url or self.server.url, "LABEL_STUDIO_API_KEY": TOKEN}

    def with_pipeline(self, name: str, **flags: Any) -> Bench:
        """The same with the module ``mine`` beside it, and this pipeline of it."""
        (self.folder / "mine.py").write_text(PIPELINE, encoding="utf-8")
        return self.bench(pipeline__name=name, **flags)

    def close(self) -> None:
        """Close the connections."""
        for made in self._made:
            if "client" in made.__dict__:
                made.client.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """With the projects 3 and 4."""
    with scripted_server() as server:
        for project in (3, 4):
            server.on(f"/api/projects/{project}/", Answer(200, {"title": "test", "label_config": TEXT_CONFIG}))
        with closing(Place(tmp_path, server)) as place:
            yield place


# ------------------------------------------------------------------------------------------------ folders

ADDRESSES = st.from_regex(r"[a-z0-9.-]{1,12}(:[0-9]{1,5})?(/[a-z0-9_./-]{0,8})?", fullmatch=True)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://label.example.org", "label.example.org"),
        ("http://label.example.org/", "label.example.org"),
        ("https://Label.Example.org", "label.example.org"),
        ("http://localhost:8080", "localhost-8080"),
    ],
)
def test_a_plain_address_is_its_own_folder_name(url: str, key: str) -> None:
    assert server_key(url) == key


@given(one=ADDRESSES, other=ADDRESSES)
def test_two_servers_never_share_a_folder(one: str, other: str) -> None:
    keys = [server_key(f"https://{address}") for address in (one, other)]
    assert (keys[0] == keys[1]) is (one.rstrip("/") == other.rstrip("/"))
    assert not any("/" in key for key in keys)


def test_runs_and_models_are_apart_for_each_server_and_project(place: Place) -> None:
    folders = set()
    for url in (place.server.url, place.server.url + "/prefix"):
        for project in (3, 4):
            made = place.bench(url=url, project=project)
            folders |= {made.runs, Path(made.store.url)}
            assert made.runs.is_relative_to(place.folder / ".lsbatch")
    assert len(folders) == 8


def test_all_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    made = Bench(load(None, environ={}, flags={}, cwd=tmp_path))
    with pytest.raises(ConfigError, match=r"label_studio\.url: not set.*\n.*label_studio\.api_key: not set"):
        _ = made.client
    with pytest.raises(ConfigError, match="project: not set"):
        _ = made.project


# ------------------------------------------------------------------------------------------------ models


def publish(made: Bench, folder: Path, *, pipeline: str = "text-classification", **more: object) -> str:
    """Store a model as retrain does."""
    (folder / "model").mkdir(exist_ok=True)
    manifest = {"pipeline": pipeline, "server": server_key(made.connection.url), "project": made.project_id, **more}
    version = made.store.publish("model", folder / "model", manifest).name
    lineage = Lineage(pipeline, server_key(made.connection.url), made.project_id)
    made.store.note(Promotion(version, lineage, datetime.now(UTC).isoformat(timespec="microseconds")))
    return version


def test_the_version_promoted_last_for_the_pipeline_and_the_project_predicts(place: Place) -> None:
    everyone = {"models__url": str(place.folder / "shared")}
    made = place.bench(**everyone)
    first = publish(made, place.folder, number=1)
    newest = publish(made, place.folder, number=2)
    others = [
        publish(made, place.folder, pipeline="mine:Learner"),
        publish(place.bench(project=4, **everyone), place.folder),
        publish(place.bench(url=place.server.url + "/prefix", **everyone), place.folder),
    ]
    assert len({first, newest, *others}) == 5
    assert made.model_version == newest
    assert place.bench(project=4, **everyone).model_version == others[1]
    assert place.bench(pipeline__model_version=first, **everyone).model_version == first


def test_a_version_that_is_not_there_is_named_with_those_that_are(place: Place) -> None:
    made = place.bench(pipeline__model_version="model-2020")
    with pytest.raises(ConfigError, match=r"no model version model-2020 in .*: it is empty"):
        _ = made.model_version
    there = publish(made, place.folder)
    with pytest.raises(ConfigError, match=f"there are {there}"):
        _ = place.bench(pipeline__model_version="model-2020").model_version


def test_a_model_that_is_not_promoted_is_not_used(place: Place) -> None:
    made = place.bench()
    version = publish(made, place.folder)
    assert place.bench().model_version == version
    made.store.note(Promotion(version, made.lineage, "2999-01-01T00:00:00.000000+00:00", "rollback"))
    with pytest.raises(ConfigError, match=f"no model version of project 3 is promoted; {version} is stored") as caught:
        _ = place.bench().model_version
    assert f"lsbatch models promote {version} --project 3" in caught.value.hint


def test_without_a_model_the_way_out_is_retrain(place: Place) -> None:
    with pytest.raises(ConfigError, match="no model of text-classification is trained for project 3 yet") as caught:
        _ = place.bench().model_version
    assert "lsbatch retrain --project 3" in caught.value.hint


@pytest.mark.parametrize(
    ("pipeline", "wanted", "version"),
    [
        ("mine:Rules", None, "rules-1"),
        ("mine:Rules", "rules-2", "rules-2"),
        ("mine:Outer.Inner", "rules-3", "rules-3"),
        ("mine:Outer.Inner", None, None),
    ],
)
def test_a_pipeline_without_training_has_a_version_of_its_own(
    pipeline: str, wanted: str | None, version: str | None, place: Place
) -> None:
    made = place.with_pipeline(pipeline, pipeline__model_version=wanted)
    if version is not None:
        assert made.model_version == version
        return
    with pytest.raises(ConfigError, match=r"not set, and mine:Outer\.Inner has none of its own") as caught:
        _ = made.model_version
    assert "--model-version" in caught.value.hint


# ------------------------------------------------------------------------------------------------ pipelines


def test_a_pipeline_beside_the_file_is_found_from_any_directory(place: Place) -> None:
    conf, work = place.folder / "conf", place.folder / "work"
    (conf / "mine").mkdir(parents=True)
    work.mkdir()
    (conf / "mine" / "__init__.py").touch()
    (conf / "mine" / "rules.py").write_text(PIPELINE, encoding="utf-8")
    (conf / "pipeline.yaml").write_text("project: 3\npipeline:\n  name: mine.rules:Rules\n", encoding="utf-8")
    made = place.loaded(load(conf / "pipeline.yaml", environ=place.environ(), flags={}, cwd=work))
    assert (made.pipeline_class.__name__, made.model_version) == ("Rules", "rules-1")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("text-clasification", ConfigError, "is not installed; did you mean text-classification?"),
        ("nosuch:Rules", ConfigError, "ModuleNotFoundError: No module named 'nosuch'"),
        ("mine:Rulse", ConfigError, "there is no 'Rulse'; did you mean Rules?"),
        ("mine:Rules.Inner", ConfigError, "there is no 'Inner'"),
        ("mine:function", ConfigError, "it is no class"),
        ("mine:Forgetful", ConfigError, "it lacks why_not, build"),
        ("mine:Picky", ConfigError, r"why_not() raised KeyError: 'schema' (mine.py line 33)"),
        ("image-classification", RefusedError, "it has no Choices on Image"),
    ],
)
def test_a_pipeline_that_cannot_be_used(name: str, kind: type[LsbatchError], words: str, place: Place) -> None:
    with pytest.raises(kind, match=re.escape(words)) as caught:
        _ = place.with_pipeline(name).pipeline_class
    assert type(caught.value) is kind
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch' (mine.py line 2)"),
        ("raise ValueError('told to')", "ValueError: told to (mine.py line 2)"),
        ("import sys; sys.exit(3)", "SystemExit: 3 (mine.py line 2)"),
        ("def f(:", "SyntaxError: invalid syntax (mine.py, line 2)"),
    ],
    ids=["import", "raise", "exit", "syntax"],
)
def test_a_module_that_breaks_is_said_with_its_line(code: str, words: str, place: Place) -> None:
    (place.folder / "mine.py").write_text(f"# first line\n{code}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(words)):
        _ = place.bench(pipeline__name="mine:Rules").pipeline_class


def test_only_a_pipeline_that_learns_is_trained(place: Place) -> None:
    assert place.with_pipeline("mine:Learner").trainable.__name__ == "Learner"
    with pytest.raises(ConfigError, match="mine:Rules cannot be trained"):
        _ = place.with_pipeline("mine:Rules").trainable


CHOICES = '<Choices name="topic" toName="text"><Choice value="a"/><Choice value="b"/></Choices>'
LABELS = '<Labels name="part" toName="text"><Label value="a"/></Labels>'
BRUSH = '<BrushLabels name="mask" toName="text"><Label value="a"/></BrushLabels>'
SMART = '<RectangleLabels name="box" toName="text" smart="true"><Label value="a"/></RectangleLabels>'


def on(tag: str, *controls: str) -> str:
    """A config with these controls."""
    return f'<View><{tag} name="text" value="$text"/>{"".join(controls)}</View>'


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (TEXT_CONFIG, "text-classification"),
        (IMAGE_CONFIG, "image-classification"),
        (on("Image", BRUSH, SMART), "interactive-segmentation"),
        (on("Image", BRUSH, SMART, CHOICES), "image-classification"),
        (on("HyperText", LABELS), "text-spans"),
        (on("Text", LABELS, CHOICES), "text-classification"),
    ],
)
def test_the_pipeline_is_chosen_from_the_label_config(config: str, name: str) -> None:
    assert choose_pipeline(LabelConfig(config)) == name


@pytest.mark.parametrize(
    "config", [on("Image", BRUSH), on("Image", SMART), on("Image", BRUSH, SMART.replace("true", "false"))]
)
def test_without_a_smart_tool_nothing_is_segmented(config: str) -> None:
    with pytest.raises(RefusedError, match="interactive-segmentation: it has no"):
        choose_pipeline(LabelConfig(config))


def test_where_no_pipeline_fits_each_says_why() -> None:
    config = LabelConfig(TEXT_CONFIG.replace('toName="text"', 'toName="text" perRegion="true"'))
    with pytest.raises(RefusedError) as caught:
        choose_pipeline(config)
    assert "image-classification: it has no Choices on Image" in str(caught.value)
    assert "text-classification: Choices 'topic' is about single regions" in str(caught.value)


# ------------------------------------------------------------------------------------------------ the recipe


def test_the_recipe_travels_and_builds_what_predicts(place: Place) -> None:
    spec = place.with_pipeline("mine:Rules").spec
    content = pickle.dumps(spec)
    assert len(content) < 5_000
    outcomes = pickle.loads(content)().predict_chunk([Task(TaskId(5), {"text": "x"})])
    assert outcomes == [Prediction(TaskId(5), [topic_region("food")], None, "rules-1")]


def test_the_recipe_does_not_show_the_token(place: Place) -> None:
    spec = place.with_pipeline("mine:Rules").spec
    assert TOKEN not in repr(spec) + repr(spec.media) + spec.key


def test_recipes_have_one_key_only_when_they_build_the_same(place: Place) -> None:
    specs = [
        place.with_pipeline("mine:Rules").spec,
        place.with_pipeline("mine:Rules").spec,
        place.with_pipeline("mine:Rules", pipeline__model_version="rules-2").spec,
        place.with_pipeline("mine:Rules", pipeline__params={"a": 1}).spec,
        place.with_pipeline("mine:Outer.Inner", pipeline__model_version="rules-1").spec,
    ]
    assert specs[0].key == specs[1].key
    assert len({spec.key for spec in specs}) == 4
