"""``lsbatch config``."""

from __future__ import annotations

import click

from lsbatch.cli.options import SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table


@click.group("config", short_help="Show the configuration.")
def command() -> None:
    """Look at the configuration."""


@shared_command("show", short_help="Each key's effective value and where it comes from.")
@setting(*(name for name in SETTINGS if not name.startswith(("training_", "serve_"))))
def show(call: Call) -> None:
    """Print the effective value of each key and where it came from, secrets masked.

    \b
    Example:
      lsbatch config show --project 3
    """
    loaded = call.load()
    rows = loaded.rows()
    if call.json:
        print_json({path: {"value": value, "origin": origin} for path, value, origin in rows})
    else:
        print_table(rows, header=("key", "value", "from"))


command.add_command(show)
