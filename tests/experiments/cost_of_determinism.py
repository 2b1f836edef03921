"""What do equal bits at any number of threads cost a training step? Against a build that gives them up.

    python tests/experiments/cost_of_determinism.py --case resnet18@32 --case mobilenet_v2@224

Sums over a batch (weight gradients, BatchNorm's statistics) are cut into at most 8 fixed ranges, whatever
the number of threads, and the ranges' partial results are added in order. A build that need not give the
same bits would keep one partial result per thread. So this copies the sources, puts the number of threads in
place of the 8, builds that, and lets both take turns; the range over rounds says what a difference is worth.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from gapless.bench import cases
from gapless.bench.sides import Side

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("csrc", "python", "pyproject.toml", "setup.py", "README.md", "LICENSE")
LINE = "#define GAP_REDUCE_CHUNKS 8 "


def built(folder: Path, chunks: int) -> Path:
    """A copy of the package with another number of ranges; its folder for ``PYTHONPATH``."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    header = folder / "csrc/ops/op.h"
    text = header.read_text()
    if text.count(LINE) != 1:
        raise SystemExit(f"{header}: does not have the line {LINE!r}")
    header.write_text(text.replace(LINE, f"#define GAP_REDUCE_CHUNKS {chunks} "))
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return folder / "python"


def side(path: Path, case: cases.Case, threads: int, folder: Path) -> Side:
    start = {
        "work": "train", "case": list(case), "threads": threads, "batch": str(folder / "batch.npz"),
        "weights": str(folder / "weights.npz"), "graph": str(folder / "graph.json"),
    }  # fmt: skip
    command = [sys.executable, "-m", "gapless.bench.worker"]
    return Side(command, start, {"PYTHONPATH": str(path)}, name=str(path))


def compare(case: cases.Case, paths: list[Path], threads: int, rounds: int, seconds: float) -> list[float]:
    """Seconds of a step with fixed ranges over those without, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((case.batch, case.channels, case.size, case.size), np.float32)
        y = rng.integers(0, cases.CLASSES, case.batch)
        np.savez(Path(folder) / "batch.npz", x=x, y=y)
        sides = [side(p, case, threads, Path(folder)) for p in paths]
        try:
            ratios = []
            for number in range(rounds + 1):
                order = sides if number % 2 else sides[::-1]  # neither always goes first
                took = {id(s): s.round(seconds) for s in order}
                fixed, free = (took[id(s)] for s in sides)
                if number:  # the first warms up
                    ratios.append(fixed / free)
            return ratios
        finally:
            for s in sides:
                s.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", action="append", help="NET@SIZE[:BATCH], as for gapless bench")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=2.0)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [ROOT / "python", built(Path(folder), said.threads)]
        for case in cases.expand(said.case or ["resnet18@32", "mobilenet_v2@224", "lenet@28"]):
            ratios = compare(case, paths, said.threads, said.rounds, said.seconds)
            cost = 100 * (statistics.median(ratios) - 1)
            low, high = 100 * (min(ratios) - 1), 100 * (max(ratios) - 1)
            print(
                f"{case.name} b{case.batch}, {said.threads} threads: equal bits cost {cost:+.1f} % "
                f"({low:+.1f} to {high:+.1f}) over {len(ratios)} rounds",
                flush=True,
            )


if __name__ == "__main__":
    main()
