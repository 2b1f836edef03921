"""Networks: layers, modules with ``forward``, their tracing into a graph; torch.nn's names and defaults.

>>> from gapless import nn
>>> pool = nn.AdaptiveAvgPool2d(1)
>>> net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8, 10))
>>> print(net.summary((1, 28, 28)))
name  layer              output   parameters    MACs
----------------------------------------------------
0     Conv2d             8×28×28          80  56,448
1     ReLU               8×28×28
2     AdaptiveAvgPool2d  8×1×1
3     Flatten            8
4     Linear             10               90      80
----------------------------------------------------
input 1×28×28, 170 parameters (170 trainable), 56,528 multiply-accumulates per sample
"""

from __future__ import annotations

from collections.abc import Sequence

from gapless.nn import _layers, init
from gapless.nn._layers import *  # noqa: F403
from gapless.nn._symbolic import Symbolic, functional
from gapless.nn.module import Layer, Module, ModuleList, Parameter, Sequential
from gapless.nn.net import LoadReport, Net, Summary
from gapless.nn.pretrained import load_pretrained

__all__ = [
    "Layer",
    "LoadReport",
    "Module",
    "ModuleList",
    "Net",
    "Parameter",
    "Sequential",
    "Summary",
    "Symbolic",
    "cat",
    "flatten",
    "hardsigmoid",
    "hardswish",
    "init",
    "leaky_relu",
    "load_pretrained",
    "max_pool2d",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "tanh",
]
__all__ += _layers.__all__

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


def max_pool2d(
    x: Symbolic, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None
) -> Symbolic:
    """`MaxPool2d` as a function, inside a module's ``forward``."""
    return functional("MaxPool2d")(x, kernel_size=kernel_size, stride=stride)


def flatten(x: Symbolic, start_dim: int = 1) -> Symbolic:
    """Everything but the batch in one axis, inside a module's ``forward``."""
    return x.flatten(start_dim)


def cat(values: Sequence[Symbolic], dim: int = 1) -> Symbolic:
    """`Concat` as a function, inside a module's ``forward``: joins values along the channels."""
    if dim != 1:
        raise ValueError(f"nn.cat: only dim=1, the channels, is known here, got {dim}")
    return values[0]._tracer.record("Concat", list(values))
