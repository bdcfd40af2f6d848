"""``lsbatch demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lsbatch.cli.options import Call, shared_command
from lsbatch.cli.output import print_json, print_table


@shared_command("demo", config=False, short_help="Pre-label 1,397 pictures on a local Label Studio.")
@click.option("--folder", default=".lsbatch/demo", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--pictures",
    type=click.IntRange(500, 1797),
    default=1797,
    show_default=True,
    metavar="N",
    help="Only so many pictures, for a shorter tour.",
)
@click.option(
    "--keep-open/--no-keep-open", default=None, help="Leave Label Studio up until Ctrl-C. [default: on a terminal]"
)
def command(call: Call, *, folder: Path, pictures: int, keep_open: bool | None) -> None:
    """Start a Label Studio, annotate 400 of 1,797 handwritten digits, retrain, predict the rest, and show the result.

    \b
    Example:
      lsbatch demo
    """
    from lsbatch.demo import demo

    with demo(folder.resolve(), call.progress, pictures=pictures) as report:
        if call.json:
            print_json({**report.predicted.to_json(), "agreement": report.agreement})
        else:
            print_table(report.rows())
        stay = sys.stdin.isatty() and sys.stdout.isatty() if keep_open is None else keep_open
        if stay:
            click.echo("Label Studio stays up until Ctrl-C.", err=True)
            try:
                report.server.process.wait()
            except KeyboardInterrupt:
                click.echo("stopping Label Studio", err=True)
        code = int(report.predicted.exit_code)
    raise click.exceptions.Exit(code)
