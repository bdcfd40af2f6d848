"""``lsbatch activate``."""

from __future__ import annotations

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json


@shared_command("activate", short_help="Choose the model version that annotators see.")
@setting("project")
@click.argument("version", required=False)
@click.option("--deactivate", is_flag=True, help="Show annotators no predictions of any version.")
@click.option("--show-predictions", is_flag=True, help="Also switch on that the project shows predictions at all.")
def command(call: Call, *, version: str | None, deactivate: bool, show_predictions: bool) -> None:
    """Show annotators the predictions of VERSION from now on: a model version that predictions carry, or the title of a
    live backend. `predict --activate` does it at the end of a run.

    \b
    Example:
      lsbatch activate digits-2026-01-31 --project 3 --show-predictions
    """
    from lsbatch.verbs import activate_version

    # An empty VERSION is a variable that is not set, and not the wish to show none.
    if version == "" or (version is None) is not deactivate:
        raise click.UsageError("give either a VERSION or --deactivate")
    bench = call.bench()
    before = activate_version(bench, version or "", show=show_predictions)
    if call.json:
        print_json({"active": version or "", "before": before})
    else:
        click.echo(f"annotators see {version}" if version else "annotators see no predictions")
        click.echo(f"before: {before or 'none'}")
    if version and not show_predictions and not bench.project.project().shows_predictions:
        click.echo(
            "warning: the project shows annotators no predictions; --show-predictions switches that on", err=True
        )
