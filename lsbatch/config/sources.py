"""Read what is given: the file, the environment, the flags. Each value keeps the place that it comes from."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lsbatch.config.described import sections, settings
from lsbatch.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "EXPLAINED", "Given", "nearest", "read_environment", "read_file", "read_flags"]

#: Names the file, where no flag does.
CONFIG_VARIABLE = "LSBATCH_CONFIG"

PREFIX = "LSBATCH_"
EXPLAINED = "lsbatch init --print explains every key."


@dataclass(frozen=True, slots=True)
class Given:
    """A value with the place that it comes from, in words; ``mistake`` says why it cannot be one at all."""

    path: str
    value: Any
    origin: str
    mistake: str = ""


def nearest(word: str, known: Iterable[str], *, shown: Mapping[str, str] | None = None) -> str:
    """``; did you mean X?``, or nothing. X is the nearest known word, or what ``shown`` has for it."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {(shown or {}).get(found[0], found[0])}?" if found else ""


def read_file(path: Path) -> list[Given]:
    """Every setting of a YAML 1.2 file.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, has a key twice, or is no mapping.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", hint="lsbatch init writes a pipeline.yaml.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    # Round trip, since it keeps the line of each key.
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        content = yaml.load(text)
    except DuplicateKeyError as error:
        raise ConfigError(f"{path.name}, {_place(error)}: a key stands twice: {_problem(error)}") from None
    except MarkedYAMLError as error:
        hint = "YAML indents with blanks, never with tabs." if "\t" in text else EXPLAINED
        raise ConfigError(f"{path.name}, {_place(error)}: {_problem(error)}", hint=hint) from None
    except YAMLError as error:
        raise ConfigError(f"{path.name}: {str(error).splitlines()[0]}", hint=EXPLAINED) from None
    if content is None:
        return []
    if not isinstance(content, Mapping):
        kind = "list" if isinstance(content, list) else type(content).__name__
        raise ConfigError(f"{path.name}: must be a mapping of keys to values, got a {kind}", hint=EXPLAINED)
    return list(_flatten(content, path.name))


def _place(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"


def _problem(error: MarkedYAMLError) -> str:
    # Only the first line: the parser adds advice for programmers. Values are left out, one may be the token.
    words = str(error.problem or error.context or "not YAML").split("\n")[0]
    return re.split(r" with value| (?<=alias )'", words)[0]


def _origin(content: Any, key: Any, name: str) -> str:
    try:
        return f"{name} line {content.lc.key(key)[0] + 1}"
    except (KeyError, TypeError):  # merged in from another mapping, so that it has no line of its own
        return name


def _flatten(content: Any, name: str) -> Iterator[Given]:
    for key, value in content.items():
        origin = _origin(content, key, name)
        path = str(key)
        if path in settings():
            yield Given(path, _plain(value), origin)
        elif path not in sections():
            paths = {entry.key: entry.path for entry in settings().values()}
            yield Given(path, None, origin, f"unknown key{nearest(path, [*sections(), *paths], shown=paths)}")
        elif value is None:
            continue
        elif not isinstance(value, Mapping):
            yield Given(path, None, origin, "must be a mapping of keys to values")
        else:
            yield from _section(path, value, name)


def _section(section: str, content: Any, name: str) -> Iterator[Given]:
    everywhere = {entry.key: entry.path for entry in settings().values()}
    here = {entry.key: entry.path for entry in settings().values() if entry.section == section}
    for key, value in content.items():
        origin = _origin(content, key, name)
        if key in here:
            yield Given(here[key], _plain(value), origin)
        else:
            guess = nearest(str(key), here, shown=here) or nearest(str(key), everywhere, shown=everywhere)
            yield Given(f"{section}.{key}", None, origin, f"unknown key{guess}")


def _plain(value: Any) -> Any:
    """Python's own types instead of those that remember their comments."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if type(value) is datetime.date:
        # YAML 1.2 knows no dates; the parser makes one all the same, and 2026-01-31 is a good model version.
        return value.isoformat()
    return value


def read_environment(environ: Mapping[str, str]) -> list[Given]:
    """Every setting of the environment; empty variables count as not set."""
    found = []
    names = {name for setting in settings().values() for name in setting.env}
    for path, setting in settings().items():
        for name in setting.env:
            if value := environ.get(name, "").strip():
                found.append(Given(path, value, f"environment {name}"))
                break
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in names and name != CONFIG_VARIABLE:
            known = [entry for entry in names if entry.startswith(PREFIX)]
            found.append(Given(name, None, "environment", f"unknown variable{nearest(name, known)}"))
    return found


def read_flags(flags: Mapping[str, Any], names: Mapping[str, str]) -> list[Given]:
    """Every setting of the flags that were given; None is not given."""
    return [Given(path, value, f"flag {names.get(path, path)}") for path, value in flags.items() if value is not None]
