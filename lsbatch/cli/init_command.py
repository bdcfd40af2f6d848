"""``lsbatch init``."""

from __future__ import annotations

from pathlib import Path

import click

from lsbatch.cli.options import Call, shared_command
from lsbatch.cli.output import print_json
from lsbatch.errors import ConfigError


@shared_command("init", config=False, short_help="Write a commented pipeline.yaml.")
@click.option("--force", is_flag=True, help="Replace a pipeline.yaml that is there.")
@click.option("--print", "as_text", is_flag=True, help="Print it instead of writing it.")
def command(call: Call, *, force: bool, as_text: bool) -> None:
    """Write a pipeline.yaml into this folder that names every key with its default. It needs no change to work.

    \b
    Example:
      lsbatch init
    """
    from lsbatch.config import render_example
    from lsbatch.run_dir import write_bytes

    if as_text:
        click.echo(render_example(), nl=False)
        return
    path = Path("pipeline.yaml")
    if path.exists() and not force:
        raise ConfigError("pipeline.yaml is there already", hint="Edit it, or replace it with lsbatch init --force.")
    try:
        write_bytes(path, render_example().encode())
    except ConfigError as error:
        hint = "Go to a folder that you may write in, or use lsbatch init --print."
        raise ConfigError(error.message, hint=hint) from error
    if call.json:
        print_json({"file": str(path)})
    else:
        click.echo(f"wrote {path}")
    if not call.quiet:
        click.echo("Next: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, then lsbatch check --project ID", err=True)
