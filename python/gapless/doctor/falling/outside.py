"""The waterfall of a model that was trained elsewhere, and of a run that cannot be replayed: what outputs
tell."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..case import Case
from .steps import Count, Step, Waterfall, prior, to_others

__all__ = ["JOINT", "of_outputs"]

JOINT = "generalisation and shift: not separable"


def of_outputs(case: Case) -> Waterfall | None:
    """The steps that outputs allow; None where there is no number to begin or to end with."""
    facts = case.facts
    if "outputs" not in facts:
        return None
    val = Count.of(case.outputs("val").right)
    last = val.share
    if "train outputs" in facts:
        train = Count.of(case.outputs("train").right)
        clean = train.share
    elif case.logged is not None:
        clean = Fraction(case.logged).limit_denominator(10**9)
    else:
        return None
    first = clean if case.logged is None else Fraction(case.logged).limit_denominator(10**9)
    steps = []
    if "train outputs" in facts and case.logged is not None:
        name = "logged figure against the same weights on training samples (not separable from outside)"
        low, high = case.outputs("train").interval
        step = Step(name, first - clean, float(first) - high, float(first) - low, "", "logged", first, clean)
        steps.append(step)
    if "train outputs" in facts:
        steps += _other_images(case, train, val)
    else:
        low, high = case.outputs("val").interval
        name = "all causes together: not separable with validation outputs alone"
        step = Step(name, first - last, float(first) - high, float(first) - low, "", "joint", first, last)
        steps.append(step)
    return Waterfall(first, last, steps)


def _other_images(case: Case, train: Count, val: Count) -> list[Step]:
    """From training to validation samples: of what lies between, outputs tell what class proportions do."""
    out = case.outputs("val")
    wanted = np.bincount(case.outputs("train").labels, minlength=out.num_classes)
    return to_others("joint", JOINT, train, val, prior(out.labels, out.right, wanted))
