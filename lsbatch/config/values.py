"""The kinds of value that a setting can have, each with its check in plain words."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from lsbatch.budget import ErrorBudget
from lsbatch.config.choosing import is_json, parse_filters, parse_time
from lsbatch.entities import check_model_version
from lsbatch.errors import ConfigError

__all__ = [
    "Dashboard",
    "Duration",
    "Filters",
    "Float",
    "Folder",
    "HttpUrl",
    "Int",
    "MaxFailures",
    "MemoryLimit",
    "Params",
    "PipelineName",
    "Scheduler",
    "Secret",
    "Text",
    "Time",
    "Token",
    "Version",
    "duration_seconds",
]


def _no_bool(value: object) -> object:
    # To Python, and so to pydantic, True is the number 1.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _text_of_number(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _matches(pattern: str, words: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII | re.IGNORECASE):
            raise ValueError(words)
        return value

    return AfterValidator(check)


def _http_url(value: str) -> str:
    value = value.strip().rstrip("/")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", value):
        raise ValueError("must be a URL that starts with http:// or https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL without user, password, ? and #")
    return value


def _token(value: SecretStr) -> SecretStr:
    token = value.get_secret_value().strip()
    if not token:
        raise ValueError("must not be empty")
    if not token.isascii() or not token.isprintable():
        raise ValueError("must be one line of ASCII characters")
    if " " in token:
        raise ValueError("must be the token alone, without blanks or a word such as Token or Bearer before it")
    return SecretStr(token)


def _secret(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not secret or not secret.isascii() or not secret.isprintable():
        raise ValueError("must be one line of ASCII characters, and not empty")
    return value


def _version(value: str) -> str:
    try:
        return check_model_version(value, setting="")
    except ConfigError as error:
        raise ValueError(f"cannot be used: {error.message.removeprefix(': ')}") from None


def _folder(value: str) -> str:
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError("names a home folder that does not exist") from None
    if "\0" in value:
        raise ValueError("must not hold a null character")
    return value


def _jsonable(value: dict[str, Any]) -> dict[str, Any]:
    # They are part of a model's manifest, and of a key that workers compare.
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must hold only text, finite numbers, true, false, null, lists and mappings") from None
    return value


def duration_seconds(text: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``15m``, ``6h`` or ``2d``.

    Raises:
        ValueError: not one.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text, re.ASCII)
    if found is None:
        raise ValueError("must be a number of seconds, or a duration such as 90s, 15m, 6h or 2d")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _duration(value: str) -> str:
    duration_seconds(value)
    return value


def _max_failures(value: str) -> str:
    ErrorBudget.parse(value)
    return value


def _filters(value: object) -> object:
    """A mapping of the file, or JSON text, as compact JSON; anything else names a file, which is read later."""
    return parse_filters(value) if not isinstance(value, str) or is_json(value) else value


def _time(value: object) -> object:
    # YAML knows dates. An age such as 7d stays as it is: it means another time with every run.
    parse_time(value, datetime.now(UTC))
    return value.isoformat() if isinstance(value, date) else value


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Folder = Annotated[Text, AfterValidator(_folder)]
HttpUrl = Annotated[Text, AfterValidator(_http_url)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Token = Annotated[SecretStr, AfterValidator(_token)]
Version = Annotated[Text, AfterValidator(_version)]
Duration = Annotated[Text, BeforeValidator(_text_of_number), AfterValidator(_duration)]
MaxFailures = Annotated[Text, BeforeValidator(_text_of_number), AfterValidator(_max_failures)]
Filters = Annotated[Text, BeforeValidator(_filters), AfterValidator(_folder)]
Time = Annotated[Text, BeforeValidator(_time)]
Params = Annotated[dict[str, Any], AfterValidator(_jsonable)]
PipelineName = Annotated[
    Text, _matches(r"[\w.-]+(:[a-z_][\w.]*)?", "must be a built-in name such as text-classification, or module:Class")
]
MemoryLimit = Annotated[
    Text,
    BeforeValidator(_text_of_number),
    _matches(r"auto|\d+(\.\d+)?\s*([kmgtp]i?)?b?", "must be auto, a share such as 0.5, or a size such as 4GB"),
]
Scheduler = Annotated[Text, _matches(r"[a-z]\w*://\S+|[^\s/]+:\d+", "must be an address such as tcp://host:8786")]
Dashboard = Annotated[Text, _matches(r"[^\s/]*:\d{1,5}", "must be an address such as localhost:8787 or :8787")]
