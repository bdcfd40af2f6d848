"""``lsbatch accept``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from lsbatch.cli.confirming import ask, must_be_able_to_ask
from lsbatch.cli.draining import draining
from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import end_with

if TYPE_CHECKING:
    from lsbatch.acceptance import Acceptance


class _Share(click.ParamType[float]):
    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            self.fail(f"{value!r} is no share such as 5% or 0.05", param, ctx)
        return share


@shared_command("accept", short_help="Turn sure predictions into annotations.")
@setting("project", "view", "filter", "task_ids", "since", "until", "max_rps", "max_runtime", "wait")
@click.option("--model-version", "version", required=True, metavar="VERSION", help="Of this version exactly.")
@click.option(
    "--min-score", type=click.FloatRange(0, 1), required=True, metavar="SCORE", help="Score at least, such as 0.95."
)
@click.option("--limit", "most", type=click.IntRange(min=1), metavar="N", help="At most N tasks, lowest ids first.")
@click.option("--sample-for-review", type=_Share(), default=0.0, metavar="SHARE", help="Leave a random part, as 5%.")
@click.option("--even-if-annotated", is_flag=True, help="Also tasks that have annotations or drafts.")
@click.option("--dry-run", is_flag=True, help="Only say what would be accepted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(
    call: Call,
    *,
    version: str,
    min_score: float,
    most: int | None,
    sample_for_review: float,
    even_if_annotated: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Make an annotation, owned by the token's user, of each prediction of a version whose score is high enough. Once
    each, however often it runs, and never on a task that has annotations or drafts, unless you say so.

    --sample-for-review leaves a random part of them, the same each time, and lists its tasks for people to check.

    \b
    Example:
      lsbatch accept --project 3 --model-version digits-2026-01-31 --min-score 0.95 --sample-for-review 5%
    """
    from lsbatch.acceptance import Bar
    from lsbatch.verbs import AcceptRequest, accept_predictions

    if not math.isfinite(min_score):
        raise click.UsageError("--min-score must be a number from 0 to 1")
    if not dry_run:
        must_be_able_to_ask("accept", yes=yes)
    request = AcceptRequest(Bar(version, min_score, even_if_annotated, sample_for_review), most)

    def confirm(found: Acceptance) -> bool:
        return ask(call, f"Make annotations of {found.accepted:,} predictions?", _rows(found), yes=yes)

    with draining() as stop:
        report = accept_predictions(call.bench(), request, call.progress, confirm=confirm, dry_run=dry_run, stop=stop)
    end_with(call, report)


def _rows(found: Acceptance) -> list[tuple[str, str]]:
    parts = ((found.verdicts, ""), (found.labels, "label "), (found.scores, "score "))
    return [(f"{prefix}{name}", f"{count:,}") for counts, prefix in parts for name, count in sorted(counts.items())]
