"""``lsbatch predict``."""

from __future__ import annotations

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table


@shared_command("predict", short_help="Predict a project's tasks and import the predictions.")
@setting(
    "project",
    "pipeline",
    "model_version",
    "untouched_only",
    "limit",
    "workers",
    "scheduler",
    "chunk_size",
    "activate",
)
@click.option("--dry-run", is_flag=True, help="Do everything but write to Label Studio.")
@click.option("--resume/--no-resume", default=None, help="Continue an interrupted run, or start over. [default: auto]")
def command(call: Call, *, dry_run: bool, resume: bool | None) -> None:
    """Predict every task of a project that has no prediction of this model version yet, and import the predictions.

    A second run adds nothing. An interrupted run continues when the same command is given again.

    \b
    Example:
      lsbatch predict --project 3 --untouched-only --activate
    """
    from lsbatch.verbs import predict_project

    report = predict_project(call.bench(), call.progress, dry_run=dry_run, resume=resume)
    if call.json:
        print_json(report.to_json())
    else:
        print_table(report.rows())
    raise click.exceptions.Exit(int(report.exit_code))
