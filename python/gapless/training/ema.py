"""The average of the weights: how fast it follows, and how much of the first weights stays in it."""

from __future__ import annotations

import math
from decimal import Context, Decimal

__all__ = ["decay_at", "initial_share"]

# Decimal arithmetic is the same on every machine; exp() of the C library is not, to the last bit.
_CONTEXT = Context(prec=30)


def decay_at(decay: float, tau: float, update: int) -> float:
    """The decay of update number `update` (1 is the first): ``decay * (1 - exp(-update / tau))``.

    Agrees with: YOLOv5's ModelEMA. With ``tau=0`` there is no ramp.

    Examples
    --------
    >>> round(decay_at(0.9999, 2000, 1), 6), decay_at(0.9, 0, 1)
    (0.0005, 0.9)
    """
    if tau == 0:
        return decay
    c = _CONTEXT
    rise = c.subtract(Decimal(1), c.exp(c.divide(Decimal(-update), Decimal(tau))))
    return float(c.multiply(Decimal(decay), rise))


def initial_share(decay: float, tau: float, updates: int) -> float:
    """The share of the weights before the first update that is still in the average after `updates`.

    >>> round(initial_share(0.9999, 0, 1000), 3), initial_share(0.9999, 2000, 1000) < 1e-9
    (0.905, True)
    """
    log = 0.0
    for t in range(1, updates + 1):
        d = decay * -math.expm1(-t / tau) if tau else decay
        if d == 0:
            return 0.0
        log += math.log(d)
        if log < -60:
            return 0.0
    return math.exp(log)
