"""An evaluation as one self-contained HTML page, with the pictures that people look at.

The pictures are SVG inside the page; it loads nothing, so that it can be mailed and opened anywhere.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from lsbatch.errors import ConfigError
from lsbatch.operations.evaluating import EvaluationReport
from lsbatch.quality.control_tally import ControlQuality
from lsbatch.quality.scorecard import VersionQuality

__all__ = ["check_installed", "evaluation_page"]

COLOR = "#1f5f8b"


def evaluation_page(report: EvaluationReport, url: str) -> str:
    """The page as text.

    Args:
        report: what was measured.
        url: address of Label Studio, for links to tasks.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    check_installed()
    import jinja2
    from markupsafe import Markup

    loader = jinja2.PackageLoader("lsbatch")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return str(
        environment.get_template("evaluation.html").render(
            report=report,
            color=COLOR,
            now=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            url=url.rstrip("/"),
            share=lambda value: "" if value is None else f"{value:.3f}",
            against=lambda version: _against(report, version),
            over_time=Markup(_over_time(report.versions)),  # noqa: S704 matplotlib's own, which escapes
            pictures=lambda version: [(name, Markup(svg)) for name, svg in _pictures(version)],  # noqa: S704
        )
    )


def check_installed() -> None:
    """Return if a page can be made.

    Raises:
        ConfigError: a library is missing.
    """
    lacking = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"a page needs {' and '.join(lacking)}", hint="pip install 'lsbatch[report]'")


def _against(report: EvaluationReport, version: VersionQuality) -> str:
    if version.model_version not in report.differences:
        return ""
    tasks, interval = report.differences[version.model_version]
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f}) on {tasks:,} tasks"


def _pictures(version: VersionQuality) -> list[tuple[str, str]]:
    found = []
    if version.bands:
        found.append(("Reliability", _drawn(lambda axes: _reliability(axes, version))))
        found.append(("Scores", _drawn(lambda axes: _scores(axes, version))))
    for control in version.controls:
        if control.confusion:
            side = max(3.6, min(12.0, 0.45 * len(control.confusion) + 2))
            found.append((f"Confusion of {control.control}", _confusion(control, side)))
    return found


def _drawn(draw: Callable[[Any], None], *, width: float = 4.4, height: float = 3.6) -> str:
    """A picture as SVG. Made without pyplot, which would keep it, and might look for a screen."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The same picture for the same numbers.
    with rc_context({"svg.hashsalt": "lsbatch", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue().partition("<svg")[1] + file.getvalue().partition("<svg")[2]


def _reliability(axes: Any, version: VersionQuality) -> None:
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    axes.plot([band.mean_score for band in version.bands], [band.right for band in version.bands], "o-", color=COLOR)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="score", ylabel="share of right answers")


def _scores(axes: Any, version: VersionQuality) -> None:
    lows = [band.low for band in version.bands]
    right = [band.tasks * band.right for band in version.bands]
    wrong = [band.tasks - value for band, value in zip(version.bands, right, strict=True)]
    axes.bar(lows, right, width=0.09, align="edge", color=COLOR, label="right")
    axes.bar(lows, wrong, width=0.09, align="edge", bottom=right, color="#c0504d", label="wrong")
    axes.set(xlim=(0, 1), xlabel="score", ylabel="tasks")
    axes.legend(frameon=False)


def _confusion(control: ControlQuality, side: float) -> str:
    names = list(control.confusion)
    shown = [_short(name) if name else "(nothing)" for name in names]
    counts = [[control.confusion[row][column] for column in names] for row in names]

    def draw(axes: Any) -> None:
        most = max(max(row) for row in counts) or 1
        axes.imshow(counts, cmap="Blues", vmin=0, vmax=most)
        axes.set_xticks(range(len(names)), shown, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), shown)
        axes.set(xlabel="predicted", ylabel="people said")
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                if count:
                    color = "white" if count > most / 2 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=color)

    return _drawn(draw, width=side, height=side)


def _short(name: str) -> str:
    # A dollar sign would begin a formula.
    name = name.replace("$", r"\$")
    return name if len(name) <= 20 else name[:19] + "…"


def _over_time(versions: Sequence[VersionQuality]) -> str:
    known = sorted(
        ((version.first, version.agreement) for version in versions if version.first and version.agreement),
        key=lambda entry: entry[0],
    )
    if len(known) < 2:
        return ""

    def draw(axes: Any) -> None:
        means = [interval.value for _, interval in known]
        below = [interval.value - interval.low for _, interval in known]
        above = [interval.high - interval.value for _, interval in known]
        axes.errorbar([when for when, _ in known], means, yerr=[below, above], fmt="o-", color=COLOR, capsize=3)
        axes.set(ylim=(0, 1.02), ylabel="agreement")
        axes.tick_params(axis="x", rotation=30)

    return _drawn(draw, width=7)
