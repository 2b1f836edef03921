"""The small nets that are trained: the package's own, and two that a user might write."""

from __future__ import annotations

from typing import Any

import gapless as gl
from gapless import nn

__all__ = ["NETS", "Plain", "Small", "net"]


class Small(nn.Module):
    """Three convolutions with BatchNorm, mean over the places, one linear layer.

    Parameters
    ----------
    num_classes, channels : int
    width : int
        Maps of the first convolution; each further one has twice as many.
    momentum : float
        Of BatchNorm's statistics.
    """

    def __init__(self, num_classes: int, channels: int, width: int = 16, momentum: float = 0.1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=momentum)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width, momentum=momentum)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width, momentum=momentum)
        self.relu, self.pool, self.flat = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        return self.fc(self.flat(self.pool(x)))


class Plain(nn.Module):
    """Three convolutions without normalisation, dropout before the last layer."""

    def __init__(self, num_classes: int, channels: int, width: int = 24, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.relu, self.pool, self.flat = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.conv3 = nn.Conv2d(2 * width, 3 * width, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(3 * width, num_classes)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.conv3(self.relu(self.conv2(self.relu(self.conv1(x))))))
        return self.fc(self.drop(self.flat(self.pool(x))))


#: Names of `net`.
NETS = ("small", "plain", "lenet", "resnet8")


def net(name: str, num_classes: int, channels: int, **options: Any) -> Any:
    """A net by its name: ``small`` and ``plain`` from here, others from the package."""
    own = {"small": Small, "plain": Plain}
    if name in own:
        return own[name](num_classes, channels, **options)
    build = getattr(gl.models, name)
    return build(num_classes=num_classes, in_channels=channels, **options)
