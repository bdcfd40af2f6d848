"""``verify-serve`` on a configured project."""

from __future__ import annotations

from lsbatch import backend_wiring
from lsbatch.errors import ConfigError
from lsbatch.operations.verifying import Verification, verify
from lsbatch.progress import Progress
from lsbatch.verbs.connecting import backend_url
from lsbatch.wiring import Bench

__all__ = ["verify_backend"]


def verify_backend(
    bench: Bench, progress: Progress, *, count: int, seed: int = 0, url: str | None = None
) -> Verification:
    """Compare what the live backend answers with the stored predictions of its version. Changes nothing.

    Args:
        bench: the configuration.
        progress: told of every task.
        count: tasks to compare, at most.
        seed: of the choice of tasks.
        url: of the backend, as this machine sees it; without one the project's only backend, else what is configured.

    Raises:
        ConfigError: no task carries that version, or the project has several backends.
        TransientError: the backend cannot be reached.
    """
    backend = backend_wiring.live_backend(bench, _chosen(bench) if url is None else backend_url(url))
    return verify(bench.project, bench.project, backend, bench.info, progress, count=count, seed=seed)


def _chosen(bench: Bench) -> str:
    urls = sorted({backend.url for backend in bench.project.backends()})
    if len(urls) > 1:
        raise ConfigError(f"the project has several live backends: {', '.join(urls)}", hint="Say which one: --url URL")
    if urls:
        return urls[0]
    serve = bench.config.serve
    host = backend_wiring.ANY_ADDRESS.get(serve.host, serve.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{serve.port}"
