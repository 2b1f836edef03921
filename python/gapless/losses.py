"""Losses, one class per row of the C core's table. They take logits, never softmax-ed outputs.

>>> from gapless import losses
>>> losses.CrossEntropy(label_smoothing=0.1)
CrossEntropy(label_smoothing=0.1)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gapless._registry import Configured, make_classes

__all__ = ["Loss"]  # and the rows' names, added below


class Loss(Configured):
    """Base of the losses."""


globals().update(_classes := make_classes("losses", Loss, __name__))
__all__ += sorted(_classes)


def from_config(config: Mapping[str, Any]) -> Loss:
    """The loss that ``{"name": …, **parameters}`` describes."""
    name = config.get("name")
    if name not in _classes:
        raise ValueError(f"loss: there is no {name!r}; there are {', '.join(sorted(_classes))}")
    loss: Loss = _classes[name].from_config(config)
    return loss
