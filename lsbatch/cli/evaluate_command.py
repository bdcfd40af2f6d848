"""``lsbatch evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lsbatch.cli.options import SELECTION_SETTINGS, Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table

if TYPE_CHECKING:
    from lsbatch.operations.evaluating import EvaluationReport
    from lsbatch.quality.control_tally import ControlQuality
    from lsbatch.quality.scorecard import VersionQuality

HEADER = ("model version", "tasks", "agreement, 95% interval", "calibration error", "without", "trained on")
CHOICES = tuple(name for name in SELECTION_SETTINGS if name not in ("untouched_only", "limit"))
MOST_LABELS = 50


@shared_command("evaluate", short_help="Compare predictions with what people annotated.")
@setting("project", "consensus", *CHOICES, "max_rps")
@click.option(
    "--model-version", "versions", multiple=True, metavar="VERSION", help="Only this version; may be repeated."
)
@click.option("--include-trained", is_flag=True, help="Also count tasks that a version was trained on.")
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write a page with tables and pictures.",
)
def command(call: Call, *, versions: tuple[str, ...], include_trained: bool, page: Path | None) -> None:
    """Measure the predictions in Label Studio on the annotations that people made: agreement, precision and recall by
    label, confusion, calibration, what annotators changed, the most confident mistakes.

    Tasks that a version was trained on are left out, as far as its model is in the store: to be right there proves
    nothing. With several versions, the others are compared with the first one on the same tasks.

    \b
    Example:
      lsbatch evaluate --project 3 --report evaluation.html
    """
    from lsbatch.verbs.evaluating import evaluate_project

    bench = call.bench()
    if page is not None:
        _check_page(page)
    report = evaluate_project(bench, versions, call.progress, include_trained=include_trained)
    if page is not None:
        from lsbatch.evaluation_page import evaluation_page
        from lsbatch.run_dir import write_bytes

        write_bytes(page, evaluation_page(report, bench.connection.url).encode())
    if call.json:
        print_json(report.to_json())
    else:
        _print(report)
    if page is not None and not call.quiet:
        click.echo(f"the page is {page}", err=True)


def _check_page(page: Path) -> None:
    """Better known before everything is read."""
    from lsbatch.errors import ConfigError
    from lsbatch.evaluation_page import check_installed

    check_installed()
    if not page.absolute().parent.is_dir():
        raise ConfigError(f"--report: there is no folder {page.absolute().parent}", hint="Make it first.")


def _print(report: EvaluationReport) -> None:
    rows = [
        (
            version.model_version,
            f"{version.tasks:,}",
            "" if version.agreement is None else str(version.agreement),
            "" if version.calibration_error is None else f"{version.calibration_error:.3f}",
            f"{version.without:,}",
            f"{version.trained_on:,}",
        )
        for version in report.versions
    ]
    print_table(rows, header=HEADER)
    for version, (tasks, interval) in report.differences.items():
        words = "no clear difference" if interval.low <= 0 <= interval.high else "a difference beyond chance"
        click.echo(f"{version} against {report.reference} on the same {tasks:,} tasks: {interval}, {words}")
    for found in report.versions:
        _print_version(found)


def _print_version(version: VersionQuality) -> None:
    if not version.tasks:
        click.echo(f"{version.model_version}: no annotated task carries a prediction to compare", err=True)
        return
    click.echo(f"\n{version.model_version}")
    for control in version.controls:
        _print_control(control)
    if version.bands:
        print_table(
            [
                (f"{band.low:.1f} to {band.high:.1f}", f"{band.tasks:,}", f"{band.mean_score:.3f}", f"{band.right:.3f}")
                for band in version.bands
            ],
            header=("score", "tasks", "mean score", "right"),
        )
    edits = version.edits
    if edits.annotations:
        click.echo(
            f"of {edits.annotations:,} annotations begun from a prediction: {edits.kept:,} regions kept,"
            f" {edits.changed:,} changed, {edits.removed:,} removed, {edits.added:,} added"
        )
    for row in version.mistakes[:5]:
        click.echo(f"task {row.task_id}, score {row.score:.3f}: {row.predicted}, and people said {row.said}")


def _print_control(control: ControlQuality) -> None:
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in control.numbers.items())
    click.echo(f"{control.control}: {numbers or 'nothing to compare'}")
    rows = [
        (row.label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.support:,}")
        for row in control.per_label[:MOST_LABELS]
    ]
    if rows:
        print_table(rows, header=("label", "precision", "recall", "f1", "support"))
    if len(control.per_label) > MOST_LABELS:
        click.echo(f"and {len(control.per_label) - MOST_LABELS:,} more labels, see --json", err=True)
