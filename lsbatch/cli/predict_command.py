"""``lsbatch predict``."""

from __future__ import annotations

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import RUN_SETTINGS, SELECTION_SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import end_with, print_json, worst


@shared_command("predict", short_help="Predict a project's tasks and import the predictions.")
@setting("project", "pipeline", "model_version", "select", *SELECTION_SETTINGS, *RUN_SETTINGS, "score", "activate")
@click.option("--dry-run", is_flag=True, help="Do everything but write to Label Studio.")
@click.option("--replace", is_flag=True, help="At the end show annotators this version and delete the others.")
@click.option("--keep-versions", type=click.IntRange(min=0), metavar="N", help="With --replace: so many others stay.")
@click.option("--resume/--no-resume", default=None, help="Continue an interrupted run, or start over. [default: auto]")
def command(call: Call, *, dry_run: bool, replace: bool, keep_versions: int | None, resume: bool | None) -> None:
    """Predict every task of a project that has no prediction of this model version yet, and import the predictions.

    --select chooses other tasks; it and all that narrows the choice count together.

    A second run adds nothing. An interrupted run continues when the same command is given again. The first Ctrl-C or
    SIGTERM ends it in order, the second at once.

    --replace makes the change in one go: when every prediction is there and read back, annotators see the new version,
    and only then what the same tasks carry of other versions is deleted, after it was written to a file. Tasks in
    quarantine, and predictions that annotations came from, keep what they have.

    \b
    Example:
      lsbatch predict --project 3 --untouched-only --activate
    """
    from lsbatch.verbs import predict_project, replace_versions

    if keep_versions is not None and not replace:
        raise click.UsageError("--keep-versions goes with --replace")
    bench = call.bench()
    with draining() as stop:
        report = predict_project(bench, call.progress, dry_run=dry_run, resume=resume, stop=stop)
        deletions = (
            replace_versions(bench, report, call.progress, keep=keep_versions or 0, stop=stop) if replace else []
        )
    if replace and call.json:
        print_json({**report.to_json(), "deletions": [deletion.to_json() for deletion in deletions]})
        raise click.exceptions.Exit(worst([report, *deletions]))
    end_with(call, report, *(deletion for deletion in deletions if deletion.planned))
