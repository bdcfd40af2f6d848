"""How many tasks may fail before a run stops."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Self

__all__ = ["ErrorBudget"]


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """Most tasks of a run that may end in quarantine: a number, or a share of the selected ones.

    Attributes:
        tasks: the number; None where ``share`` counts.
        share: in [0, 1].
    """

    tasks: int | None = None
    share: float = 0.01

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``20`` or ``1%``.

        Raises:
            ValueError: neither a whole number nor a percentage from 0 to 100.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
        if found is None or (not found[2] and "." in found[1]) or (found[2] and float(found[1]) > 100):
            raise ValueError("must be a number of tasks such as 20, or a share of them such as 1%")
        return cls(share=float(found[1]) / 100) if found[2] else cls(tasks=int(found[1]))

    def allowed(self, selected: int) -> int:
        """Most failures among so many selected tasks; a share is rounded up, so that one task in a few may fail."""
        return self.tasks if self.tasks is not None else math.ceil(round(self.share * selected, 6))
