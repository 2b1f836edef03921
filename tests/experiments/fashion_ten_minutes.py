"""Fashion-MNIST in ten minutes on two cores.

    python tests/experiments/fashion_ten_minutes.py --out runs/fashion

The recipe was chosen on the validation split; test is read once, at the end (--no-test: not at all).
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()  # the import counts

import argparse  # noqa: E402
from typing import Any  # noqa: E402

import fashion_recipe as r  # noqa: E402

import gapless as gl  # noqa: E402
from gapless import nn  # noqa: E402


class Stage(nn.Module):
    """Convolution, pooling, BatchNorm, ReLU; and a second convolution around which the input is added."""

    def __init__(self, in_channels: int, width: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        x = self.relu(self.bn1(self.pool(self.conv1(x))))
        return self.relu(self.bn2(self.conv2(x)) + x)


class Net(nn.Module):
    """A stem, three stages, average, linear."""

    def __init__(self) -> None:
        channels = (r.STEM, *r.WIDTHS)
        self.conv = nn.Conv2d(1, r.STEM, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(r.STEM)
        self.relu = nn.ReLU()
        self.stages = nn.Sequential(*(Stage(a, b) for a, b in zip(channels, r.WIDTHS, strict=False)))
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], r.CLASSES)

    def forward(self, x: Any) -> Any:
        x = self.stages(self.relu(self.bn(self.conv(x))))
        return self.fc(nn.flatten(self.average(x)))


def recipe(epochs: int, seed: int) -> gl.Recipe:
    return gl.Recipe(
        data={"idx": "fashion-mnist", "val": r.VALIDATION},
        model=Net(),
        image_size=r.SIZE,
        train=[
            gl.augment.RandomCrop(r.SIZE, padding=r.PADDING),
            gl.augment.RandomHorizontalFlip(),
            gl.augment.Normalize(mean=r.MEAN, std=r.STD),
        ],
        eval=[],
        loss=gl.losses.CrossEntropy(label_smoothing=r.SMOOTHING),
        optimizer=gl.optim.SGD(lr=r.LR, momentum=r.MOMENTUM, nesterov=True, weight_decay=r.WEIGHT_DECAY),
        decay_norm_and_bias=False,
        schedule=gl.schedule.OneCycle(
            pct_start=r.RISE, div_factor=r.FIRST_DIVISOR, final_div_factor=r.LAST_DIVISOR, anneal="linear"
        ),
        ema={"decay": r.EMA, "tau": 0},
        epochs=epochs,
        batch_size=r.BATCH,
        seed=seed,
        eval_every=4,
        clean_samples=0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="the run's folder")
    parser.add_argument("--epochs", type=int, default=r.EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-test", action="store_true", help="while choosing a recipe")
    said = parser.parse_args()
    run = gl.train(recipe(said.epochs, said.seed), out=said.out, threads=2)
    print(f"val top-1 {run.records['val'].top1:.4f}")
    if not said.no_test:
        print(f"test top-1 {gl.evaluate(run.best, split='test').top1:.4f}")
    print(
        f"{said.epochs} epochs in {time.perf_counter() - BEGAN:.0f} s of wall time, "
        f"{time.process_time():.0f} s of CPU time, of which half is what two undisturbed cores would take"
    )


if __name__ == "__main__":
    main()
