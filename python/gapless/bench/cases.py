"""What a benchmark case is: net, input size, batch. Imports nothing of gapless: a peer reads it too."""

from __future__ import annotations

from typing import NamedTuple

CHANNELS = {"lenet": 1}
BATCH = {"lenet": 128, "resnet8": 128, "resnet18": 128, "resnet50": 16}
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
CLASSES = 1000


class Case(NamedTuple):
    """`NET@SIZE` at a batch size: `resnet18@32`, batch 128."""

    net: str
    size: int
    batch: int

    @property
    def channels(self) -> int:
        return CHANNELS.get(self.net, 3)

    @property
    def stem(self) -> str:
        return "cifar" if self.size <= 64 else "imagenet"


def parse(text: str, batch: int | None = None) -> Case:
    """Read `NET@SIZE`.

    >>> parse("resnet18@32")
    Case(net='resnet18', size=32, batch=128)
    """
    net, at, size = text.partition("@")
    if not at or not size.isdigit() or int(size) < 8:
        raise ValueError(f"case: must read NET@SIZE with SIZE >= 8 (resnet18@32), got {text!r}")
    if net not in BATCH:
        raise ValueError(f"case: no net {net!r} in bench; there are: {', '.join(sorted(BATCH))}")
    if batch is not None and batch < 1:
        raise ValueError(f"case: batch must be >= 1, got {batch}")
    return Case(net, int(size), batch or (BATCH[net] if int(size) <= 64 else 16))
