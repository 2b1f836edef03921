"""How steps interact: Shapley's value of each over all orders, against its place in forward order."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

from ..case import Case
from ..replay import Mode, Replay, Weights
from .steps import Count

__all__ = ["notes", "shapley"]

#: What is taken away, in forward order.
NAMES = ("dropout", "BatchNorm", "augmentation")
_TELLS = Fraction(1, 100)
_SHARE = 0.12  # of the budget


def notes(case: Case, kind: str, weights: Weights, replay: Replay) -> list[str]:
    """A sentence for each step whose size depends on the order by more than a point; none where fewer than
    two of the three are there, and one that says so where the budget does not reach."""
    there = [k for k, has in enumerate((replay.dropout, replay.norm, replay.draws)) if has]
    if len(there) < 2:
        return []
    cost = _cost(case, replay, there)
    if cost > _SHARE * case.budget.seconds or cost > case.budget.left / 2:
        return [f"how the steps interact was not measured: about {math.ceil(cost)} s"]
    values = {}
    for off in _subsets(there):
        passed = replay.passed(kind, weights, _mode(off))
        values[off] = Count.of(passed.right).share
    said = []
    for k, forward, mean in shapley(values, there):
        if abs(mean - forward) > _TELLS:
            said.append(
                f"{NAMES[k]} off: {_points(-forward)} points at its place in the order, {_points(-mean)} "
                "over all orders of the three (Shapley): the steps interact"
            )
    return said


def shapley(values: dict[frozenset[int], Fraction], there: list[int]) -> list[tuple[int, Fraction, Fraction]]:
    """For each, what taking it away adds to accuracy in forward order, and over all orders.

    Examples
    --------
    >>> f = Fraction
    >>> v = {frozenset(): f(0), frozenset({0}): f(1), frozenset({1}): f(1), frozenset({0, 1}): f(1)}
    >>> shapley(v, [0, 1])
    [(0, Fraction(1, 1), Fraction(1, 2)), (1, Fraction(0, 1), Fraction(1, 2))]
    """
    out = []
    orders = list(itertools.permutations(there))
    for k in there:
        before = [frozenset(o[: o.index(k)]) for o in orders]
        mean = sum((values[b | {k}] - values[b] for b in before), Fraction(0)) / len(orders)
        own = frozenset(j for j in there if j < k)
        out.append((k, values[own | {k}] - values[own], mean))
    return out


def _subsets(there: list[int]) -> list[frozenset[int]]:
    return [frozenset(c) for n in range(len(there) + 1) for c in itertools.combinations(there, n)]


def _mode(off: frozenset[int]) -> Mode:
    return Mode(0 not in off, "running" if 1 in off else "batch", "still" if 2 in off else "augmented")


def _cost(case: Case, replay: Replay, there: list[int]) -> float:
    """Seconds of the passes that are not made yet: half of them take a batch's statistics, at three times the
    cost."""
    new = float(2 ** len(there) - len(there) - 1)
    return new * 2.0 * len(replay.ids) * case.seconds_per_image()


def _points(share: Fraction) -> str:
    return f"{100 * float(share):+.1f}"
