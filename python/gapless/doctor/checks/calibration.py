"""C4: the model is surer than it is right."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..outputs import Outputs
from ..result import Remedy, Result
from ..stats import Estimate
from ..table import check

__all__ = ["calibration", "expected_error", "temperature"]

BINS = 15
ROUNDS = 400


@check(
    "C4",
    "calibration",
    "the model is surer than it is right",
    measure="mean confidence minus accuracy (no accuracy comes back by mending it)",
    needs=["scores"],
    cost=lambda case: 0.3,
    threshold=0.25,
    reference="Guo et al. 2017, On calibration of modern neural networks",
)
def calibration(case: Case) -> Result:
    """Compares what the model says of its own certainty with how often it is right.

    Interval by drawing samples with replacement; the temperature is the one that validation likes best. An
    over-fitted network is as sure as it was right in training: that is no finding here, nor are less than 25
    points.
    """
    out = case.outputs("val")
    p = out.probabilities
    assert p is not None
    top = np.take_along_axis(p, out.predictions[:, None], axis=1)[:, 0]
    rng = np.random.default_rng([case.seed, 0xC4])
    drawn = rng.integers(0, len(out), (ROUNDS, min(len(out), 5000)))
    gaps = (top - out.right)[drawn].mean(axis=1) if len(out) <= 5000 else _gaps(top - out.right)
    points = float((top - out.right).mean())
    spread = float(gaps.std()) or 1e-9
    e = Estimate(
        points,
        min(float(np.quantile(gaps, 0.025)), points),
        max(float(np.quantile(gaps, 0.975)), points),
        math.erfc(abs(points) / spread / math.sqrt(2)),
    )
    errors = [expected_error(top[d], out.right[d]) for d in drawn[:100]]
    numbers = {
        "confidence": float(top.mean()),
        "accuracy": out.accuracy,
        "ece": expected_error(top, out.right),
        "ece_low": float(np.quantile(errors, 0.025)),
        "ece_high": float(np.quantile(errors, 0.975)),
        "temperature": temperature(out),
    }
    text = (
        f"mean confidence {100 * numbers['confidence']:.1f} %, right {100 * out.accuracy:.1f} %; expected "
        f"calibration error {numbers['ece']:.3f}, best temperature {numbers['temperature']:.2f}"
    )
    if points < 0.25:
        return Result.clear(text, e, evidence=numbers)
    trained = _in_training(case)
    if trained is not None and trained - out.accuracy > points - 0.10:
        return Result.clear(
            f"{text}; it was right in {100 * trained:.1f} % of training, and is no surer than that: what is "
            "lost between the two is the cause",
            e,
            evidence=numbers,
        )
    return Result.found(
        text,
        e,
        evidence=numbers,
        remedy=Remedy(
            f"Divide logits by {numbers['temperature']:.2f} before softmax wherever the confidence is used; "
            "for the cause look at over-fitting and at inputs that differ from training."
        ),
    )


def _in_training(case: Case) -> float | None:
    """How often it was right in training, as it was logged or on training samples."""
    known = [] if case.logged is None else [case.logged]
    if "train outputs" in case.facts:
        known.append(case.outputs("train").accuracy)
    return max(known) if known else None


def _gaps(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of the mean's normal distribution: with so many samples that is what drawing gives."""
    from scipy.stats import norm

    at = (np.arange(ROUNDS) + 0.5) / ROUNDS
    spread = float(differences.std()) / math.sqrt(len(differences))
    return np.asarray(norm.ppf(at) * spread + differences.mean())


def expected_error(top: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: |confidence − accuracy| over 15 bins of equal width, by their size.

    >>> round(expected_error(np.array([0.9, 0.9]), np.array([True, False])), 3)
    0.4
    """
    bins = np.minimum((top * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=top - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(top))


def temperature(out: Outputs) -> float:
    """What to divide logits by so that their log-likelihood is greatest, from 0.05 to 20."""
    from scipy.optimize import minimize_scalar

    assert out.scores is not None
    z = out.scores if out.kind == "logits" else np.log(np.clip(out.scores, 1e-12, 1))
    z = z - z.max(axis=1, keepdims=True)
    own = np.take_along_axis(z, out.labels[:, None], axis=1)[:, 0]

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        return float((np.log(np.exp(z / t).sum(axis=1)) - own / t).mean())

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return math.exp(float(found.x))
