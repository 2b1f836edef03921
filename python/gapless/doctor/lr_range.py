"""The learning-rate range test: one short run whose rate rises from nothing to too much (Smith 2015)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .trial import Trial, first_weights, plain_recipe, seconds_of

if TYPE_CHECKING:
    from .case import Case

__all__ = ["Range", "range_of", "seconds_of_range"]

STEPS, BATCH = 80, 32  # images of a step: at most so many
_SMOOTH = 0.85  # a step's weight is 0.15: the mean of the last six or so
_SPAN = {"SGD": (1e-5, 10.0)}  # others divide by the gradient's own size, and need less
_SPAN_OTHER = (1e-7, 1.0)


@dataclass(frozen=True)
class Range:
    """What came out.

    Attributes
    ----------
    lr, loss, ratio : list of float
        Of each step: rate, smoothed loss, and length of the update over length of the weights.
    suggested : float
        A tenth of the rate at which the loss was least.
    too_large : float or None
        From here on the loss is worse than at the beginning, or not finite.
    ratio_at_recipe : float
        Update over weights at the recipe's own rate.
    """

    lr: list[float]
    loss: list[float]
    ratio: list[float]
    suggested: float
    too_large: float | None
    ratio_at_recipe: float


def range_of(case: Case) -> Range:
    """The range test of the case's recipe, from its first weights; made once."""
    made: Range = case.keep("learning-rate range", lambda: _measure(case))
    return made


def seconds_of_range(case: Case) -> float:
    """Expected seconds of `range_of`."""
    return 1.2 * seconds_of(case, images=STEPS * BATCH)


def _measure(case: Case) -> Range:
    recipe = plain_recipe(case)
    optimizer = recipe["optimizer"]
    low, high = _SPAN.get(optimizer["name"], _SPAN_OTHER)
    trial = Trial(case, {"batch_size": min(BATCH, recipe["batch_size"])})
    start = first_weights(case)
    rates: list[float] = []
    smooth: list[float] = []
    ratios: list[float] = []
    mean, epoch = 0.0, 0
    before = start
    while len(rates) < STEPS and trial.finite:
        for batch in trial.feed(epoch):
            k = len(rates)
            if k >= STEPS or not trial.finite:
                break
            lr = low * (high / low) ** (k / (STEPS - 1))
            loss, _ = trial.update(batch, lr, epoch)
            if not trial.finite:
                break
            mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
            rates.append(lr)
            smooth.append(mean / (1 - _SMOOTH ** (k + 1)))
            ratios.append(trial.moved(before))
            before = trial.net.state_dict()
            if smooth[-1] > 4 * smooth[0] + 1:
                trial.finite = False
        epoch += 1
    return _read(rates, smooth, ratios, float(optimizer["lr"]), diverged=not trial.finite)


def _read(
    rates: list[float], smooth: list[float], ratios: list[float], own: float, *, diverged: bool
) -> Range:
    if not rates:
        return Range([], [], [], own, own, math.nan)
    start = float(np.mean(smooth[:5]))
    best = int(np.argmin(smooth))
    worse = [k for k in range(best, len(rates)) if smooth[k] > start]
    too_large = rates[worse[0]] if worse else (rates[-1] if diverged else None)
    at = int(np.argmin(np.abs(np.log(rates) - math.log(max(own, 1e-12)))))
    inside = rates[0] <= own <= rates[-1] * 1.2
    ratio = ratios[at] * (1.0 if inside else own / rates[at])
    return Range(rates, smooth, ratios, _rounded(rates[best] / 10), too_large, ratio)


def _rounded(lr: float) -> float:
    """To one of 1, 2, 5 times a power of ten: a suggestion is not finer than that."""
    exponent = math.floor(math.log10(lr))
    lead = min((1, 2, 5, 10), key=lambda m: abs(math.log(lr / (m * 10.0**exponent))))
    return float(f"{lead * 10.0**exponent:.6g}")
