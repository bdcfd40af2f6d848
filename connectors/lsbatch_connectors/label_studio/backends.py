"""A project's live backends and webhooks, as Label Studio has them registered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lsbatch.errors import AmbiguousError, LsbatchError, PermanentError, RefusedError, TransientError
from lsbatch.ports import SECRET_HEADER, Backend, BackendRegistry, BackendSettings, Change, Webhook
from lsbatch.retry import retry_transient
from lsbatch_connectors.label_studio.client import LabelStudioClient

__all__ = ["LabelStudioBackends", "backend_of"]

#: What a live backend is told of. START_TRAINING is none of these: Label Studio sends it to each backend on its own.
ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "PROJECT_UPDATED",
)
LOCAL_ADDRESS = (
    "The administrator of Label Studio allows such addresses with these two variables in its environment, and a"
    " restart: ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false"
)
BASIC_AUTH = "Give connect the BASIC_AUTH_USER and BASIC_AUTH_PASS that lsbatch serve was started with."
NOT_READY = (
    "It may still load its model, or serve another project: look at the log of lsbatch serve, and at {url}/ready in a"
    " browser."
)
HOST_NAME = (
    "It wants a host with a dot in its name and no underscore, localhost, or an IP address. In Docker give the"
    " container a network alias such as serve.lsbatch.internal."
)
#: Words of Label Studio 1.23, and what we say instead: the message, and the way out.
EXPLAINED: tuple[tuple[str, str, str], ...] = (
    ("reserved network address", "Label Studio refuses {url}: it is an address of a private network", LOCAL_ADDRESS),
    (
        "Can't resolve hostname",
        "Label Studio does not find the host of {url}",
        "The name must be known on the machine (container) of Label Studio.",
    ),
    ("authentication parameters", "the backend at {url} wants another user name or password", BASIC_AUTH),
    ("401 Client Error", "the backend at {url} wants another user name or password", BASIC_AUTH),
    (
        "health check failed",
        "Label Studio cannot reach {url}",
        "Is lsbatch serve running there? localhost means the machine (container) of Label Studio.",
    ),
    ("look like a valid ML backend", "the backend at {url} is up and does not serve this project", NOT_READY),
    ("Enter a valid URL", "Label Studio takes no webhook to {url}", HOST_NAME),
)
#: What is left around a cause of the notation of Python and JSON.
NOISE = " .()'\"\\"
#: What Label Studio itself was told, in its JSON.
_CAUSE = re.compile(r'(?:Reason|Additional info): ((?:[^\\"]|\\")*)')


def backend_of(row: Mapping[str, Any]) -> Backend:
    """A backend as the server gives it."""
    return Backend(
        title=row["title"] or "",
        model_version=row.get("model_version") or "",
        url=row["url"],
        id=int(row.get("id") or 0),
        state=row.get("readable_state") or "",
        problem=row.get("error_message") or "",
        interactive=bool(row.get("is_interactive")),
        user=(row.get("basic_auth_user") or "") if row.get("auth_method") == "BASIC_AUTH" else "",
    )


class LabelStudioBackends(BackendRegistry):
    """As ``BackendRegistry``, of one project.

    Args:
        client: the connection.
        project: the project's id.
    """

    def __init__(self, client: LabelStudioClient, project: int) -> None:
        self._client = client
        self._project = project

    def backends(self) -> list[Backend]:
        """See ``BackendRegistry.backends``."""
        return [backend_of(row) for row in self._client.get("/api/ml/", {"project": self._project})]

    def webhooks(self) -> list[Webhook]:
        """See ``BackendRegistry.webhooks``."""
        return [Webhook(row["url"], SECRET_HEADER in row["headers"], row["is_active"]) for row in self._hooks()]

    def put_webhook(self, url: str, secret: str) -> Change:
        """See ``BackendRegistry.put_webhook``; headers that somebody else gave it stay."""
        rows = self._hooks(url)
        if not rows:
            body = {"project": self._project, "url": url, **_hook({}, secret)}
            self._asked(url, lambda: self._client.write("POST", "/api/webhooks/", body))
            return "created"
        first, *more = rows
        wanted = _hook(first["headers"], secret)
        held = {**{key: first[key] for key in wanted}, "actions": sorted(first["actions"])}
        for row in more:
            self._delete(f"/api/webhooks/{row['id']}/", lambda: self._hooks(url), int(row["id"]))
        if held == {**wanted, "actions": sorted(wanted["actions"])}:
            return "changed" if more else "unchanged"
        # With all its actions: a change that names none takes them all away (WebhookSerializer.update).
        self._again(url, "PATCH", f"/api/webhooks/{first['id']}/", {"url": url, **wanted})
        return "changed"

    def drop_webhook(self, url: str) -> int:
        """See ``BackendRegistry.drop_webhook``."""
        rows = self._hooks(url)
        for row in rows:
            self._delete(f"/api/webhooks/{row['id']}/", lambda: self._hooks(url), int(row["id"]))
        return len(rows)

    def create_backend(self, settings: BackendSettings) -> None:
        """See ``BackendRegistry.create_backend``."""
        body = self._body(settings)
        if not settings.password:
            # Even an empty one makes Label Studio look for an older password, of a backend that is not there yet.
            del body["basic_auth_pass"]
        self._asked(settings.url, lambda: self._client.write("POST", "/api/ml/", body))

    def change_backend(self, backend_id: int, settings: BackendSettings) -> None:
        """See ``BackendRegistry.change_backend``."""
        body = self._body(settings)
        if not settings.password:
            del body["basic_auth_pass"]
        self._again(settings.url, "PATCH", f"/api/ml/{backend_id}", body)

    def drop_backend(self, backend_id: int) -> None:
        """See ``BackendRegistry.drop_backend``."""
        self._delete(f"/api/ml/{backend_id}", lambda: [{"id": row.id} for row in self.backends()], backend_id)

    # -------------------------------------------------------------------------------------------- requests

    def _hooks(self, url: str | None = None) -> list[dict[str, Any]]:
        rows = self._client.get("/api/webhooks/", {"project": self._project})
        return [row for row in rows if url is None or row["url"] == url]

    def _body(self, settings: BackendSettings) -> dict[str, Any]:
        """All of it, also for a change: the server tries address, project and password before it takes any of them."""
        return {
            "project": self._project,
            "url": settings.url,
            "title": settings.title,
            "is_interactive": settings.interactive,
            # It sends basic auth wherever a user is set, whatever the method says.
            "auth_method": "BASIC_AUTH" if settings.user else "NONE",
            "basic_auth_user": settings.user,
            "basic_auth_pass": settings.password,
        }

    def _asked(self, url: str, call: Callable[[], object]) -> None:
        try:
            call()
        except (PermanentError, AmbiguousError) as error:
            raise _explained(error, url) from error

    def _again(self, url: str, method: str, path: str, body: object) -> None:
        """A request that changes nothing more when it is repeated."""

        def once() -> None:
            try:
                self._asked(url, lambda: self._client.write(method, path, body))
            except AmbiguousError as error:
                raise error.as_transient() from error

        retry_transient(once, seconds=self._client.options.retry_seconds)

    def _delete(self, path: str, listed: Callable[[], list[dict[str, Any]]], key: int) -> None:
        def once() -> None:
            try:
                self._client.write("DELETE", path)
            except (PermanentError, AmbiguousError, TransientError) as error:
                if isinstance(error, PermanentError) and error.status != 404:
                    raise
                # An earlier attempt may have deleted it, which the server answers with a page of its own.
                if all(row["id"] != key for row in listed()):
                    return
                raise error.as_transient() if isinstance(error, AmbiguousError) else error from None

        retry_transient(once, seconds=self._client.options.retry_seconds)


def _hook(headers: Mapping[str, str], secret: str) -> dict[str, Any]:
    others = {name: value for name, value in headers.items() if name != SECRET_HEADER}
    return {
        "send_payload": True,
        "send_for_all_actions": False,
        "is_active": True,
        "actions": list(ACTIONS),
        "headers": {**others, **({SECRET_HEADER: secret} if secret else {})},
    }


def _explained(error: PermanentError | AmbiguousError, url: str) -> LsbatchError:
    """The same in words that say the way out, where we know them."""
    for words, message, hint in EXPLAINED:
        if words in error.message:
            return RefusedError(message.format(url=url) + _cause(error.message), hint=hint.format(url=url))
    return error


def _cause(message: str) -> str:
    """What Label Studio was told itself, in brackets; empty where it does not say. Of a stack of causes the last."""
    found = _CAUSE.search(message)
    if found is None:
        return ""
    cause = found[1].rpartition("(Caused by ")[2] if "(Caused by " in found[1] else found[1]
    if "Error(" in cause:
        cause = cause.rpartition(": ")[2]
    return f" ({cause.strip(NOISE)})"
