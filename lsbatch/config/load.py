"""Put what is given together, check it, and say everything that is wrong at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from lsbatch.config.choosing import is_json
from lsbatch.config.described import settings
from lsbatch.config.schema import Config
from lsbatch.config.sources import CONFIG_VARIABLE, EXPLAINED, Given, read_environment, read_file, read_flags
from lsbatch.errors import ConfigError

__all__ = ["DEFAULT_FILE", "Loaded", "load"]

DEFAULT_FILE = "pipeline.yaml"
DEFAULT = "default"
MASK = "***"


@dataclass(frozen=True)
class Loaded:
    """The effective configuration.

    Attributes:
        config: every value.
        file: the file that was read, or None.
        folder: the file's folder, else the working directory; a user's own pipeline is looked for here.
        origins: where each value that is not the default comes from, by path.
        state_dir: absolute folder of runs, models and locks.
    """

    config: Config
    file: Path | None
    folder: Path
    origins: Mapping[str, str]
    state_dir: Path

    def rows(self) -> list[tuple[str, str, str]]:
        """Path, value as text (secrets masked, empty when open) and origin of every setting, in the file's order."""
        return [(path, _shown(_value(self.config, path)), self.origins.get(path, DEFAULT)) for path in settings()]


def load(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    cwd: Path,
    flag_names: Mapping[str, str] | None = None,
) -> Loaded:
    """The effective configuration: flag > environment > file > default.

    Args:
        path: the file; None for the one that ``LSBATCH_CONFIG`` names, else ``pipeline.yaml`` in ``cwd`` if it exists.
        environ: environment variables.
        flags: dotted path to value, None where a flag was not given.
        cwd: the working directory.
        flag_names: dotted path to the flag's name, for messages.

    Raises:
        ConfigError: everything that is wrong, one line each with its path and origin.
    """
    if path is None and (named := environ.get(CONFIG_VARIABLE, "").strip()):
        path = cwd / named
    if path is None and (cwd / DEFAULT_FILE).exists():
        path = cwd / DEFAULT_FILE
    file = None if path is None else (cwd / path).resolve()
    given = [] if file is None else read_file(file)
    given += read_environment(environ) + read_flags(flags, flag_names or {})
    mistakes = [_line(entry, entry.mistake) for entry in given if entry.mistake]
    # Later ones are stronger.
    strongest = {entry.path: entry for entry in given if not entry.mistake and not _left_open(entry)}
    try:
        config = Config.model_validate(_nested(strongest))
    except ValidationError as error:
        mistakes += _translated(error, strongest)
    if mistakes:
        raise _error(mistakes, file)
    folder = cwd.resolve() if file is None else file.parent
    origins = {path: entry.origin for path, entry in strongest.items()}
    config = _absolute(config, origins, folder, cwd)
    return Loaded(config, file, folder, origins, Path(config.state.dir or folder / ".lsbatch"))


def _left_open(entry: Given) -> bool:
    """An empty value in the file: the default holds."""
    return entry.value is None


def _nested(given: Mapping[str, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, entry in given.items():
        section, _, key = path.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = entry.value
    return tree


def _translated(error: ValidationError, given: Mapping[str, Given]) -> list[str]:
    lines = []
    for entry in error.errors(include_url=False, include_context=True, include_input=False):
        parts = [str(part) for part in entry["loc"]]
        path = next((".".join(parts[:count]) for count in (2, 1) if ".".join(parts[:count]) in given), ".".join(parts))
        lines.append(_line(given[path], _reason(entry), show=True) if path in given else f"{path}: {_reason(entry)}")
    return list(dict.fromkeys(lines))


def _reason(entry: Mapping[str, Any]) -> str:
    """pydantic's verdict in plain words."""
    kind, context = str(entry["type"]), entry.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    words = {
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "literal_error": "must be {expected}",
        "string_type": "must be text; put it in quotes",
        "string_too_short": "must not be empty",
        "finite_number": "must be a finite number",
        "dict_type": "must be a mapping of keys to values",
    }
    if kind in words:
        return words[kind].format(**context)
    for word, meaning in (("bool", "true or false"), ("int", "a whole number"), ("float", "a number")):
        if kind.startswith(word):
            return f"must be {meaning}"
    return str(entry["msg"])


def _line(entry: Given, reason: str, *, show: bool = False) -> str:
    got = ""
    if show:
        secret = entry.path in settings() and settings()[entry.path].secret
        got = f", got {MASK if secret else _got(entry.value)}"
    return f"{entry.path}: {reason}{got} ({entry.origin})"


def _got(value: Any) -> str:
    """A value as a person would write it; Python's own types for objects of the parser say nothing to them."""
    return repr(_without_login(value)) if isinstance(value, str) else _shown(value)


def _error(mistakes: list[str], file: Path | None) -> ConfigError:
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = [f"the configuration has {count}", *(f"  {line}" for line in mistakes)]
    return ConfigError("\n".join(lines), hint=EXPLAINED if file is None else f"{EXPLAINED} The file is {file}.")


def _absolute(config: Config, origins: Mapping[str, str], folder: Path, cwd: Path) -> Config:
    """Folders and files as absolute paths: relative to the file when it names them, else to the working directory."""

    def resolved(path: str, value: str | None) -> str | None:
        if value is None or "://" in value or value == "-" or is_json(value):
            return value
        by_caller = origins[path].startswith(("flag", "environment"))
        return str(((cwd if by_caller else folder) / Path(value).expanduser()).resolve())

    chosen = config.selection
    return config.model_copy(
        update={
            "selection": chosen.model_copy(
                update={
                    "filter": resolved("selection.filter", chosen.filter),
                    "task_ids": resolved("selection.task_ids", chosen.task_ids),
                }
            ),
            "state": config.state.model_copy(update={"dir": resolved("state.dir", config.state.dir)}),
            "models": config.models.model_copy(update={"url": resolved("models.url", config.models.url)}),
        }
    )


def _value(config: Config, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = getattr(value, "import_" if part == "import" else part)
    return value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return _without_login(str(value))


def _without_login(text: str) -> str:
    """A URL without user and password, which an object store's or a proxy's address may hold."""
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", MASK, text)
