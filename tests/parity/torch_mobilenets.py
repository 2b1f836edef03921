"""MobileNets in torch, twins of gapless's: torchvision's attribute names, so that weights are called alike.

Only what a comparison needs: any width, both stems, the two versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

# expansion, channels, count, stride
V2 = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
# kernel, hidden, channels, gated, hardswish, stride
SMALL = [
    (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2),
    (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1),
    (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1),
]  # fmt: skip
LARGE = [
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
]  # fmt: skip


def rounded(channels: float) -> int:
    to_eight = max(8, int(channels + 4) // 8 * 8)
    return to_eight + 8 if to_eight < 0.9 * channels else to_eight


def without_first_two(strides: Iterable[int], stem: str) -> Iterator[int]:
    halvings = 0
    for stride in strides:
        halvings += stride == 2
        yield 1 if stem == "cifar" and halvings <= 2 else stride


def unit(
    i: int, o: int, kernel: int, stride: int, groups: int, act: type[nn.Module] | None, **norm: float
) -> nn.Sequential:
    conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o, **norm), *([act()] if act else []))


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, rounded(channels // 4), 1)
        self.fc2 = nn.Conv2d(rounded(channels // 4), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(nn.functional.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * nn.functional.hardsigmoid(gate)


class Skip(nn.Module):
    """A chain under the attribute `name`, and its input added where the shapes agree."""

    def __init__(self, name: str, chain: list[nn.Module], adds: bool) -> None:
        super().__init__()
        setattr(self, name, nn.Sequential(*chain))
        self.name, self.adds = name, adds

    def forward(self, x: Tensor) -> Tensor:
        y = getattr(self, self.name)(x)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    def __init__(self, features: list[nn.Module], classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2(
    num_classes: int = 1000,
    width: float = 1.0,
    stem: str = "imagenet",
    dropout: float = 0.2,
    stages: Sequence[tuple[int, ...]] = V2,
) -> MobileNet:
    first, *strides = without_first_two([2, *(row[3] for row in stages)], stem)
    i = rounded(32 * width)
    features: list[nn.Module] = [unit(3, i, 3, first, 1, nn.ReLU6)]
    for (expansion, channels, count, _), stride in zip(stages, strides, strict=True):
        o = rounded(channels * width)
        for k in range(count):
            hidden, step = i * expansion, stride if k == 0 else 1
            chain = [unit(i, hidden, 1, 1, 1, nn.ReLU6)] if expansion > 1 else []
            chain += [unit(hidden, hidden, 3, step, hidden, nn.ReLU6)]
            chain += [nn.Conv2d(hidden, o, 1, bias=False), nn.BatchNorm2d(o)]
            features.append(Skip("conv", chain, step == 1 and i == o))
            i = o
    last = rounded(1280 * max(1.0, width))
    features.append(unit(i, last, 1, 1, 1, nn.ReLU6))
    return MobileNet(features, [nn.Dropout(dropout), nn.Linear(last, num_classes)])


def mobilenet_v3(
    rows: Sequence[tuple[int, ...]],
    penultimate: int,
    num_classes: int = 1000,
    width: float = 1.0,
    stem: str = "imagenet",
    dropout: float = 0.2,
) -> MobileNet:
    norm = {"eps": 1e-3, "momentum": 0.01}
    first, *strides = without_first_two([2, *(row[5] for row in rows)], stem)
    i = rounded(16 * width)
    features: list[nn.Module] = [unit(3, i, 3, first, 1, nn.Hardswish, **norm)]
    for (kernel, wide, channels, gated, hardswish, _), step in zip(rows, strides, strict=True):
        hidden, o = rounded(wide * width), rounded(channels * width)
        act = nn.Hardswish if hardswish else nn.ReLU
        chain: list[nn.Module] = [unit(i, hidden, 1, 1, 1, act, **norm)] if hidden != i else []
        chain += [unit(hidden, hidden, kernel, step, hidden, act, **norm)]
        chain += [Squeeze(hidden)] if gated else []
        chain += [unit(hidden, o, 1, 1, 1, None, **norm)]
        features.append(Skip("block", chain, step == 1 and i == o))
        i = o
    features.append(unit(i, 6 * i, 1, 1, 1, nn.Hardswish, **norm))
    middle = rounded(penultimate * width)
    head = [nn.Linear(6 * i, middle), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(middle, num_classes)]
    return MobileNet(features, head)


def mobilenet_v3_small(**arguments: object) -> MobileNet:
    return mobilenet_v3(SMALL, 1024, **arguments)  # type: ignore[arg-type]


def mobilenet_v3_large(**arguments: object) -> MobileNet:
    return mobilenet_v3(LARGE, 1280, **arguments)  # type: ignore[arg-type]
