"""Layers without weights as functions, for a module's ``forward``: ``F.relu(x)``.

>>> from gapless import nn
>>> import gapless.nn.functional as F
>>> class Gate(nn.Module):
...     def forward(self, x):
...         return x * F.sigmoid(F.adaptive_avg_pool2d(x, 1))
>>> [node["layer"] for node in Gate().trace((4, 8, 8))["nodes"]]
['AdaptiveAvgPool2d', 'Sigmoid', 'Mul']
"""

from __future__ import annotations

from collections.abc import Sequence

from gapless.nn._symbolic import Symbolic, functional

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "cat",
    "flatten",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "max_pool2d",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "tanh",
]

_Pair = int | tuple[int, int]

relu = functional("ReLU")
relu6 = functional("ReLU6")
sigmoid = functional("Sigmoid")
tanh = functional("Tanh")
silu = functional("SiLU")
hardswish = functional("Hardswish")
hardsigmoid = functional("Hardsigmoid")


def leaky_relu(x: Symbolic, negative_slope: float = 0.01) -> Symbolic:
    """`LeakyReLU` as a function, inside a module's ``forward``."""
    return functional("LeakyReLU")(x, negative_slope=negative_slope)


def max_pool2d(x: Symbolic, kernel_size: _Pair, stride: _Pair | None = None, padding: _Pair = 0) -> Symbolic:
    """`MaxPool2d` as a function, inside a module's ``forward``."""
    return functional("MaxPool2d")(x, kernel_size=kernel_size, stride=stride, padding=padding)


def avg_pool2d(x: Symbolic, kernel_size: _Pair, stride: _Pair | None = None, padding: _Pair = 0) -> Symbolic:
    """`AvgPool2d` as a function, inside a module's ``forward``."""
    return functional("AvgPool2d")(x, kernel_size=kernel_size, stride=stride, padding=padding)


def adaptive_avg_pool2d(x: Symbolic, output_size: _Pair) -> Symbolic:
    """`AdaptiveAvgPool2d` as a function, inside a module's ``forward``."""
    return functional("AdaptiveAvgPool2d")(x, output_size=output_size)


def flatten(x: Symbolic, start_dim: int = 1) -> Symbolic:
    """Everything but the batch in one axis, inside a module's ``forward``."""
    return x.flatten(start_dim)


def cat(values: Sequence[Symbolic], dim: int = 1) -> Symbolic:
    """`Concat` as a function, inside a module's ``forward``: joins values along the channels."""
    if dim != 1:
        raise ValueError(f"nn.cat: only dim=1, the channels, is known here, got {dim}")
    return values[0]._tracer.record("Concat", list(values))
