"""L3: validation is labelled by another rule than training."""

from __future__ import annotations

import math

import numpy as np

from ..case import Case
from ..outputs import Outputs
from ..result import Remedy, Result
from ..stats import Z95, Estimate, auc
from ..table import check

__all__ = ["labelling_rules"]

USUAL = 0.10  # of a class's samples may go to one other class by plain errors
FEW = 20  # training samples of a class


@check(
    "L3",
    "labelling-rules",
    "training and validation are labelled by different rules",
    measure="share of validation samples that one side calls by another class",
    needs=["outputs", "train outputs"],
    cost=0.1,
    explains=["L1", "S2", "G1", "G5", "C4"],
    reference="doctor.md: asymmetric confusion, recall that drops for one class",
)
def labelling_rules(case: Case) -> Result:
    """Looks for a pair of classes that validation confuses in one direction only, and training does not.

    A model that follows training's rule says b for what validation calls a, and is as sure of it as of any
    other b; it does not say a for b. Errors of an ordinary model go both ways or are less sure. Every pair is
    tested against the errors that the model makes elsewhere and against the same pair in training (the larger
    p counts), and pays for the number of pairs.
    """
    val, train = case.outputs("val"), case.outputs("train")
    k = val.num_classes
    best: tuple[float, int, int] = (1.0, 0, 0)
    ours, theirs = val.confusion, train.confusion
    for a in range(k):
        for b in range(k):
            if a != b and ours[a, b] >= 5 and (p := _p(ours, theirs, a, b)) < best[0]:
                best = (p, a, b)
    p, a, b = min(1.0, best[0] * k * (k - 1)), best[1], best[2]
    if p >= 0.01 or a == b:
        return Result.clear("no pair of classes is confused in one direction, and in validation only")
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
        "sureness": sure,
    }
    text = (
        f"{int(ours[a, b]):,} of {int(ours[a].sum()):,} validation samples {names}, {int(ours[b, a]):,} the "
        f"other way; {int(theirs[a, b]):,} of {int(theirs[a].sum()):,} in training"
    )
    if sure is not None and sure < 0.3:
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
        remedy=Remedy(
            f"Look at the listed samples and at training samples of {val.classes[a]!r}: agree on one rule "
            "for both, and label one side again."
        ),
    )


def _p(ours: np.ndarray, theirs: np.ndarray, a: int, b: int) -> float:
    """The larger of two one-sided p-values: a→b against what errors of this model usually are, and against
    a→b in training; 1 where b→a is half as frequent or more, or training has but a few of a: a network that
    knows those by heart is right there, and that says nothing.

    The reverse is only held against it by its rate: where the other rule left few samples called b, those say
    little for themselves.
    """
    from scipy.stats import binomtest, fisher_exact

    n, m = int(ours[a].sum()), int(ours[b].sum())
    there, back = int(ours[a, b]), int(ours[b, a])
    if back / max(m, 1) >= 0.5 * there / n or int(theirs[a].sum()) < FEW:
        return 1.0
    others = [c for c in range(len(ours)) if c not in (a, b)]
    errors = ours[others].sum() - ours[others, others].sum()
    usual = max(USUAL, float(errors / max(ours[others].sum(), 1)))
    beyond = float(binomtest(there, n, min(usual, 1 - 1e-9), alternative="greater").pvalue)
    table = [[there, n - there], [int(theirs[a, b]), int(theirs[a].sum()) - int(theirs[a, b])]]
    return max(beyond, float(fisher_exact(table, alternative="greater")[1]))


def _points(val: Outputs, train: Outputs, a: int, b: int, p: float) -> tuple[float, Estimate]:
    """Share of samples of the other rule: a→b beyond what the reverse and training show."""
    ours, theirs, n = val.confusion, train.confusion, len(val)
    na, nb, nt = (max(int(c), 1) for c in (ours[a].sum(), ours[b].sum(), theirs[a].sum()))
    usual = float(na * max(ours[b, a] / nb, theirs[a, b] / nt))
    recall = max(_recall(val, b), 0.5)
    count = float(max(float(ours[a, b]) - usual, 0.0) / recall)
    spread = math.sqrt(float(ours[a, b]) + usual * max(na / nb, na / nt, 1.0)) / recall
    points = count / n
    # what the model does not follow of the other rule does not show: the interval reaches up a little more
    return points, Estimate(points, max((count - Z95 * spread) / n, 0.0), (1.1 * count + Z95 * spread) / n, p)


def _recall(out: Outputs, c: int) -> float:
    row = out.confusion[c]
    return float(row[c] / row.sum()) if row.sum() else 0.0


def _sureness(val: Outputs, a: int, b: int) -> float | None:
    """How often an a that is called b is surer than a right b; half where they are alike."""
    p = val.probabilities
    if p is None:
        return None
    said = val.predictions == b
    wrong, right = said & (val.labels == a), said & (val.labels == b)
    if not right.any():
        return 0.5
    both = wrong | right
    return auc(p[both, b], wrong[both])
