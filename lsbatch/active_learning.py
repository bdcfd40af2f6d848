"""Which tasks teach a model most: strategies over what it knows of a pool of tasks. Arrays in, places out.

All are linear in the pool. Places are in the order in which the tasks should be labeled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "cluster_margin",
    "coreset",
    "disagreement",
    "distinct",
    "spread",
    "uncertain",
]

Features = NDArray[np.float32]
Numbers = NDArray[np.float64]

#: Cosine of the angle between features from which two tasks are near duplicates.
SAME = 0.999
#: The least certain tasks that cluster-margin looks at, for each to be picked.
CANDIDATES = 10
#: Rows that are looked at in one piece: 64 features of so many take 64 MB.
ROWS = 250_000


def uncertain(certainty: Numbers) -> Iterable[int]:
    """All places, the least certain first; of equally certain ones, the first.

    Args:
        certainty: shape (tasks,), in [0, 1].
    """
    return (int(place) for place in np.argsort(certainty, kind="stable"))


def distinct(order: Iterable[int], features: Features | None, count: int) -> list[int]:
    """The first places of an order that are no near duplicates of one before them.

    Args:
        order: places.
        features: shape (tasks, features); None where there are none, and nothing is left out.
        count: at most so many.
    """
    picked: list[int] = []
    kept = np.empty((count, 0 if features is None else features.shape[1]), dtype=np.float32)
    for place in order:
        if len(picked) >= count:
            break
        if features is not None:
            row = _unit(features[place][None])[0]
            if len(picked) and float((kept[: len(picked)] @ row).max()) >= SAME:
                continue
            kept[len(picked)] = row
        picked.append(place)
    return picked


def coreset(features: Features, count: int) -> list[int]:
    """Places so that every task of the pool is near one of them: the greedy k-center (Sener and Savarese, 2018).

    The first is the one nearest to the mean; each next one is the farthest from all before. Ends early where only
    duplicates are left. Costs tasks x features x count.

    Args:
        features: shape (tasks, features).
        count: at most so many.
    """
    if not len(features) or count <= 0:
        return []
    squares = np.concatenate([np.einsum("ij,ij->i", part, part) for part in _parts(features)])
    total = np.sum([part.sum(axis=0, dtype=np.float64) for part in _parts(features)], axis=0)
    mean = np.asarray(total / len(features), dtype=np.float32)
    picked = [int(np.argmin(_distances(features, squares, mean)))]
    nearest = _distances(features, squares, features[picked[0]])
    while len(picked) < min(count, len(features)):
        farthest = int(np.argmax(nearest))
        if nearest[farthest] <= 1e-6:
            break
        picked.append(farthest)
        np.minimum(nearest, _distances(features, squares, features[farthest]), out=nearest)
    return picked


def cluster_margin(features: Features, margin: Numbers, count: int) -> list[int]:
    """Places that are uncertain and differ from each other (Citovsky et al., Batch Active Learning at Scale, 2021).

    The ten times ``count`` tasks with the smallest margin are clustered; then each cluster, the smallest first, gives
    its least certain task, round after round. Clusters are found by k-means: the paper's way is not linear. What the
    first round takes comes in the order of its margins.

    Args:
        features: shape (tasks, features).
        margin: shape (tasks,), how far the best answer is ahead of the second.
        count: at most so many.
    """
    from sklearn.cluster import KMeans

    candidates = np.argsort(margin, kind="stable")[: CANDIDATES * count]
    if len(candidates) <= count:
        return [int(place) for place in candidates]
    rows = _unit(np.asarray(features[candidates]))
    means = KMeans(n_clusters=count, random_state=0, n_init=1, max_iter=20)
    clusters: dict[int, list[int]] = {}
    for place, cluster in zip(candidates, means.fit_predict(rows), strict=True):
        clusters.setdefault(int(cluster), []).append(int(place))
    queues = sorted(clusters.values(), key=lambda places: (len(places), places[0]))
    order = [queue[depth] for depth in range(max(map(len, queues))) for queue in queues if depth < len(queue)]
    return [*sorted(order[:count], key=lambda place: (margin[place], place)), *order[count:]]


def disagreement(votes: Sequence[NDArray[np.int64]]) -> Numbers:
    """How far models agree, shape (tasks,), in [0, 1]: 1 minus the vote entropy (Dagan and Engelson, 1995), normalized.

    Args:
        votes: of each model the number of its answer to each task, shape (tasks,).
    """
    found = np.stack(votes)
    members, tasks = found.shape
    entropy = np.zeros(tasks)
    # An answer is counted where its first voter stands.
    for member in range(members):
        share = (found == found[member]).sum(axis=0) / members
        first = (found[:member] != found[member]).all(axis=0)
        entropy -= np.where(first, share * np.log(share), 0)
    return np.asarray(1 - entropy / np.log(members)) if members > 1 else np.ones(tasks)


def spread(chosen: Sequence[int], pool: int, count: int, fraction: float, seed: int) -> tuple[list[int], set[int]]:
    """The first chosen places and random others as a control, mixed evenly; and which are the control.

    Args:
        chosen: places in order; at least as many as are needed, or all there are.
        pool: how many tasks there are.
        count: at most so many in all.
        fraction: share of the control, in [0, 1].
        seed: of the random ones.
    """
    wanted = round(count * fraction)
    kept = list(chosen[: count - wanted])
    chance = np.random.default_rng(seed)
    taken = set(kept)
    control: list[int] = []
    for place in chance.permutation(pool):
        if len(control) >= wanted:
            break
        if int(place) not in taken:
            control.append(int(place))
    both = [
        (at / max(len(part), 1), which, place)
        for which, part in enumerate((kept, control))
        for at, place in enumerate(part)
    ]
    return [place for _, _, place in sorted(both, key=lambda entry: entry[:2])], set(control)


def _parts(features: Features) -> Iterable[Features]:
    return (features[start : start + ROWS] for start in range(0, len(features), ROWS))


def _distances(features: Features, squares: Features, point: Features) -> Features:
    """Squared distances of all tasks from one point, shape (tasks,)."""
    point = np.asarray(point, dtype=np.float32)
    found = np.concatenate([part @ point for part in _parts(features)])
    found *= -2
    found += squares
    found += float(point @ point)
    return np.asarray(np.maximum(found, 0), dtype=np.float32)


def _unit(rows: Features) -> Features:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float32)
