"""Residual networks (He et al. 2015), with torchvision's parameter names, shapes and initial values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gapless import nn
from gapless.models._stem import check_stem, choose_stem
from gapless.nn.module import Module

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "resnet8", "resnet18", "resnet50"]


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> Module:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> Module:
    conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class BasicBlock(Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        self.conv1 = _conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = (
            _shortcut(in_channels, width, stride) if stride != 1 or in_channels != width else None
        )

    @property
    def last_norm(self) -> Any:
        return self.bn2

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Module):
    """1x1, 3x3 (which strides, as in torchvision), 1x1 with four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = (
            _shortcut(in_channels, out_channels, stride)
            if stride != 1 or in_channels != out_channels
            else None
        )

    @property
    def last_norm(self) -> Any:
        return self.bn3

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Module):
    """Stem, stages of residual blocks (the first keeps the resolution, the others halve it), average, linear.

    Parameters
    ----------
    block : type
        `BasicBlock` or `Bottleneck`.
    depths : sequence of int
        Blocks per stage.
    widths : sequence of int
        Channels per stage, before the block's expansion.
    num_classes, in_channels, stem, image_size, zero_init_residual
        As in `resnet18`.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        stem: str = "auto",
        image_size: tuple[int, int] | None = None,
        zero_init_residual: bool = False,
    ) -> None:
        self.block = block
        self.depths = tuple(depths)
        self.widths = tuple(widths)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.stem = check_stem(stem)
        self.image_size = image_size
        self.zero_init_residual = zero_init_residual

    def build(self, input_shape: tuple[int, ...] | None) -> None:
        first = self.widths[0]
        if choose_stem(self.stem, self.image_size, input_shape) == "cifar":
            self.conv1 = _conv3x3(self.in_channels, first)
            pool: Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(self.in_channels, first, 7, stride=2, padding=3, bias=False)
            pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = pool
        channels = first
        for k, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            blocks = []
            for j in range(depth):
                blocks.append(self.block(channels, width, 2 if k > 1 and j == 0 else 1))
                channels = width * self.block.expansion
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, self.num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif self.zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for k in range(1, len(self.depths) + 1):
            x = getattr(self, f"layer{k}")(x)
        return self.fc(nn.flatten(self.avgpool(x)))


def _resnet(
    name: str, block: Any, depths: Sequence[int], widths: Sequence[int], arguments: dict[str, Any]
) -> ResNet:
    size = arguments.pop("image_size")
    size = (size, size) if isinstance(size, int) else size
    net = ResNet(block, depths, widths, image_size=None if size is None else (size[0], size[1]), **arguments)
    net.catalogue = {"name": name, **arguments, "image_size": None if size is None else list(size)}
    return net


def resnet8(
    num_classes: int = 10,
    in_channels: int = 3,
    stem: str = "auto",
    image_size: int | tuple[int, int] | None = None,
    zero_init_residual: bool = False,
) -> ResNet:
    """ResNet of 8 layers for small pictures: one basic block each of 16, 32 and 64 channels.

    Parameters
    ----------
    num_classes : int, default 10
        Outputs.
    in_channels : int, default 3
        Channels of the images.
    stem : {'auto', 'cifar', 'imagenet'}, default 'auto'
        ``"cifar"``: 3x3, full resolution. ``"imagenet"``: 7x7 and pooling, a quarter of it. ``"auto"``: by
        the size of
        the images, ``"cifar"`` up to 64 pixels; ``"imagenet"``, as torchvision's, when the weights are
        asked for before any size is known.
    image_size : int or (int, int), optional
        Height and width, pixels; otherwise taken from the first input.
    zero_init_residual : bool, default False
        Start each block as the identity: its last BatchNorm scales by 0.

    Examples
    --------
    >>> resnet8(num_classes=10).net((3, 32, 32), seed=0).parameters_count()
    (78042, 78042)
    """
    return _resnet("resnet8", BasicBlock, (1, 1, 1), (16, 32, 64), dict(locals()))


def resnet18(
    num_classes: int = 1000,
    in_channels: int = 3,
    stem: str = "auto",
    image_size: int | tuple[int, int] | None = None,
    zero_init_residual: bool = False,
) -> ResNet:
    """ResNet-18: two basic blocks each of 64, 128, 256 and 512 channels, as torchvision's.

    Parameters
    ----------
    num_classes : int, default 1000
        Outputs.
    in_channels, stem, image_size, zero_init_residual
        As in `resnet8`.

    Examples
    --------
    >>> summary = resnet18(num_classes=1000).summary((3, 224, 224))
    >>> summary.params, summary.macs  # as torchvision's
    (11689512, 1814073344)
    """
    return _resnet("resnet18", BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), dict(locals()))


def resnet50(
    num_classes: int = 1000,
    in_channels: int = 3,
    stem: str = "auto",
    image_size: int | tuple[int, int] | None = None,
    zero_init_residual: bool = False,
) -> ResNet:
    """ResNet-50: 3, 4, 6 and 3 bottlenecks of 64, 128, 256 and 512 channels, as torchvision's.

    Parameters
    ----------
    num_classes : int, default 1000
        Outputs.
    in_channels, stem, image_size, zero_init_residual
        As in `resnet8`.
    """
    return _resnet("resnet50", Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), dict(locals()))
