"""Does precision="fast" cost accuracy? Fashion-MNIST by both precisions, paired by seed.

    python tests/experiments/fast_and_precise.py lenet --out lenet.jsonl

Prints the test top-1 of each run, and the mean of fast minus precise with its 95 % interval (paired t).
Runs that the file of results already has are not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from scipy.stats import t as student

import gapless as gl

RECIPES: dict[str, dict[str, Any]] = {
    "lenet": {  # with BatchNorm: conv 3x3x32, pool, conv 3x3x64, pool, linear 128
        "model": {"name": "lenet", "norm": True},
        "train": [],
        "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
        "epochs": 5,
    },
    "resnet8": {
        "model": {"name": "resnet8"},
        "train": [{"RandomCrop": {"size": 28, "padding": 2}}, "RandomHorizontalFlip"],
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "epochs": 10,
    },
}


def recipe_of(net: str, epochs: int | None, precision: str, seed: int) -> gl.Recipe:
    """The whole recipe. It is evaluated once, at its end: nothing is chosen by the validation split."""
    own = RECIPES[net] | ({"epochs": epochs} if epochs else {})
    common = {"eval": [], "schedule": {"name": "Cosine"}, "batch_size": 128, "clean_samples": 0, "test": True}
    split = {"idx": "fashion-mnist", "seed": 0}  # the same split for all seeds
    return gl.Recipe(data=split, precision=precision, seed=seed, eval_every=own["epochs"], **common, **own)


def methods(net: str, precision: str) -> list[str]:
    """How the plan computes each convolution."""
    module = gl.models.create(net, in_channels=1, image_size=28, **({"norm": True} if net == "lenet" else {}))
    plan = gl.compile(
        module, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.1), (128, 1, 28, 28),
        precision=precision, input_dtype="uint8",
    )  # fmt: skip
    return [f"{row['layer']}: {row['choice']}" for row in plan.describe() if row["op"] == "conv"]


def top1(net: str, epochs: int | None, precision: str, seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run = gl.train(recipe_of(net, epochs, precision, seed), out=f"{folder}/run", verbose=0)
        return float(run.records["test"].top1)


def measure(net: str, epochs: int | None, seeds: int, out: Path) -> list[dict[str, float]]:
    """The rows of the file, with those that it lacked."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for seed in range(1, seeds + 1):
        row = next((r for r in rows if r["seed"] == seed), None)
        if row is None:
            row = {"seed": seed, **{p: top1(net, epochs, p, seed) for p in ("fast", "precise")}}
            rows.append(row)
            out.write_text("".join(json.dumps(r) + "\n" for r in rows))
        print(f"seed {seed}: fast {row['fast']:.4f}, precise {row['precise']:.4f}", flush=True)
    return rows[:seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=list(RECIPES))
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="file of results, a JSON object per seed")
    said = parser.parse_args()
    for precision in ("fast", "precise"):
        print(f"{precision}: {'; '.join(methods(said.net, precision))}", flush=True)
    rows = measure(said.net, said.epochs, said.seeds, said.out)
    apart = [100 * (r["fast"] - r["precise"]) for r in rows]
    half = student.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / math.sqrt(len(apart))
    means = [statistics.mean(r[p] for r in rows) for p in ("fast", "precise")]
    print(
        f"{said.net}: fast {means[0]:.4f}, precise {means[1]:.4f}; "
        f"fast - precise = {statistics.mean(apart):+.3f} ± {half:.3f} points (95 %, {len(apart)} seeds)"
    )


if __name__ == "__main__":
    main()
