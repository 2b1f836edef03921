"""The waterfall: from the accuracy that training logged to the stand-alone validation accuracy, in steps that
sum to the gap exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .case import Case
from .stats import difference

__all__ = ["Step", "Waterfall", "waterfall"]


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
    """

    name: str
    points: Fraction
    low: float
    high: float
    says: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "step": self.name,
            "points": float(self.points),
            "low": self.low,
            "high": self.high,
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


def waterfall(case: Case) -> Waterfall | None:
    """The steps that this case allows; None where there is no number to begin or to end with."""
    facts = case.facts
    if "outputs" not in facts:
        return None
    val = case.outputs("val")
    last = Fraction(int(val.right.sum()), len(val))
    if "train outputs" in facts:
        train = case.outputs("train")
        clean = Fraction(int(train.right.sum()), len(train))
    elif case.logged is not None:
        clean = Fraction(case.logged).limit_denominator(10**9)
    else:
        return None
    first = clean if case.logged is None else Fraction(case.logged).limit_denominator(10**9)
    steps = []
    if "train outputs" in facts and case.logged is not None:
        name = "logged figure against the same weights on training samples (not separable from outside)"
        low, high = case.outputs("train").interval
        steps.append(Step(name, first - clean, float(first) - high, float(first) - low))
    if "train outputs" in facts:
        train = case.outputs("train")
        e = difference(int(train.right.sum()), len(train), int(val.right.sum()), len(val))
        steps.append(Step("generalisation and shift: not separable", clean - last, e.low, e.high))
    else:
        low, high = val.interval
        name = "all causes together: not separable with validation outputs alone"
        steps.append(Step(name, first - last, float(first) - high, float(first) - low))
    return Waterfall(first, last, steps)
