"""``lsbatch verify-serve``."""

from __future__ import annotations

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table


@shared_command("verify-serve", short_help="Compare live answers with the stored predictions.")
@setting("project")
@click.option("--sample", "count", type=click.IntRange(min=1), default=200, show_default=True, help="Tasks to compare.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of which tasks they are.")
@click.option("--url", metavar="URL", help="The backend; by default the one that is connected, else serve.host.")
def command(call: Call, *, count: int, seed: int, url: str | None) -> None:
    """Ask the live backend for tasks that carry a stored prediction of the version that it serves, and compare: result,
    score (within 0.000001, since batches of another size round differently) and version. Ids of regions may differ.
    Nothing is written. Ends with 7 where something differs.

    \b
    Example:
      lsbatch verify-serve --project 3 --sample 200
    """
    from lsbatch.verbs.verifying import verify_backend

    bench = call.bench()
    found = verify_backend(bench, call.progress, count=count, seed=seed, url=url)
    if call.json:
        print_json(found.to_json())
    else:
        print_table(found.rows())
        for name, entries in (("differs", found.different), ("no answer", found.failed)):
            for entry in entries:
                click.echo(f"task {entry.task} {name}: {entry.what}")
    if found.different_count:
        click.echo(
            "The stored predictions may be older than the tasks' data or the label config: "
            f"lsbatch predict --project {bench.project_id} --select stale",
            err=True,
        )
    raise click.exceptions.Exit(int(found.exit_code))
