"""What a request is refused with."""

from __future__ import annotations

from typing import Any

__all__ = ["RequestError", "too_many_tasks"]


class RequestError(Exception):
    """A request that is not carried out.

    Args:
        status: the HTTP status.
        detail: why, and what helps, in words; or the mistakes of a body, in the form of FastAPI.
        retry_after: seconds after which it may be asked again, or None.
    """

    def __init__(self, status: int, detail: str | list[dict[str, Any]], retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


def too_many_tasks(tasks: int, most: int, project: int) -> RequestError:
    """More than a request may hold."""
    return RequestError(
        413,
        f"{tasks:,} tasks in one request, at most {most:,} are taken (serve.max_queue_tasks); "
        f"predict them offline: lsbatch predict --project {project}",
    )
