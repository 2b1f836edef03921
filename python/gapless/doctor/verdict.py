"""What one accuracy is worth: give or take, against guessing, and whether the outputs have an opinion."""

from __future__ import annotations

import math

import numpy as np

from .case import Case
from .outputs import Outputs

__all__ = ["FLAT", "beats_guessing", "names_matter", "opinion", "renamed_accuracy", "verdict"]

FLAT = 0.85  # entropy of the outputs, of log K, from which a network has no opinion


def beats_guessing(out: Outputs) -> float:
    """P-value of "it is no better than naming the most frequent class always", one-sided and exact."""
    from scipy.stats import binomtest

    n = len(out)
    test = binomtest(int(out.right.sum()), n, min(out.majority, 1 - 1e-12), alternative="greater")
    return float(test.pvalue)


def names_matter(out: Outputs, seed: int = 0) -> float:
    """P-value of "the names of the outputs are drawn at random": how often other names are right as often.

    Of a network that has learned nothing this is uniform even where it tells classes apart; of a trained one
    it is 1 / classes! or nearly.
    """
    k = out.num_classes
    if k < 4:  # so few names that a good one stands out of nothing
        return 0.0
    rng = np.random.default_rng([seed, 0x3A])
    rounds = 999
    orders = np.stack([rng.permutation(k) for _ in range(rounds)])
    other = out.confusion[orders, np.arange(k)].sum(axis=1)
    return float(1 + np.count_nonzero(other >= out.confusion.trace())) / (1 + rounds)


def renamed_accuracy(out: Outputs) -> float:
    """Accuracy with each output called what it most often is, every name once."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-out.confusion)
    return float(out.confusion[rows, columns].sum()) / len(out)


def opinion(out: Outputs) -> dict[str, float]:
    """How far the outputs are from uniform, and how the predictions spread over classes."""
    numbers = {"share_of_commonest_prediction": float(np.bincount(out.predictions).max()) / len(out)}
    p = out.probabilities
    if p is not None and out.num_classes > 1:
        safe = np.clip(p, 1e-12, 1)
        numbers["entropy"] = float(-(safe * np.log(safe)).sum(axis=1).mean() / math.log(out.num_classes))
        numbers["confidence"] = float(p.max(axis=1).mean())
    if out.scores is not None and out.kind == "logits":
        numbers["spread_of_logits"] = float(out.scores.std(axis=0).mean())
    return numbers


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
