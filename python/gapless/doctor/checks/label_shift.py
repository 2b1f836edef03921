"""S2: the classes of validation are mixed in other proportions than those of training."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..proportions import cramer, differ, weighted
from ..result import Remedy, Result
from ..stats import Estimate
from ..table import check

__all__ = ["label_shift"]


@check(
    "S2",
    "label-shift",
    "class proportions of training and validation differ",
    measure="validation accuracy with classes weighted as in training minus as they are; without a model the "
    "share of validation samples that would have to be of another class",
    needs=["splits"],
    explains=["S3", "C4", "L3", "G1", "G5"],
    reference="Lipton et al. 2018 (BBSE); Deepchecks limits Cramér's V to 0.15",
)
def label_shift(case: Case) -> Result:
    """Weights the classes of validation as training has them; recall of each class stays what it is.

    Whether proportions differ at all is a chi-squared test with Cramér's V over 0.15.
    """
    data = case.data
    assert data is not None
    train, val = data.counts("train"), data.counts("val")
    v, p = cramer(train, val)
    numbers = {
        "cramers_v": v,
        "p": p,
        "train": dict(zip(data.classes, train.tolist(), strict=True)),
        "val": dict(zip(data.classes, val.tolist(), strict=True)),
    }
    counted = variation(train, val, p, case.seed)
    if not differ(train, val):
        said = f"class proportions agree (Cramér's V {v:.2f}, p {p:.2g})"
        return Result.clear(said, counted._replace(p=max(p, 1e-12)), evidence=numbers)
    worst = np.argsort(-np.abs(train / train.sum() - val / val.sum()))[:3]
    names = ", ".join(
        f"{data.classes[c]} {100 * train[c] / train.sum():.0f} % of training and "
        f"{100 * val[c] / val.sum():.0f} % of validation"
        for c in worst
    )
    says = f"class proportions differ (Cramér's V {v:.2f}): {names}"
    remedy = Remedy(
        "Draw a stratified split; where validation's proportions are the real ones, weight or resample "
        "training's classes to them."
    )
    if "outputs" not in case.facts:
        return Result.found(says, counted, evidence=numbers, remedy=remedy)
    out = case.outputs("val")
    as_trained = weighted(out.labels, out.right, train)
    e = as_trained.estimate if as_trained is not None else Estimate(0.0, -1.0, 1.0, 1.0)
    e = e._replace(p=max(e.p, p))
    numbers["accuracy_as_in_training"] = case.outputs("val").accuracy + e.points
    says += f"; with training's proportions accuracy would be {100 * e.points:+.1f} points"
    if e.excludes_zero:
        return Result.found(says, e, evidence=numbers, remedy=remedy)
    if max(abs(e.low), abs(e.high)) < 0.02:
        return Result.clear(says, e, evidence=numbers)
    half = (e.high - e.low) / 2
    needed = math.ceil(val.sum() * (half / max(abs(e.points), 0.02)) ** 2)
    return Result.undecided(says, e, samples_needed=max(needed, int(val.sum()) + 1), evidence=numbers)


def variation(train: NDArray[np.int64], val: NDArray[np.int64], p: float, seed: int) -> Estimate:
    """Total variation distance of the class proportions; interval by resampling both sides."""
    n, m = int(train.sum()), int(val.sum())
    if not n or not m:
        return Estimate(0.0, 0.0, 1.0, 1.0)

    def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.abs(a - b).sum(axis=-1) / 2)

    point = float(distance(train / n, val / m))
    rng = np.random.default_rng([seed, 0x5417])
    drawn = distance(rng.multinomial(n, train / n, 400) / n, rng.multinomial(m, val / m, 400) / m)
    low, high = 2 * point - np.quantile(drawn, [0.975, 0.025])
    return Estimate(point, max(0.0, min(float(low), point)), min(1.0, max(float(high), point)), p)
