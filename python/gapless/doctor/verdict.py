"""The verdict on one accuracy: what it is, give or take, and whether it differs from guessing."""

from __future__ import annotations

import math

from .case import Case
from .outputs import Outputs

__all__ = ["beats_guessing", "verdict"]


def beats_guessing(out: Outputs) -> float:
    """P-value of "it is no better than naming the most frequent class always", one-sided and exact."""
    from scipy.stats import binomtest

    n = len(out)
    test = binomtest(int(out.right.sum()), n, min(out.majority, 1 - 1e-12), alternative="greater")
    return float(test.pvalue)


def verdict(case: Case) -> list[str]:
    """One line where there are outputs: rate, interval, majority line.

    ``57.0 % of 288 is 57.0 ± 5.7; majority 56.0 %: not distinguishable from guessing``
    """
    if "outputs" not in case.facts:
        return []
    out = case.outputs("val")
    low, high = out.interval
    share, majority = 100 * out.accuracy, 100 * out.majority
    text = (
        f"{share:.1f} % of {len(out):,} is {share:.1f} ± {50 * (high - low):.1f}; majority {majority:.1f} %: "
    )
    if out.majority == 1:
        return [text + "there is one class only: any model that names it is right"]
    if beats_guessing(out) > 0.025:
        margin = max(out.accuracy - out.majority, 0.02)
        need = math.ceil(1.96**2 * 0.25 / margin**2)
        more = (
            f" (a margin of {100 * margin:.0f} points needs about {need:,} samples)"
            if need > len(out)
            else ""
        )
        return [text + "not distinguishable from guessing" + more]
    return [text + "better than guessing"]
