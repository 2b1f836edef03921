"""How long a diagnosis takes: a run of 10,000 images of 32×32, diagnosed within several budgets.

    python tests/experiments/doctor_cost.py --budget 120 --budget 60 --budget 20

The images are drawn: gratings whose direction is the class, in noise. Prints the seconds of each
diagnosis, of its dearest checks, and of the free checks before training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import numpy as np

import gapless as gl


def drawn(n: int, classes: int = 10, side: int = 32) -> Any:
    """Arrays of `n` images with labels, split 0.8 : 0.2."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n)
    angle = np.pi * y / classes + rng.normal(0, 0.05, n)
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    turned = np.cos(angle)[:, None, None] * column + np.sin(angle)[:, None, None] * row
    wave = np.sin(turned * rng.uniform(0.5, 0.9, n)[:, None, None] + rng.uniform(0, 6.3, n)[:, None, None])
    x = 127 + 60 * wave[..., None] + rng.normal(0, 45, (n, side, side, 3))
    names = [f"class {k}" for k in range(classes)]
    return gl.data.arrays(np.clip(x, 0, 255).astype(np.uint8), y, classes=names, split=(0.8, 0.2), seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--budget", type=float, action="append", help="seconds; default 120")
    said = parser.parse_args()
    data = drawn(said.images)
    recipe = gl.Recipe(data=data, model=said.model, epochs=said.epochs, batch_size=64)
    with tempfile.TemporaryDirectory() as folder:
        run = gl.train(recipe, out=f"{folder}/run", verbose=0)
        print(f"{said.images} images, {said.model}, {said.epochs} epochs: trained in {run.seconds:.1f} s")
        for budget in said.budget or [120.0]:
            began = time.perf_counter()
            found = gl.diagnose(run, data, budget=budget, verbose=0)
            took = time.perf_counter() - began
            ran = [c for c in found.checks if c.result.outcome != "left out"]
            dear = sorted(ran, key=lambda c: -c.seconds)[:6]
            print(
                f"budget {budget:g} s: {took:.1f} s, {len(ran)} of {len(found.checks)} checks, "
                f"{len(found.findings)} findings; dearest: "
                + ", ".join(f"{c.slug} {c.seconds:.1f} s" for c in dear),
                flush=True,
            )
    began = time.perf_counter()
    gl.check(data, verbose=0)
    print(f"gapless.check of the data alone: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
