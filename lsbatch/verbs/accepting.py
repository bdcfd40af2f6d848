"""``accept`` on a configured project."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass

from lsbatch.acceptance import Acceptance, Bar
from lsbatch.errors import ConfigError
from lsbatch.operations.accepting import AcceptOptions, AcceptReport, Chosen, accept, choose
from lsbatch.operations.in_flight import InFlight
from lsbatch.operations.recording import state_recorded
from lsbatch.operations.runs import new_run, runs, supersede
from lsbatch.progress import Progress
from lsbatch.run_dir import write_lines
from lsbatch.run_log import logged
from lsbatch.run_states import DECLINED, FINISHED, RUNNING
from lsbatch.stopping import Stop
from lsbatch.verbs.composing import chosen_tasks, held
from lsbatch.version_choice import VERSIONLESS, known_version
from lsbatch.wiring import Bench

__all__ = ["AcceptRequest", "accept_predictions"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AcceptRequest:
    """Which predictions become annotations.

    Attributes:
        bar: what they must reach.
        limit: at most so many; None for all.
    """

    bar: Bar
    limit: int | None = None


def accept_predictions(
    bench: Bench,
    request: AcceptRequest,
    progress: Progress,
    *,
    confirm: Callable[[Acceptance], bool],
    dry_run: bool = False,
    stop: Stop | None = None,
) -> AcceptReport:
    """Turn sure predictions of the configured project into annotations of the token's user, once each. May be repeated.

    Args:
        bench: the configuration; its selection narrows the choice.
        request: which predictions.
        progress: told how far it is.
        confirm: asked with what was chosen before anything is written; not for a dry run.
        dry_run: only count.
        stop: asked before anything new begins.

    Raises:
        ConfigError: no prediction carries the version.
        LockedError: a run works on it.
        LsbatchError: as ``lsbatch.operations.accepting.accept``.
    """
    stop = stop or Stop()
    bar = request.bar
    if bar.model_version in VERSIONLESS:
        raise ConfigError(
            "--model-version: predictions without a version cannot be accepted: nobody can tell what made them",
            hint="lsbatch delete-predictions --versionless writes them to a backup; import gives them a version.",
        )
    counts = {entry.model_version: entry.predictions for entry in bench.project.versions()}
    known_version(bar.model_version, list(counts))
    tasks = chosen_tasks(bench, progress)
    # To look at a project that a run works on needs no lock.
    with nullcontext() if dry_run else held(bench, bar.model_version, stop):
        if not dry_run:
            _wait_for_earlier(bench, bar.model_version, stop)
        began = time.monotonic()
        chosen = choose(bench.project, tasks, bar, request.limit, progress, stop, expected=counts[bar.model_version])
        report = _report(bench, chosen, bar, dry_run=dry_run)
        report.seconds["read"] = round(time.monotonic() - began, 3)
        if dry_run or not (chosen.tasks or chosen.review):
            report.state = FINISHED
        elif chosen.tasks and not confirm(chosen.found):
            report.state = DECLINED
        else:
            stop.check()
            _carry_out(bench, request, chosen, report, progress, stop)
    return report


def _wait_for_earlier(bench: Bench, model_version: str, stop: Stop) -> None:
    """Wait until nothing can come any more of a request of a process that was killed.

    It and one of ours would both make an annotation of the same prediction.
    """
    for run in runs(bench.runs):
        if run.in_flight.is_file() and model_version in run.manifest().get("model_versions", ()):
            in_flight = InFlight(run.in_flight)
            seconds = in_flight.seconds_left(bench.import_options.sending.write_seconds)
            if seconds > 0:
                logger.warning("a request of run %s may be under way; waiting %.0f s", run.id, seconds)
                stop.sleep(seconds)
            in_flight.settled()


def _report(bench: Bench, chosen: Chosen, bar: Bar, *, dry_run: bool) -> AcceptReport:
    return AcceptReport(
        run="",
        project=bench.project_id,
        model_version=bar.model_version,
        dry_run=dry_run,
        verdicts=dict(chosen.found.verdicts),
        labels=dict(chosen.found.labels),
        scores=dict(chosen.found.scores),
    )


def _carry_out(
    bench: Bench, request: AcceptRequest, chosen: Chosen, report: AcceptReport, progress: Progress, stop: Stop
) -> None:
    origin = {**asdict(request.bar), "limit": request.limit}
    manifest = bench.action_manifest("accept", [request.bar.model_version], origin=origin)
    # What an interrupted one has accepted is chosen no more.
    supersede(bench.runs, manifest)
    run = new_run(bench.runs, manifest)
    report.run, report.state = run.id, RUNNING
    if chosen.review:
        path = run.path / "review.txt"
        write_lines(path, (f"{task}\n" for task in chosen.review))
        report.review = str(path)
    sending = bench.import_options.sending
    options = AcceptOptions(sending.write_seconds, sending.settle_seconds, sending.retry_seconds)
    began = time.monotonic()
    with logged(run.log), state_recorded(run, report), stop.after(bench.config.run.max_runtime_seconds):
        in_flight = InFlight(run.in_flight)
        accept(bench.project, chosen, request.bar, report, options, in_flight, progress, stop)
        report.seconds["accept"] = round(time.monotonic() - began, 3)
