"""B1: BatchNorm's running statistics are not those of the data."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..case import Case
from ..norms import gathered, precise_outputs, replay_cost
from ..replay import Mode
from ..result import Remedy, Result
from ..statistics import Gathered
from ..stats import paired, samples_for_paired
from ..table import check

__all__ = ["stale_batchnorm"]

FAR = 0.25  # standard deviations, median over a layer's channels, or
TIMES = 1.5  # the variance: so far off no statistics are that keep up with the weights


@check(
    "B1",
    "stale-batchnorm",
    "BatchNorm's running statistics are stale",
    measure="validation accuracy recovered by statistics computed anew",
    needs=["run", "history", "outputs", "train images and model"],
    cost=replay_cost(Mode(), val=1),
    explains=["B2", "W1", "W2", "P1", "P2", "P3", "C1", "C4", "L3", "A1", "M1", "G1", "G3", "G4", "G5"],
    reference="Wu and Johnson 2021, arXiv 2105.07576; fvcore's precise_bn",
)
def stale_batchnorm(case: Case) -> Result:
    """The deployed weights with the statistics of the recorded batches in place of the running ones, on the
    same validation samples: nothing else differs. That statistics are stale is told by themselves where they
    are far from the data's; validation then tells what it costs."""
    found = gathered(case)
    if found is None:
        return Result.clear("no BatchNorm layer took its batch's statistics in training")
    val, precise = case.outputs("val"), precise_outputs(case)
    e = paired(val.right, precise.right)
    worst = _worst(case, found)
    if worst is not None and worst.stale and e.points >= 0.02 and e.low > 0:
        e = e._replace(p=min(e.p, worst.p))
    n = next(iter(found.layers.values())).batches if found.layers else 0
    evidence = {
        "accuracy": val.accuracy,
        "accuracy_precise": precise.accuracy,
        "batches": n,
        "worst": worst.says if worst is not None else "",
    }
    says = (
        f"with statistics over {n} batches of training {100 * precise.accuracy:.1f} % of validation are "
        f"right instead of {100 * val.accuracy:.1f} %"
    )
    if e.points < 0.02 or e.p >= 0.05:
        changed = float(np.mean(val.right != precise.right))
        if e.points >= 0.02:
            return Result.undecided(
                says, e, samples_needed=samples_for_paired(e.points, changed), evidence=evidence
            )
        return Result.clear(says, e, evidence=evidence)
    return Result.found(
        f"{says}; {evidence['worst']}",
        e,
        evidence=evidence,
        remedy=Remedy(
            "Compute the running statistics anew over some thousand training images before the weights are "
            "deployed; train with a schedule that ends at a small learning rate, or a larger BatchNorm "
            "momentum, so that they keep up."
        ),
    )


class _Worst(NamedTuple):
    """The layer whose running statistics are farthest off (medians over its channels)."""

    says: str
    stale: bool
    p: float  # of being so far off by chance, counted for every layer


def _worst(case: Case, found: Gathered) -> _Worst | None:
    assert case.saved is not None
    weights, worst, result = case.saved.scored(), -1.0, None
    for name, layer in found.layers.items():
        shift = np.abs(weights[f"{name}.running_mean"] - layer.mean)
        ratio = (weights[f"{name}.running_var"] + 1e-12) / (layer.variance + 1e-12)
        far = float(np.median(shift / np.sqrt(layer.variance + 1e-12)))
        times = float(np.median(ratio))
        wide = abs(math.log(times))
        if max(far, wide) <= worst:
            continue
        worst = max(far, wide)
        error = layer.scatter / math.sqrt(layer.batches) + 1e-12  # of the gathered mean
        images = layer.values / layer.pixels
        z = max(float(np.median(shift / error)), wide / math.sqrt(2 / images))
        result = _Worst(
            f"{name}'s running mean is {far:.2f} standard deviations off, its running variance "
            f"{times:.2f} times the data's",
            layer.batches > 1 and (far >= FAR or wide >= math.log(TIMES)),
            min(1.0, len(found.layers) * math.erfc(z / math.sqrt(2))),
        )
    return result
