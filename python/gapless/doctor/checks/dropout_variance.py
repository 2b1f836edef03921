"""B3: dropout before BatchNorm shifts the variance between training and evaluation."""

from __future__ import annotations

import numpy as np

from ..case import Case
from ..norms import gathered, precise_outputs, replay_cost
from ..replay import Mode, replay_of
from ..result import Remedy, Result
from ..stats import paired
from ..table import check

__all__ = ["dropout_variance"]

_LOW, _HIGH = 0.8, 1.25


@check(
    "B3",
    "dropout-variance",
    "dropout before BatchNorm shifts its variance",
    measure="validation accuracy recovered by statistics that suit the network without dropout",
    needs=["run", "history", "outputs", "train images and model"],
    cost=replay_cost(Mode(), Mode(False), val=2),
    explains=["B1", "A1", "W1", "P1", "P2", "C4", "M1", "G3", "G4", "G5"],
    reference="Li et al. 2018, arXiv 1801.05134: variance ratio outside [0.8, 1.25]",
)
def dropout_variance(case: Case) -> Result:
    """Statistics over the same recorded batches with the same weights, once with dropout and once without.
    BatchNorm learns the first and meets the second in evaluation; how far apart they are is the variance
    ratio, what it costs is the difference between the two on validation."""
    replay, with_dropout = replay_of(case), gathered(case)
    if replay is None or with_dropout is None or not replay.dropout:
        return Result.clear("there is no BatchNorm together with dropout")
    without = gathered(case, dropout=False)
    assert without is not None
    ratios = {
        name: float(np.median((without.layers[name].variance + 1e-12) / (layer.variance + 1e-12)))
        for name, layer in with_dropout.layers.items()
    }
    moved = {k: r for k, r in ratios.items() if not _LOW <= r <= _HIGH}
    if not moved:
        far = max(ratios.values(), key=lambda r: abs(np.log(r)), default=1.0)
        return Result.clear(f"variance with and without dropout agree: the farthest ratio is {far:.2f}")
    shifted, suited = precise_outputs(case), precise_outputs(case, dropout=False)
    e = paired(shifted.right, suited.right)
    worst = max(moved, key=lambda k: abs(np.log(moved[k])))
    evidence = {
        "variance_ratio": ratios,
        "accuracy_statistics_with_dropout": shifted.accuracy,
        "accuracy_statistics_without": suited.accuracy,
    }
    says = (
        f"{worst} meets {moved[worst]:.2f} times the variance in evaluation that it had under dropout; with "
        f"statistics made without dropout {100 * suited.accuracy:.1f} % of validation are right instead of "
        f"{100 * shifted.accuracy:.1f} %"
    )
    return Result.tested(
        says,
        e,
        evidence=evidence,
        remedy=Remedy(
            "Put dropout behind the last BatchNorm; for the weights there are, compute the running "
            "statistics anew with dropout off."
        ),
    )
