"""``lsbatch retrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import Report, print_json, print_table, worst

if TYPE_CHECKING:
    from lsbatch.entities import ModelVersion
    from lsbatch.operations.gate import Gate
    from lsbatch.operations.retrain import RetrainReport
    from lsbatch.ports import Evaluation

MOST_NAMED = 10


@shared_command("retrain", short_help="Train a model from a project's annotations.")
@setting("project", "pipeline", "training_view", "training_filter", "holdout", "consensus", "min_annotations")
@setting("max_regression", "search", "workers", "scheduler", "wait", "activate")
@click.option("--since-last", is_flag=True, help="Do nothing if no annotation changed since the last training.")
@click.option(
    "--predict", is_flag=True, help="Then predict the project with the version in use, unless the new one is worse."
)
@click.option("--replace", is_flag=True, help="With --predict: show annotators this version and delete the others.")
@click.option("--keep-versions", type=click.IntRange(min=0), metavar="N", help="With --replace: so many others stay.")
def command(call: Call, *, since_last: bool, predict: bool, replace: bool, keep_versions: int | None) -> None:
    """Train the pipeline from a project's annotations, measure it on tasks held back, and store a new model version.

    The version is promoted, which means that predict takes it from now on, only if it is not worse than the one in use
    by more than --max-regression on the same held-out tasks. Otherwise it is stored, the one in use stays, and the exit
    code is 6. The first version must be better than always giving the most frequent answer.

    \b
    Example:
      lsbatch retrain --project 3 --since-last --predict --activate
    """
    from lsbatch.verbs import retrain_project

    if not predict and (replace or call.flags.get("activate")):
        raise click.UsageError("--activate and --replace go with --predict")
    if keep_versions is not None and not replace:
        raise click.UsageError("--keep-versions goes with --replace")
    bench = call.bench()
    report = retrain_project(bench, call.progress, since_last=since_last)
    if not call.json:
        _print(call, report, f"--project {bench.project_id}")
    followed: list[Report] = []
    # Where nothing is new too: an earlier command may have been stopped before it had predicted all.
    if predict and report.in_use and report.exit_code == 0:
        followed = _predict(call, report.in_use, keep_versions or 0, replace=replace)
    if call.json:
        print_json({**report.to_json(), **({"runs": [entry.to_json() for entry in followed]} if predict else {})})
    for entry in followed if not call.json else ():
        click.echo()
        print_table(entry.rows())
    raise click.exceptions.Exit(int(report.exit_code) or worst(followed))


def _predict(call: Call, version: str, keep: int, *, replace: bool) -> list[Report]:
    from lsbatch.verbs import predict_project, replace_versions
    from lsbatch.wiring import Bench

    bench = Bench(call.load({"pipeline.model_version": version}))
    with draining() as stop:
        done = predict_project(bench, call.progress, stop=stop)
        deleted = replace_versions(bench, done, call.progress, keep=keep, stop=stop) if replace else []
    return [done, *(entry for entry in deleted if entry.planned)]


def _print(call: Call, report: RetrainReport, project: str) -> None:
    if report.version is None or report.evaluation is None or report.gate is None:
        click.echo(f"nothing new: no annotation changed since {report.last} was trained")
        return
    print_report(report.version, report.evaluation, report.gate, skipped=report.skipped)
    if call.quiet:
        return
    if report.promoted:
        click.echo(f"Next: lsbatch predict {project}", err=True)
    else:
        click.echo(f"not promoted: {report.gate.verdict}", err=True)
        click.echo(f"To use it all the same: lsbatch models promote {report.version.name} {project}", err=True)


def print_report(version: ModelVersion, found: Evaluation, gate: Gate, *, skipped: int) -> None:
    """The report as tables."""
    error = gate.calibration_error
    print_table(
        [
            ("model version", version.name),
            ("trained on", f"{found.trained_on:,} tasks"),
            ("held out", f"{found.held_out:,} tasks"),
            ("accuracy", f"{found.accuracy:.3f} on the held-out tasks"),
            ("baseline", f"{found.baseline:.3f} with always the most frequent answer"),
            *([("calibration error", f"{error:.3f} between scores and the share of right answers")] if error else []),
            ("comparison", gate.verdict),
            ("promoted", "yes" if gate.passed else "no"),
        ]
    )
    click.echo()
    rows = [
        (row.label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support))
        for row in found.per_label
    ]
    print_table(rows, header=("label", "precision", "recall", "f1", "tasks"))
    if skipped:
        click.echo(f"{skipped:,} tasks left out: no annotation that counts", err=True)
    for task, cause in found.unread[:MOST_NAMED]:
        click.echo(f"task {task} left out: {cause}", err=True)
    if len(found.unread) > MOST_NAMED:
        click.echo(f"and {len(found.unread) - MOST_NAMED:,} more", err=True)
