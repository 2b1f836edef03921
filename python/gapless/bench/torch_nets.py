"""The cases' nets as plain PyTorch modules, with torchvision's names of parameters and its structure.

Runs under any Python that has torch; imports nothing of gapless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cases
import torch
from torch import Tensor, nn


class LeNet(nn.Module):
    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * (size // 4) ** 2, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


# ---- residual networks ----


def conv(i: int, o: int, k: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, stride, k // 2, bias=False)


class Block(nn.Module):
    """torchvision's BasicBlock (expansion 1) and Bottleneck (expansion 4), by `expansion`."""

    def __init__(self, i: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        o = width * expansion
        sizes = (
            [(i, width, 3, stride), (width, o, 3, 1)]
            if expansion == 1
            else [(i, width, 1, 1), (width, width, 3, stride), (width, o, 1, 1)]
        )
        for k, size in enumerate(sizes, 1):
            setattr(self, f"conv{k}", conv(*size))
            setattr(self, f"bn{k}", nn.BatchNorm2d(size[1]))
        self.count = len(sizes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(conv(i, o, 1, stride), nn.BatchNorm2d(o)) if stride != 1 or i != o else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k in range(1, self.count + 1):
            y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
            if k < self.count:
                y = self.relu(y)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(
        self, channels: int, stem: str, widths: list[int], blocks: list[int], expansion: int, classes: int
    ) -> None:
        super().__init__()
        first = widths[0]
        self.stem = stem
        self.conv1 = conv(channels, first, 3) if stem == "cifar" else conv(channels, first, 7, 2)
        self.bn1, self.relu = nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        i = first
        for k, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
            layers = []
            for b in range(count):
                layers.append(Block(i, width, 2 if b == 0 and k > 1 else 1, expansion))
                i = width * expansion
            setattr(self, f"layer{k}", nn.Sequential(*layers))
        self.depth = len(widths)
        self.fc = nn.Linear(i, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for k in range(1, self.depth + 1):
            x = getattr(self, f"layer{k}")(x)
        return self.fc(x.mean((2, 3)))


# ---- mobile networks ----


def rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and not below nine tenths: torchvision's _make_divisible."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def halvings(strides: list[int], stem: str) -> Iterator[int]:
    """The strides; small pictures keep their resolution through the first two halvings."""
    kept = 2 if stem == "cifar" else 0
    for stride in strides:
        keeps = stride == 2 and kept > 0
        kept -= keeps
        yield 1 if keeps else stride


def unit(
    i: int,
    o: int,
    k: int = 1,
    stride: int = 1,
    *,
    depthwise: bool = False,
    act: Callable[[], nn.Module] | None = None,
    v3: bool = False,
) -> nn.Sequential:
    """Convolution, BatchNorm and, where given, an activation."""
    norm = nn.BatchNorm2d(o, eps=1e-3, momentum=0.01) if v3 else nn.BatchNorm2d(o)
    layers: list[nn.Module] = [
        nn.Conv2d(i, o, k, stride, k // 2, groups=i if depthwise else 1, bias=False),
        norm,
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


def hardswish() -> nn.Module:
    return nn.Hardswish(inplace=True)


class Residual(nn.Module):
    """Adds the input to what the layers under `name` make of it, where the shapes allow."""

    def __init__(self, name: str, layers: list[nn.Module], adds: bool) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))
        self.name, self.adds = name, adds

    def forward(self, x: Tensor) -> Tensor:
        y = getattr(self, self.name)(x)
        return x + y if self.adds else y


class Gate(nn.Module):
    """Squeeze-excitation."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.fc1(self.avgpool(x)))
        return x * self.scale_activation(self.fc2(y))


class MobileNet(nn.Module):
    """Without Dropout: its draws would make two sides compute different things."""

    def __init__(self, features: list[nn.Module], classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2(channels: int, stem: str, width: float, classes: int) -> MobileNet:
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    first, *strides = halvings([2, *(row[3] for row in table)], stem)
    i = rounded(32 * width)
    layers: list[nn.Module] = [unit(channels, i, 3, first, act=relu6)]
    for (expansion, plain, count, _), stride_first in zip(table, strides, strict=True):
        o = rounded(plain * width)
        for k in range(count):
            stride, hidden = stride_first if k == 0 else 1, i * expansion
            parts: list[nn.Module] = [unit(i, hidden, act=relu6)] if expansion != 1 else []
            parts += [unit(hidden, hidden, 3, stride, depthwise=True, act=relu6)]
            parts += [nn.Conv2d(hidden, o, 1, bias=False), nn.BatchNorm2d(o)]
            layers.append(Residual("conv", parts, stride == 1 and i == o))
            i = o
    last = rounded(1280 * max(1.0, width))
    layers.append(unit(i, last, act=relu6))
    return MobileNet(layers, [nn.Identity(), nn.Linear(last, classes)])


V3_LARGE = """3 16 16 - R 1 |
3 64 24 - R 2 | 3 72 24 - R 1 | 5 72 40 g R 2 | 5 120 40 g R 1 | 5 120 40 g R 1 |
3 240 80 - H 2 | 3 200 80 - H 1 | 3 184 80 - H 1 | 3 184 80 - H 1 | 3 480 112 g H 1 | 3 672 112 g H 1 |
5 672 160 g H 2 | 5 960 160 g H 1 | 5 960 160 g H 1"""
V3_SMALL = """3 16 16 g R 2 |
3 72 24 - R 2 | 3 88 24 - R 1 | 5 96 40 g H 2 | 5 240 40 g H 1 | 5 240 40 g H 1 |
5 120 48 g H 1 | 5 144 48 g H 1 | 5 288 96 g H 2 | 5 576 96 g H 1 | 5 576 96 g H 1"""


def mobilenet_v3(
    table: str, penultimate: int, channels: int, stem: str, width: float, classes: int
) -> MobileNet:
    rows = [row.split() for row in table.split("|")]  # kernel, hidden, out, gated, activation, stride
    first, *strides = halvings([2, *(int(row[5]) for row in rows)], stem)
    i = rounded(16 * width)
    layers: list[nn.Module] = [unit(channels, i, 3, first, act=hardswish, v3=True)]
    for (k, plain_hidden, plain_out, gated, how, _), stride in zip(rows, strides, strict=True):
        hidden, o = rounded(int(plain_hidden) * width), rounded(int(plain_out) * width)
        act = relu if how == "R" else hardswish
        parts: list[nn.Module] = [unit(i, hidden, act=act, v3=True)] if hidden != i else []
        parts += [unit(hidden, hidden, int(k), stride, depthwise=True, act=act, v3=True)]
        parts += [Gate(hidden, rounded(hidden // 4))] if gated == "g" else []
        parts += [unit(hidden, o, v3=True)]
        layers.append(Residual("block", parts, stride == 1 and i == o))
        i = o
    layers.append(unit(i, 6 * i, act=hardswish, v3=True))
    features = rounded(penultimate * width)
    classifier = [nn.Linear(6 * i, features), nn.Hardswish(), nn.Identity(), nn.Linear(features, classes)]
    return MobileNet(layers, classifier)


def build(case: cases.Case, classes: int = cases.CLASSES) -> nn.Module:
    """The case's twin."""
    if case.net == "lenet":
        return LeNet(case.channels, case.size, classes)
    if case.net == "mobilenet_v2":
        return mobilenet_v2(case.channels, case.stem, case.width, classes)
    if case.net.startswith("mobilenet_v3"):
        table, penultimate = (V3_SMALL, 1024) if case.net.endswith("small") else (V3_LARGE, 1280)
        return mobilenet_v3(table, penultimate, case.channels, case.stem, case.width, classes)
    widths, blocks, expansion = {
        "resnet8": ([16, 32, 64], [1, 1, 1], 1),
        "resnet18": ([64, 128, 256, 512], [2, 2, 2, 2], 1),
        "resnet50": ([64, 128, 256, 512], [3, 4, 6, 3], 4),
    }[case.net]
    return ResNet(case.channels, case.stem, widths, blocks, expansion, classes)
