"""``versions`` and ``activate`` on a configured project."""

from __future__ import annotations

from lsbatch.errors import ConfigError
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.version_choice import known_version
from lsbatch.version_tally import ProjectVersions, Tally
from lsbatch.wiring import Bench

__all__ = ["activate_version", "project_versions"]


def project_versions(bench: Bench, progress: Progress, *, quick: bool = False) -> ProjectVersions:
    """The versions that the project's predictions carry, and what is wrong with them. Changes nothing.

    Args:
        bench: the configuration.
        progress: told of every task that holds predictions.
        quick: only count; no first times and mean scores, which need every prediction read.

    Raises:
        TransientError: the server did not answer, or not completely.
    """
    info, store = bench.info, bench.project
    backends = store.backends()
    if quick:
        counts = store.versions()
        surplus = {entry.model_version: store.surplus(entry.model_version) for entry in counts if entry.model_version}
        return ProjectVersions.counted(
            counts, surplus, active=info.active_version, backends=backends, shows_predictions=info.shows_predictions
        )
    tally = Tally()
    with progress.stage("read", info.task_count) as meter:
        for page in store.holding(Selection()):
            for task in page:
                tally.add(task)
            meter.advance(len(page))
    return ProjectVersions(tally.summaries(), info.active_version, backends, info.shows_predictions)


def activate_version(bench: Bench, model_version: str, *, show: bool = False) -> str:
    """Show annotators this version, a live backend's predictions by its title, or none (empty); what was shown before.

    Args:
        bench: the configuration.
        model_version: compared exactly.
        show: also switch on that predictions are shown at all.

    Raises:
        ConfigError: no prediction carries the version, and no backend has that title; names the nearest.
    """
    store = bench.project
    if model_version:
        known = [entry.model_version for entry in store.versions() if entry.model_version]
        known_version(model_version, [*known, *(backend.title for backend in store.backends())])
    elif show:
        raise ConfigError("--show-predictions needs a version to show", hint="lsbatch activate VERSION --project ID")
    return store.activate(model_version, show=show)
