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
@click.option("--dry-run", is_flag=True, help="Do everything but write to Label Studio.")
def command(call: Call, *, origin: str, dry_run: bool) -> None:
    """Import stored predictions: those of a dry run, or of a file that another program wrote.

    Tasks that carry the version already are left out, so that the command can be repeated. A file holds one
    prediction per task, all of one model version: Parquet with task_id, result (JSON text), score and model_version,
    or JSON lines of {"task": 1, "result": [...], "score": 0.9, "model_version": "v1"}.

    \b
    Example:
      lsbatch import --project 3 --from predictions.jsonl
    """
    from lsbatch.verbs import import_stored

    with draining() as stop:
        report = import_stored(call.bench(), origin, call.progress, dry_run=dry_run, stop=stop)
    end_with(call, report)
