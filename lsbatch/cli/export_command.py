"""``lsbatch export``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lsbatch.cli.options import SELECTION_SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import print_json


@shared_command("export", short_help="Write a project's tasks to Parquet or JSON lines.")
@setting("project", *SELECTION_SETTINGS, "max_rps")
@click.option(
    "--out",
    required=True,
    metavar="DIR|FILE",
    help="A folder, a file that ends in .parquet or .jsonl, or - for JSON lines on stdout.",
)
def command(call: Call, *, out: str) -> None:
    """Write a project's tasks, ids ascending, for other tools. Memory does not grow with the project.

    \b
    Example:
      lsbatch export --project 3 --out tasks.parquet
    """
    from lsbatch.operations.export import export
    from lsbatch.operations.selecting import known_ids

    bench = call.bench()
    target = sys.stdout if out == "-" else Path(out)
    progress = call.progress
    selection, notes = known_ids(bench.project, bench.selection)
    for note in notes:
        progress.say(note)
    tasks = export(bench.project, selection, target, progress, readers=bench.readers)
    if out == "-":
        return
    if call.json:
        print_json({"tasks": tasks, "out": out})
    else:
        click.echo(f"{tasks:,} tasks in {out}")
