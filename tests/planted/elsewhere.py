"""The net `Small` written in NumPy, with the two modes that other frameworks have: a model trained elsewhere
that somebody forgot to put into evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["evaluation_mode", "in_batches", "trained_mode", "with_statistics_of"]

Floats = NDArray[np.float32]
_EPS = 1e-5
_BLOCKS = ((1, 1), (2, 2), (3, 2))  # number and stride


def evaluation_mode(weights: Mapping[str, NDArray[Any]]) -> Callable[[Floats], Floats]:
    """As it should be: running statistics, no dropout."""
    return lambda x: _forward(weights, x, None)


def trained_mode(weights: Mapping[str, NDArray[Any]], seed: int) -> Callable[[Floats], Floats]:
    """Left in training mode: the batch's own statistics, and dropout of 0.8 before the last layer that
    draws anew at every call."""
    rng = np.random.default_rng(seed)
    return lambda x: _forward(weights, x, rng)


def in_batches(weights: Mapping[str, NDArray[Any]], size: int) -> Callable[[Floats], Floats]:
    """With the statistics of each batch of that size, without dropout; inputs must be whole batches."""

    def scores(x: Floats) -> Floats:
        parts = [_forward(weights, x[at : at + size], None, True) for at in range(0, len(x), size)]
        return np.concatenate(parts)

    return scores


def with_statistics_of(weights: Mapping[str, NDArray[Any]], x: Floats) -> dict[str, NDArray[Any]]:
    """The same weights with BatchNorm's statistics taken anew over these inputs, in evaluation mode."""
    w = dict(weights)
    for k, stride in _BLOCKS:
        x = _convolved(x, w[f"conv{k}.weight"], stride)
        w[f"bn{k}.running_mean"] = x.mean(axis=(0, 2, 3))
        w[f"bn{k}.running_var"] = x.var(axis=(0, 2, 3))
        x = np.maximum(_normed(x, w, f"bn{k}", False), 0)
    return w


def _forward(
    w: Mapping[str, NDArray[Any]], x: Floats, rng: np.random.Generator | None, batch: bool = False
) -> Floats:
    for k, stride in _BLOCKS:
        x = _convolved(x, w[f"conv{k}.weight"], stride)
        x = np.maximum(_normed(x, w, f"bn{k}", batch or rng is not None), 0)
    pooled = x.mean(axis=(2, 3))
    if rng is not None:
        pooled = pooled * (rng.random(pooled.shape) < 0.2) * np.float32(5)
    return np.asarray(pooled @ w["fc.weight"].T + w["fc.bias"], np.float32)


def _convolved(x: Floats, kernel: NDArray[Any], stride: int) -> Floats:
    n, c = x.shape[:2]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    oh, ow = windows.shape[2:4]
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, c * 9)
    out = rows @ kernel.reshape(len(kernel), -1).T
    return np.asarray(out.reshape(n, oh, ow, -1).transpose(0, 3, 1, 2), np.float32)


def _normed(x: Floats, w: Mapping[str, NDArray[Any]], name: str, batch: bool) -> Floats:
    mean = x.mean(axis=(0, 2, 3)) if batch else w[f"{name}.running_mean"]
    var = x.var(axis=(0, 2, 3)) if batch else w[f"{name}.running_var"]
    scale = w[f"{name}.weight"] / np.sqrt(var + _EPS)
    shift = w[f"{name}.bias"] - mean * scale
    return np.asarray(x * scale[:, None, None] + shift[:, None, None], np.float32)
