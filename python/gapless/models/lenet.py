"""A small convolutional network for small pictures, after LeCun et al. 1998."""

from __future__ import annotations

from typing import Any

from gapless import nn
from gapless.nn.module import Module

__all__ = ["LeNet", "lenet"]


class LeNet(Module):
    """conv 3x3x32, pool, conv 3x3x64, pool, linear 128, linear; ReLU between, BatchNorm where `norm`.

    Parameters are those of `lenet`.
    """

    def __init__(
        self, num_classes: int, in_channels: int, image_size: tuple[int, int] | None, norm: bool
    ) -> None:
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.norm = norm

    def build(self, input_shape: tuple[int, ...] | None) -> None:
        size = self.image_size or (
            tuple(input_shape[1:]) if input_shape is not None and len(input_shape) == 3 else None
        )
        if size is None:
            raise ValueError(
                "lenet: its first linear layer depends on the size of the images: give image_size=28"
            )
        if min(size) < 4:
            raise ValueError(f"lenet: images must have at least 4 x 4 pixels, got {size[0]} x {size[1]}")
        self.conv1 = nn.Conv2d(self.in_channels, 32, 3, padding=1)
        if self.norm:
            self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        if self.norm:
            self.bn2 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(64 * (size[0] // 4) * (size[1] // 4), 128)
        self.fc2 = nn.Linear(128, self.num_classes)

    def forward(self, x: Any) -> Any:
        x = self.conv1(x)
        x = nn.max_pool2d(nn.relu(self.bn1(x) if self.norm else x), 2)
        x = self.conv2(x)
        x = nn.max_pool2d(nn.relu(self.bn2(x) if self.norm else x), 2)
        return self.fc2(nn.relu(self.fc1(nn.flatten(x))))


def lenet(
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int | tuple[int, int] | None = None,
    norm: bool = False,
) -> LeNet:
    """LeNet's modern form: two convolutions (32 and 64 maps of 3x3) with pooling, two linear layers.

    Parameters
    ----------
    num_classes : int, default 10
        Outputs.
    in_channels : int, default 1
        Channels of the images.
    image_size : int or (int, int), optional
        Height and width, pixels; otherwise taken from the first input.
    norm : bool, default False
        BatchNorm after each convolution.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    net = LeNet(num_classes, in_channels, None if size is None else (size[0], size[1]), norm)
    net.catalogue = {
        "name": "lenet",
        "num_classes": num_classes,
        "in_channels": in_channels,
        "image_size": None if size is None else list(size),
        "norm": norm,
    }
    return net
