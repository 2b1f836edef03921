"""Proportions of classes: whether two lists of samples differ in them, and what accuracy owes to that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .stats import Z95, Estimate

__all__ = ["DIFFERENT", "Weighted", "cramer", "differ", "weighted"]

DIFFERENT = 0.01  # p-value below which proportions differ
LIMIT = 0.15  # Cramér's V above which it matters, as in Deepchecks


def cramer(train: NDArray[np.int64], val: NDArray[np.int64]) -> tuple[float, float]:
    """Cramér's V and the chi-squared p-value of two lists of counts; rare classes are pooled.

    >>> v, p = cramer(np.array([50, 50]), np.array([50, 50]))
    >>> (v, p)
    (0.0, 1.0)
    """
    from scipy.special import chdtrc  # a fifth of what importing scipy.stats takes; training begins with this

    table = np.stack([train, val]).astype(float)
    table = table[:, table.sum(axis=0) > 0]
    n, m = table.sum(axis=1)
    if not n or not m or table.shape[1] < 2:
        return 0.0, 1.0
    expected = min(n, m) * table.sum(axis=0) / (n + m)
    rare = expected < 5
    if rare.sum() > 1:
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
    if table.shape[1] < 2:
        return 0.0, 1.0
    expect = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    value = float(((table - expect) ** 2 / expect).sum())
    # each side counts the same, or a small validation part could never differ by much
    shares = table / table.sum(axis=1, keepdims=True)
    mean = shares.mean(axis=0)
    v = math.sqrt(float(((shares - mean) ** 2 / mean).sum()) / 2)
    return v, float(chdtrc(table.shape[1] - 1, value))


def differ(train: NDArray[np.int64], val: NDArray[np.int64]) -> bool:
    """Whether two lists of counts differ by more than chance, and by enough to matter.

    >>> differ(np.array([50, 50]), np.array([50, 50])), differ(np.array([50, 50]), np.array([90, 10]))
    (False, True)
    """
    v, p = cramer(train, val)
    return v > LIMIT and p < DIFFERENT


@dataclass(frozen=True)
class Weighted:
    """Accuracy with the classes in other proportions.

    Attributes
    ----------
    share : Fraction
        It: recall of each class, weighted; exact.
    error : float
        Its standard error.
    estimate : Estimate
        It minus accuracy as it is.
    """

    share: Fraction
    error: float
    estimate: Estimate


def weighted(labels: NDArray[Any], right: NDArray[np.bool_], wanted: NDArray[Any]) -> Weighted | None:
    """Accuracy with the classes of these samples weighted as `wanted` has them; recall of each stays what it
    is. None where no class that is wanted has a sample.

    Parameters
    ----------
    labels, right : (n,)
        Class indices, and which samples are right.
    wanted : (k,) int
        Numbers of samples by class, as they should be; classes without a sample here do not count.

    Examples
    --------
    >>> w = weighted(np.array([0, 0, 0, 1]), np.array([True, True, True, False]), np.array([5, 5]))
    >>> w.share, round(w.estimate.points, 2)
    (Fraction(1, 2), -0.25)
    """
    k = len(wanted)
    n = np.bincount(labels, minlength=k)[:k]
    good = np.bincount(labels[right], minlength=k)[:k]
    there = n > 0
    counts = np.where(there, wanted, 0)
    if not counts.sum():
        return None
    total = int(counts.sum())
    share = sum(
        (Fraction(int(counts[c]), total) * Fraction(int(good[c]), int(n[c])) for c in np.flatnonzero(there)),
        Fraction(0),
    )
    smooth = (good + 0.5) / (n + 1.0)
    spread = smooth * (1 - smooth) / (n + 1.0)

    def deviation(weight: NDArray[np.float64]) -> float:
        return math.sqrt(float((weight[there] ** 2 * spread[there]).sum()))

    own = n / n.sum()
    points = float(share - Fraction(int(good.sum()), int(n.sum())))
    error = deviation(counts / total - own)
    p = math.erfc(abs(points) / error / math.sqrt(2)) if error > 0 else 1.0
    return Weighted(
        share,
        deviation(counts / total),
        Estimate(points, points - Z95 * error, points + Z95 * error, p),
    )
