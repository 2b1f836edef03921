"""C2: the number is not the count of right predictions over the samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..outputs import Outputs
from ..result import Remedy, Result
from ..stats import Estimate
from ..table import check

__all__ = ["metric_count"]

ROUNDS = 2000
BATCHES: tuple[int, ...] = (
    4,
    8,
    10,
    12,
    16,
    20,
    24,
    25,
    30,
    32,
    36,
    40,
    48,
    50,
    60,
    64,
    80,
    96,
    100,
    120,
    128,
)
BATCHES += (150, 192, 200, 250, 256, 300, 400, 500, 512, 1000, 1024)


@check(
    "C2",
    "metric-count",
    "the number is not a count over the samples",
    measure="the number as it was made minus right predictions over samples, each once",
    needs=["outputs"],
    cost=0.3,
    reference="Lightning #2924, TorchMetrics #597: batch means, a sampler that pads; PaddleClas #3075",
)
def metric_count(case: Case) -> Result:
    """Counts again from the samples: every listed one once, the largest score against the target.

    What can differ: rows that repeat a sample, samples that are listed but were not scored, a predicted class
    that is not the one with the largest score, and a logged figure that is the mean of the batches' means
    with a short last batch, in the order of the rows.
    """
    out = case.outputs("val")
    count = out.accuracy
    tried = [_repeats(out), _not_the_largest(out), _not_scored(case, out), _batch_means(case, out)]
    found = [t for t in tried if t is not None]
    numbers: dict[str, object] = {"accuracy": count, "n": len(out), "distinct": len(set(out.ids))}
    if case.logged is not None and out.scores is not None:
        numbers["logged_equals_top_k"] = _top_k_like(case.logged, out)
    if not found:
        return Result.clear(
            f"{int(out.right.sum()):,} of {len(out):,} samples are right, each once", evidence=numbers
        )
    says, e, evidence, text = max(found, key=lambda t: abs(t[1].points))
    return Result.found(says, e, evidence={**numbers, **evidence}, remedy=Remedy(text))


_Found = tuple[str, Estimate, dict[str, object], str]


def _counted(points: float) -> Estimate:
    return Estimate(points, points, points, 0.0)


def _repeats(out: Outputs) -> _Found | None:
    first = np.sort(np.unique(np.array(out.ids, dtype=object).astype(str), return_index=True)[1])
    again = len(out) - len(first)
    if not again:
        return None
    once = float(out.right[first].mean())
    kept = set(first.tolist())
    ids = [out.ids[i] for i in range(len(out)) if i not in kept][:50]
    return (
        f"{again:,} rows repeat a sample: {100 * out.accuracy:.1f} % of rows are right, and "
        f"{100 * once:.1f} % of samples",
        _counted(out.accuracy - once),
        {"repeated": ids, "accuracy_once": once},
        "Score each sample once: drop what a sampler that pads to full batches has added.",
    )


def _not_the_largest(out: Outputs) -> _Found | None:
    if out.scores is None:
        return None
    largest = out.scores.max(axis=1)
    own = np.take_along_axis(out.scores, out.predictions[:, None], axis=1)[:, 0]
    other = own < largest - 1e-9 * np.maximum(1, np.abs(largest))
    if not other.any():
        return None
    right = float((out.scores.argmax(axis=1) == out.labels).mean())
    return (
        f"{int(other.sum()):,} predictions are not the class with the largest score, by which "
        f"{100 * right:.1f} % are right instead of {100 * out.accuracy:.1f} %",
        _counted(out.accuracy - right),
        {"ids": [out.ids[i] for i in np.flatnonzero(other)[:50]], "accuracy_of_largest": right},
        "Take the predicted class from the scores, by argmax over the class axis.",
    )


def _not_scored(case: Case, out: Outputs) -> _Found | None:
    """Samples on the list without an output: right or wrong, nobody knows."""
    if case.data is None or "val" not in case.data.splits or case.saved is not None:
        return None
    listed, scored = {case.data.ids[i] for i in case.data.indices("val")}, set(out.ids)
    lost = sorted(listed - scored)
    if not lost or not listed & scored:
        return None
    share = len(lost) / len(listed)
    right, n = int(out.right.sum()), len(out)
    low, high = right / (n + len(lost)), (right + len(lost)) / (n + len(lost))
    return (
        f"{len(lost):,} of {len(listed):,} listed samples were not scored; over all of them accuracy is from "
        f"{100 * low:.1f} to {100 * high:.1f} %",
        Estimate(share, share, share, 0.0),
        {"not_scored": lost[:50]},
        "Score the last batch too (drop_last=False), and compare the number scored with the number listed.",
    )


def _batch_means(case: Case, out: Outputs) -> _Found | None:
    """Whether the logged figure is the mean of batch means; held against the same in other orders."""
    if case.logged is None or len(out) < 10:
        return None
    count = out.accuracy
    digits = len(f"{case.logged:.10f}".rstrip("0").split(".")[1])
    room = max(0.5 * 10.0**-digits, 1e-7)
    if digits < 3 or abs(case.logged - count) <= max(room, 1e-4):
        return None
    sizes = [b for b in BATCHES if b < len(out) and len(out) % b]
    right = out.right.astype(np.float64)
    hits = [b for b in sizes if abs(_mean_of_means(right[None], b)[0] - case.logged) <= room]
    if not hits:
        return None
    rng = np.random.default_rng([case.seed, 0xC2])
    rounds = max(200, min(ROUNDS, 20_000_000 // len(out)))
    orders = np.stack([rng.permutation(right) for _ in range(rounds)])
    by_chance = np.zeros(rounds, bool)
    for b in sizes:
        by_chance |= np.abs(_mean_of_means(orders, b) - case.logged) <= room
    p = (1 + int(by_chance.sum())) / (1 + rounds)
    points = case.logged - count
    short = len(out) % hits[0]
    return (
        f"the logged {case.logged:g} is the mean of the means of batches of {hits[0]}, in which each of "
        f"the last {short} samples weighs {hits[0] / short:.1f} times as much; {count:.4f} are right",
        Estimate(points, points, points, p),
        {"batch_size": hits[0], "last_batch": short},
        "Add up right predictions and samples over all batches, and divide once at the end.",
    )


def _mean_of_means(right: NDArray[np.float64], b: int) -> NDArray[np.float64]:
    n = right.shape[1]
    edges = np.arange(0, n, b)
    sums = np.add.reduceat(right, edges, axis=1)
    sizes = np.diff(np.append(edges, n))
    return np.asarray((sums / sizes).mean(axis=1))


def _top_k_like(logged: float, out: Outputs) -> list[int]:
    """For which k the logged figure could be top-k accuracy, such as any k from the number of classes on."""
    from ... import metrics

    assert out.scores is not None
    rank = metrics.ranks(out.scores, out.labels)
    ks = range(2, min(out.num_classes, 10) + 1)
    return [k for k in ks if abs(float((rank < k).mean()) - logged) < 0.5 / len(out)]
