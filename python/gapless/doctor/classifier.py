"""The data checks' own classifier: least squares on features and random cosines, probabilities out of fold.

Closed form, so that five folds take a second where logistic regression takes ten, and with wrong labels it is
the more robust of the two (they move a mean, not a boundary). How strongly it is held back is chosen by the
out-of-fold likelihood; one temperature makes probabilities of its scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["folds_of", "out_of_fold", "predicted"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

COSINES = 400
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def folds_of(n: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each sample: equal sizes, drawn."""
    return np.asarray(np.random.default_rng([seed, 0xF01D]).permutation(n) % folds, np.int64)


def _lifted(fit: Floats, other: Floats, seed: int) -> tuple[Doubles, Doubles]:
    """Features and random cosines of them (Rahimi and Recht 2007), of one scale."""
    scale = float(np.sqrt((fit.astype(np.float64) ** 2).sum(axis=1).mean())) or 1.0
    rng = np.random.default_rng([seed, 0xC05])
    wave = rng.normal(0, 0.8 / scale, (fit.shape[1], COSINES))
    phase = rng.uniform(0, 2 * np.pi, COSINES)

    def lift(x: Floats) -> Doubles:
        z = x.astype(np.float64)
        return np.concatenate([z / scale, np.sqrt(2 / COSINES) * np.cos(z @ wave + phase)], axis=1)

    return lift(fit), lift(other)


def _scores(fit: Doubles, targets: Doubles, other: Doubles) -> list[Doubles]:
    """Least-squares scores of `other`, one for each of `RIDGES`."""
    mean, prior = fit.mean(axis=0), targets.mean(axis=0)
    x = fit - mean
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    inner = axes.T @ (x.T @ (targets - prior) / len(x))
    turned = (other - mean) @ axes
    step = float(values.mean()) or 1.0
    return [prior + turned @ (inner / (values + ridge * step)[:, None]) for ridge in RIDGES]


def _softmax(scores: Doubles, temperature: float) -> Doubles:
    z = scores * temperature
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    return np.asarray(z / z.sum(axis=1, keepdims=True))


def _loss(scores: Doubles, labels: NDArray[np.int64], temperature: float) -> float:
    p = _softmax(scores, temperature)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(p, 1e-12)).mean())


def _temperature(scores: Doubles, labels: NDArray[np.int64]) -> tuple[float, float]:
    """The temperature of the least log loss, and that loss: on at most 4000 samples."""
    from scipy.optimize import minimize_scalar

    step = max(1, len(scores) // 4000)
    s, y = scores[::step], labels[::step]
    found = minimize_scalar(
        lambda t: _loss(s, y, float(np.exp(t))), bounds=(-2.0, 5.0), method="bounded", options={"xatol": 0.02}
    )
    return float(np.exp(found.x)), float(found.fun)


def out_of_fold(
    x: Floats,
    labels: NDArray[np.int64],
    classes: int,
    seed: int = 0,
    *,
    folds: int = 5,
    fold: NDArray[np.int64] | None = None,
    ask: Callable[[], None] = lambda: None,
) -> Doubles:
    """(n, classes) probabilities, each by a classifier that did not see the sample.

    Parameters
    ----------
    x : (n, d) float32
    labels : (n,) int64
    fold : (n,) int64, optional
        The fold of each sample, such as whole groups; default drawn.
    """
    fold = folds_of(len(x), folds, seed) if fold is None else fold
    lifted, _ = _lifted(x, x[:1], seed)
    targets = np.eye(classes)[labels]
    scores = [np.zeros((len(x), classes)) for _ in RIDGES]
    for k in np.unique(fold):
        ask()
        held = fold == k
        if held.all():
            continue
        for whole, part in zip(scores, _scores(lifted[~held], targets[~held], lifted[held]), strict=True):
            whole[held] = part
    tried = [(_temperature(s, labels), s) for s in scores]
    (temperature, _), best = min(tried, key=lambda t: t[0][1])
    return _softmax(best, temperature)


def predicted(
    x: Floats,
    labels: NDArray[np.int64],
    other: Floats,
    classes: int,
    seed: int = 0,
) -> Doubles:
    """(m, classes) probabilities of other samples by a classifier of `x`; strength chosen on a fifth."""
    held = folds_of(len(x), 5, seed) == 0
    lifted, far = _lifted(x, other, seed)
    targets = np.eye(classes)[labels]
    tried = [_temperature(s, labels[held]) for s in _scores(lifted[~held], targets[~held], lifted[held])]
    k = min(range(len(RIDGES)), key=lambda i: tried[i][1])
    return _softmax(_scores(lifted, targets, far)[k], tried[k][0])
