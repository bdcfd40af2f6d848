"""The command line: click only. A command's module is loaded when it runs or is listed, libraries when it runs."""

from __future__ import annotations

import importlib

import click

from lsbatch import __version__

__all__ = ["main"]

COMMANDS = (
    *("init", "check", "retrain", "models", "select", "predict", "resume", "retry", "runs", "audit"),
    *("import", "export", "versions", "evaluate", "activate", "delete-predictions", "accept"),
    *("serve", "connect", "verify-serve", "config", "demo"),
)


class Commands(click.Group):
    """A group whose commands are modules of this package, in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See ``click.Group``."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lsbatch.cli.{cmd_name.replace('-', '_')}_command")
        command: click.Command = module.command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="lsbatch")
def main() -> None:
    """Bulk pre-labeling for Label Studio: exactly one prediction per task and model version.

    \b
    export LABEL_STUDIO_URL=https://label.example.org LABEL_STUDIO_API_KEY=...
    lsbatch check --project 3
    lsbatch retrain --project 3
    lsbatch predict --project 3
    """
