"""``lsbatch select``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lsbatch.cli.draining import draining
from lsbatch.cli.options import SELECTION_SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table
from lsbatch.strategies import STRATEGIES, Strategy

if TYPE_CHECKING:
    from lsbatch.operations.queueing import Picked

FILE = click.Path(path_type=Path, dir_okay=False)
CHOICES = tuple(name for name in SELECTION_SETTINGS if name != "untouched_only")


@shared_command("select", short_help="Choose the tasks that people should label next.")
@setting("project", "pipeline", "model_version", *CHOICES, "max_rps")
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="How many tasks."
)
@click.option(
    "--strategy", type=click.Choice(STRATEGIES), default="cluster-margin", show_default=True, help="How to choose."
)
@click.option(
    "--random-fraction",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="SHARE",
    help="So many are taken by chance, to compare with.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of what is left to chance.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the ids, one a line."
)
@click.option("--tab", metavar="TITLE", help="Make a tab of the data manager that holds these tasks.")
@click.option("--rank-key", default="", metavar="KEY", help="With --tab: write the order into this key of their data.")
@click.option(
    "--sampling",
    type=click.Choice(("sequential", "uniform", "uncertainty")),
    help="Also set how the project chooses the next task.",
)
def command(
    call: Call,
    *,
    count: int,
    strategy: Strategy,
    random_fraction: float,
    seed: int,
    out: Path | None,
    tab: str | None,
    rank_key: str,
    sampling: str | None,
) -> None:
    """Choose N of the tasks without annotations and drafts: those that would teach the model most come first.

    least-confidence, margin and entropy take what the model is least sure of; coreset takes tasks that are spread over
    all there are; cluster-margin takes unsure ones that differ from each other; committee takes those on which the last
    promoted versions disagree. Near duplicates are taken once.

    \b
    Example:
      lsbatch select --project 3 -n 200 --strategy cluster-margin --out next.txt
    """
    from lsbatch.verbs.queueing import SelectRequest, put_in_order, select_tasks

    if rank_key and tab is None:
        raise click.UsageError("--rank-key goes with --tab")
    bench = call.bench()
    request = SelectRequest(strategy, count, random_fraction, seed)
    with draining() as stop:
        picked = select_tasks(bench, request, call.progress, stop=stop)
    made = put_in_order(bench, picked, tab, rank_key, call.progress) if tab is not None else None
    if sampling is not None:
        bench.project.set_sampling(sampling)
    if out is not None:
        from lsbatch.run_dir import write_bytes

        write_bytes(out, "".join(f"{pick.task_id}\n" for pick in picked.picks).encode())
    if call.json:
        print_json({**picked.to_json(), "tab": made})
    elif out is None:
        _print(picked)
    if not call.quiet:
        _say(picked, count, made)


def _print(picked: Picked) -> None:
    rows = [
        (
            str(pick.task_id),
            "" if pick.certainty is None else f"{pick.certainty:.3f}",
            "control" if pick.control else "",
        )
        for pick in picked.picks
    ]
    print_table(rows, header=("task", "certainty", "by chance"))


def _say(picked: Picked, count: int, made: int | None) -> None:
    words = f"{len(picked.picks):,} of {picked.pool:,} unlabeled tasks, by {picked.strategy}"
    if picked.failed:
        words += f"; {picked.failed:,} could not be predicted and were left out"
    if len(picked.picks) < min(count, picked.pool):
        words += "; the others are near duplicates"
    click.echo(words, err=True)
    if made is not None:
        click.echo(f"they are in tab {made} of the data manager", err=True)
