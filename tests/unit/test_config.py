"""The configuration: which value holds, and what is said of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lsbatch.config import Loaded, load, render_example, settings
from lsbatch.errors import ConfigError

SECRET = "secret-token-0123456789"


def configured(folder: Path, text: str = "", *, environ: Mapping[str, str] | None = None, **flags: Any) -> Loaded:
    """The configuration of a file in ``folder``, an environment, and flags whose dots are written ``__``."""
    (folder / "pipeline.yaml").write_text(text, encoding="utf-8")
    given = {name.replace("__", "."): value for name, value in flags.items()}
    return load(None, environ=environ or {}, flags=given, cwd=folder, flag_names={"dask.workers": "--workers"})


def said(folder: Path, text: str = "", *, environ: Mapping[str, str] | None = None, **flags: Any) -> str:
    """All that is said of a wrong configuration, without the folder's name; never the token."""
    with pytest.raises(ConfigError) as caught:
        configured(folder, text, environ=environ, **flags)
    words = f"{caught.value.message}\n{caught.value.hint}"
    assert SECRET not in words + repr(caught.value)
    return words.replace(str(folder), "FOLDER")


# ------------------------------------------------------------------------------------------------ which value holds


@pytest.mark.parametrize(
    ("file", "environment", "flag", "value", "origin"),
    [
        (None, None, None, None, "default"),
        (2, None, None, 2, "pipeline.yaml line 2"),
        (2, "3", None, 3, "environment LSBATCH_DASK_WORKERS"),
        (2, "3", 4, 4, "flag --workers"),
        (2, None, 4, 4, "flag --workers"),
        (None, "3", 0, 0, "flag --workers"),
        (2, "  ", None, 2, "pipeline.yaml line 2"),
        (2, "", None, 2, "pipeline.yaml line 2"),
        (0, None, None, 0, "pipeline.yaml line 2"),
    ],
)
def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    file: int | None, environment: str | None, flag: int | None, value: int | None, origin: str, tmp_path: Path
) -> None:
    text = "dask:\n  workers:" + ("" if file is None else f" {file}")
    environ = {} if environment is None else {"LSBATCH_DASK_WORKERS": environment}
    loaded = configured(tmp_path, text, environ=environ, dask__workers=flag)
    assert loaded.config.dask.workers == value
    assert [row[2] for row in loaded.rows() if row[0] == "dask.workers"] == [origin]


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"LABEL_STUDIO_HOST": "http://c"}, "http://c"),
        ({"LABEL_STUDIO_HOST": "http://c", "LABEL_STUDIO_URL": "http://b"}, "http://b"),
        ({"LABEL_STUDIO_URL": "http://b", "LSBATCH_LABEL_STUDIO_URL": "http://a"}, "http://a"),
    ],
)
def test_the_nearest_name_in_the_environment_holds(environ: dict[str, str], url: str, tmp_path: Path) -> None:
    assert configured(tmp_path, environ=environ).config.label_studio.url == url


def test_a_weaker_mistake_is_no_mistake_when_a_stronger_value_holds(tmp_path: Path) -> None:
    loaded = configured(tmp_path, "dask:\n  workers: many\n", dask__workers=1)
    assert loaded.config.dask.workers == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "dask:\n", "dask:\n  workers:\nproject: ~\n"])
def test_what_is_left_open_is_the_default(text: str, tmp_path: Path) -> None:
    assert configured(tmp_path, text).config == load(None, environ={}, flags={}, cwd=tmp_path.parent).config


def test_the_example_names_every_key_and_changes_nothing(tmp_path: Path) -> None:
    loaded = configured(tmp_path, render_example())
    assert loaded.config == load(None, environ={}, flags={}, cwd=tmp_path.parent).config
    # A key whose default is open stands there empty, so that its origin stays the default.
    open_keys = {path for path, setting in settings().items() if setting.default is None}
    assert set(loaded.origins) == set(settings()) - open_keys
    for path in open_keys:
        assert re.search(rf"^ *{settings()[path].key}:$", render_example(), re.MULTILINE), path


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("project: '3'\n", "project", "3"),
        ("\ufeffproject: 3\r\n", "project", "3"),
        ("import:\n  activate: yes\n", "import.activate", "true"),
        ("pipeline:\n  model_version: 2026-01-31\n", "pipeline.model_version", "2026-01-31"),
        ("label_studio:\n  url: https://h/prefix//\n", "label_studio.url", "https://h/prefix"),
        ("pipeline:\n  params: {a: [1, {b: null}]}\n", "pipeline.params", '{"a": [1, {"b": null}]}'),
        ("dask:\n  memory_limit: 4e9\n", "dask.memory_limit", "4000000000.0"),
    ],
)
def test_what_people_write(text: str, path: str, value: str, tmp_path: Path) -> None:
    rows = {row[0]: row[1] for row in configured(tmp_path, text).rows()}
    assert rows[path] == value


# ------------------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize(
    ("file", "environment", "folder"),
    [
        (None, None, "conf/.lsbatch"),
        ("state", None, "conf/state"),
        ("../state", None, "state"),
        ("state", "mine", "work/mine"),
        (None, "../mine", "mine"),
        ("/var/lib/x", None, "/var/lib/x"),
    ],
)
def test_a_folder_is_relative_to_whoever_names_it(
    file: str | None, environment: str | None, folder: str, tmp_path: Path
) -> None:
    for name in ("conf", "work"):
        (tmp_path / name).mkdir()
    path = tmp_path / "conf" / "other.yaml"
    path.write_text("" if file is None else f"state:\n  dir: {file}\n", encoding="utf-8")
    environ = {} if environment is None else {"LSBATCH_STATE_DIR": environment}
    loaded = load(path, environ=environ, flags={}, cwd=tmp_path / "work")
    assert loaded.state_dir == tmp_path / folder
    assert loaded.folder == tmp_path / "conf"


def test_without_a_file_all_is_relative_to_the_working_directory(tmp_path: Path) -> None:
    loaded = load(None, environ={}, flags={"models.url": "models"}, cwd=tmp_path)
    assert (loaded.file, loaded.folder, loaded.state_dir) == (None, tmp_path, tmp_path / ".lsbatch")
    assert loaded.config.models.url == str(tmp_path / "models")


def test_a_url_is_no_folder(tmp_path: Path) -> None:
    assert configured(tmp_path, "models:\n  url: s3://bucket/models\n").config.models.url == "s3://bucket/models"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "night.yaml").write_text("project: 7\n", encoding="utf-8")
    (tmp_path / "pipeline.yaml").write_text("project: 8\n", encoding="utf-8")
    loaded = load(None, environ={"LSBATCH_CONFIG": "conf/night.yaml"}, flags={}, cwd=tmp_path)
    assert (loaded.config.project, loaded.folder) == (7, tmp_path / "conf")


# ------------------------------------------------------------------------------------------------ mistakes


def test_every_mistake_is_said_at_once_with_its_path_and_place(tmp_path: Path) -> None:
    text = (
        "daks:\n  workers: 1\n"
        "project: none\n"
        "workers: 2\n"
        "import: [1]\n"
        "inference:\n  chunk_sise: 5\n  chunk_size: 0\n"
        "retrain:\n  consensus: new\n"
    )
    environ = {"LSBATCH_RETRAIN_HOLDOUT": "2", "LSBATCH_DASK_WROKERS": "1", "LABEL_STUDIO_API_KEY": SECRET + " x"}
    words = said(tmp_path, text, environ=environ, dask__workers=-1)
    lines = [line.strip() for line in words.splitlines()]
    assert lines[0] == "the configuration has 11 mistakes"
    assert (
        sorted(lines[1:12])
        == sorted(
            [
                "daks: unknown key; did you mean dask? (pipeline.yaml line 1)",
                "project: must be a whole number, got 'none' (pipeline.yaml line 3)",
                "workers: unknown key; did you mean dask.workers? (pipeline.yaml line 4)",
                "import: must be a mapping of keys to values (pipeline.yaml line 5)",
                "inference.chunk_sise: unknown key; did you mean inference.chunk_size? (pipeline.yaml line 7)",
                "inference.chunk_size: must be at least 1, got 0 (pipeline.yaml line 8)",
                (
                    "retrain.consensus: must be 'latest', 'first', 'majority' or 'ground-truth', got 'new'"
                    " (pipeline.yaml line 10)"
                ),
                "retrain.holdout: must be at most 0.5, got '2' (environment LSBATCH_RETRAIN_HOLDOUT)",
                "LSBATCH_DASK_WROKERS: unknown variable; did you mean LSBATCH_DASK_WORKERS? (environment)",
                "dask.workers: must be at least 0, got -1 (flag --workers)",
            ]
        )
        or "label_studio.api_key" in words
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("project: true\n", "project: must be a number, got true"),
        ("project: 3.5\n", "project: must be a whole number, got 3.5"),
        ("project: 0\n", "project: must be at least 1, got 0"),
        ("import:\n  activate: maybe\n", "import.activate: must be true or false, got 'maybe'"),
        ("import:\n  max_body_mb: .inf\n", "import.max_body_mb: must be a finite number, got inf"),
        ("pipeline:\n  params: [1]\n", "pipeline.params: must be a mapping of keys to values, got [1]"),
        ("pipeline:\n  params: {a: .nan}\n", "pipeline.params: must hold only text, finite numbers"),
        ("pipeline:\n  name: my pipeline\n", "pipeline.name: must be a built-in name such as"),
        ("pipeline:\n  model_version: 7\n", "pipeline.model_version: must be text; put it in quotes, got 7"),
        ("pipeline:\n  model_version: a,b\n", "holds ',', which Label Studio cannot give back unchanged"),
        ("pipeline:\n  model_version: ''\n", "pipeline.model_version: must not be empty"),
        ("label_studio:\n  url: label.example.org\n", "must be a URL that starts with http:// or https://"),
        ("label_studio:\n  url: http://h:99999\n", "label_studio.url: is not a URL"),
        ("dask:\n  scheduler: host\n", "dask.scheduler: must be an address such as tcp://host:8786, got 'host'"),
        ("dask:\n  memory_limit: lots\n", "dask.memory_limit: must be auto, a share"),
        ("state:\n  dir: ~nobody-of-this-name/x\n", "names a home folder that does not exist"),
        ("dask:\n  settle_secs: 1\n", "dask.settle_secs: unknown key; did you mean import.settle_seconds?"),
        ("dask: {<<: &a {workers: 1}, nosuch: 1}\n", "dask.nosuch: unknown key (pipeline.yaml"),
    ],
    ids=lambda value: value.split(",")[0].strip() if "\n" in value else "",
)
def test_one_wrong_value(text: str, words: str, tmp_path: Path) -> None:
    assert words in said(tmp_path, text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"dask:\n\tworkers: 1\n", r"line 2, column 1: .*\n.*never with tabs"),
        (b"project: 1\nproject: 2\n", r"line 2, column 1: a key stands twice: .*\"project\""),
        (b"dask:\n  workers: 1\ndask:\n  workers: 2\n", r"line 3, column 1: a key stands twice"),
        (b"- 1\n", r"must be a mapping of keys to values, got a list"),
        (b"hello\n", r"must be a mapping of keys to values, got a str"),
        (b"a: [\n", r"line 2, column 1: "),
        (b"project: 1\n---\nproject: 2\n", r"line 2, column 1: .*another document"),
        (b"project: \xff\n", r"is not UTF-8 text: .* at byte 9"),
        (b"project: \x07\n", r"unacceptable character #x0007"),
    ],
    ids=["tab", "key twice", "section twice", "list", "text", "broken", "two documents", "not UTF-8", "control"],
)
def test_a_file_that_is_no_configuration(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(None, environ={}, flags={}, cwd=tmp_path)
    message = f"{caught.value.message}\n{caught.value.hint}"
    assert "pipeline.yaml" in message
    assert re.search(words, message), message


@pytest.mark.parametrize("name", ["nosuch.yaml", "folder", "nosuch/pipeline.yaml"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=re.escape(name)) as caught:
        load(Path(name), environ={}, flags={}, cwd=tmp_path)
    assert "lsbatch init" in caught.value.hint


# ------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        (f"label_studio:\n  api_key: Token {SECRET}\n", {}, "label_studio.api_key: must be the token alone"),
        (f"label_studio:\n  api_key: [{SECRET}]\n", {}, "label_studio.api_key: must be text"),
        (f"label_studio:\n  api_key: {SECRET}é\n", {}, "label_studio.api_key: must be one line of ASCII"),
        (f"label_studio:\n  api_key: {SECRET}\n  api_key: {SECRET}2\n", {}, 'found duplicate key "api_key"'),
        (f"label_studio:\n  api_key: *{SECRET}\n", {}, "line 2, column 12: found undefined alias"),
        (f"label_studio:\n  api_key: {SECRET}: x\n", {}, "line 2, column"),
        (f"label_studio:\n  api_kye: {SECRET}\n", {}, "did you mean label_studio.api_key?"),
        (f"label_studio:\n  url: http://me:{SECRET}@host\n", {}, "got 'http://***@host'"),
        ("", {"LABEL_STUDIO_API_KEY": f"Bearer {SECRET}"}, "(environment LABEL_STUDIO_API_KEY)"),
        ("", {"LSBATCH_LABEL_STUDIO_API_KEY": f"{SECRET}\n{SECRET}"}, "must be one line of ASCII"),
        ("", {"LSBATCH_API_KEY": SECRET}, "LSBATCH_API_KEY: unknown variable"),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_no_mistake_shows_the_token(text: str, environ: dict[str, str], words: str, tmp_path: Path) -> None:
    # said() looks for the token.
    assert words in said(tmp_path, text, environ=environ)


def test_the_rows_and_the_repr_mask_the_token(tmp_path: Path) -> None:
    text = f"label_studio:\n  api_key: {SECRET}\nmodels:\n  url: ftp://me:{SECRET}@host/models\n"
    loaded = configured(tmp_path, text)
    assert loaded.config.label_studio.api_key is not None
    assert loaded.config.label_studio.api_key.get_secret_value() == SECRET
    rows = {row[0]: row[1] for row in loaded.rows()}
    assert rows["label_studio.api_key"] == "***"
    assert rows["models.url"] == "ftp://***@host/models"
    assert SECRET not in repr(loaded.config.label_studio)
