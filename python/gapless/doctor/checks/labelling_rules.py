"""L3: validation is labelled by another rule than training."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..case import Case
from ..outputs import Outputs
from ..proportions import differ
from ..result import Remedy, Result
from ..siblings import outputs_of_sibling, siblings
from ..stats import Z95, Estimate, auc
from ..table import check

__all__ = ["labelling_rules"]

USUAL = 0.05  # of a class's samples may go to one other class by plain errors
OVER_FITTED = 0.10  # likewise, where the other classes too are told worse than in training
FEW = 20  # training samples of a class
ALPHA = 0.01
MOST = 4000  # training samples that the last weights are asked about


@check(
    "L3",
    "labelling-rules",
    "training and validation are labelled by different rules",
    measure="share of validation samples that one side calls by another class",
    needs=["outputs", "train outputs"],
    cost=0.1,  # and two passes more where only the last weights can tell
    explains=["L1", "S2", "G1", "G5", "C4"],
    reference="doctor.md: asymmetric confusion, recall that drops for one class",
)
def labelling_rules(case: Case) -> Result:
    """Looks for a pair of classes that validation confuses in one direction only, and training does not.

    A model that follows training's rule says b for what validation calls a, and is as sure of it as of any
    other b; it does not say a for b. Errors of an ordinary model go both ways or are less sure. Every pair is
    tested against the errors that the model makes elsewhere and against the same pair in training (the larger
    p counts), and pays for the number of pairs.

    Weights that were chosen on such validation labels are those that follow them best: they may say b for a
    in training too. Where validation alone would decide and training does not bear it out, the run's last
    weights, which nothing was chosen by, are asked instead, and pay for the second look.
    """
    val, train, looked = case.outputs("val"), case.outputs("train"), 1
    seen = _strongest(val, train)
    if seen.p >= ALPHA and seen.in_val < ALPHA and (last := _last(case)) is not None:
        (val, train), looked = last, 2
        seen = _strongest(val, train)
    p, a, b = min(1.0, looked * seen.p), seen.a, seen.b
    if p >= ALPHA or a == b:
        return Result.clear("no pair of classes is confused in one direction, and in validation only")
    ours, theirs = val.confusion, train.confusion
    excess, e = _points(val, train, a, b, p)
    sure = _sureness(val, a, b)
    names = f"{val.classes[a]!r} as {val.classes[b]!r}"
    numbers = {
        "named": val.classes[a],
        "said": val.classes[b],
        "count": int(ours[a, b]),
        "reverse": int(ours[b, a]),
        "in_training": int(theirs[a, b]),
        "recall_train": _recall(train, a),
        "recall_val": _recall(val, a),
        "sureness": sure.auc if sure is not None else None,
    }
    text = (
        f"{int(ours[a, b]):,} of {int(ours[a].sum()):,} validation samples {names}, {int(ours[b, a]):,} the "
        f"other way; {int(theirs[a, b]):,} of {int(theirs[a].sum()):,} in training"
    )
    if looked == 2:
        text += f"; so {train.source} weights see it: those examined were chosen on validation and follow it"
        numbers["weights"] = train.source
    if sure is not None and sure.auc + sure.error < 0.3:
        return Result.clear(
            f"{text}; but the model is less sure of them than of others: plain errors", e, evidence=numbers
        )
    if excess < 0.02:
        return Result.clear(text, e, evidence=numbers)
    ids = [val.ids[i] for i in np.flatnonzero((val.labels == a) & (val.predictions == b))[:50]]
    return Result.found(
        text,
        e,
        evidence={**numbers, "ids": ids},
        explains=["S2"] if _restores(val, train, a, b, excess) else [],
        remedy=Remedy(
            f"Look at the listed samples and at training samples of {val.classes[a]!r}: agree on one rule "
            "for both, and label one side again."
        ),
    )


class _Pair(NamedTuple):
    """What validation calls a and the model calls b; p-values for all pairs that were looked at."""

    p: float
    in_val: float  # of validation alone: the least of any pair
    a: int
    b: int


def _strongest(val: Outputs, train: Outputs) -> _Pair:
    """The pair with the least p; 1 and no pair where none has five samples."""
    k, ours, theirs = val.num_classes, val.confusion, train.confusion
    best, alone = (1.0, 0, 0), 1.0
    for a in range(k):
        for b in range(k):
            if a != b and ours[a, b] >= 5:
                here, there = _p(ours, theirs, a, b)
                best, alone = min(best, (max(here, there), a, b)), min(alone, here)
    pairs = k * (k - 1)
    return _Pair(min(1.0, best[0] * pairs), min(1.0, alone * pairs), best[1], best[2])


def _last(case: Case) -> tuple[Outputs, Outputs] | None:
    """Outputs of the run's last weights on validation and on training, a sample of it if it is large; None
    where there are none, or they are those under examination."""
    name = next((name for name in siblings(case) if name.startswith("last")), None)
    if name is None or case.data is None:
        return None
    train = case.sample("train", MOST)
    return (
        outputs_of_sibling(case, name, case.data.indices("val")),
        outputs_of_sibling(case, name, train),
    )


def _p(ours: np.ndarray, theirs: np.ndarray, a: int, b: int) -> tuple[float, float]:
    """Two one-sided p-values: a→b against what errors of this model usually are, and against a→b in
    training; both 1 where b→a is half as frequent or more, or training has but a few of a: a network that
    knows those by heart is right there, and that says nothing.

    The reverse is only held against it by its rate: where the other rule left few samples called b, those say
    little for themselves. And by what it is beyond training: a weak network that calls many b by the name of
    a does so there as well.
    """
    from scipy.stats import binomtest, fisher_exact

    n = int(ours[a].sum())
    there = int(ours[a, b])
    if _reverse(ours, theirs, a, b) >= 0.5 * there / n or int(theirs[a].sum()) < FEW:
        return 1.0, 1.0
    here, trained = (_errors_elsewhere(m, a, b) for m in (ours, theirs))
    usual = max(OVER_FITTED if here > 1.5 * trained + 0.01 else USUAL, here)
    beyond = float(binomtest(there, n, min(usual, 1 - 1e-9), alternative="greater").pvalue)
    table = [[there, n - there], [int(theirs[a, b]), int(theirs[a].sum()) - int(theirs[a, b])]]
    return beyond, float(fisher_exact(table, alternative="greater")[1])


def _errors_elsewhere(confusion: np.ndarray, a: int, b: int) -> float:
    """Error rate of the other classes."""
    others = [c for c in range(len(confusion)) if c not in (a, b)]
    n = confusion[others].sum()
    return float((n - confusion[others, others].sum()) / max(n, 1))


def _reverse(ours: np.ndarray, theirs: np.ndarray, a: int, b: int) -> float:
    """Share of validation's b that are called a, beyond training's."""
    here, there = (float(m[b, a] / max(m[b].sum(), 1)) for m in (ours, theirs))
    return max(here - there, 0.0)


def _points(val: Outputs, train: Outputs, a: int, b: int, p: float) -> tuple[float, Estimate]:
    """Share of samples of the other rule: a→b beyond what the reverse and training show."""
    ours, theirs, n = val.confusion, train.confusion, len(val)
    na, nb, nt = (max(int(c), 1) for c in (ours[a].sum(), ours[b].sum(), theirs[a].sum()))
    usual = float(na * max(_reverse(ours, theirs, a, b), theirs[a, b] / nt))
    recall = max(_recall(val, b), 0.5)
    count = float(max(float(ours[a, b]) - usual, 0.0) / recall)
    spread = math.sqrt(float(ours[a, b]) + usual * max(na / nb, na / nt, 1.0)) / recall
    points = count / n
    # what the model does not follow of the other rule does not show: the interval reaches up a little more
    return points, Estimate(points, max((count - Z95 * spread) / n, 0.0), (1.1 * count + Z95 * spread) / n, p)


def _restores(val: Outputs, train: Outputs, a: int, b: int, excess: float) -> bool:
    """Whether class proportions differ because of the rule: with the samples of the other rule called b they
    are training's."""
    counts = [np.bincount(out.labels, minlength=out.num_classes) for out in (train, val)]
    moved = counts[1].copy()
    n = min(round(excess * len(val)), int(moved[a]))
    moved[a] -= n
    moved[b] += n
    return differ(*counts) and not differ(counts[0], moved)


def _recall(out: Outputs, c: int) -> float:
    row = out.confusion[c]
    return float(row[c] / row.sum()) if row.sum() else 0.0


class _Sureness(NamedTuple):
    """How often an a that is called b is surer than a right b: half where they are alike."""

    auc: float
    error: float  # its standard error where they are alike


def _sureness(val: Outputs, a: int, b: int) -> _Sureness | None:
    p = val.probabilities
    if p is None:
        return None
    said = val.predictions == b
    wrong, right = said & (val.labels == a), said & (val.labels == b)
    if not right.any():
        return _Sureness(0.5, 0.5)
    both = wrong | right
    n, m = int(wrong.sum()), int(right.sum())
    return _Sureness(auc(p[both, b], wrong[both]), math.sqrt((n + m + 1) / (12 * n * m)))
