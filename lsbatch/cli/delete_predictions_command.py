"""``lsbatch delete-predictions``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lsbatch.cli.confirming import ask, must_be_able_to_ask
from lsbatch.cli.draining import draining
from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import end_with
from lsbatch.errors import ConfigError

if TYPE_CHECKING:
    from lsbatch.deletion_report import DeletionReport
    from lsbatch.operations.deletion_plan import Preview
    from lsbatch.version_choice import Which

_SELECTORS = (
    click.option(
        "--model-version",
        "model_versions",
        multiple=True,
        metavar="VERSION",
        help="Of this version exactly; repeatable. A pattern such as 'v1-*' takes all versions that match.",
    ),
    click.option("--all-versions", is_flag=True, help="Of every version, and without one."),
    click.option(
        "--except",
        "all_but",
        multiple=True,
        metavar="VERSION",
        help="Of every version but this, and without one; repeatable, patterns too.",
    ),
    click.option(
        "--keep-latest",
        type=click.IntRange(min=1),
        metavar="N",
        help="Of every version but the N whose newest prediction is the newest.",
    ),
    click.option(
        "--older-than", metavar="AGE", help="Created before then: an age such as 30d, a date or a time (UTC)."
    ),
    click.option("--duplicates", is_flag=True, help="All but the oldest of a version on a task."),
    click.option("--versionless", is_flag=True, help="Those without a version."),
)


def _selectors(function: Any) -> Any:
    for option in reversed(_SELECTORS):
        function = option(function)
    return function


@shared_command("delete-predictions", short_help="Delete predictions, exactly those that are meant.")
@setting("project", "view", "filter", "task_ids", "max_rps", "max_runtime", "wait")
@_selectors
@click.option("--include-referenced", is_flag=True, help="Also predictions that annotations came from.")
@click.option("--force", is_flag=True, help="Also the version that annotators see.")
@click.option("--backup/--no-backup", default=True, help="Write what is deleted to a file first. [default: backup]")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--no-resume", is_flag=True, help="Start over instead of continuing an interrupted deletion.")
def command(call: Call, **options: Any) -> None:
    """Delete predictions of a project: say which with exactly one of the options below that begin with "Of", "Created",
    "All" or "Those". Versions compare whole: v1 is not v10.

    It shows how many will go, asks, writes them to a file that `lsbatch import --from` brings back, deletes, and reads
    back that they are gone and nothing else is. The same command continues after an interruption.

    \b
    Example:
      lsbatch delete-predictions --project 3 --model-version digits-2026-01-31
    """
    from lsbatch.verbs import DeleteRequest, delete_predictions

    yes, dry_run = options["yes"], options["dry_run"]
    which, asked = _which(options)
    if not dry_run:
        must_be_able_to_ask("delete-predictions", yes=yes)
    request = DeleteRequest(
        which, asked, options["include_referenced"], force=options["force"], backup=options["backup"]
    )

    def confirm(preview: Preview) -> bool:
        return ask(call, "Delete them?", _preview_rows(preview), yes=yes)

    with draining() as stop:
        reports = delete_predictions(
            call.bench(),
            request,
            call.progress,
            confirm=confirm,
            dry_run=dry_run,
            resume=not options["no_resume"],
            stop=stop,
        )
    _end(call, reports, duplicates=which.duplicates)


def _end(call: Call, reports: list[DeletionReport], *, duplicates: bool) -> None:
    say = call.progress.say
    for report in reports:
        if report.backup and duplicates:
            say(f"What was deleted is in {report.backup}. An import brings back one prediction per task, so none of it")
        elif report.backup:
            say(f"Bring them back: lsbatch import --project {report.project} --from {report.backup}")
        if not report.planned or report.state == "declined":
            say("nothing was deleted" if report.planned else "nothing to delete")
    end_with(call, *reports)


def _which(options: dict[str, Any]) -> tuple[Which, str]:
    """What is to go, and the same as text for the manifest.

    Raises:
        ConfigError: an age that is none.
        click.UsageError: not exactly one selector.
    """
    from lsbatch.config.choosing import parse_time
    from lsbatch.version_choice import Which

    names = ("model_versions", "all_versions", "all_but", "keep_latest", "older_than", "duplicates", "versionless")
    given = {name: options[name] for name in names if options[name]}
    if len(given) != 1:
        flags = "--model-version, --all-versions, --except, --keep-latest, --older-than, --duplicates, --versionless"
        raise click.UsageError(f"give exactly one of {flags}")
    [(name, value)] = given.items()
    asked = f"{name}: {value}"
    if name == "older_than":
        try:
            value = parse_time(value, datetime.now(UTC))
        except ValueError as error:
            raise ConfigError(f"--older-than: {error}") from None
    return Which(**{name: value}), asked


def _preview_rows(preview: Preview) -> list[tuple[str, str]]:
    from lsbatch.version_choice import name_of

    rows = [(name_of(version), f"{count:,} predictions") for version, count in sorted(preview.versions.items())]
    rows.append(("to be deleted", f"{preview.predictions:,} predictions on {preview.tasks:,} tasks"))
    if preview.spared:
        rows.append(("kept", f"{preview.spared:,} that annotations came from"))
    return rows
