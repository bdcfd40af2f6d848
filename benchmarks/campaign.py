"""Whether tasks that are chosen teach more than tasks taken by chance: label, train, choose, and again."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from benchmarks.results import Section, Target, cell
from lsbatch.label_config import LabelConfig
from lsbatch.operations.queueing import Pool, choose_tasks
from lsbatch_pipelines.calibration import certainty
from lsbatch_pipelines.choices import Answer
from lsbatch_pipelines.xgboost_head import Head, HeadOptions

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "a simulated labeling campaign on digits: accuracy by number of labels, chosen and by chance"
TITLES = ["A labeling campaign"]
STRATEGIES = ("random", "cluster-margin")
PICTURE = Path(__file__).with_name("campaign.svg")
OPTIONS = HeadOptions(trees=60, max_depth=4, learning_rate=0.3, share_of_features=0.5)
CONTROL = LabelConfig(
    '<View><Image name="i" value="$i"/><Choices name="c" toName="i">'
    + "".join(f'<Choice value="{digit}"/>' for digit in range(10))
    + "</Choices></View>"
).controls[0]


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=10, help="campaigns of each strategy; default: %(default)s")
    parser.add_argument("--step", type=int, default=100, help="labels of each week; default: %(default)s")
    parser.add_argument("--weeks", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--accuracy", type=float, default=0.9, help="to be reached; default: %(default)s")


def measure(options: Namespace, folder: Path) -> Section:
    """The table and the curve."""
    labels = [options.step * (week + 1) for week in range(options.weeks)]
    curves = {
        strategy: np.array([_campaign(strategy, labels, seed) for seed in range(options.seeds)])
        for strategy in STRATEGIES
    }
    section = Section(
        TITLES[0],
        ("labels", *(f"{strategy}: accuracy (sd)" for strategy in STRATEGIES)),
        notes=[
            f"Digits of scikit-learn, a third held out. Each week {options.step} more are labeled, trees trained",
            f"anew, and the next are chosen. Means of {options.seeds} campaigns, each with first labels of its own.",
            "",
            "![accuracy by labels](campaign.svg)",
        ],
    )
    for week, count in enumerate(labels):
        cells = [f"{curve[:, week].mean():.3f} ({curve[:, week].std():.3f})" for curve in curves.values()]
        section.rows.append((str(count), *cells))
    needed = {strategy: _needed(curve.mean(axis=0), labels, options.accuracy) for strategy, curve in curves.items()}
    section.rows.append((f"for accuracy {options.accuracy:g}", *(cell(needed[strategy]) for strategy in STRATEGIES)))
    section.targets = [
        Target("labels needed, cluster-margin / random", needed["cluster-margin"] / needed["random"], most=0.99)
    ]
    _draw(labels, curves)
    return section


def _campaign(strategy: str, labels: list[int], seed: int) -> list[float]:
    """Accuracy after each week."""
    data = load_digits()
    rows, kinds = (data.data / 16).astype(np.float32), [str(kind) for kind in data.target]
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(rows))
    held, pool = order[: len(rows) // 3], list(order[len(rows) // 3 :])
    known, pool = pool[: labels[0]], pool[labels[0] :]
    found = []
    for week, count in enumerate(labels):
        answers: list[Answer] = [frozenset([kinds[place]]) for place in known]
        head = Head.fit(rows[known], answers, CONTROL, OPTIONS, extra={})
        guesses = head.predict(rows[held])
        found.append(
            float(np.mean([guess.labels == (kinds[place],) for guess, place in zip(guesses, held, strict=True)]))
        )
        if week + 1 < len(labels):
            chosen = _chosen(strategy, head, rows, pool, labels[week + 1] - count, seed)
            known, pool = known + chosen, [place for place in pool if place not in set(chosen)]
    return found


def _chosen(strategy: str, head: Head, rows: NDArray[np.float32], pool: list[int], count: int, seed: int) -> list[int]:
    margin = certainty(head.probabilities(rows[pool]), "margin", multiple=False)
    known = Pool(ids=pool, certainty=margin.tolist(), features=rows[pool])
    picked = choose_tasks(known, strategy, count, random_fraction=0, seed=seed)  # type: ignore[arg-type]
    return [int(pick.task_id) for pick in picked.picks]


def _needed(curve: NDArray[np.float64], labels: list[int], accuracy: float) -> float:
    """How many labels reach it, between two weeks in a straight line.

    Raises:
        SystemExit: it is not reached.
    """
    if curve.max() < accuracy:
        raise SystemExit(f"accuracy {accuracy} is not reached: {curve}; give more --weeks")
    return float(np.interp(accuracy, np.maximum.accumulate(curve), labels))


def _draw(labels: list[int], curves: dict[str, NDArray[np.float64]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for strategy, curve in curves.items():
        mean, deviation = curve.mean(axis=0), curve.std(axis=0)
        axes.plot(labels, mean, "o-", label=strategy)
        axes.fill_between(labels, mean - deviation, mean + deviation, alpha=0.2)
    axes.set(xlabel="labels", ylabel="accuracy on held-out digits")
    axes.legend(frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})
