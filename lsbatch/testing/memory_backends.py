"""Live backends in memory: where they are registered, and one that answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lsbatch.entities import Task
from lsbatch.errors import AmbiguousError, RefusedError
from lsbatch.ports import (
    Backend,
    BackendRegistry,
    BackendSettings,
    Change,
    LiveAnswer,
    LiveBackend,
    ProjectInfo,
    Webhook,
)
from lsbatch.testing.memory import MemoryProject

__all__ = ["MemoryBackends", "MemoryLive"]


@dataclass
class MemoryBackends(BackendRegistry):
    """Where the backends of a project in memory are registered, as Label Studio does it.

    Attributes:
        project: whose ``connected`` has the backends.
        hooks: secret of each webhook, by address.
        passwords: of backends, by id.
        faults: consumed one by each call of ``create_backend`` and ``change_backend``; then all goes well. ``denied``
            is refused, ``lose before`` and ``lose after`` answer nothing, without and with the change made.
        asked: each call that changes something, oldest first.
    """

    project: MemoryProject
    hooks: dict[str, str] = field(default_factory=dict)
    passwords: dict[int, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def backends(self) -> Sequence[Backend]:
        """See ``BackendRegistry.backends``."""
        return list(self.project.connected)

    def webhooks(self) -> Sequence[Webhook]:
        """See ``BackendRegistry.webhooks``."""
        return [Webhook(url, bool(secret)) for url, secret in self.hooks.items()]

    def put_webhook(self, url: str, secret: str) -> Change:
        """See ``BackendRegistry.put_webhook``."""
        self.asked.append(f"put {url}")
        before = self.hooks.get(url)
        self.hooks[url] = secret
        return "created" if before is None else "unchanged" if before == secret else "changed"

    def drop_webhook(self, url: str) -> int:
        """See ``BackendRegistry.drop_webhook``."""
        self.asked.append(f"drop {url}")
        return 0 if self.hooks.pop(url, None) is None else 1

    def create_backend(self, settings: BackendSettings) -> None:
        """See ``BackendRegistry.create_backend``; the next fault happens."""
        self.asked.append(f"create {settings.url}")
        new = max((backend.id for backend in self.project.connected), default=0) + 1
        self._with_fault(lambda: self._store(new, settings))

    def change_backend(self, backend_id: int, settings: BackendSettings) -> None:
        """See ``BackendRegistry.change_backend``; the next fault happens."""
        self.asked.append(f"change {settings.url}")
        self._with_fault(lambda: self._store(backend_id, settings))

    def drop_backend(self, backend_id: int) -> None:
        """See ``BackendRegistry.drop_backend``."""
        self.asked.append(f"drop {backend_id}")
        if any(backend.id == backend_id and backend.title == self.project.active for backend in self.project.connected):
            self.project.active = ""
        self.project.connected = [backend for backend in self.project.connected if backend.id != backend_id]

    def _with_fault(self, change: Callable[[], None]) -> None:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "denied":
            raise RefusedError("refused", hint="the way out")
        if fault != "lose before":
            change()
        if fault.startswith("lose"):
            raise AmbiguousError("no answer")

    def _store(self, key: int, settings: BackendSettings) -> None:
        before = next((backend for backend in self.project.connected if backend.id == key), None)
        new = Backend(
            *(settings.title, "live-1", settings.url, key, "Connected"),
            interactive=settings.interactive,
            user=settings.user,
        )
        # A backend that is renamed stays the active one, and the first one is it where there is none.
        if self.project.shown and self.project.active == (before.title if before else ""):
            self.project.active = new.title
        self.project.connected = [backend for backend in self.project.connected if backend.id != key] + [new]
        self.passwords[key] = settings.password


@dataclass
class MemoryLive(LiveBackend):
    """A live backend that answers from memory.

    Attributes:
        answers: JSON of each task's answer.
        serves: the model version.
        url: its address.
        requests: ids of the tasks of each request.
    """

    answers: Mapping[int, Mapping[str, Any]]
    serves: str = "v1"
    url: str = "http://live:9090"
    requests: list[list[int]] = field(default_factory=list)

    def version(self, project: ProjectInfo) -> str:
        """See ``LiveBackend.version``."""
        return self.serves

    def predict(self, project: ProjectInfo, tasks: Sequence[Task]) -> Sequence[LiveAnswer]:
        """See ``LiveBackend.predict``."""
        self.requests.append([task.id for task in tasks])
        return [LiveAnswer.of(self.answers[task.id]) for task in tasks]
