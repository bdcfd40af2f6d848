"""Every setting with its path, description and default, as the schema has them: for help, errors and the example."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from lsbatch.config.schema import Config

__all__ = ["Setting", "sections", "settings"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        path: dotted, as in the file.
        description: what it means.
        default: its default; None if it may be left open.
        example: a value, for one that may be left open.
        env: the environment variables that set it, strongest first; empty for a mapping.
        secret: its value is never shown.
    """

    path: str
    description: str
    default: Any
    example: str
    env: tuple[str, ...]
    secret: bool

    @property
    def section(self) -> str:
        """Its section; empty at the top level."""
        return self.path.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]


@cache
def sections() -> dict[str, str]:
    """Name and description of each section, in the order of the file."""
    fields = Config.model_fields.items()
    return {field.alias or name: field.description or "" for name, field in fields if field.default_factory}


@cache
def settings() -> dict[str, Setting]:
    """Every setting by its path, in the order of the file."""
    found: list[Setting] = []
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner = field.annotation.model_fields.items()
            found += [_described(f"{field.alias or name}.{key}", leaf) for key, leaf in inner]
        else:
            found.append(_described(name, field))
    return {setting.path: setting for setting in found}


def _described(path: str, field: Any) -> Setting:
    extra = field.json_schema_extra
    own = "LSBATCH_" + path.replace(".", "_").upper()
    env = () if isinstance(field.default, dict) else (own, *extra["env"])
    return Setting(path, field.description, field.default, extra["example"], env, extra["secret"])
