"""G2: the network has learned wrong labels by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..result import Remedy, Result
from ..table import check
from ..trial import plain_recipe, retrained

__all__ = ["late_learned", "memorised_noise"]

GAP = 0.05  # training minus validation accuracy below which nothing was memorised that matters
LEAST = 0.02  # share of training samples
EPOCHS = 4


@check(
    "G2",
    "memorised-noise",
    "labels that look wrong were learned by heart",
    measure="validation accuracy gained by training without the labels that look wrong",
    needs=["run", "history", "recipe", "images", "outputs", "train outputs"],
    cost=lambda case: 0.05 + case.passes(1.0, "train"),
    explains=["G1", "G5", "C4"],
    reference="Zhang et al. 2017, arXiv 1611.03530; Arpit et al. 2017, arXiv 1706.05394: clean samples first",
)
def memorised_noise(case: Case) -> Result:
    """A network learns what fits together first and single exceptions last. Samples whose loss stayed high
    while the others' had fallen, and whose label the finished network gives all the same, are left out in a
    copy of the run: where that makes validation better, their labels were noise."""
    train, val = case.outputs("train"), case.outputs("val")
    gap = train.accuracy - val.accuracy
    numbers: dict[str, Any] = {"train_accuracy": train.accuracy, "val_accuracy": val.accuracy}
    said = f"training {100 * train.accuracy:.1f} %, validation {100 * val.accuracy:.1f} %"
    if gap < GAP:
        return Result.clear(f"{said}: little was learned by heart", evidence=numbers)
    index, late = late_learned(case)
    at = {ident: bool(right) for ident, right in zip(train.ids, train.right, strict=True)}
    assert case.data is not None
    learned = np.array([at.get(case.data.ids[i], False) for i in index], bool)
    suspects = index[late & learned]
    numbers |= {
        "suspects": len(suspects),
        "share_of_suspects": len(suspects) / len(index),
        "accuracy_on_late_samples": float(learned[late].mean()) if late.any() else None,
        "ids": [case.data.ids[i] for i in suspects[:50]],
    }
    if len(suspects) < LEAST * len(index):
        return Result.clear(f"{said}; {len(suspects)} samples were learned late", evidence=numbers)
    made = retrained(case, {}, index=index[~late])
    e = made.estimate
    said += (
        f"; {len(suspects)} of {len(index)} training samples were learned late and by heart; {made.said} "
        f"without the late ones, validation is {100 * made.after.accuracy:.1f} % instead of "
        f"{100 * made.before.accuracy:.1f} %"
    )
    numbers["val_accuracy_without_them"] = made.after.accuracy
    if e.low <= 0:
        return Result.clear(said, e, evidence=numbers)
    change = {"early_stopping": max(3, plain_recipe(case)["epochs"] // 10)}
    if plain_recipe(case)["loss"]["name"] == "CrossEntropy":
        change["loss.label_smoothing"] = 0.1
    text = "Look at the labels of the samples in evidence.ids, mend or drop them; until then stop early."
    return Result.found(said, e, evidence=numbers, remedy=Remedy(text, change))


def late_learned(case: Case) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Training samples by manifest index, and which of them were learned late.

    Of each sample the mean loss over the epochs up to the one in which training had come nine tenths of its
    way; the two groups are those that Otsu's threshold divides.
    """
    assert case.saved is not None
    tensors = case.saved.tensors
    index = np.asarray(tensors["gapless/train_samples/index"], np.int64)
    loss = np.asarray(tensors["gapless/train_samples/loss"], np.float64)
    right = np.asarray(tensors["gapless/train_samples/right"])
    seen = right >= 0
    rate = np.array([(row[s] > 0).mean() if s.any() else 0.0 for row, s in zip(right, seen, strict=True)])
    if not len(rate) or not seen.any():
        return index, np.zeros(len(index), bool)
    goal = rate[0] + 0.9 * (rate.max() - rate[0])
    last = max(min(EPOCHS, len(rate)), int(np.argmax(rate >= goal)))
    early, there = np.where(seen, loss, 0.0)[:last], seen[:last]
    mean = early.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return index, mean > otsu(mean)


def otsu(values: NDArray[np.float64]) -> float:
    """The threshold that divides values into the two groups that differ most (Otsu 1979).

    >>> t = otsu(np.array([0.1, 0.2, 0.15, 2.0, 2.1]))
    >>> 0.2 <= t < 2.0
    True
    """
    ordered = np.sort(values)
    n = len(ordered)
    if n < 2:
        return float(ordered[-1]) if n else 0.0
    below = np.arange(1, n)
    sums = np.cumsum(ordered)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (n - below)
    between = below * (n - below) * (high - low) ** 2
    return float(ordered[int(np.argmax(between))])
