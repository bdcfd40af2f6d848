"""How predictions are cut into requests: what a request costs, learned from answers, and the cheapest plan.

A bulk import on a Label Studio in its default setting recounts every task of the project that holds a prediction or an
annotation, whatever the request brings; so its cost is a fixed part, which grows with the project, and a part for each
prediction. A single create costs the same whatever the project's size. Figures in seconds, measured on Label Studio
1.23.2 with PostgreSQL; what differs on another server is learned. Pure, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

__all__ = ["CostModel", "Limits", "Plan", "Standing", "plan"]

#: Seconds of a bulk request for each task of the project, for each of its tasks that holds something, for each row.
TASK_SECONDS, TOUCHED_SECONDS, ROW_SECONDS = 0.13e-3, 1.0e-3, 1.1e-3
#: Seconds of a single create.
SINGLE_SECONDS = 0.05
#: How much the measured figures weigh against answers: about a fifth of one answer.
PRIOR_WEIGHT = 0.2
#: Added to times before they are compared, in seconds: shorter ones tell little of a server's speed.
NOISE_SECONDS = 1.0
#: A server is not taken to be slower than expected by more than this at once.
MOST_SLOWER = 30.0
#: How much an older answer weighs against the next one.
MEMORY = 0.7
#: A request may be sent before everything is predicted when its fixed part is at most this share of it.
FIXED_SHARE = 0.05
#: The shortest request that is worth its overhead, in seconds.
SHORTEST_SECONDS = 2.0
#: A plan is made anew after each request, and looks no further ahead than this.
MOST_BULKS = 1_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What a bulk request costs its fixed part for: tasks of the project, and those of them that hold something."""

    tasks: int
    touched: int

    def more(self, rows: int) -> Standing:
        """After so many more tasks hold a prediction."""
        return Standing(self.tasks, min(self.tasks, self.touched + rows))

    @property
    def seconds(self) -> float:
        """The fixed part as measured."""
        return self.tasks * TASK_SECONDS + self.touched * TOUCHED_SECONDS


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds of a request. Two factors scale the measured figures; answers move them (ridge regression).

    Attributes:
        fixed: factor of the part that the project's size makes.
        per_row: factor of the part of each prediction.
        single: seconds of a single create, those at work side by side counted in.
        recounts: the server counts the whole project again at each bulk request.
        answers: number of bulk requests that were learned from.
        moments: weighted sums of the regression: fixed², fixed x row, row², fixed x seconds, row x seconds.
    """

    fixed: float = 1.0
    per_row: float = 1.0
    single: float = SINGLE_SECONDS
    recounts: bool = True
    answers: int = 0
    moments: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    @classmethod
    def of_server(cls, *, recounts: bool) -> Self:
        """The model of a server of which nothing else is known."""
        return cls(recounts=recounts, fixed=1.0 if recounts else 0.0)

    def seconds(self, rows: int, standing: Standing) -> float:
        """Of one bulk request of so many predictions."""
        return self.fixed * standing.seconds + self.per_row * rows * ROW_SECONDS

    def largest(self, limit_seconds: float, standing: Standing) -> int:
        """Most predictions of a bulk request that ends within the limit; 0 when none does."""
        left = limit_seconds - self.fixed * standing.seconds
        return max(0, int(left / max(self.per_row * ROW_SECONDS, 1e-9)))

    def worthwhile(self, standing: Standing) -> int:
        """Fewest predictions of a bulk request whose fixed part hardly counts."""
        wanted = max(SHORTEST_SECONDS, self.fixed * standing.seconds / FIXED_SHARE)
        return max(1, int(wanted / max(self.per_row * ROW_SECONDS, 1e-9)))

    def learn(self, rows: int, standing: Standing, seconds: float) -> CostModel:
        """The model after a bulk request of so many predictions took so long. Errors count relative to its time."""
        weight = 1.0 / max(seconds, 0.01) ** 2
        x, y = standing.seconds, rows * ROW_SECONDS
        sums = (x * x, x * y, y * y, x * seconds, y * seconds)
        moments = tuple(MEMORY * old + weight * new for old, new in zip(self.moments, sums, strict=True))
        a, b, c, p, q = moments
        # A part that these requests hardly had stays as it was: its prior weighs as much as a fifth of an answer. On a
        # slower server both parts are small beside the time that they took: there the prior shrinks with them.
        slower = (seconds + NOISE_SECONDS) / (self.seconds(rows, standing) + NOISE_SECONDS)
        prior = PRIOR_WEIGHT / min(max(slower, 1.0), MOST_SLOWER) ** 2
        a, c, p, q = a + prior, c + prior, p + prior * self.fixed, q + prior * self.per_row
        determinant = a * c - b * b
        fixed, per_row = (p * c - q * b) / determinant, (a * q - b * p) / determinant
        return replace(
            self,
            fixed=min(max(fixed, 0.0), 100.0),
            per_row=min(max(per_row, 0.01), 100.0),
            answers=self.answers + 1,
            moments=(moments[0], moments[1], moments[2], moments[3], moments[4]),
        )

    def learn_single(self, rows: int, seconds: float) -> CostModel:
        """The model after so many single creates took so long together."""
        return replace(self, single=0.5 * self.single + 0.5 * seconds / max(rows, 1))

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: not such a value.
        """
        a, b, c, p, q = (float(part) for part in value["moments"])
        return cls(
            fixed=float(value["fixed"]),
            per_row=float(value["per_row"]),
            single=float(value["single"]),
            recounts=bool(value["recounts"]),
            answers=int(value["answers"]),
            moments=(a, b, c, p, q),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bulk request must keep: seconds, and predictions."""

    seconds: float
    rows: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How so many predictions are sent: sizes of the bulk requests, then single creates.

    Attributes:
        bulks: predictions of each bulk request, in their order.
        singles: predictions that are created one by one after these.
        seconds: what it should take.
        wait_for: predictions to wait for before the next request leaves, unless inference has ended.
        reason: in words.
    """

    bulks: tuple[int, ...]
    singles: int
    seconds: float
    wait_for: int
    reason: str


def plan(rows: int, model: CostModel, standing: Standing, limits: Limits) -> Plan:
    """The cheapest way to bring so many predictions, none of whose tasks holds anything yet, to the server."""
    best: tuple[float, tuple[int, ...], int] = (rows * model.single, (), rows)
    bulks: list[int] = []
    spent, left, now = 0.0, rows, standing
    while left and len(bulks) < MOST_BULKS:
        size = min(left, limits.rows, model.largest(limits.seconds, now))
        if size == 0:
            break
        spent += model.seconds(size, now)
        bulks.append(size)
        left, now = left - size, now.more(size)
        if spent + left * model.single < best[0]:
            best = (spent + left * model.single, tuple(bulks), left)
    seconds, chosen, singles = best
    wait_for = min(chosen[0], model.worthwhile(standing)) if chosen else 1
    return Plan(chosen, singles, seconds, wait_for, _reason(rows, model, standing, limits, chosen, singles, seconds))


def _reason(
    rows: int,
    model: CostModel,
    standing: Standing,
    limits: Limits,
    bulks: tuple[int, ...],
    singles: int,
    seconds: float,
) -> str:
    parts = []
    if bulks:
        parts.append(f"{len(bulks)} bulk request{'s' * (len(bulks) > 1)} of up to {max(bulks):,}")
    if singles:
        parts.append(f"{singles:,} single create{'s' * (singles > 1)}")
    if rows == 0:
        return "nothing to send"
    most = min(rows, limits.rows)
    one = model.seconds(most, standing)
    why = f"one bulk request of {most:,} would take about {one:.1f} s of at most {limits.seconds:.0f} s"
    return f"{' and '.join(parts)}, about {seconds:.1f} s; {why}, a single create {model.single * 1e3:.0f} ms"
