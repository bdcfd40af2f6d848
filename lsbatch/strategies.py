"""The names of the strategies by which tasks to label are chosen; ``active_learning`` carries them out."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["FEATURES_NEEDED", "STRATEGIES", "Strategy"]

Strategy = Literal["random", "least-confidence", "margin", "entropy", "coreset", "cluster-margin", "committee"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
#: Those that need features of the tasks.
FEATURES_NEEDED: tuple[Strategy, ...] = ("coreset", "cluster-margin")
