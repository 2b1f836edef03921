"""G5: more training images would help."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..case import Case, OverBudgetError
from ..result import Remedy, Result
from ..stats import Estimate
from ..table import check
from ..trial import SPREAD, Trial, plain_recipe, seconds_of

__all__ = ["learning_curve", "predicted_gain"]

GAP = 0.05
DRAWS = 2000
SHARES = (0.25, 0.5)


@check(
    "G5",
    "learning-curve",
    "there are too few training images",
    measure="validation accuracy that twice as many training images would give (predicted)",
    needs=["run", "recipe", "images", "outputs", "train outputs"],
    cost=lambda case: 0.05 + case.passes(1.0, "train"),
    threshold=0.08,
    reference="Hestness et al. 2017, arXiv 1712.00409: error falls as a power of the number of samples",
)
def learning_curve(case: Case) -> Result:
    """Trains on a quarter and on half of the training images, for as many steps as the run had, and
    continues the line of the three errors: each doubling takes off a fixed share of what the last took
    off."""
    train, val = case.outputs("train"), case.outputs("val")
    numbers: dict[str, Any] = {"train_accuracy": train.accuracy, "val_accuracy": val.accuracy}
    if train.accuracy - val.accuracy < GAP:
        said = f"training {100 * train.accuracy:.1f} %, validation {100 * val.accuracy:.1f} %: more images "
        return Result.clear(said + "like these would teach little", evidence=numbers)
    needed = len(SHARES) * seconds_of(case)
    if needed > 0.25 * case.budget.seconds or needed > case.budget.left:
        raise OverBudgetError(f"two more trainings take about {math.ceil(needed)} s")
    right = [_right_at(case, s) for s in SHARES] + [val.right]
    e = predicted_gain(np.array(right), case.seed)
    n = len(train)
    numbers["curve"] = {
        "train_n": [int(n * s) for s in (*SHARES, 1.0)],
        "val_accuracy": [float(np.mean(r)) for r in right],
    }
    numbers["predicted_val_accuracy_with_twice_as_many"] = val.accuracy + e.points
    accuracies = ", ".join(f"{100 * np.mean(r):.1f}" for r in right)
    said = (
        f"validation is {accuracies} % with a quarter, half and all of {n} training images; twice as many "
        f"would give about {100 * e.points:.1f} points more ({100 * e.low:.1f} to {100 * e.high:.1f})"
    )
    if e.low <= 0:
        return Result.undecided(said, e, evidence=numbers) if e.high > 0.08 else Result.clear(said, e)
    text = f"Collect about {n} more training images like these."
    return Result.found(said, e, evidence=numbers, remedy=Remedy(text))


def _right_at(case: Case, part: float) -> NDArray[np.bool_]:
    """Which validation samples are right after the recipe's number of steps on a part of the images."""
    assert case.data is not None
    recipe = plain_recipe(case)
    n = len(case.data.splits["train"])
    some = case.sample("train", max(int(n * part), 2), 0x6C)
    size = recipe["batch_size"]
    steps, own = -(-n // size) * recipe["epochs"], -(-len(some) // size)
    trial = Trial(case, {"epochs": max(1, round(steps / own)), "drop_last": False}, index=some).train()
    return trial.outputs().right


def predicted_gain(right: NDArray[np.bool_], seed: int) -> Estimate:
    """What a further doubling gives, from which samples are right at a quarter, half and all of the images.

    With an error of ``a n**-b + c`` each doubling takes off the same share of what the one before took off;
    with ``c = 0`` it takes off the same share of the error. The truth lies between: the interval spans both,
    over resampled images and the scatter of training.

    >>> rng = np.random.default_rng(0)
    >>> ease = rng.random(1000)
    >>> curve = [ease > error for error in (0.40, 0.28, 0.20)]
    >>> e = predicted_gain(np.array(curve), 0)
    >>> 0 < e.low < 0.056 < e.high < 0.12  # 0.2 * (1 - 0.2 / 0.28) and 0.08 * 0.08 / 0.12 are possible
    True
    """
    rng = np.random.default_rng([seed, 0x6C])
    n = right.shape[1]
    # Samples that are right in the same runs are alike: counts of the eight kinds are the whole resampling.
    kinds = np.arange(8)[:, None] >> np.arange(3) & 1
    seen = np.bincount((right.astype(np.int64) << np.arange(3)[:, None]).sum(axis=0), minlength=8)
    drawn = rng.multinomial(n, seen / n, DRAWS)
    error = 1 - drawn @ kinds / n + rng.normal(0, SPREAD, (DRAWS, 3))
    first, second = error[:, 0] - error[:, 1], error[:, 1] - error[:, 2]
    ratio = np.where(first > 0, np.clip(second / np.where(first > 0, first, 1.0), 0.0, 1.0), 1.0)
    power = np.maximum(error[:, 2], 0.0) * (1 - np.minimum(error[:, 2] / np.maximum(error[:, 1], 1e-9), 2.0))
    gains = np.concatenate([second * ratio, power])
    low, middle, high = np.quantile(gains, [0.025, 0.5, 0.975])
    p = min(1.0, 2 * float(np.mean(gains <= 0)) + 1 / DRAWS)
    return Estimate(float(middle), float(low), float(high), p)
