"""Rules for initial weights, as torch.nn.init spells them, for layers before (or after) they are first used.

A rule is recorded, and goes into the network's graph document; the numbers are drawn when the network's
store is made,
from its seed and the weight's name. So the same seed gives the same weights on every machine.

>>> from gapless import nn
>>> conv = nn.Conv2d(3, 16, 3, bias=False)
>>> nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
"""

from __future__ import annotations

import math

from gapless.nn.module import Parameter

__all__ = [
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Gain that keeps the variance through a nonlinearity, as torch.nn.init.calculate_gain.

    >>> round(calculate_gain("relu"), 4)
    1.4142
    """
    if nonlinearity in ("linear", "conv2d", "sigmoid"):
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3.0
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    raise ValueError(
        "nonlinearity must be one of 'linear', 'conv2d', 'sigmoid', 'tanh', 'relu', 'leaky_relu', "
        f"got {nonlinearity!r}"
    )


def _fans(p: Parameter) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in / groups, …)."""
    if len(p.shape) < 2:
        raise ValueError(f"{p!r}: fan_in and fan_out need at least 2 dimensions")
    receptive = math.prod(p.shape[2:])
    return p.shape[1] * receptive, p.shape[0] * receptive


def _set(p: Parameter, kind: str, arg: float) -> None:
    if not isinstance(p, Parameter):
        raise TypeError(f"init: must be given a layer's weight (conv.weight), got {type(p).__name__}")
    if not math.isfinite(arg) or arg < 0:
        raise ValueError(f"init: the spread of {p!r} must be >= 0, got {arg}")
    p._layer._rule(p._suffix, kind, arg)


def zeros_(p: Parameter) -> None:
    """All zeros."""
    _set(p, "zero", 0.0)


def ones_(p: Parameter) -> None:
    """All ones."""
    _set(p, "one", 0.0)


def constant_(p: Parameter, val: float) -> None:
    """0 or 1; other constants are not known here."""
    if val not in (0, 1):
        raise ValueError(f"init.constant_: val must be 0 or 1, got {val}")
    (ones_ if val else zeros_)(p)


def uniform_(p: Parameter, a: float, b: float) -> None:
    """U(a, b); here a must be -b."""
    if a != -b:
        raise ValueError(f"init.uniform_: the range must be symmetric, U(-b, b), got ({a}, {b})")
    _set(p, "uniform", b)


def normal_(p: Parameter, mean: float = 0.0, std: float = 1.0) -> None:
    """N(0, std^2)."""
    if mean != 0:
        raise ValueError(f"init.normal_: mean must be 0, got {mean}")
    _set(p, "normal", std)


def _kaiming_std(p: Parameter, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = _fans(p)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_normal_(
    p: Parameter, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> None:
    """N(0, gain^2 / fan), as torch.nn.init.kaiming_normal_ (He et al. 2015)."""
    _set(p, "normal", _kaiming_std(p, a, mode, nonlinearity))


def kaiming_uniform_(
    p: Parameter, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> None:
    """U(-b, b) with b = gain * sqrt(3 / fan), as torch.nn.init.kaiming_uniform_."""
    _set(p, "uniform", math.sqrt(3.0) * _kaiming_std(p, a, mode, nonlinearity))


def xavier_normal_(p: Parameter, gain: float = 1.0) -> None:
    """N(0, gain^2 * 2 / (fan_in + fan_out)), as torch.nn.init.xavier_normal_ (Glorot and Bengio 2010)."""
    _set(p, "normal", gain * math.sqrt(2.0 / sum(_fans(p))))


def xavier_uniform_(p: Parameter, gain: float = 1.0) -> None:
    """U(-b, b) with b = gain * sqrt(6 / (fan_in + fan_out)), as torch.nn.init.xavier_uniform_."""
    _set(p, "uniform", gain * math.sqrt(6.0 / sum(_fans(p))))
