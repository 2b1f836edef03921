"""A step and a waterfall: exact fractions, because accuracies are counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..proportions import DIFFERENT, Weighted, cramer, weighted
from ..stats import Z95, difference, paired, samples_for_paired

__all__ = ["Count", "Step", "Waterfall", "absent", "between", "prior", "same", "to_others"]

PRIOR = "prior shift: classes in other proportions than in training"

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes
    ----------
    name : str
    points : Fraction
        Accuracy before the step minus accuracy after it; exact, because accuracies are counts.
    low, high : float
        95 % interval of what the step would be on new samples.
    says : str
    key : str
        A word for programs: ``"dropout"``, ``"augmentation"``, …
    before, after : Fraction or None
        The two accuracies.
    p : float or None
        Of "the step is 0"; None where it was not tested.
    """

    name: str
    points: Fraction
    low: float
    high: float
    says: str = ""
    key: str = ""
    before: Fraction | None = None
    after: Fraction | None = None
    p: float | None = None

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "step": self.name,
            "key": self.key,
            "points": float(self.points),
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "before": None if self.before is None else float(self.before),
            "after": None if self.after is None else float(self.after),
            "says": self.says,
        }


@dataclass(frozen=True)
class Waterfall:
    """Steps from `first` (an accuracy) to `last`.

    Attributes
    ----------
    first, last : Fraction
        What training logged, and the stand-alone validation accuracy.
    steps : sequence of Step
    notes : sequence of str
        What could not be separated, interactions, and what is zero by construction.
    """

    first: Fraction
    last: Fraction
    steps: Sequence[Step]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if sum((s.points for s in self.steps), Fraction(0)) != self.gap:
            raise RuntimeError("the waterfall's steps do not sum to the gap: this is a bug of gapless")

    @property
    def gap(self) -> Fraction:
        """Training minus validation."""
        return self.first - self.last

    def step(self, key: str) -> Step:
        """The step with that key; KeyError where there is none."""
        for s in self.steps:
            if s.key == key:
                return s
        raise KeyError(key)


@dataclass(frozen=True)
class Count:
    """So many right of so many."""

    right: int
    n: int

    @classmethod
    def of(cls, right: Bools) -> Count:
        """Of a list of samples."""
        return cls(int(np.count_nonzero(right)), len(right))

    @property
    def share(self) -> Fraction:
        """Exact."""
        return Fraction(self.right, self.n)


def absent(key: str, name: str, at: Fraction, why: str) -> Step:
    """A step that is 0 because there is nothing that could make one."""
    return Step(name, Fraction(0), 0.0, 0.0, why, key, at, at)


def same(key: str, name: str, before: Bools, after: Bools) -> Step:
    """A step on the very same samples: paired interval, exact McNemar test.

    Examples
    --------
    >>> s = same("x", "a step", np.array([True] * 9 + [False]), np.array([True] * 4 + [False] * 6))
    >>> s.points, s.says
    (Fraction(1, 2), '0 of 10 samples gained, 5 lost: not distinguishable from 0; about 11 would decide')
    """
    n = len(before)
    e = -paired(before, after)
    gained, lost = int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))
    says = f"{gained} of {n:,} samples gained, {lost} lost"
    # small counts: the interval of the normal approximation may leave 0 out where the exact test does not
    low, high = (e.low, e.high) if e.p < 0.05 else (min(e.low, 0.0), max(e.high, 0.0))
    if gained != lost and (e.p >= 0.05 or low <= 0 <= high):
        more = max(samples_for_paired(e.points, (gained + lost) / n), n + 1)
        says += f": not distinguishable from 0; about {more:,} would decide"
    b, a = Count.of(before).share, Count.of(after).share
    return Step(name, b - a, low, high, says, key, b, a, e.p)


def between(key: str, name: str, before: Count, after: Count, says: str = "") -> Step:
    """A step between different samples: interval of a difference of two proportions."""
    e = difference(before.right, before.n, after.right, after.n)
    text = f"{before.right} of {before.n:,} against {after.right} of {after.n:,}"
    low, high = (e.low, e.high) if e.p < 0.05 else (min(e.low, 0.0), max(e.high, 0.0))
    if e.points != 0 and low <= 0 <= high:
        p, q = float(before.share), float(after.share)
        more = math.ceil(Z95**2 * (p * (1 - p) + q * (1 - q)) / e.points**2)
        text += f": not distinguishable from 0; about {more:,} samples each would decide"
    says = f"{text}; {says}" if says else text
    return Step(name, before.share - after.share, low, high, says, key, before.share, after.share, e.p)


def to_weighted(key: str, name: str, before: Count, after: Weighted, says: str = "") -> Step:
    """A step to other samples, whose classes are weighted as training has them."""
    points = before.share - after.share
    p = (before.right + 0.5) / (before.n + 1)
    error = math.hypot(math.sqrt(p * (1 - p) / (before.n + 1)), after.error)
    value = math.erfc(abs(float(points)) / error / math.sqrt(2))
    low, high = float(points) - Z95 * error, float(points) + Z95 * error
    text = (
        f"{before.right} of {before.n:,} against {100 * float(after.share):.1f} %, classes weighted as in "
        "training"
    )
    if value >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
        text += ": not distinguishable from 0"
    says = f"{text}; {says}" if says else text
    return Step(name, points, low, high, says, key, before.share, after.share, value)


def to_others(
    key: str, name: str, before: Count, after: Count, shifted: tuple[Weighted, Step] | None
) -> list[Step]:
    """To other samples; where `prior` says that their classes are in other proportions, what those do by
    themselves is a step of its own."""
    if shifted is None:
        return [between(key, name, before, after)]
    return [to_weighted(key, name, before, shifted[0]), shifted[1]]


def prior(labels: NDArray[np.int64], right: Bools, wanted: NDArray[np.int64]) -> tuple[Weighted, Step] | None:
    """The step from classes in training's proportions to validation's own, on the same samples, and where it
    begins; None where proportions agree within chance.

    Parameters
    ----------
    labels, right : (n,)
        Of validation.
    wanted : (k,) int
        Training samples by class.
    """
    own = np.bincount(labels, minlength=len(wanted))[: len(wanted)]
    v, p = cramer(wanted, own)
    as_trained = weighted(labels, right, wanted) if p < DIFFERENT else None
    if as_trained is None:
        return None
    e, at = as_trained.estimate, Count.of(right).share
    decided = e.p < 0.05
    low, high = (e.low, e.high) if decided else (min(e.low, 0.0), max(e.high, 0.0))
    says = f"class proportions differ (Cramér's V {v:.2f}, p {p:.2g}); recall of each class stays what it is"
    if not decided:
        says += ": not distinguishable from 0"
    return as_trained, Step(PRIOR, as_trained.share - at, low, high, says, "prior", as_trained.share, at, e.p)
