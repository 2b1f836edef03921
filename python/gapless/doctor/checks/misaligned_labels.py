"""L2: labels that belong to other images: a list shifted by some rows, or shuffled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import features
from ..case import Case
from ..result import Remedy, Result
from ..stats import Estimate, paired
from ..table import check

__all__ = ["misaligned_labels"]

MOST = 4000
NEIGHBOURS = 5
SHIFTS = (-4, -3, -2, -1, 1, 2, 3, 4)
LEAST = 200
NOTHING = 0.055  # of what chance leaves, below which neighbours' agreement says nothing of labels

Bools = NDArray[np.bool_]


class Agreement(NamedTuple):
    """What labels of neighbours say of a split's labels.

    Attributes
    ----------
    right : (n,) bool
        Whether the neighbours' vote is the label.
    chance : float
        The same for permuted labels, on average.
    by_shift : dict of int to (n,) bool
        With the labels moved by so many rows.
    other : dict of int to float
        Share of labels that such a move changes.
    """

    right: Bools
    chance: float
    by_shift: dict[int, Bools]
    other: dict[int, float]

    @property
    def lift(self) -> float:
        """Agreement above chance."""
        return float(self.right.mean()) - self.chance

    @property
    def error(self) -> float:
        """Standard error of the lift."""
        a = float(np.clip(self.right.mean(), 0.01, 0.99))
        return float(np.sqrt(a * (1 - a) / len(self.right)))


@check(
    "L2",
    "misaligned-labels",
    "labels belong to other images",
    measure="share of labels that are not their image's",
    needs=["images"],
    cost=lambda case: features.look_cost(case) + 2.0,
    threshold=0.10,
    explains=["L1", "L3", "G1", "G2", "G3", "G4", "G5", "W1", "C1", "C4", "S3", "S7", "A1", "P1", "P2", "P3"],
    reference="Keras #11427, #6499, #3477: a generator shuffles, the labels do not",
)
def misaligned_labels(case: Case) -> Result:
    """Lets the nearest images vote for each label, as the list is and with labels moved by up to four rows.

    Neighbours that agree more under a shift show where the labels belong; neighbours that agree no more than
    under a permutation, in one split while they do in the other (or anywhere), show labels shuffled.
    """
    data = case.data
    assert data is not None
    names = [s for s in ("train", "val") if s in data.splits and len(data.splits[s]) >= LEAST]
    names = [s for s in names if len(np.unique(data.labels[data.splits[s]])) > 1]
    if not names:
        n = max((len(v) for v in data.splits.values()), default=0)
        return Result.undecided(
            f"could not be decided with {n} samples of one split; about {LEAST} would", samples_needed=LEAST
        )
    size = min(MOST, *(len(features.look(case, s).indices) for s in names))
    found: dict[str, Agreement] = {s: agreement(case, s, size) for s in names}
    numbers: dict[str, Any] = {
        s: {
            "agreement": float(a.right.mean()),
            "chance": a.chance,
            "by_shift": {k: float(v.mean()) for k, v in a.by_shift.items()},
        }
        for s, a in found.items()
    }
    for s, a in found.items():
        moved = _shifted(a, len(names))
        if moved is not None:
            return _says_shift(s, *moved, numbers)
    return _shuffled(case, found, numbers)


def agreement(case: Case, split: str, size: int) -> Agreement:
    """Votes of the nearest among `size` images of a split: as many in each, or a small one agrees less."""
    data = case.data
    assert data is not None
    looked = features.look(case, split)
    rows = np.sort(np.random.default_rng([case.seed, 2]).permutation(len(looked.indices))[:size])
    x, _ = features.whitened(looked.matrix[rows], looked.matrix[:1])
    at, n = looked.indices[rows], len(rows)
    near = _neighbours(x)

    def votes(labels: NDArray[np.int64]) -> Bools:
        table = np.zeros((n, data.num_classes))
        for j in range(near.shape[1]):
            np.add.at(table, (np.arange(n), labels[at[near[:, j]]]), 1 - 0.01 * j)
        return np.asarray(table.argmax(axis=1) == labels[at])

    whole = data.indices(split)
    by_shift, other = {}, {}
    for shift in SHIFTS:  # the list may have shifted before it was split, or one split by itself
        inside = data.labels.copy()
        inside[whole] = np.roll(data.labels[whole], shift)
        either = [(votes(moved), moved) for moved in (np.roll(data.labels, shift), inside)]
        by_shift[shift], moved = max(either, key=lambda pair: float(pair[0].mean()))
        other[shift] = float(np.mean(moved[whole] != data.labels[whole]))
    rng = np.random.default_rng([case.seed, 22])
    null = []
    for _ in range(10):
        mixed = data.labels.copy()
        mixed[at] = rng.permutation(data.labels[at])
        null.append(votes(mixed).mean())
    return Agreement(votes(data.labels), float(np.mean(null)), by_shift, other)


def _neighbours(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n, 5) nearest other rows of each row, the nearest first."""
    n, k = len(x), min(NEIGHBOURS, len(x) - 1)
    length = (x**2).sum(axis=1)
    out = np.empty((n, k), np.int64)
    for at in range(0, n, 512):
        part = np.arange(at, min(at + 512, n))
        far = length[None, :] - 2 * (x[part] @ x.T)
        far[np.arange(len(part)), part] = np.inf
        near = np.argpartition(far, k - 1, axis=1)[:, :k]
        rank = np.argsort(np.take_along_axis(far, near, axis=1), axis=1)
        out[part] = np.take_along_axis(near, rank, axis=1)
    return out


def _shifted(a: Agreement, splits: int) -> tuple[int, Estimate] | None:
    """The shift under which neighbours agree more than as the list is, if that is no chance."""
    best = max(a.by_shift, key=lambda k: (float(a.by_shift[k].mean()), -abs(k)))
    e = paired(a.right, a.by_shift[best])
    p = min(1.0, e.p * 2 * len(SHIFTS) * splits)
    if e.low <= 0.02 or p >= 0.001:
        return None
    # agreement as it is, above chance, over agreement where labels belong, above chance: the share in place;
    # a label that is another image's may be right by chance
    top = float(a.by_shift[best].mean()) - a.chance
    points = a.other[best] * float(np.clip(e.points / max(top, 1e-6), 0, 1))
    wide = 1.96 * float(np.hypot(a.error, 1.5 / np.sqrt(len(a.right)) * 0.5)) / max(top, 1e-6)
    return best, Estimate(points, max(0.01, points - wide), min(1.0, points + wide), p)


def _says_shift(split: str, shift: int, e: Estimate, numbers: dict[str, Any]) -> Result:
    seen = numbers[split]
    says = (
        f"with {split}'s labels moved by {shift:+d} row(s) {100 * seen['by_shift'][shift]:.0f} % of "
        f"neighbours agree instead of {100 * seen['agreement']:.0f} %: images and labels are off by so many"
    )
    remedy = Remedy(
        "Pair images and labels by id, not by position: look for a header, a skipped or doubled row."
    )
    return Result.found(says, e, evidence={**numbers, "split": split, "shift": shift}, remedy=remedy)


def _shuffled(case: Case, found: dict[str, Agreement], numbers: dict[str, Any]) -> Result:
    """No shift helps: are the labels of one split, or of all, no more than chance?"""
    best = max(found, key=lambda s: found[s].lift)
    top = found[best]
    worst = min(found, key=lambda s: found[s].lift)
    low = found[worst]
    remedy = Remedy(
        "Pair images and labels by id, not by position: one of the two was shuffled or sorted by itself."
    )
    gap = top.lift - low.lift
    error = float(np.hypot(top.error, low.error))
    if worst != best and top.lift > 0.1 and low.lift < 0.75 * top.lift and gap > 5 * error:
        points = (1 - low.chance) * float(np.clip(1 - low.lift / top.lift, 0, 1))
        # neighbours are fewer in a small split: it agrees less also where all is well
        wide = 1.96 * float(np.hypot(low.error, low.lift / top.lift * top.error)) / top.lift + 0.05
        p = _tail(gap / error)
        if points - wide > 0.25:
            says = (
                f"neighbours agree with {100 * low.right.mean():.0f} % of {worst}'s labels and with "
                f"{100 * top.right.mean():.0f} % of {best}'s ({100 * low.chance:.0f} % is chance)"
            )
            e = Estimate(points, points - wide, min(1.0, points + wide), p)
            return Result.found(says, e, evidence={**numbers, "split": worst}, remedy=remedy)
    least = NOTHING * (1 - top.chance)
    if top.lift < least and not _model_knows(case):
        best = max(found, key=lambda s: len(features.look(case, s).indices))
        top = agreement(case, best, MOST)  # as many as there are
        least = NOTHING * (1 - top.chance)
    if top.lift + 1.96 * top.error < least and not _model_knows(case):
        n = len(top.right)
        says = (
            f"neighbours agree with {100 * top.right.mean():.1f} % of the labels, {100 * top.chance:.1f} % "
            "is chance: the images say nothing of the labels"
        )
        p = _tail((least - top.lift) / top.error)
        if p < 1e-3:
            points = 1 - top.chance
            e = Estimate(points, 0.9 * points, min(1.0, points + 0.05), p)
            return Result.found(says, e, evidence=numbers, remedy=remedy)
        needed = int(n * (4 * top.error / max(least - top.lift, 1e-3)) ** 2) + 1
        return Result.undecided(says, samples_needed=needed, evidence=numbers)
    if top.lift < least and not _model_knows(case):
        return Result.undecided(
            "neighbours hardly agree with the labels: plain features say too little here",
            samples_needed=4 * len(top.right),
            evidence=numbers,
        )
    said = (
        f"neighbours agree with {100 * top.right.mean():.0f} % of the labels; {100 * top.chance:.0f} % is "
        "chance, and no shift agrees more"
    )
    return Result.clear(said, Estimate(0.0, 0.0, min(1.0, 2 * top.error), 1.0), evidence=numbers)


def _model_knows(case: Case) -> bool:
    """Whether a model is right on validation more often than guessing: then labels do fit images."""
    if "outputs" not in case.facts:
        return False
    out = case.outputs("val")
    return out.interval[0] > out.majority + 0.02


def _tail(z: float) -> float:
    from scipy.stats import norm

    return float(min(1.0, 2 * norm.sf(z)))
