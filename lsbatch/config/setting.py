"""What a setting is: its default, its limits, its description, and where its value may come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Section", "section", "setting"]


def setting(
    default: Any, description: str, *, example: str = "", env: tuple[str, ...] = (), secret: bool = False, **limits: Any
) -> Any:
    """A field. A default of None means that the setting may be left open.

    Args:
        default: its default.
        description: what it means, with the unit of a number.
        example: a value, for settings without a default.
        env: environment variables that are read beside ``LSBATCH_<SECTION>_<KEY>``, strongest first.
        secret: its value is never shown.
        limits: constraints of pydantic.
    """
    extra: dict[str, Any] = {"example": example, "env": list(env), "secret": secret}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def section(kind: Callable[[], BaseModel], description: str, alias: str | None = None) -> Any:
    """A field that holds settings."""
    return Field(default_factory=kind, description=description, alias=alias)


class Section(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())
