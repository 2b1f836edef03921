"""One class per row of the C core's table of layers. What an editor shows is in ``_layers.pyi``, generated from it."""

from __future__ import annotations

from gapless._registry import make_classes
from gapless.nn.module import Layer

globals().update(_classes := make_classes("layers", Layer, __name__))
__all__ = sorted(_classes)
