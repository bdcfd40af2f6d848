"""``lsbatch audit``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table

if TYPE_CHECKING:
    from lsbatch.verbs.auditing import VersionAudit


@shared_command("audit", short_help="Compare what was imported with what Label Studio holds.")
@setting("project", "pipeline", "model_version", "max_rps", "wait")
@click.option("--repair", is_flag=True, help="Delete surplus predictions and send again what is missing.")
def command(call: Call, *, repair: bool) -> None:
    """Check that Label Studio still holds exactly one prediction of the version on each task that the runs on this disk
    predicted. Every run does this at its end; this does it at any time.

    \b
    Example:
      lsbatch audit --project 3 --model-version digits-2026-01-31 --repair
    """
    from lsbatch.verbs import audit_project

    bench = call.bench()
    # Any version that was imported, also one that no model here has.
    version = bench.config.pipeline.model_version or bench.model_version
    with draining() as stop:
        found = audit_project(bench, version, call.progress, repair=repair, stop=stop)
    if call.json:
        print_json(_json(found))
    else:
        _print(found)
    raise click.exceptions.Exit(int(found.exit_code))


def _json(found: VersionAudit) -> dict[str, Any]:
    return {
        "model_version": found.model_version,
        "runs": {run: {**asdict(proof), "passed": proof.passed} for run, proof in found.proofs.items()},
        "missing": found.missing,
        "surplus": found.surplus,
        "removed": found.removed,
        "repaired": None if found.repaired is None else found.repaired.to_json(),
        "exit_code": int(found.exit_code),
    }


def _print(found: VersionAudit) -> None:
    rows = [
        (run, f"{proof.expected:,}", f"{proof.confirmed:,}", f"{proof.missing_count:,}", f"{proof.gone:,}")
        for run, proof in found.proofs.items()
    ]
    if rows:
        print_table(rows, header=("run", "imported", "confirmed", "missing", "deleted"))
    else:
        click.echo(f"no run on this disk imported predictions of {found.model_version}")
    if found.removed:
        click.echo(f"{found.removed:,} surplus predictions deleted")
    if found.surplus:
        click.echo(f"{found.surplus:,} surplus predictions of {found.model_version}: more than one on a task")
    if found.repaired is not None:
        click.echo(f"{found.repaired.imported:,} missing predictions sent again, in run {found.repaired.run}")
    if found.missing or found.surplus:
        click.echo("Repair it: the same command with --repair", err=True)
