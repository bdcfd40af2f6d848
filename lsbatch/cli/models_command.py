"""``lsbatch models``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table

HEADER = ("model version", "state", "created", "accuracy", "baseline", "calibration error", "trained on", "gate")
FILE = click.Path(path_type=Path, dir_okay=False)


@shared_command("models", cls=click.Group, invoke_without_command=True, short_help="List and choose trained models.")
@setting("project", "pipeline")
def command(call: Call) -> None:
    """List the model versions trained for a project, newest first, with what was measured and which one is in use.

    \b
    Example:
      lsbatch models --project 3
    """
    from lsbatch.verbs.models import list_models

    if click.get_current_context().invoked_subcommand is not None:
        return
    found = list_models(call.bench())
    if call.json:
        print_json(found)
    elif found:
        print_table([_cells(entry) for entry in found], header=HEADER)
    else:
        click.echo("there are no models yet; train one: lsbatch retrain --project ID", err=True)


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    shares = [entry[key] for key in ("accuracy", "baseline", "calibration_error")]
    return (
        entry["model_version"],
        entry["state"],
        str(entry["created_at"])[:19],
        *("" if share is None else f"{share:.3f}" for share in shares),
        "" if entry["trained_on"] is None else f"{entry['trained_on']:,}",
        {True: "passed", False: "failed", None: ""}[entry["gate_passed"]],
    )


@shared_command("show", short_help="Show all that is known of a model version.")
@setting("project", "pipeline")
@click.argument("version")
def show(call: Call, *, version: str) -> None:
    """Show where VERSION comes from: parameters, annotations, metrics, comparison, parent, libraries, promotions.

    \b
    Example:
      lsbatch models show text-classification-20260131T102000Z-5e6f7a8b --project 3
    """
    from lsbatch.verbs.models import describe_model

    found = describe_model(call.bench(), version)
    if call.json:
        print_json(found)
        return
    rows = _rows(found)
    for entry in found["promotions"]:
        rows.append((entry["kind"], f"{str(entry['at'])[:19]}  project {entry['project']}  {entry['why']}"))
    print_table(rows)


def _rows(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, entry in value.items():
        if isinstance(entry, dict):
            rows += _rows(entry, f"{prefix}{key} ")
        elif not isinstance(entry, list) and entry not in (None, ""):
            rows.append(
                (f"{prefix}{key}".replace("_", " "), f"{entry:.4f}" if isinstance(entry, float) else str(entry))
            )
    return rows


@shared_command("promote", short_help="Take a model version into use.")
@setting("project", "pipeline")
@click.argument("version")
def promote(call: Call, *, version: str) -> None:
    """Predict with VERSION from now on, whatever was measured.

    \b
    Example:
      lsbatch models promote text-classification-20260131T102000Z-5e6f7a8b --project 3
    """
    from lsbatch.verbs.models import promote_version

    bench = call.bench()
    before = promote_version(bench, version)
    if call.json:
        print_json({"in_use": version, "before": before or None})
    else:
        click.echo(f"project {bench.project_id} is predicted with {version} from now on; before: {before or 'none'}")


@shared_command("rollback", short_help="Go back to the model version that was in use before.")
@setting("project", "pipeline")
def rollback(call: Call) -> None:
    """Predict with the version that was in use before the present one. What Label Studio holds is not changed.

    \b
    Example:
      lsbatch models rollback --project 3
    """
    from lsbatch.verbs.models import rollback_version

    gone, now = rollback_version(call.bench())
    if call.json:
        print_json({"in_use": now, "before": gone})
    else:
        click.echo(f"{now} is in use again, instead of {gone}")


@shared_command("prune", short_help="Delete old model versions.")
@setting("project", "pipeline")
@click.option("--keep", type=click.IntRange(min=0), required=True, metavar="N", help="So many of the newest stay.")
def prune(call: Call, *, keep: int) -> None:
    """Delete all but the N newest model versions of a project. The one in use and the one before it always stay.

    \b
    Example:
      lsbatch models prune --project 3 --keep 5
    """
    from lsbatch.verbs.models import prune_versions

    gone = prune_versions(call.bench(), keep)
    if call.json:
        print_json({"deleted": gone})
        return
    for version in gone:
        click.echo(version)
    click.echo(f"{len(gone)} deleted", err=True)


@shared_command("export", short_help="Write a model version into one file.")
@setting("project", "pipeline")
@click.argument("version")
@click.argument("file", type=FILE)
def export(call: Call, *, version: str, file: Path) -> None:
    """Write VERSION with its manifest into FILE, a ZIP archive.

    \b
    Example:
      lsbatch models export text-classification-20260131T102000Z-5e6f7a8b model.zip --project 3
    """
    from lsbatch.verbs.models import export_version

    export_version(call.bench(), version, file)
    if call.json:
        print_json({"model_version": version, "file": str(file)})
    else:
        click.echo(f"{version} is in {file}")


@shared_command("import", short_help="Store the model version of a file.")
@setting("project", "pipeline")
@click.argument("file", type=FILE)
def import_(call: Call, *, file: Path) -> None:
    """Store the model version of FILE, made by models export, under its own name. Its hashes are checked first.

    \b
    Example:
      lsbatch models import model.zip --project 3
    """
    from lsbatch.verbs.models import import_version

    bench = call.bench()
    version = import_version(bench, file)
    if call.json:
        print_json({"model_version": version})
        return
    click.echo(version)
    if not call.quiet:
        click.echo(f"Next: lsbatch models promote {version} --project {bench.project_id}", err=True)


for _command in (show, promote, rollback, prune, export, import_):
    command.add_command(_command)  # type: ignore[attr-defined]
