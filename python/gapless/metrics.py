"""Metrics from per-sample outputs: integer counts first, rates only at the end.

There are no means of batch means here. Each metric has a version, which records carry: a file that says
``top1/1`` means what this module means by it for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RecipeError

__all__ = [
    "METRICS",
    "check_topk",
    "confusion",
    "majority",
    "mean",
    "ranks",
    "softmax",
    "top_k_counts",
    "wilson",
]

METRICS = {"loss": 1, "top1": 1, "topk": 1, "interval": "wilson-95/1"}
_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def ranks(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """How many classes stand before the true one, by falling logit; ties go to the lower class index.

    Parameters
    ----------
    logits : (n, classes) array
        The network's plain outputs.
    labels : (n,) array of int
        True classes.

    Returns
    -------
    (n,) array of int64
        0: the sample is right at top-1; below k: right at top-k.

    Examples
    --------
    >>> ranks(np.array([[0.1, 0.7, 0.7]]), np.array([2]))
    array([1])
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < labels[:, None]))
    count: NDArray[np.int64] = before.sum(axis=1, dtype=np.int64)
    return count


def check_topk(topk: Iterable[int], classes: int) -> tuple[int, ...]:
    """The k's of top-k, sorted, 1 always among them; one below 1 or above the number of classes is an error.

    >>> check_topk([5], 10)
    (1, 5)
    """
    ks = sorted({1, *topk})
    if ks[0] < 1 or ks[-1] > classes:
        wrong = ks[0] if ks[0] < 1 else ks[-1]
        raise RecipeError(f"topk: k must be from 1 to the number of classes ({classes}), got {wrong}")
    return tuple(ks)


def top_k_counts(rank: NDArray[np.int64], topk: Sequence[int]) -> dict[int, int]:
    """Samples that are right at each k.

    >>> top_k_counts(np.array([0, 1, 7]), [1, 5])
    {1: 1, 5: 2}
    """
    return {k: int(np.count_nonzero(rank < k)) for k in topk}


def confusion(labels: NDArray[Any], predictions: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(classes, classes) counts: row = truth, column = prediction."""
    flat = np.bincount(labels.astype(np.int64) * classes + predictions, minlength=classes * classes)
    return flat.astype(np.int64).reshape(classes, classes)


def majority(labels: NDArray[Any], classes: int) -> tuple[int, int]:
    """The most frequent class (the lowest index among equals) and its count: what blind guessing reaches.

    >>> majority(np.array([2, 0, 2]), 3)
    (2, 2)
    """
    counts = np.bincount(labels, minlength=classes)
    best = int(np.argmax(counts))
    return best, int(counts[best])


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (Wilson 1927), for `correct` of `n`.

    It needs no large n, stays within [0, 1], and is not empty at 0 or n.

    Examples
    --------
    >>> [round(x, 4) for x in wilson(57, 100)]
    [0.4722, 0.6627]
    >>> wilson(0, 0)
    (0.0, 1.0)
    """
    if n == 0:
        return 0.0, 1.0
    z2 = _Z95 * _Z95
    p = correct / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == n else min(1.0, middle + half)
    return low, high


def mean(values: NDArray[Any]) -> float:
    """Exactly rounded sum (`math.fsum`) over n: no order of addition can change it.

    >>> mean(np.array([1e8, 1.0, -1e8], np.float32))
    0.3333333333333333
    """
    return math.fsum(values.tolist()) / len(values)


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities (n, classes) of logits, computed in float64.

    >>> softmax(np.array([[0.0, 0.0]], np.float32))
    array([[0.5, 0.5]], dtype=float32)
    """
    x = logits.astype(np.float64)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    out: NDArray[np.float32] = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
    return out
