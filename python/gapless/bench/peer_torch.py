"""PyTorch's side of a benchmark: the same nets, weights, batch and update, at PyTorch's best configuration.

Runs under any Python that has torch; imports nothing of gapless (its folder is on sys.path as a plain
folder). Configurations: channels_last or contiguous, eager or compiled; fused SGD, denormals flushed,
gradients set to None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import torch
import worker
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


def build(case: cases.Case, classes: int = cases.CLASSES) -> nn.Module:
    if case.net == "lenet":
        return LeNet(case.channels, case.size, classes)
    widths, blocks, expansion = {
        "resnet8": ([16, 32, 64], [1, 1, 1], 1),
        "resnet18": ([64, 128, 256, 512], [2, 2, 2, 2], 1),
        "resnet50": ([64, 128, 256, 512], [3, 4, 6, 3], 4),
    }[case.net]
    return ResNet(case.channels, case.stem, widths, blocks, expansion, classes)


def prepare(command: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    torch.set_num_threads(command["threads"])
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    case = cases.Case(*command["case"])
    model = build(case)
    with np.load(command["weights"]) as file:
        missing = model.load_state_dict({k: torch.from_numpy(file[k]) for k in file.files}, strict=False)
    wrong = [
        k for k in missing.missing_keys if not k.endswith("num_batches_tracked")
    ] + missing.unexpected_keys
    if wrong:
        raise SystemExit(f"peer: weights do not fit: {wrong[:5]}")
    with np.load(command["batch"]) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    if command["layout"] == "channels_last":
        model, x = (
            model.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    facts = {"peer": f"torch {torch.__version__}", "configuration": f"{command['layout']}, {command['mode']}"}
    call: Any = torch.compile(model) if command["mode"] == "compile" else model
    if command["work"] == "eval":
        model.eval()

        def forward() -> float:
            with torch.inference_mode():
                return float(call(x).abs().mean())

        return forward, facts
    optimizer = torch.optim.SGD(
        model.parameters(), lr=cases.LR, momentum=cases.MOMENTUM, weight_decay=cases.WEIGHT_DECAY, fused=True
    )
    criterion = nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(call(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, facts


if __name__ == "__main__":
    worker.serve(prepare)
