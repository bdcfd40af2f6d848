"""``lsbatch serve``: the model of ``lsbatch predict`` as a live Label Studio backend.

``app`` speaks HTTP, ``backend`` says what each endpoint does, ``keeper`` has the model in use and swaps it, ``model``
is one loaded version, ``batching`` gathers tasks, ``model_process`` is where the pipeline runs, ``training`` trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app"]


def create_app(*arguments: Any, **options: Any) -> FastAPI:
    """See ``lsbatch.serving.app.create_app``: ``uvicorn --factory lsbatch.serving:create_app``.

    Raises:
        ConfigError: as there, and where the extra ``serve`` is not installed.
    """
    from lsbatch.errors import ConfigError

    try:
        from lsbatch.serving.app import create_app as create
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the live backend needs {error.name}, which is not installed", hint="pip install 'lsbatch[serve]'"
        ) from error
    return create(*arguments, **options)
