"""``lsbatch retry``."""

from __future__ import annotations

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import RUN_SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import end_with


@shared_command("retry", short_help="Try the failed tasks of a run again.")
@setting("project", *RUN_SETTINGS, "activate")
@click.option("--dry-run", is_flag=True, help="Do everything but write to Label Studio.")
@click.argument("run")
def command(call: Call, *, run: str, dry_run: bool) -> None:
    """Predict the tasks that RUN put into quarantine again, in a run of their own with the same pipeline and version.

    \b
    Example:
      lsbatch retry 20260131T102000417Z-5e6f
    """
    from lsbatch.verbs import retry_run

    bench, found = call.bench_of_run(run)
    with draining() as stop:
        report = retry_run(bench, found, call.progress, dry_run=dry_run, stop=stop)
    end_with(call, report)
