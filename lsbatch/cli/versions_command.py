"""``lsbatch versions``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table

if TYPE_CHECKING:
    from lsbatch.version_tally import ProjectVersions

HEADER = ("model version", "predictions", "tasks", "first", "last", "mean score", "annotators", "live backend")


@shared_command("versions", short_help="List the model versions of a project's predictions.")
@setting("project", "max_rps")
@click.option("--quick", is_flag=True, help="Only count: no first times and mean scores, which need all read.")
def command(call: Call, *, quick: bool) -> None:
    """List every model version that predictions of the project carry, newest first: how many predictions on how many
    tasks, when they were made (UTC), their mean score, which one annotators see, and what looks wrong.

    \b
    Example:
      lsbatch versions --project 3
    """
    from lsbatch.verbs import project_versions

    found = project_versions(call.bench(), call.progress, quick=quick)
    if call.json:
        print_json(found.to_json())
    else:
        _print(found)


def _print(found: ProjectVersions) -> None:
    from lsbatch.version_choice import name_of

    rows = [
        (
            name_of(entry.model_version),
            f"{entry.predictions:,}",
            f"{entry.tasks:,}",
            _when(entry.first),
            _when(entry.last),
            "" if entry.mean_score is None else f"{entry.mean_score:.3f}",
            "see it" if entry.model_version and entry.model_version == found.active else "",
            found.live(entry.model_version),
        )
        for entry in found.versions
    ]
    if rows:
        print_table(rows, header=HEADER)
    else:
        click.echo("the project holds no predictions", err=True)
    if any(backend.title == found.active for backend in found.backends):
        click.echo(f"annotators see what the live backend {found.active!r} predicts", err=True)
    for problem in found.problems():
        click.echo(f"warning: {problem}", err=True)


def _when(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"
