"""Live backends: how Label Studio is told of one, and how one is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lsbatch.entities import Region, Task
from lsbatch.ports.predictions import Backend
from lsbatch.ports.tasks import ProjectInfo

__all__ = ["SECRET_HEADER", "BackendRegistry", "BackendSettings", "Change", "LiveAnswer", "LiveBackend", "Webhook"]

#: Carries the secret of webhooks, to which Label Studio gives no basic auth.
SECRET_HEADER = "X-Lsbatch-Secret"  # noqa: S105 - its name, not its value

#: What a call that makes something be as it should did to it.
Change = Literal["created", "changed", "unchanged"]


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """How Label Studio is to call a live backend.

    Attributes:
        url: its address as Label Studio sees it, without a slash at the end.
        title: its name in the project.
        interactive: it is also asked while somebody annotates.
        user: of basic auth; empty for none.
        password: that goes with it.
    """

    url: str
    title: str
    interactive: bool = False
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of the project.

    Attributes:
        url: where it goes.
        secured: it carries a secret of ours.
        active: it is not switched off.
    """

    url: str
    secured: bool
    active: bool = True


class BackendRegistry(Protocol):
    """Where a project's live backends and webhooks are registered."""

    def backends(self) -> Sequence[Backend]:
        """The live backends of the project. The server asks each of them for its state meanwhile. May be repeated."""
        ...

    def webhooks(self) -> Sequence[Webhook]:
        """The webhooks of the project. May be repeated."""
        ...

    def put_webhook(self, url: str, secret: str) -> Change:
        """Have exactly one webhook of the project go to this address, of the events that a live backend needs.

        Safe to repeat.

        Args:
            url: the whole address.
            secret: travels in its header ``SECRET_HEADER``; empty for none.

        Raises:
            RefusedError: the server will not call this address; the hint says what its administrator can do.
        """
        ...

    def drop_webhook(self, url: str) -> int:
        """Remove the webhooks of the project that go to this address; how many there were. Safe to repeat."""
        ...

    def create_backend(self, settings: BackendSettings) -> None:
        """Register a backend, which the server asks for its health and version first. NOT safe to repeat.

        Raises:
            RefusedError: the server will not or cannot call it, or it is not ready; the hint says the way out.
            TransientError, AmbiguousError: no answer.
        """
        ...

    def change_backend(self, backend_id: int, settings: BackendSettings) -> None:
        """Change one that is registered, which the server asks again first. Safe to repeat; raises as the other."""
        ...

    def drop_backend(self, backend_id: int) -> None:
        """Remove one. Where it was the active version, the project has none afterwards. Safe to repeat."""
        ...


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What a live backend says of one task: a prediction, or why there is none.

    Attributes:
        result: regions.
        score: of the prediction, or None.
        model_version: that it says it used.
        error: why there is no prediction; empty when there is one.
    """

    result: Sequence[Region] = ()
    score: float | None = None
    model_version: str = ""
    error: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> LiveAnswer:
        """From JSON, as the protocol of live backends has it."""
        if "result" not in row:
            return cls(error=str(row.get("error") or "the answer holds no result"))
        return cls(row["result"], row.get("score"), str(row.get("model_version") or ""))


class LiveBackend(Protocol):
    """A running live backend, asked as Label Studio asks it. Changes nothing; every call may be repeated."""

    url: str

    def version(self, project: ProjectInfo) -> str:
        """The model version that it serves for the project.

        Raises:
            TransientError: it cannot be reached, or is not ready.
            RefusedError: it wants basic auth, or does not serve this project.
        """
        ...

    def predict(self, project: ProjectInfo, tasks: Sequence[Task]) -> Sequence[LiveAnswer]:
        """An answer for each of these tasks, in their order; raises as ``version``."""
        ...
