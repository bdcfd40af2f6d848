"""``lsbatch check``."""

from __future__ import annotations

from dataclasses import asdict

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json
from lsbatch.errors import ExitCode


@shared_command("check", short_help="Look at everything that a run needs, without writing.")
@setting("project", "pipeline", "model_version")
def command(call: Call) -> None:
    """Check the connection, the token, permissions, the label config against the pipeline, and predict three tasks.

    Nothing is written. The exit code is that of the first check that fails.

    \b
    Example:
      lsbatch check --project 3
    """
    from lsbatch.verbs import CHECK_RETRY_SECONDS, check_project

    bench = call.bench(retry_seconds=CHECK_RETRY_SECONDS)
    findings = []
    code = ExitCode.DONE
    for finding in check_project(bench):
        findings.append(finding)
        code = finding.exit_code
        if not call.json:
            lines = f"{'ok  ' if finding.passed else 'FAIL'}  {finding.subject}: {finding.detail}\n{finding.hint}"
            click.echo(lines.rstrip().replace("\n", "\n      "))
    if call.json:
        print_json([asdict(finding) for finding in findings])
    raise click.exceptions.Exit(int(code))
