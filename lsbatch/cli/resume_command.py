"""``lsbatch resume``."""

from __future__ import annotations

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import RUN_SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import end_with


@shared_command("resume", short_help="Continue an interrupted run by name.")
@setting("project", *RUN_SETTINGS, "activate")
@click.argument("run")
def command(call: Call, *, run: str) -> None:
    """Continue RUN, with the pipeline, version and tasks that it was started with. What is done is not done again.

    Giving the same command that started it does the same. "lsbatch runs" lists the runs.

    \b
    Example:
      lsbatch resume 20260131T102000417Z-5e6f
    """
    from lsbatch.verbs import continue_run

    bench, found = call.bench_of_run(run)
    with draining() as stop:
        report = continue_run(bench, found, call.progress, stop=stop)
    end_with(call, report)
