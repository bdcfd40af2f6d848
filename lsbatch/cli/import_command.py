"""``lsbatch import``."""

from __future__ import annotations

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import end_with


@shared_command("import", short_help="Import predictions that are stored in a run or a file.")
@setting("project", "activate", "max_rps", "max_failures", "max_runtime", "wait")
@click.option(
    "--from", "origin", required=True, metavar="RUN|FILE", help="A run's id or folder, or a .parquet or .jsonl file."
)
@click.option("--versionless-as", metavar="VERSION", help="Version for predictions of a backup that have none.")
@click.option("--dry-run", is_flag=True, help="Do everything but write to Label Studio.")
def command(call: Call, *, origin: str, versionless_as: str | None, dry_run: bool) -> None:
    """Import stored predictions: those of a dry run, of a file that another program wrote, or of the backup of
    delete-predictions.

    Tasks that carry the version already are left out, so that the command can be repeated. A file holds one
    prediction per task and model version: Parquet with task_id, result (JSON text), score and model_version,
    or JSON lines of {"task": 1, "result": [...], "score": 0.9, "model_version": "v1"}.

    \b
    Example:
      lsbatch import --project 3 --from predictions.jsonl
    """
    from lsbatch.verbs import import_stored

    with draining() as stop:
        reports = import_stored(
            call.bench(), origin, call.progress, dry_run=dry_run, versionless_as=versionless_as, stop=stop
        )
    end_with(call, *reports)
