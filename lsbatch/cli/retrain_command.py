"""``lsbatch retrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table

if TYPE_CHECKING:
    from lsbatch.operations.retrain import RetrainReport

MOST_NAMED = 10


@shared_command("retrain", short_help="Train a model from a project's annotations.")
@setting("project", "pipeline", "holdout", "annotations")
def command(call: Call) -> None:
    """Train the pipeline from a project's annotations, measure it on tasks held back, and store a new model version.

    \b
    Example:
      lsbatch retrain --project 3
    """
    from lsbatch.verbs import retrain_project

    bench = call.bench()
    report = retrain_project(bench, call.progress)
    if call.json:
        print_json(report.to_json())
        return
    print_report(report)
    if not call.quiet:
        click.echo(f"Next: lsbatch predict --project {bench.project_id}", err=True)


def print_report(report: RetrainReport) -> None:
    """The report as tables."""
    found = report.evaluation
    print_table(
        [
            ("model version", report.version.name),
            ("trained on", f"{found.trained_on:,} tasks"),
            ("held out", f"{found.held_out:,} tasks"),
            ("accuracy", f"{found.accuracy:.3f} on the held-out tasks"),
            ("baseline", f"{found.baseline:.3f} with always the most frequent answer"),
        ]
    )
    click.echo()
    rows = [
        (row.label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support))
        for row in found.per_label
    ]
    print_table(rows, header=("label", "precision", "recall", "f1", "tasks"))
    if report.skipped:
        click.echo(f"{report.skipped:,} tasks left out: no annotation that counts", err=True)
    for task, cause in found.unread[:MOST_NAMED]:
        click.echo(f"task {task} left out: {cause}", err=True)
    if len(found.unread) > MOST_NAMED:
        click.echo(f"and {len(found.unread) - MOST_NAMED:,} more", err=True)
