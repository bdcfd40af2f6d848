"""Media in memory."""

from __future__ import annotations

from collections.abc import Mapping

from lsbatch.errors import PipelineError
from lsbatch.ports import MediaReader

__all__ = ["MemoryMedia"]


class MemoryMedia(MediaReader):
    """Media from a dictionary.

    Args:
        files: bytes by URI.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self._files = dict(files or {})

    def read(self, uri: str) -> bytes:
        """See ``MediaReader.read``."""
        if uri not in self._files:
            raise PipelineError(f"not found: {uri}")
        return self._files[uri]
