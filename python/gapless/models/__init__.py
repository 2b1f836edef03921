"""Models by name, with torchvision's parameter names and shapes; plain `nn.Module` code, to read and to copy.

>>> import gapless as gl
>>> gl.models.list_models("resnet*")
['resnet18', 'resnet50', 'resnet8']
>>> gl.models.create("resnet8", num_classes=10, input_shape=(3, 32, 32)).catalogue["name"]
'resnet8'
"""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from gapless.models.lenet import LeNet, lenet
from gapless.models.mobilenet import (
    MobileNetV2,
    MobileNetV3,
    SqueezeExcitation,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from gapless.models.resnet import ResNet, resnet8, resnet18, resnet50
from gapless.nn.module import Module

__all__ = [
    "LeNet",
    "MobileNetV2",
    "MobileNetV3",
    "ResNet",
    "SqueezeExcitation",
    "create",
    "lenet",
    "list_models",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet8",
    "resnet18",
    "resnet50",
]

_CATALOGUE: dict[str, Callable[..., Module]] = {
    "lenet": lenet,
    "resnet8": resnet8,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3_large,
}


def list_models(pattern: str = "*") -> list[str]:
    """Names in the catalogue that match a shell pattern."""
    return sorted(name for name in _CATALOGUE if fnmatch.fnmatchcase(name, pattern))


def create(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    in_channels: int | None = None,
    **kwargs: Any,
) -> Module:
    """Make a model of the catalogue.

    Parameters
    ----------
    name : str
        As `list_models` gives it.
    num_classes : int, optional
        Outputs of the head.
    input_shape : (C, H, W), optional
        Sets ``in_channels`` and ``image_size``, from which stems and heads follow.
    in_channels : int, optional
        Channels of the images; must agree with `input_shape`.
    **kwargs
        The model's other arguments.

    Raises
    ------
    ValueError
        An unknown name.
    TypeError
        An unknown argument.

    Examples
    --------
    >>> import numpy as np
    >>> net = create("lenet", num_classes=4, input_shape=(1, 28, 28)).net((1, 28, 28), seed=0)
    >>> net(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 4)
    """
    if name not in _CATALOGUE:
        near = difflib.get_close_matches(name, _CATALOGUE, 1)
        hint = f"did you mean {near[0]!r}? There are" if near else "there are"
        raise ValueError(f"model: there is no {name!r}; {hint} {', '.join(list_models())}")
    make = _CATALOGUE[name]
    known = list(inspect.signature(make).parameters)
    for key in kwargs:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise TypeError(f"{name}: unknown argument {key!r}; {hint}")
    if input_shape is not None:
        if len(input_shape) != 3:
            raise ValueError(f"{name}: input_shape must be (C, H, W), got {tuple(input_shape)}")
        channels, *size = (int(n) for n in input_shape)
        if in_channels is not None and in_channels != channels:
            raise ValueError(f"{name}: in_channels is {in_channels}, but input_shape has {channels}")
        in_channels = channels
        kwargs.setdefault("image_size", tuple(size))
    if num_classes is not None:
        kwargs["num_classes"] = num_classes
    if in_channels is not None:
        kwargs["in_channels"] = in_channels
    return make(**kwargs)
