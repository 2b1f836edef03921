"""One class per row of the C core's table of layers. Editors read ``_layers.pyi``."""

from __future__ import annotations

from gapless._registry import make_classes
from gapless.nn.module import Layer

globals().update(_classes := make_classes("layers", Layer, __name__))
__all__ = sorted(_classes)
