"""S3: validation images are of another kind than training images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .. import classifier, features
from ..case import Case
from ..result import Remedy, Result
from ..stats import Z95, Estimate, auc, difference, paired
from ..table import check

__all__ = ["image_shift"]

AUC_LIMIT = 0.6
MOST = 3000  # samples of either side for the classifier
MATCHED = 600  # validation samples scored again


def _cost(case: Case) -> float:
    scored = 2 * min(MATCHED, len(case.data.splits.get("val", ()))) if case.data is not None else 0
    return features.look_cost(case) + 3.0 + (scored * case.seconds_per_image() if case.subject else 0.0)


@check(
    "S3",
    "image-shift",
    "validation images look different from training images",
    measure="validation accuracy that the difference costs (recovered by matching brightness, contrast and "
    "colour, or lost by a classifier of plain features); without a model 2 AUC - 1 of the split told",
    needs=["splits"],
    cost=_cost,
    explains=["P1", "P2", "P3", "B1", "C4", "L3", "G1", "G5"],
    reference="Rabanser et al. 2019 (1810.11953): tests of shift; Deepchecks limits 2 AUC - 1 to 0.1",
)
def image_shift(case: Case) -> Result:
    """Asks a classifier, out of fold, from which split an image is, as many of each class on either side.

    With a model, what it costs is measured: validation is fed with training's mean and spread per channel;
    what that does not bring back is estimated by the loss of a plain classifier from held-out training
    samples to validation samples.
    """
    data = case.data
    assert data is not None
    rows = _matched(case)
    if rows is None:
        n = min(len(data.indices("train")), len(data.indices("val")))
        return Result.undecided(f"could not be decided with {n} samples; about 40 would", samples_needed=40)
    apart = _apart(case, *rows)
    shifted = _measures(case, *rows)
    numbers = {"auc": apart.points / 2 + 0.5, "auc_p": apart.p, "measures": shifted}
    worst = min(shifted, key=lambda k: shifted[k]["p"])
    says = f"a classifier tells the splits apart with AUC {numbers['auc']:.2f}"
    if apart.points <= 2 * AUC_LIMIT - 1 or apart.p >= 0.01:
        return Result.clear(says, apart, evidence=numbers)
    if shifted[worst]["p"] < 1e-4:
        m = shifted[worst]
        says += f"; {worst} is {m['train']:.4g} in training and {m['val']:.4g} in validation"
    remedy = Remedy(
        "Collect training images like those of validation, or draw the split anew from all of them; until "
        "then match brightness, contrast and size, or estimate BatchNorm's statistics on images like "
        "validation's."
    )
    if "outputs" not in case.facts:
        return Result.found(says, apart, evidence=numbers, remedy=remedy)
    e, more, said = _cost_in_accuracy(case)
    e = e._replace(p=max(e.p, apart.p))
    numbers |= more
    if e.low > 0:
        return Result.found(f"{says}; {said}", e, evidence=numbers, remedy=remedy)
    if e.high < 0.02:
        return Result.clear(f"{says}, but it costs no accuracy", e, evidence=numbers)
    n = len(case.outputs("val"))
    needed = math.ceil(n * ((e.high - e.low) / 2 / max(abs(e.points), 0.02)) ** 2)
    return Result.undecided(
        f"{says}; what it costs could not be decided", e, samples_needed=max(needed, n + 1), evidence=numbers
    )


def _matched(case: Case) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows of training and validation, as many of each class on either side."""
    data = case.data
    assert data is not None
    train, val = features.looked_both(case)
    rng = np.random.default_rng([case.seed, 3])
    a, b = data.labels[train.indices], data.labels[val.indices]
    left, right = [], []
    for c in np.intersect1d(a, b):
        one, two = rng.permutation(np.flatnonzero(a == c)), rng.permutation(np.flatnonzero(b == c))
        k = min(len(one), len(two), max(1, MOST * len(two) // max(len(b), 1)))
        left.append(one[:k])
        right.append(two[:k])
    if sum(map(len, left)) < 20:
        return None
    return np.sort(np.concatenate(left)), np.sort(np.concatenate(right))


def _apart(case: Case, one: NDArray[np.int64], two: NDArray[np.int64]) -> Estimate:
    """2 AUC - 1 of a classifier of split, out of fold; p of the rank test."""
    train, val = features.looked_both(case)
    names = [k for k in train.measures if k in val.measures]
    plain = [np.stack([w.measures[k][r] for k in names], axis=1) for w, r in ((train, one), (val, two))]
    both = np.concatenate(plain)
    both = (both - both.mean(axis=0)) / np.maximum(both.std(axis=0), 1e-9)
    matrix = np.concatenate([train.matrix[one], val.matrix[two]])
    x, _ = features.whitened(matrix, matrix[:1], 48)
    x = np.concatenate([x, both.astype(np.float32)], axis=1)
    y = np.concatenate([np.zeros(len(one), np.int64), np.ones(len(two), np.int64)])
    p = classifier.out_of_fold(x, y, 2, case.seed, ask=case.budget.ask)[:, 1]
    # ranks within each fold: folds have scores of their own scale
    fold = classifier.folds_of(len(y), 5, case.seed)
    areas, weights, variances = [], [], []
    for f in range(5):
        at = fold == f
        n, m = int(np.count_nonzero(y[at])), int(np.count_nonzero(y[at] == 0))
        if n and m:
            area = auc(p[at], y[at] == 1)
            areas.append(area)
            weights.append(n + m)
            variances.append(_variance(area, n, m))
    w = np.array(weights) / sum(weights)
    area = float((w * areas).sum())
    error = math.sqrt(float((w**2 * variances).sum()))
    null = math.sqrt(float((w**2 * [_variance(0.5, n // 2, n - n // 2) for n in weights]).sum()))
    p_value = 0.5 * math.erfc((area - 0.5) / null / math.sqrt(2))
    low, high = 2 * (area - Z95 * error) - 1, min(1.0, 2 * (area + Z95 * error) - 1)
    return Estimate(2 * area - 1, low, max(high, 2 * area - 1), p_value)


def _variance(area: float, n: int, m: int) -> float:
    """Of an AUC (Hanley and McNeil 1982)."""
    n, m = max(n, 1), max(m, 1)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    inner = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
    return max(inner, 0.0) / (n * m)


def _measures(case: Case, one: NDArray[np.int64], two: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Means of plain measures on either side, distance of their distributions, corrected p-value."""
    from scipy.stats import ks_2samp, wasserstein_distance

    train, val = features.looked_both(case)
    out = {}
    for name, values in train.measures.items():
        a, b = values[one], val.measures[name][two]
        p = float(ks_2samp(a, b).pvalue) if np.ptp(np.concatenate([a, b])) > 0 else 1.0
        spread = float(a.std()) or 1.0
        out[name] = {
            "train": float(a.mean()),
            "val": float(b.mean()),
            "distance": float(wasserstein_distance(a, b)) / spread,
            "p": min(1.0, p * len(train.measures)),
        }
    return out


# -- what it costs ------------------------------------------------------------------------------


def _cost_in_accuracy(case: Case) -> tuple[Estimate, dict[str, float], str]:
    """Validation accuracy that the shift costs, how it was found, and a sentence."""
    moved = _moments(case)
    lost = _plain_loss(case)
    numbers = {"plain_classifier_loses": lost.points}
    if moved is not None:
        numbers["recovered_by_matching"] = moved.points
    top = 1.0
    if "train outputs" in case.facts:
        train, val = case.outputs("train"), case.outputs("val")
        gap = difference(int(train.right.sum()), len(train), int(val.right.sum()), len(val))
        top = max(gap.high, 0.0)
        numbers["gap"] = gap.points
    if moved is not None and moved.low > 0 and moved.points >= 0.5 * min(top, max(lost.points, 0.0)):
        high = max(moved.high, min(top, lost.points)) if lost.low > moved.high else moved.high
        text = f"matching its mean and spread per channel brings back {100 * moved.points:.1f} points"
        return moved._replace(high=high), numbers, text
    # a network may lose less than a plain classifier, and no more than the whole gap
    points = min(max(lost.points, 0.0), top)
    low = min(points, 0.3 * lost.low)
    if moved is not None and moved.low > 0:  # at least what matching brings back, which is measured
        points, low = (points + moved.points) / 2, moved.low
    high = max(points, top if top < 1 else lost.high)
    text = (
        f"a plain classifier loses {100 * lost.points:.1f} points from held-out training to validation images"
    )
    return Estimate(points, low, high, lost.p), numbers, text


def _moments(case: Case) -> Estimate | None:
    """Accuracy gained when validation's inputs get training's mean and spread per channel; paired."""
    if case.subject is None or case.data is None:
        return None
    subject, data = case.subject, case.data
    some = case.sample("train", MATCHED, stream=31)
    scored = case.sample("val", MATCHED, stream=32)
    stats = []
    for part in (some, scored):
        total, square, count = 0.0, 0.0, 0
        for at in range(0, len(part), 64):
            case.budget.ask()
            x = subject.prepared(data, part[at : at + 64].tolist()).astype(np.float64)
            total = total + x.mean(axis=(2, 3)).sum(axis=0)
            square = square + x.std(axis=(2, 3)).sum(axis=0)
            count += len(x)
        stats.append((np.asarray(total / count), np.asarray(square / count)))
    (mean, spread), (mean_val, spread_val) = stats
    scale = spread / np.maximum(spread_val, 1e-6)

    def prepare(source: object, indices: object) -> NDArray[np.float32]:
        x = subject.prepared(data, indices)  # type: ignore[arg-type]
        moved = (x - mean_val[None, :, None, None]) * scale[None, :, None, None] + mean[None, :, None, None]
        return np.ascontiguousarray(moved, np.float32)

    after = case.outputs_of(subject, scored, "val with training's moments", prepare=prepare)
    whole = case.outputs("val")
    where = {ident: i for i, ident in enumerate(whole.ids)}
    before = whole.right[[where[i] for i in after.ids]]
    return paired(before, after.right)


def _plain_loss(case: Case) -> Estimate:
    """Accuracy of a plain classifier on held-out training samples minus on validation, classes as matched."""
    data = case.data
    assert data is not None
    train, val = features.looked_both(case)
    x, other = features.standard(case)
    rng = np.random.default_rng([case.seed, 33])
    rows = np.sort(rng.permutation(len(x))[: 2 * MOST])
    y = data.labels[train.indices[rows]]
    p = classifier.out_of_fold(x[rows], y, data.num_classes, case.seed, ask=case.budget.ask)
    q = classifier.predicted(x[rows], y, other, data.num_classes, case.seed)
    right, hit = p.argmax(axis=1) == y, q.argmax(axis=1) == data.labels[val.indices]
    return difference(int(right.sum()), len(right), int(hit.sum()), len(hit))
