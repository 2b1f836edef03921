"""G4: the learning rate is far from where this network learns."""

from __future__ import annotations

import math
from typing import Any

from ..case import Case
from ..lr_range import range_of, seconds_of_range
from ..result import Remedy, Result
from ..table import check
from ..trial import plain_recipe, retrained, whole_history

__all__ = ["learning_rate"]

FACTOR, FACTOR_BEFORE = 4.0, 10.0  # as far from the suggested rate as makes a trial worth while
GOOD = 0.97  # training accuracy beyond which the rate is not what is missing
RATIO = (1e-5, 1e-2)  # update over weights


@check(
    "G4",
    "learning-rate",
    "the learning rate is too large or too small",
    measure="validation accuracy gained by training at the suggested rate or schedule",
    needs=["recipe", "images"],
    cost=seconds_of_range,
    explains=["G3", "G5", "A1", "W1", "B1", "C4"],
    reference="Smith 2015, arXiv 1506.01186 (range test); Karpathy 2019 (update over weights about 1e-3)",
)
def learning_rate(case: Case) -> Result:
    """A short run from the first weights whose rate rises at each step tells where the loss falls and where
    it breaks. A recipe far from there is trained again at the suggested rate, and validation decides; so is
    one that stands still at the end while its rate is still large, with a rate that falls."""
    if "train outputs" in case.facts and case.outputs("train").accuracy >= GOOD:
        accuracy = case.outputs("train").accuracy
        return Result.clear(f"training images are {100 * accuracy:.1f} % right: the rate was good enough")
    test, own = range_of(case), float(plain_recipe(case)["optimizer"]["lr"])
    numbers: dict[str, Any] = {
        "lr": own,
        "suggested": test.suggested,
        "too_large_from": test.too_large,
        "update_over_weights": test.ratio_at_recipe,
        "curve": {"lr": test.lr, "loss": test.loss},
    }
    said = f"lr {own:g}; the loss falls fastest around {test.suggested:g}"
    if test.too_large is not None:
        said += f" and breaks at {test.too_large:.2g}"
    said += f"; an update is {test.ratio_at_recipe:.1e} of the weights"
    far = FACTOR if case.saved is not None else FACTOR_BEFORE
    if max(own / test.suggested, test.suggested / own) >= far:
        change: dict[str, Any] = {"optimizer.lr": test.suggested}
        return _tried(case, said, numbers, change, f"Set optimizer.lr to {test.suggested:g}.")
    if _stands_still(case):
        change = {"schedule": {"name": "Cosine"}}
        said += "; the loss stands still while the rate is still large"
        return _tried(case, said, numbers, change, "Let the rate fall to 0 at the end (Cosine).")
    return Result.clear(said, evidence=numbers)


def _tried(case: Case, said: str, numbers: dict[str, Any], change: dict[str, Any], text: str) -> Result:
    made = retrained(case, change)
    numbers |= {"val_accuracy": made.before.accuracy, "val_accuracy_with_the_change": made.after.accuracy}
    e = made.estimate
    said += (
        f"; {made.said} so, validation is {100 * made.after.accuracy:.1f} % instead of "
        f"{100 * made.before.accuracy:.1f} %"
    )
    if e.low <= 0 or not made.finite:
        return Result.clear(said, e, evidence=numbers)
    return Result.found(said, e, evidence=numbers, remedy=Remedy(text, change))


def _stands_still(case: Case) -> bool:
    """Whether the last third of the run's epochs brought nothing while the rate was near its largest."""
    if case.saved is None:
        return False
    rows = [r for r in whole_history(case) if r.get("train/running/loss")]
    if len(rows) < 6:
        return False
    rates, losses = [r["lr"] for r in rows], [r["train/running/loss"] for r in rows]
    if rates[-1] < 0.3 * max(rates) or not all(map(math.isfinite, losses)):
        return False
    third = len(rows) // 3
    before, after = sum(losses[-2 * third : -third]) / third, sum(losses[-third:]) / third
    return bool(after > 0.9 * before)
