"""S1: the split follows the order of the list, so that classes are missing on one side."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..leaks import without
from ..result import Remedy, Result
from ..stats import share
from ..table import check

__all__ = ["ordered_split"]


@check(
    "S1",
    "ordered-split",
    "classes are missing on one side of the split",
    measure="validation accuracy without the classes that training lacks minus with them; without a model, "
    "or where validation lacks classes, the share of samples whose class the other side does not have",
    needs=["splits"],
    explains=["S2", "S3", "L3", "S6", "G1", "G3", "G5", "W1", "C1", "C4", "L2"],
    reference="Keras #8346, #597: validation_split takes the tail of an array that is sorted by class",
)
def ordered_split(case: Case) -> Result:
    """Counts the validation samples whose class training never saw, and asks how the split came to be.

    A class that is missing only because it is rare is not held against the split: the chance that a random
    split leaves it out is computed. That labels come in runs in the listed order, and that one side is one
    block of it, names the cause.
    """
    data = case.data
    assert data is not None
    train, val = data.counts("train"), data.counts("val")
    unseen = np.flatnonzero((train == 0) & (val > 0))
    absent = np.flatnonzero((val == 0) & (train > 0))
    n, m = int(train.sum()), int(val.sum())
    block, runs_p = _order(case)
    numbers = {
        "missing_in_train": [data.classes[c] for c in unseen],
        "missing_in_val": [data.classes[c] for c in absent],
        "block": block,
        "runs_p": runs_p,
    }
    if not len(unseen) and not len(absent):
        return Result.clear("every class is on both sides", share(0, m, 1.0), evidence=numbers)
    because = ""
    if block and runs_p < 0.001:
        because = ": the list is sorted by class, and one side is one block of it"
    remedy = Remedy("Draw the split at random and stratified by class (split=[0.8, 0.2]), not by position.")
    if len(unseen):
        of = np.isin(data.labels[data.indices("val")], unseen)
        taken = data.indices("val")[of]
        numbers["ids"] = [data.ids[i] for i in taken[:50]]
        says = (
            f"{len(unseen)} of {data.num_classes} classes are not in training, but {len(taken):,} of {m:,} "
            f"validation samples ({100 * len(taken) / m:.0f} %) are of them{because}"
        )
        e = without(case, taken.tolist())
        e = share(len(taken), m) if e is None else e._replace(p=0.0)
        return Result.found(says, e, evidence=numbers, remedy=remedy)
    count = int(train[absent].sum())
    chance = sum(_absence(n, m, int(train[c])) for c in absent) * data.num_classes / len(absent)
    says = (
        f"{len(absent)} of {data.num_classes} classes, {100 * count / n:.1f} % of training, are not in "
        f"validation{because}"
    )
    e = share(count, n, min(1.0, chance))
    if chance >= 0.01:
        return Result.clear(f"{says}: they are rare enough to be missed by chance", e, evidence=numbers)
    return Result.found(says, e, evidence=numbers, remedy=remedy)


def _absence(n: int, m: int, k: int) -> float:
    """The chance that a random part of m of n + m samples has none of k."""
    return math.exp(
        math.lgamma(n + 1) + math.lgamma(n + m - k + 1) - math.lgamma(n - k + 1) - math.lgamma(n + m + 1)
    )


def _order(case: Case) -> tuple[bool, float]:
    """Whether one side is a block of the list, and whether labels come in runs there."""
    data = case.data
    assert data is not None
    both = np.sort(np.concatenate([data.indices("train"), data.indices("val")]))
    val = np.isin(both, data.indices("val"))
    changes = int(np.count_nonzero(np.diff(val.astype(int))))
    return changes <= 2, runs(data.labels[both])


def runs(labels: NDArray[np.int64]) -> float:
    """One-sided p-value of too few runs of equal labels (Barton and David 1957).

    >>> runs(np.repeat([0, 1, 2], 20)) < 1e-9
    True
    >>> runs(np.tile([0, 1], 20)) > 0.9
    True
    """
    n = len(labels)
    if n < 3:
        return 1.0
    found = 1 + int(np.count_nonzero(np.diff(labels)))
    share_of = np.bincount(labels) / n
    same = float((share_of**2).sum())
    mean = n * (1 - same) + 1
    cube = float((share_of**3).sum())
    variance = n * (same * (1 + same) - 2 * cube)
    if variance <= 0:
        return 1.0
    return 0.5 * math.erfc(-(found - mean) / math.sqrt(2 * variance))
