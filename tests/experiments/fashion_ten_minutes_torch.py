"""The recipe of fashion_ten_minutes.py in PyTorch, in the same ten minutes. Needs torch and NumPy only.

    python tests/experiments/fashion_ten_minutes_torch.py

As many steps as fit: the learning rate follows the share of the ten minutes that has gone, so the schedule
ends with them whatever the speed; where steps take equal times it is the schedule of the recipe.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()  # the import counts, as for gapless

import argparse  # noqa: E402
import copy  # noqa: E402
import gzip  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import fashion_recipe as r  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist


class Stage(nn.Module):
    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(F.max_pool2d(self.conv1(x), 2)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + x, inplace=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = (r.STEM, *r.WIDTHS)
        self.conv = nn.Conv2d(1, r.STEM, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(r.STEM)
        self.stages = nn.Sequential(*(Stage(a, b) for a, b in zip(channels, r.WIDTHS, strict=False)))
        self.fc = nn.Linear(channels[-1], r.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(F.relu(self.bn(self.conv(x)), inplace=True))
        return self.fc(x.mean(dim=(2, 3)))


def read(part: str) -> tuple[Tensor, Tensor]:
    """Images (n, 28, 28) and labels (n) of train or t10k."""
    raw = [
        gzip.decompress((FOLDER / f"{part}-{kind}-ubyte.gz").read_bytes())
        for kind in ("images-idx3", "labels-idx1")
    ]
    images = np.frombuffer(raw[0], np.uint8, offset=16).reshape(-1, r.SIZE, r.SIZE)
    return torch.from_numpy(images.copy()), torch.from_numpy(
        np.frombuffer(raw[1], np.uint8, offset=8).astype(np.int64)
    )


def normalised(images: Tensor) -> Tensor:
    return ((images.float() / 255 - r.MEAN) / r.STD)[:, None].contiguous(memory_format=torch.channels_last)


def augmented(padded: Tensor) -> Tensor:
    """A random crop of each padded image, every second one mirrored."""
    n, ramp = len(padded), torch.arange(r.SIZE)
    top, left = torch.randint(2 * r.PADDING + 1, (2, n, 1))
    across = torch.where(torch.rand(n, 1) < 0.5, ramp.flip(0), ramp)
    return padded[torch.arange(n)[:, None, None], (top + ramp)[:, :, None], (left + across)[:, None, :]]


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    padded = F.pad(images, (r.PADDING,) * 4)
    while True:
        for chosen in torch.randperm(len(images)).split(r.BATCH):
            yield normalised(augmented(padded[chosen])), labels[chosen]


def top1(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    net.eval()
    with torch.inference_mode():
        right = sum(
            (net(normalised(x)).argmax(1) == y).sum().item()
            for x, y in zip(images.split(500), labels.split(500), strict=True)
        )
    return right / len(images)


def rate(gone: float) -> float:
    """OneCycle, linear: the learning rate when this share of the run is over."""
    first, last = r.LR / r.FIRST_DIVISOR, r.LR / r.FIRST_DIVISOR / r.LAST_DIVISOR
    if gone < r.RISE:
        return first + (r.LR - first) * gone / r.RISE
    return r.LR + (last - r.LR) * (gone - r.RISE) / (1 - r.RISE)


class Trainer:
    """The net, the average of its weights, and the optimizer."""

    def __init__(self) -> None:
        self.net = Net().to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net)
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        others = [p for p in self.net.parameters() if p.ndim == 1]
        groups = [
            {"params": decayed, "weight_decay": r.WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=r.LR, momentum=r.MOMENTUM, nesterov=True, fused=True)
        pairs = zip(self.average.state_dict().values(), self.net.state_dict().values(), strict=True)
        self.pairs = [(a, b) for a, b in pairs if a.is_floating_point()]  # buffers too, as in gapless
        self.loss = nn.CrossEntropyLoss(label_smoothing=r.SMOOTHING)

    def step(self, x: Tensor, y: Tensor, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.net(x), y)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_([a for a, _ in self.pairs], [b for _, b in self.pairs], 1 - r.EMA)
        return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=r.MINUTES)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    torch.manual_seed(said.seed)
    images, labels = read("train")
    order = torch.randperm(len(images))
    held = round(r.VALIDATION * len(images))
    val, train = order[:held], order[held:]
    trainer, source = Trainer(), batches(images[train], labels[train])

    began = time.perf_counter()
    top1(trainer.average, images[val[:2000]], labels[val[:2000]])  # how long evaluation will take
    scoring = (time.perf_counter() - began) / 2000 * (held + 10000)
    began = time.perf_counter()
    length = BEGAN + 60 * said.minutes - scoring - began
    if length <= 0:
        raise SystemExit(f"{said.minutes:g} minutes are too few: scoring alone takes {scoring:.0f} s")
    done, gone = 0, 0.0
    while gone < 1:
        loss = trainer.step(*next(source), rate(gone))
        done += 1
        if done % 200 == 0:
            print(f"step {done}, {100 * gone:.0f} % of the time, loss {loss:.3f}", flush=True)
        gone = (time.perf_counter() - began) / length
    print(f"val top-1 {top1(trainer.average, images[val], labels[val]):.4f}")
    print(f"test top-1 {top1(trainer.average, *read('t10k')):.4f}")
    print(
        f"{done} steps, {done * r.BATCH / len(train):.1f} epochs, in {time.perf_counter() - BEGAN:.0f} s "
        f"of wall time, {time.process_time():.0f} s of CPU time"
    )


if __name__ == "__main__":
    main()
