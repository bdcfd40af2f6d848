"""The part of the composition root that has to do with live backends."""

from __future__ import annotations

from pydantic import SecretStr

from lsbatch.errors import ConfigError
from lsbatch.ports import BackendRegistry, LiveBackend
from lsbatch.wiring import Bench
from lsbatch_connectors.label_studio import LabelStudioBackends
from lsbatch_connectors.live_backend import HttpLiveBackend, LiveOptions

__all__ = ["ANY_ADDRESS", "basic_auth", "live_backend", "registry", "webhook_secret"]

RETRY_SECONDS = 10.0
#: Where a server listens on every interface, which is no address to call.
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def registry(bench: Bench) -> BackendRegistry:
    """Where the project's backends are registered."""
    return LabelStudioBackends(bench.client, bench.project_id)


def basic_auth(bench: Bench) -> tuple[str, str]:
    """User and password of the configured basic auth, both empty for none.

    Raises:
        ConfigError: one of them is set without the other.
    """
    user, password = bench.config.serve.basic_auth_user or "", _text(bench.config.serve.basic_auth_pass)
    if bool(user) != bool(password):
        lacking = "serve.basic_auth_pass: not set" if user else "serve.basic_auth_user: not set"
        raise ConfigError(lacking, hint="Set both BASIC_AUTH_USER and BASIC_AUTH_PASS, or neither.")
    return user, password


def webhook_secret(bench: Bench) -> str:
    """The configured secret of webhooks, empty for none."""
    return _text(bench.config.serve.webhook_secret)


def live_backend(bench: Bench, url: str) -> LiveBackend:
    """The running backend at this address. The token of Label Studio is not for it."""
    user, password = basic_auth(bench)
    options = bench.connection
    return HttpLiveBackend(
        LiveOptions(
            url=url,
            user=user,
            password=password,
            connect_seconds=options.connect_seconds,
            # A person waits for the answer, and a backend that restarts is back within that.
            retry_seconds=min(options.retry_seconds, RETRY_SECONDS),
            verify_tls=options.verify_tls,
        )
    )


def _text(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
