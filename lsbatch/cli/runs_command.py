"""``lsbatch runs``."""

from __future__ import annotations

from typing import Any

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table


@shared_command("runs", cls=click.Group, invoke_without_command=True, short_help="List, show and delete runs.")
@setting("project")
def command(call: Call) -> None:
    """List the runs on this disk, newest first: those of a project, or of all projects of this server.

    \b
    Example:
      lsbatch runs --project 3
    """
    from lsbatch.verbs.listing import describe, project_runs

    if click.get_current_context().invoked_subcommand is not None:
        return
    found = [describe(folder, run) for folder, run in project_runs(call.load())]
    if call.json:
        print_json(found)
        return
    if not found:
        click.echo("there are no runs yet", err=True)
        return
    columns = (
        *("run", "operation", "project", "state", "model_version", "selected", "confirmed", "quarantined"),
        *("started", "seconds"),
    )
    # An id is no amount.
    shown = [{**entry, "project": str(entry["project"]), "started": str(entry["started"])[:19]} for entry in found]
    print_table([[_cell(entry.get(column)) for column in columns] for entry in shown], header=columns)


@shared_command("show", short_help="Show all that is known of a run.")
@setting("project")
@click.argument("run")
def show(call: Call, *, run: str) -> None:
    """Show the report of RUN: state, counts, causes, times, and the audit's proof.

    \b
    Example:
      lsbatch runs show 20260131T102000417Z-5e6f
    """
    from lsbatch.verbs.listing import details, located_run

    folder, found = located_run(call.load(), run)
    value = details(folder, found)
    if call.json:
        print_json(value)
    else:
        print_table(_rows(value))


@shared_command("prune", short_help="Delete old runs.")
@setting("project")
@click.option("--keep", type=click.IntRange(min=0), required=True, metavar="N", help="How many of the newest stay.")
def prune_runs(call: Call, *, keep: int) -> None:
    """Delete all but the newest N runs of each project. A run that can still be continued is never deleted.

    \b
    Example:
      lsbatch runs prune --project 3 --keep 10
    """
    from lsbatch.verbs.listing import prune_project_runs

    deleted = prune_project_runs(call.load(), keep)
    if call.json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"{len(deleted):,} runs deleted")


assert isinstance(command, click.Group)
for _command in (show, prune_runs):
    command.add_command(_command)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _rows(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of each line that says something; what the manifest and the report repeat is said once."""
    report, manifest = dict(value["report"]), dict(value["manifest"])
    causes = report.pop("causes", {})
    # That is when it started.
    manifest.pop("created_at", None)
    said: dict[str, Any] = {}
    for part in ({key: entry for key, entry in value.items() if key not in ("manifest", "report")}, manifest):
        said |= {key: entry for key, entry in _flat(part) if key not in said}
    said |= {key: entry for key, entry in _flat(report) if key not in said}
    rows = [(key.replace("_", " "), _cell(entry)) for key, entry in said.items() if entry not in (None, "", [])]
    return rows + [("cause", f"{count:,} x {cause}") for cause, count in causes.items()]


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, entry in value.items():
        rows += _flat(entry, f"{prefix}{key} ") if isinstance(entry, dict) else [(prefix + key, entry)]
    return rows
