"""B2: BatchNorm over batches that are too small."""

from __future__ import annotations

import math

import numpy as np

from ..case import Case
from ..norms import SMALL, gathered, last_batch, precise_outputs, replay_cost
from ..replay import Mode, Passed, replay_of
from ..result import Remedy, Result
from ..statistics import Gathered
from ..stats import Estimate, paired
from ..table import check

__all__ = ["small_batch_batchnorm"]

LIGHT = 0.02  # weight of the last batch in running statistics below which its size does not matter


@check(
    "B2",
    "small-batch-batchnorm",
    "BatchNorm over small batches",
    measure="accuracy on training images with the batch's own statistics minus with the running ones",
    needs=["run", "history", "outputs", "train images and model"],
    cost=replay_cost(Mode(), Mode(False, "batch", "still"), Mode(False, "running", "still"), val=1),
    explains=["B1", "B3", "A1", "W1", "W2", "P1", "P2", "C4", "M1", "G3", "G4", "G5"],
    reference="Wu and He 2018, arXiv 1803.08494 (10.6 points at 2 images); fewer than 16 are noisy",
)
def small_batch_batchnorm(case: Case) -> Result:
    """The same weights on the same training images without draws, once with each batch's own statistics as
    in training, once with the running ones as in evaluation. Only batches below 16 count: larger ones differ
    too little."""
    replay, found = replay_of(case), gathered(case)
    if replay is None or found is None:
        return Result.clear("no BatchNorm layer took its batch's statistics in training")
    size, last = int(replay.recipe["batch_size"]), last_batch(case)
    size = min(size, len(case.data.indices("train")) if case.data is not None else size)
    if size >= SMALL:
        return _of_the_last(case, size, last)
    saved = replay.saved
    batch, running = (
        replay.passed(saved.weights_kind, saved.scored(), Mode(False, norm, "still"))
        for norm in ("batch", "running")
    )
    e = _clustered(running, batch, replay.sizes)
    noise = _noise(found)
    evidence = {
        "batch_size": size,
        "batch_means_sigma": noise,
        "accuracy_batch": float(batch.right.mean()),
        "accuracy_running": float(running.right.mean()),
    }
    says = (
        f"batches of {size}: {100 * batch.right.mean():.1f} % of training images are right with the batch's "
        f"own statistics, {100 * running.right.mean():.1f} % with the running ones; batch means scatter by "
        f"{noise:.2f} standard deviations"
    )
    if abs(e.points) < 0.02 or e.p >= 0.05:
        return Result.clear(says, e, evidence=evidence)
    return Result.found(
        f"{says}. What larger batches would give needs a retraining",
        e,
        evidence=evidence,
        remedy=Remedy(
            f"Train with batches of at least {SMALL}, or with GroupNorm; where memory does not allow it, "
            "freeze BatchNorm's statistics for the last epochs.",
            {"batch_size": 2 * SMALL},
        ),
    )


def _of_the_last(case: Case, size: int, last: int) -> Result:
    """Batches are large enough, but the last of each epoch may not be; running statistics end with it."""
    if last >= SMALL or last >= size:
        return Result.clear(f"batches of {size} are large enough", evidence={"batch_size": size})
    weight = _weight_of_the_last(case)
    if weight < LIGHT:
        said = f"batches of {size}; the last one of an epoch has a weight of {weight:g} in running statistics"
        return Result.clear(said, evidence={"batch_size": size, "last_batch": last})
    val, precise = case.outputs("val"), precise_outputs(case)
    e = paired(val.right, precise.right)
    says = (
        f"batches of {size}, but each epoch ends with one of {last}: statistics without its weight give "
        f"{100 * precise.accuracy:.1f} % on validation instead of {100 * val.accuracy:.1f} %"
    )
    evidence = {"batch_size": size, "last_batch": last}
    remedy = Remedy("Leave the short last batch out.", {"drop_last": True})
    return Result.tested(says, e, evidence=evidence, remedy=remedy)


def _weight_of_the_last(case: Case) -> float:
    """Share of the last batch in running statistics: the largest momentum of a BatchNorm layer."""
    assert case.saved is not None
    nodes = [n for n in case.saved.graph["nodes"] if n["layer"] == "BatchNorm2d"]
    return max((float(n["config"].get("momentum", 0.1)) for n in nodes), default=0.0)


def _noise(found: Gathered) -> float:
    """How batch means scatter, in standard deviations of the values: the median over all channels."""
    parts = [layer.scatter / np.sqrt(layer.variance + 1e-12) for layer in found.layers.values()]
    return float(np.median(np.concatenate(parts))) if parts else 0.0


def _clustered(before: Passed, after: Passed, sizes: list[int]) -> Estimate:
    """As `paired`, with batches as the units that were drawn: samples of a batch share its statistics."""
    e = paired(before.right, after.right)
    change = after.right.astype(float) - before.right.astype(float)
    n, k = len(change), len(sizes)
    if k < 3:
        return Estimate(e.points, -1.0, 1.0, 1.0)
    at = np.cumsum([0, *sizes[:-1]])
    sums = np.add.reduceat(change, at) - e.points * np.asarray(sizes)
    se = math.sqrt(float(np.sum(sums**2)) * k / (k - 1)) / n
    half = 1.959963984540054 * se
    p = math.erfc(abs(e.points) / se / math.sqrt(2)) if se > 0 else 1.0
    return Estimate(e.points, min(e.low, e.points - half), max(e.high, e.points + half), max(p, e.p))
