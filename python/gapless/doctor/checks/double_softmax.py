"""C3: softmax was applied twice."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ... import metrics
from ..case import Case
from ..outputs import Outputs
from ..reading import inner, is_simplex
from ..result import Remedy, Result
from ..stats import Z95, Estimate
from ..table import check

__all__ = ["double_softmax"]

Scores = NDArray[np.float64]

FEWEST = 20  # samples: of two classes, one unsure answer in two could be a softmax of probabilities by chance


@check(
    "C3",
    "double-softmax",
    "softmax was applied twice",
    measure="stated confidence that the second softmax takes away",
    needs=["scores"],
    threshold=0.05,
    explains=["C4", "G3"],
    reference="ultralytics #20014, #13653: validation loss with a floor of log(1 + (K-1)/e)",
)
def double_softmax(case: Case) -> Result:
    """Asks whether the scores, or what softmax makes of them, can be a softmax of probabilities.

    Logits are no probabilities: rows that lie in 0..1 and sum to 1 were through softmax already. And
    probabilities p that are softmax(q) of probabilities q tell q: log p plus the constant that makes its sum
    1 lies in 0..1 for every sample and class, and no p exceeds e / (e + K - 1). A network without an opinion
    fits too, so q must be one that has an opinion.
    """
    out = case.outputs("val")
    assert out.scores is not None
    k = out.num_classes
    floor = math.log(1 + (k - 1) / math.e)
    if k < 2:
        return Result.clear("one class")
    once = _once(out)
    if once is None:
        return Result.clear("the outputs are not a softmax of probabilities")
    twice = metrics.softmax(once).astype(np.float64)
    if len(once) < FEWEST:
        says = f"a softmax of probabilities, or so by chance: {len(once)} samples do not tell; {FEWEST} would"
        return Result.undecided(says, samples_needed=FEWEST)
    e = _confidence_lost(once, twice)
    own = out.labels[:, None]
    loss = float(-np.log(np.clip(np.take_along_axis(twice, own, 1), 1e-300, 1)).mean())
    honest = float(-np.log(np.clip(np.take_along_axis(once, own, 1), 1e-12, 1)).mean())
    numbers = {"loss_floor": floor, "loss_of_twice": loss, "loss_of_once": honest, "accuracy": out.accuracy}
    if e.points < 0.05:
        return Result.undecided(
            "the outputs are so uniform that one softmax and two look alike", evidence=numbers
        )
    called = out.kind == "logits"
    what = (
        "what is called logits are probabilities: rows sum to 1, and softmax is taken again"
        if called
        else f"no probability exceeds {float(twice.max()):.3f}, and they are softmax of probabilities"
    )
    return Result.found(
        f"{what}; no loss can go below {floor:.3f} (log(1 + (K-1)/e), K = {k}; here {loss:.3f} instead of "
        f"{honest:.3f})",
        e,
        evidence=numbers,
        remedy=Remedy(
            "Take the softmax layer out of the model, or give its output to a loss that expects "
            "probabilities. If it was trained with a loss that does, nothing is wrong but the name: hand "
            "over logits, or log(probabilities)."
        ),
    )


def _once(out: Outputs) -> Scores | None:
    """The probabilities that went through softmax once more, or None."""
    assert out.scores is not None
    if out.kind == "logits":
        return out.scores if is_simplex(out.scores) else None
    q = inner(out.scores)
    return q if q is not None and float(q.max(axis=1).mean()) > 1.5 / out.num_classes else None


def _confidence_lost(once: Scores, twice: Scores) -> Estimate:
    lost = once.max(axis=1) - twice.max(axis=1)
    half = Z95 * float(lost.std()) / math.sqrt(len(lost)) + 1e-9
    points = float(lost.mean())
    return Estimate(points, points - half, points + half, 0.0)
