"""Register a live backend in a project, and take it away again, so that either may be repeated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from lsbatch.errors import AmbiguousError, ConfigError, LsbatchError, RefusedError, TransientError
from lsbatch.ports import Backend, BackendRegistry, BackendSettings, Change, PredictionSink, TaskSource, Webhook

__all__ = ["Connected", "Connection", "Disconnected", "Wanted", "connect", "connections", "disconnect"]

logger = logging.getLogger(__name__)
DEFAULT_TITLE = "lsbatch"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a connection should be.

    Attributes:
        url: of the backend, as Label Studio sees it.
        title: its name in the project; None keeps the one that it has.
        interactive: also asked while somebody annotates; None keeps what is set.
        user: of basic auth; empty for none.
        password: that goes with it.
        secret: of the webhook; empty for none.
        show: also switch on that the project shows predictions at all.
    """

    url: str
    title: str | None = None
    interactive: bool | None = None
    user: str = ""
    password: str = ""
    secret: str = ""
    show: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """A backend of the project, and its webhook, None where it has none."""

    backend: Backend
    webhook: Webhook | None


@dataclass(frozen=True, slots=True)
class Connected:
    """What ``connect`` did.

    Attributes:
        backend: as it is now.
        change: to the backend; a password alone is no change, since the server does not give it back.
        webhook: what was done to it.
        active_before: version that annotators saw.
        active: the one that they see now; the backend's title stands for its live predictions.
        shown: whether annotators are shown predictions at all.
        others: titles and addresses of other backends of the project.
    """

    backend: Backend
    change: Change
    webhook: Change
    active_before: str
    active: str
    shown: bool
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Disconnected:
    """What ``disconnect`` took away: backends, the number of webhooks, and the active version before and after."""

    backends: tuple[Backend, ...]
    webhooks: int
    active_before: str
    active: str


def connections(registry: BackendRegistry) -> list[Connection]:
    """What is connected. Changes nothing."""
    hooks = {hook.url: hook for hook in registry.webhooks()}
    return [Connection(backend, hooks.get(_webhook_url(backend.url))) for backend in registry.backends()]


def connect(
    registry: BackendRegistry, source: TaskSource, sink: PredictionSink, taken: Sequence[str], wanted: Wanted
) -> Connected:
    """Register a backend and its webhook, or change those that are there. Safe to repeat.

    The webhook comes first: where the server finds none for a new backend, it makes one that has no secret and is told
    of everything. One that was made here goes again where the server refuses the backend.

    Args:
        registry: of the project.
        source: the project.
        sink: says what annotators see.
        taken: model versions that predictions of the project carry, none of which may be the title.
        wanted: what it should be.

    Raises:
        ConfigError: the title stands for something else already.
        RefusedError: as ``BackendRegistry``, or another backend stands in the way.
        TransientError: no answer; the same call goes on.
    """
    before = source.project()
    ours, others = _sorted(registry.backends(), wanted.url)
    settings = _settings(ours, wanted)
    _check(ours, others, settings, taken, before.id)
    hook_url = _webhook_url(settings.url)
    hook = registry.put_webhook(hook_url, wanted.secret)
    try:
        change = _put(registry, ours, settings)
    except AmbiguousError as error:
        # It may be there; with its webhook it is whole, and the next call finds it.
        raise TransientError(error.message, hint="It may be connected or not: give the same command again.") from error
    except LsbatchError:
        if hook == "created":
            _undo(registry, hook_url)
        raise
    return _report(registry, source, sink, settings, change, hook, before.active_version, show=wanted.show)


def disconnect(registry: BackendRegistry, source: TaskSource, url: str | None = None) -> Disconnected:
    """Take a backend and its webhook away. Safe to repeat.

    Args:
        registry: of the project.
        source: the project.
        url: of the backend; None where there is only one, with the title that ``connect`` gives by itself.

    Raises:
        ConfigError: there are several, or one with another title, and none is named.
        TransientError: no answer; the same call goes on.
    """
    before = source.project().active_version
    backends = registry.backends()
    # One of another title may be somebody else's.
    several = len({_plain(backend.url) for backend in backends}) > 1
    if url is None and (several or any(backend.title != DEFAULT_TITLE for backend in backends)):
        listed = "\n".join(f"  {backend.title!r} at {backend.url}" for backend in backends)
        kind = "several live backends" if several else f"a live backend, and it is not called {DEFAULT_TITLE!r}"
        raise ConfigError(f"the project has {kind}:\n{listed}", hint="Say which one: --url URL")
    going = [backend for backend in backends if url is None or _plain(backend.url) == _plain(url)]
    # The webhook first: while the backend is listed, whoever does not know the address can still find both.
    hooks = {_webhook_url(backend.url) for backend in going} | ({_webhook_url(url)} if url else set())
    dropped = sum(registry.drop_webhook(hook) for hook in sorted(hooks))
    for backend in going:
        registry.drop_backend(backend.id)
    after = source.project().active_version if going else before
    return Disconnected(tuple(going), dropped, before, after)


def _undo(registry: BackendRegistry, hook_url: str) -> None:
    try:
        registry.drop_webhook(hook_url)
    except LsbatchError as error:
        # Why the backend was refused is what the caller must know.
        logger.warning("the webhook to %s is left: %s", hook_url, error)


def _settings(ours: Sequence[Backend], wanted: Wanted) -> BackendSettings:
    there = ours[0] if ours else Backend(DEFAULT_TITLE, "", wanted.url)
    return BackendSettings(
        url=there.url if ours else wanted.url,
        title=there.title if wanted.title is None else wanted.title,
        interactive=there.interactive if wanted.interactive is None else wanted.interactive,
        user=wanted.user,
        password=wanted.password,
    )


def _check(
    ours: Sequence[Backend], others: Sequence[Backend], settings: BackendSettings, taken: Sequence[str], project: int
) -> None:
    if others and not ours and not settings.interactive:
        raise RefusedError(
            f"the project has the live backend {others[0].title!r} at {others[0].url} already, and Label Studio asks"
            " only one of them for predictions",
            hint=f"Take it away first: lsbatch connect --project {project} --remove --url {others[0].url}",
        )
    renamed = not ours or ours[0].title != settings.title
    if renamed and settings.title in {*taken, *(backend.title for backend in others)}:
        raise ConfigError(
            f"{settings.title!r} is a model version or a backend of the project already",
            hint="By the title the project chooses what annotators see: give another one with --title.",
        )


def _put(registry: BackendRegistry, ours: Sequence[Backend], settings: BackendSettings) -> Change:
    if not ours:
        try:
            registry.create_backend(settings)
        except AmbiguousError:
            if not _sorted(registry.backends(), settings.url)[0]:
                raise
        return "created"
    first, *more = ours
    # Also when nothing seems to change: the password may have, and the server tries whether it can reach the backend.
    registry.change_backend(first.id, settings)
    for backend in more:
        registry.drop_backend(backend.id)
    same = (first.title, first.interactive, first.user) == (settings.title, settings.interactive, settings.user)
    return "unchanged" if same and not more else "changed"


def _report(
    registry: BackendRegistry,
    source: TaskSource,
    sink: PredictionSink,
    settings: BackendSettings,
    change: Change,
    hook: Change,
    active_before: str,
    *,
    show: bool,
) -> Connected:
    after = source.project()
    active, shown = after.active_version, after.shows_predictions
    if show and not (active and shown):
        # A version that was chosen before stays; without one, annotators see what the backend predicts.
        active, shown = active or settings.title, True
        sink.activate(active, show=True)
    ours, others = _sorted(registry.backends(), settings.url)
    backend = ours[0] if ours else Backend(settings.title, "", settings.url)
    return Connected(
        replace(backend, problem=" ".join(backend.problem.split())),
        change,
        hook,
        active_before,
        active,
        shown,
        tuple((other.title, other.url) for other in others),
    )


def _sorted(backends: Sequence[Backend], url: str) -> tuple[list[Backend], list[Backend]]:
    """Those at this address, oldest first, and the others."""
    ordered = sorted(backends, key=lambda backend: backend.id)
    ours = [backend for backend in ordered if _plain(backend.url) == _plain(url)]
    return ours, [backend for backend in ordered if backend not in ours]


def _plain(url: str) -> str:
    """The address as it is compared: host and scheme have no case, a slash at the end says nothing."""
    parts = urlsplit(url.strip())
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl().rstrip("/")


def _webhook_url(url: str) -> str:
    """As Label Studio itself makes it."""
    return url.rstrip("/") + "/webhook"
