"""``lsbatch predict``."""

from __future__ import annotations

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import RUN_SETTINGS, SELECTION_SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import end_with


@shared_command("predict", short_help="Predict a project's tasks and import the predictions.")
@setting("project", "pipeline", "model_version", "select", *SELECTION_SETTINGS, *RUN_SETTINGS, "activate")
@click.option("--dry-run", is_flag=True, help="Do everything but write to Label Studio.")
@click.option("--resume/--no-resume", default=None, help="Continue an interrupted run, or start over. [default: auto]")
def command(call: Call, *, dry_run: bool, resume: bool | None) -> None:
    """Predict every task of a project that has no prediction of this model version yet, and import the predictions.

    --select chooses other tasks; it and all that narrows the choice count together.

    A second run adds nothing. An interrupted run continues when the same command is given again. The first Ctrl-C or
    SIGTERM ends it in order, the second at once.

    \b
    Example:
      lsbatch predict --project 3 --untouched-only --activate
    """
    from lsbatch.verbs import predict_project

    with draining() as stop:
        report = predict_project(call.bench(), call.progress, dry_run=dry_run, resume=resume, stop=stop)
    end_with(call, report)
