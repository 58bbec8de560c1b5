"""What a handful of repeated runs can show, and what it cannot. Pure.

No shape of noise is assumed: latency tails are no bell curves, and three to seven runs cannot show
that they were. Everything here counts orders:

- a difference is shown when hardly any other way to deal out the same runs to the two groups sets
  them as far apart. Every way is tried (a permutation test), for all figures at once: what counts
  is the farthest of any figure (Westfall and Young's step-down max-T). So looking at twenty
  figures finds something by chance no more often than looking at one. That is Holm's correction
  with what the figures have in common, such as P95 and P99, taken into account: Holm's own would
  need six runs of each group before it could show anything at all;
- an interval for a median is between two of the runs themselves (order statistics), one for a
  difference between two of the pairwise differences (Mann and Whitney). Where so few runs do not
  reach the asked level, the interval says which level it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

# The chance, in a whole comparison, of calling something better or worse that is not.
ALPHA = 0.05
LEVEL = 0.95
# Ways to deal out the runs that are tried; beyond, a fixed random choice of as many stands for all.
MOST_WAYS = 20_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Where a value lies with the probability `level`, 0 to 1."""

    low: float
    high: float
    level: float


def median_interval(values: Sequence[float]) -> Interval | None:
    """Where the median of what these are drawn from lies; None without a value.

    Two runs of the sample itself: for five, its lowest and highest hold the median with 94 %.
    """
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        return None
    outside = np.cumsum([2 * math.comb(n, k) / 2**n for k in range(n // 2 + 1)])
    low, level = _narrowest(outside, (n + 1) // 2)
    return Interval(ordered[low], ordered[n - 1 - low], level)


def shift_interval(a: Sequence[float], b: Sequence[float]) -> Interval | None:
    """By how much `b` lies above `a`: two of the pairwise differences; None without values."""
    if not a or not b:
        return None
    apart = sorted(y - x for x in a for y in b)
    ways = math.comb(len(a) + len(b), len(a))
    outside = 2 * np.cumsum(_rank_counts(len(a), len(b))) / ways
    low, level = _narrowest(outside, (len(apart) + 1) // 2)
    return Interval(apart[low], apart[len(apart) - 1 - low], level)


def _narrowest(outside: Array, most: int) -> tuple[int, float]:
    """How many to leave out at each end for LEVEL, and the level that this has.

    Args:
        outside: at k, the probability to miss when k are left out at each end.
        most: no more than so many can be left out.
    """
    fitting = [k for k in range(min(most, len(outside))) if outside[k] <= 1 - LEVEL]
    low = max(fitting, default=0)
    return low, max(0.0, 1 - float(outside[low]))


def _rank_counts(n: int, m: int) -> Array:
    """How many ways to deal out n and m runs give each Mann–Whitney U, from 0 up."""
    counts = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            counts[u] -= counts[u - m - i]
        for u in range(i, n * m + 1):
            counts[u] += counts[u - i]
    return np.array(counts, dtype=np.float64)


def attainable(n: int, m: int) -> float:
    """The smallest p that n and m runs can give: that of the two groups wholly apart."""
    if min(n, m) < 1:
        return 1.0
    # With groups of one size the mirrored deal is as far apart.
    return (2 if n == m else 1) / math.comb(n + m, n)


def enough(n: int, m: int, comparisons: int = 1) -> bool:
    """Whether any difference could be shown between n and m runs."""
    # One run, or two, say nothing of noise, whatever can be counted with many of the other.
    return min(n, m) >= 3 and attainable(n, m) <= ALPHA / comparisons


def needed(comparisons: int = 1) -> int:
    """How many runs of each group are enough to show a difference."""
    return next(n for n in range(3, 100) if enough(n, n, comparisons))


def probabilities(a: Array, b: Array) -> Array:
    """For each figure, the chance that groups as alike as can be lie so far apart by the deal.

    Corrected for the number of figures: the chance that any of them does.

    Args:
        a, b: a row for each figure, a column for each run; no missing value.

    Returns:
        One probability for each figure.
    """
    values = np.hstack([a, b])
    distances = _distances(values, _ways(a.shape[1], b.shape[1]))
    observed = distances[:, 0]
    order = np.argsort(-observed)
    found = np.ones(len(observed))
    reached = 0.0
    for place, figure in enumerate(order):
        # Step down: a figure competes with those that lie less far apart than itself.
        highest = distances[order[place:]].max(axis=0)
        chance = float(np.mean(highest >= observed[figure] * (1 - 1e-9)))
        reached = max(reached, chance)
        found[figure] = reached
    return found


def _ways(n: int, m: int) -> NDArray[np.bool_]:
    """Ways to deal out n + m runs, a row each: true for the second group; the real one first."""
    real = np.arange(n + m) >= n
    if math.comb(n + m, m) <= MOST_WAYS:
        chosen = [list(second) for second in combinations(range(n + m), m)]
        ways = np.zeros((len(chosen), n + m), dtype=bool)
        for row, second in enumerate(chosen):
            ways[row, second] = True
        at = int(np.flatnonzero((ways == real).all(axis=1))[0])
        ways[[0, at]] = ways[[at, 0]]
        return ways
    random = np.random.default_rng(0)
    return np.vstack([real, *(random.permutation(real) for _ in range(MOST_WAYS - 1))])


def _distances(values: Array, ways: NDArray[np.bool_]) -> Array:
    """How far apart each way sets the groups in each figure: Welch's t, without its sign."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12)
    second, first = ways.T.astype(float), (~ways).T.astype(float)
    m, n = second.sum(axis=0), first.sum(axis=0)

    def mean_and_variance(chosen: Array, size: Array) -> tuple[Array, Array]:
        mean = scaled @ chosen / size
        squares = (scaled**2) @ chosen / size
        return mean, np.maximum(squares - mean**2, 0) * size / np.maximum(size - 1, 1)

    mean_a, variance_a = mean_and_variance(first, n)
    mean_b, variance_b = mean_and_variance(second, m)
    # Groups without any noise of their own are far apart, not infinitely: ties stay comparable.
    distance: Array = np.abs(mean_b - mean_a) / np.sqrt(variance_a / n + variance_b / m + 1e-12)
    return distance


def changes(items: Sequence[str]) -> int:
    """How often a sequence changes from one label to another."""
    return sum(before != after for before, after in pairwise(items))
