"""Optimizers, one class per row of the C core's table, with torch's equations and defaults.

An optimizer here is a plain value: it says how to update, and a plan does it. What torch keeps in the
object (the weights, their momenta) is in the network's store.

>>> from gapless import optim
>>> optim.SGD(lr=0.1, momentum=0.9, nesterov=True)
SGD(lr=0.1, momentum=0.9, nesterov=True)
>>> optim.Adam(betas=(0.9, 0.99)).beta2
0.99
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gapless._registry import Configured, make_classes

__all__ = ["Optimizer"]  # and the rows' names, added below


class Optimizer(Configured):
    """Base of the optimizers."""

    @classmethod
    def _translate(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Takes torch's ``betas=(b1, b2)``: here each is one number, so that a step may change it."""
        names = {p.name for p in cls._row.params}
        if "betas" not in kwargs or not {"beta1", "beta2"} <= names:
            return kwargs
        rest = {k: v for k, v in kwargs.items() if k != "betas"}
        betas = kwargs["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{cls.name}: betas must be a pair of numbers, got {betas!r}")
        if "beta1" in rest or "beta2" in rest:
            raise TypeError(f"{cls.name}: give betas, or beta1 and beta2, not both")
        return {**rest, "beta1": betas[0], "beta2": betas[1]}

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the numbers kept per weight, as torch names them; the store's ``slot0`` is the first."""
        return tuple(self._row.facts["slots"])

    def hyper(self) -> list[float]:
        """All parameters as floats, in order: a row of ``hyper`` for a step."""
        return [float(value) for value in self._config.values()]


globals().update(_classes := make_classes("optimizers", Optimizer, __name__))
__all__ += sorted(_classes)


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimizer that ``{"name": …, **parameters}`` describes."""
    name = config.get("name")
    if name not in _classes:
        raise ValueError(f"optimizer: there is no {name!r}; there are {', '.join(sorted(_classes))}")
    optimizer: Optimizer = _classes[name].from_config(config)
    return optimizer
