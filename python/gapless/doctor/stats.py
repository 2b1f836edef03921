"""Statistics of the doctor: intervals and tests on counts, exact where counts are small.

Everything that is said with an interval or a p-value comes from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..metrics import wilson

__all__ = [
    "Z95",
    "Estimate",
    "auc",
    "difference",
    "holm",
    "mcnemar",
    "paired",
    "samples_for_paired",
    "share",
    "shuffled_within",
]

Z95 = 1.959963984540054
Bools = NDArray[np.bool_]


class Estimate(NamedTuple):
    """A number of points with its 95 % interval, and the p-value of "there is nothing".

    Attributes
    ----------
    points, low, high : float
        Fractions; ``low <= points <= high``.
    p : float
        Two-sided p-value of the hypothesis that points are 0; 0.0 for what was counted, not estimated.
    """

    points: float
    low: float
    high: float
    p: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def __neg__(self) -> Estimate:
        return Estimate(-self.points, -self.high, -self.low, self.p)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: of the samples that changed, as many gained as lost.

    >>> round(mcnemar(8, 1), 4)
    0.0391
    >>> mcnemar(0, 0)
    1.0
    """
    n = gained + lost
    if n == 0:
        return 1.0
    tail = min(gained, lost)
    if n > 1000:  # the normal approximation with continuity correction agrees to three digits here
        z = (abs(gained - lost) - 1) / math.sqrt(n)
        return math.erfc(max(z, 0.0) / math.sqrt(2))
    total = sum(math.comb(n, k) for k in range(tail + 1))
    return min(1.0, 2.0 * float(total / 2**n))


def paired(before: Any, after: Any) -> Estimate:
    """Rate of `after` minus rate of `before` on the same samples.

    Parameters
    ----------
    before, after : (n,) array of bool
        Whether each sample was right.

    Returns
    -------
    Estimate
        Interval of Agresti and Min (2005): half a sample added to each of the four cells; p-value of the
        exact McNemar test.

    Examples
    --------
    >>> before = np.array([True] * 50 + [False] * 50)
    >>> after = np.array([True] * 60 + [False] * 40)
    >>> e = paired(before, after)
    >>> round(e.points, 2), round(e.low, 3), round(e.high, 3), round(e.p, 4)
    (0.1, 0.037, 0.159, 0.002)
    """
    b, a = np.asarray(before, bool), np.asarray(after, bool)
    if b.shape != a.shape or b.ndim != 1 or not len(b):
        raise ValueError(f"paired: two lists of equal length >= 1, got {b.shape} and {a.shape}")
    n = len(b)
    gained, lost = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    m, up, down = n + 2, gained + 0.5, lost + 0.5
    middle = (up - down) / m
    half = Z95 * math.sqrt(max(up + down - (up - down) ** 2 / m, 0.0)) / m
    points = (gained - lost) / n
    return Estimate(points, min(middle - half, points), max(middle + half, points), mcnemar(gained, lost))


def difference(right: int, n: int, other_right: int, other_n: int) -> Estimate:
    """Rate ``right / n`` minus rate ``other_right / other_n``, of different samples.

    Interval: Newcombe's hybrid of two Wilson intervals (1998, method 10); p-value: Fisher's exact test where
    a count is small, else the two-proportion z test.

    >>> e = difference(90, 100, 60, 100)
    >>> round(e.points, 2), round(e.low, 3), round(e.high, 3), e.p < 1e-5
    (0.3, 0.183, 0.408, True)
    """
    if n < 1 or other_n < 1:
        raise ValueError("difference: both lists need a sample")
    p, q = right / n, other_right / other_n
    (pl, ph), (ql, qh) = wilson(right, n), wilson(other_right, other_n)
    low = p - q - math.hypot(p - pl, qh - q)
    high = p - q + math.hypot(ph - p, q - ql)
    pooled = (right + other_right) / (n + other_n)
    if min(right, n - right, other_right, other_n - other_right) < 10:
        from scipy.stats import fisher_exact

        table = [[right, n - right], [other_right, other_n - other_right]]
        value = float(fisher_exact(table)[1])
    else:
        se = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / other_n))
        value = math.erfc(abs(p - q) / se / math.sqrt(2)) if se > 0 else 1.0
    return Estimate(p - q, low, high, value)


def share(count: int, n: int, p: float = 0.0) -> Estimate:
    """``count / n`` with Wilson's interval; `p` is 0 for what was counted rather than tested.

    >>> share(3, 100).points
    0.03
    """
    low, high = wilson(count, n)
    return Estimate(count / max(n, 1), low, high, p)


def samples_for_paired(points: float, disagreement: float) -> int:
    """How many samples a paired comparison needs so that `points` stand out of 0 with 95 %.

    >>> samples_for_paired(0.02, 0.1)
    957
    """
    if points == 0:
        raise ValueError("samples_for_paired: nothing stands out of 0 at 0 points")
    return math.ceil(Z95**2 * max(disagreement - points**2, abs(points) / 2) / points**2)


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): below 0.05 keeps the family's error rate at 5 %.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    out, worst = [1.0] * len(values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[i]))
        out[i] = worst
    return out


def auc(score: NDArray[Any], positive: Bools) -> float:
    """Area under the ROC curve: how often a positive has the larger score; ties count half.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    from scipy.stats import rankdata

    n = int(np.count_nonzero(positive))
    m = len(positive) - n
    if n == 0 or m == 0:
        return 0.5
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def shuffled_within(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A permutation of positions that keeps each sample within its group: the null of a paired label test."""
    rng = np.random.default_rng(seed)
    order = np.arange(len(groups))
    for g in np.unique(groups):
        at = np.flatnonzero(groups == g)
        order[at] = rng.permutation(at)
    return order
