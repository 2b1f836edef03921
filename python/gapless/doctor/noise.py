"""Wrong labels: how many there are, with an interval, and which ones, from out-of-fold probabilities.

*How many.* Where the picture leaves no doubt, a label that disagrees is wrong. So samples are sorted by how
sure the prediction is, whatever their label, and the rate of disagreement is followed towards the surest:
mistakes of the classifier die out there, wrong labels do not. The rate is modelled as noise plus a power of
the rank, and the interval is the likelihood's, over every power: where the curve does not flatten the data
cannot tell noise from doubt, and the interval says so by reaching down to 0.

*Which.* Confident learning (Northcutt et al. 2021): each class's threshold is the mean of its own samples'
probability; a sample is the more suspect the further another class lies above its threshold and the
given one below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .stats import Estimate

__all__ = ["Suspects", "noise_share", "sureness", "suspects", "suspicion"]

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

POWERS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
FLOOR = 0.01  # of disagreement, from which noise is tested: classifiers err a little where they are sure
BINS = 20
SURE = 0.8  # the share of samples, the surest, that the curve is fitted on
STEEP = 8.0  # log likelihood that a curve which is steepest at its sure end must gain to be believed
DROP = 1.9207  # of log likelihood: half the 95 % quantile of chi-squared with one degree of freedom


@dataclass(frozen=True)
class Suspects:
    """Samples whose label is off the diagonal of the confident joint.

    Attributes
    ----------
    rows : (m,) int64
        Positions, the most suspect first.
    better : (m,) int64
        The class that each looks like.
    joint : (classes, classes) int64
        Confident joint: row given label, column the class that it looks like.
    """

    rows: Indices
    better: Indices
    joint: NDArray[np.int64]


def thresholds(p: Doubles, labels: Indices) -> Doubles:
    """Mean self-confidence of each class; 1 for a class without samples."""
    k = p.shape[1]
    own = p[np.arange(len(p)), labels]
    count = np.bincount(labels, minlength=k)
    return np.where(count > 0, np.bincount(labels, own, minlength=k) / np.maximum(count, 1), 1.0)


def suspicion(p: Doubles, labels: Indices) -> Doubles:
    """(n,) how suspect each label is: the larger, the likelier wrong.

    The given class's probability, and with a quarter of its weight the best other class's, both relative to
    their classes' thresholds, in logarithms.
    """
    n = len(p)
    level = np.log(np.maximum(p, 1e-9)) - np.log(np.maximum(thresholds(p, labels), 1e-9))
    own = level[np.arange(n), labels].copy()
    level[np.arange(n), labels] = -np.inf
    return np.asarray(0.25 * level.max(axis=1) - own)


def suspects(p: Doubles, labels: Indices) -> Suspects:
    """Confident learning's off-diagonal samples, the most suspect first."""
    k = p.shape[1]
    over = np.where(p >= thresholds(p, labels), p, -1.0)
    better = over.argmax(axis=1)
    sure = over.max(axis=1) >= 0
    joint = np.zeros((k, k), np.int64)
    np.add.at(joint, (labels[sure], better[sure]), 1)
    rows = np.flatnonzero(sure & (better != labels) & (p.argmax(axis=1) != labels))
    rows = rows[np.argsort(-suspicion(p, labels)[rows], kind="stable")]
    return Suspects(rows, better[rows].astype(np.int64), joint)


def noise_share(p: Doubles, labels: Indices) -> Estimate:
    """Share of labels that are wrong, with its interval; p of "no more than 1 %"."""
    n = len(p)
    order = np.argsort(-sureness(p), kind="stable")
    wrong = (p.argmax(axis=1) != labels)[order]
    m = int(SURE * n)
    bins = max(4, min(BINS, m // 25))
    edges = np.linspace(0, m, bins + 1).astype(int)
    count = np.diff(edges)
    hit = np.add.reduceat(wrong[:m].astype(int), edges[:-1])
    middle = (edges[:-1] + edges[1:]) / 2 / n
    grid = np.concatenate([np.linspace(0, 0.05, 51), np.linspace(0.0525, 0.6, 220)])
    best = _profile(grid, middle, hit, count)
    top = int(best.argmax())
    inside = np.flatnonzero(best >= best[top] - DROP)
    low, high, point = float(grid[inside[0]]), float(grid[inside[-1]]), float(grid[top])
    # a classifier errs a little where it is sure too; labels outside the fitted part have chance of their own
    more = 1.96 * math.sqrt(max(point, 0.002) * (1 - point) / n * (1 - 0.5 * SURE))
    low = point - math.hypot(point - low, more) - FLOOR if low > 0 else 0.0
    high = point + math.hypot(high - point, more)
    floor = float(best[int(np.searchsorted(grid, FLOOR))])
    gain = 2 * (best[top] - floor)
    value = 0.5 * math.erfc(math.sqrt(max(gain, 0.0)) / math.sqrt(2)) if point > FLOOR else 1.0
    return Estimate(point, max(0.0, low), min(1.0, high), value)


def sureness(p: Doubles) -> Doubles:
    """How sure a prediction is: its log odds against the next class, which noise lowers for all alike."""
    two = np.partition(p, -2, axis=1)[:, -2:]
    return np.asarray(np.log(np.maximum(two[:, 1], 1e-12)) - np.log(np.maximum(two[:, 0], 1e-12)))


def _profile(grid: Doubles, at: Doubles, hit: Indices, count: Indices) -> Doubles:
    """Log likelihood of each noise rate, at the best power and size of the classifier's own mistakes."""
    sizes = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 40)])
    best = np.full(len(grid), -np.inf)
    for power in POWERS:
        curve = sizes[:, None] * (at / at[-1])[None, :] ** power
        # wrong where the classifier errs and the label is right, or the other way round
        rate = grid[:, None, None] + (1 - 1.5 * np.minimum(grid, 0.6))[:, None, None] * curve[None]
        rate = np.clip(rate, 1e-4, 1 - 1e-6)
        value = (hit * np.log(rate) + (count - hit) * np.log1p(-rate)).sum(axis=2).max(axis=1)
        best = np.maximum(best, value - STEEP * (power < 1))
    return best
