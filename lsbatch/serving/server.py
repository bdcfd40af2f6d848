"""The process of ``lsbatch serve``: its socket, its signals, its end."""

from __future__ import annotations

import logging
import signal
import socket

from lsbatch.config import Loaded
from lsbatch.errors import ConfigError, ExitCode, StoppedError, TransientError
from lsbatch.serving import create_app
from lsbatch.serving.logs import configure
from lsbatch.serving.source import ProjectSource

__all__ = ["serve"]

logger = logging.getLogger(__name__)
BACKLOG = 2048


def serve(loaded: Loaded, *, answer_from_runs: bool = False, quiet: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; returns when all that was under way is answered, or its time was up.

    Args:
        loaded: the configuration.
        answer_from_runs: see ``create_app``.
        quiet: log only errors.

    Raises:
        StoppedError: a second signal came before that.
        ConfigError: the configuration is wrong, the address is taken, or it is public and nobody needs a password.
        LsbatchError: Label Studio refuses, or the pipeline does not fit the project.
    """
    source = ProjectSource(loaded)
    app = create_app(loaded, source=source, answer_from_runs=answer_from_runs)
    options = loaded.config.serve
    from lsbatch.serving.guard import is_local

    if not is_local(options.host) and not options.basic_auth_user and not options.insecure:
        raise ConfigError(
            f"serve.host: {options.host} can be reached from other machines, and no login is set",
            hint="Set BASIC_AUTH_USER and BASIC_AUTH_PASS, listen on 127.0.0.1, or give --insecure.",
        )
    try:
        found = source(fresh=True)
        version = "no model yet: it is trained when Label Studio asks" if found is None else found.model_version
    except TransientError as error:
        version = f"not ready: {error}"
    listener = _listen(options.host, options.port)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    configure(quiet=quiet)
    logger.info("serving project %d at %s (%s)", loaded.config.project, address, version)
    # Only now: where it is not installed, create_app has said so.
    from lsbatch.serving.uvicorn_server import draining_server

    server = draining_server(app, options.drain_seconds)
    server.run(sockets=[listener])
    if server.cut_short_by is not None:
        code = ExitCode.INTERRUPTED if server.cut_short_by == signal.SIGINT else ExitCode.TERMINATED
        raise StoppedError("Stopped at once: what was under way got no answer.", exit_code=code)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(
            f"serve.host and serve.port: {host}:{port}: {why}", hint="Choose another with --port."
        ) from error
