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

import difflib
from typing import NoReturn

from gapless.nn import _layers, functional, init
from gapless.nn._layers import *  # noqa: F403
from gapless.nn._symbolic import Symbolic
from gapless.nn.containers import ModuleList, Sequential
from gapless.nn.functional import (
    adaptive_avg_pool2d,
    avg_pool2d,
    cat,
    flatten,
    hardsigmoid,
    hardswish,
    leaky_relu,
    max_pool2d,
    relu,
    relu6,
    sigmoid,
    silu,
    tanh,
)
from gapless.nn.module import Layer, Module, Parameter
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
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "cat",
    "flatten",
    "functional",
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

# What torch.nn has under other names here.
_ELSEWHERE = {
    "CrossEntropyLoss": "gapless.losses.CrossEntropy",
    "ModuleDict": "attributes of a Module, or ModuleList",
    "Softmax": "nothing: losses take logits, and predictions come with probabilities",
    "Upsample": "nothing yet",
}


def __getattr__(name: str) -> NoReturn:
    if name in _ELSEWHERE:
        raise AttributeError(f"gapless.nn has no {name!r}; here it is {_ELSEWHERE[name]}")
    near = difflib.get_close_matches(name, __all__, 1)
    raise AttributeError(f"gapless.nn has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
