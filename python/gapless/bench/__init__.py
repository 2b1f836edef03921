"""`gapless bench`: how fast a training step or an evaluation is here, beside a peer in the same minutes.

Each side runs in a process of its own (a peer's threads may spin between steps) on the same initial weights
and the same batch; rounds alternate A B B A, so that a machine whose speed drifts is fair to both. The
first step's loss must agree: else the two do not do the same work, and no ratio is given.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gapless.bench.cases import CLASSES, Case, parse

__all__ = ["bench", "cpu_name", "peer_torch_model"]

AGREE = 1e-3  # relative difference of the first loss that still counts as the same work


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class Side:
    """One process that does the work when told."""

    def __init__(
        self, command: list[str], start: dict[str, Any], environment: dict[str, str] | None = None
    ) -> None:
        import os

        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.command = command
        self.times: list[float] = []
        self.peak = 0
        self.facts = self.ask(start)

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            command_line = " ".join(self.command)
            raise RuntimeError(
                f"bench: {command_line} ended with status {self.process.wait()}; its message is above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def round(self, seconds: float) -> float:
        answer = self.ask({"seconds": seconds})
        self.times += answer["times"]
        self.peak = answer["peak_memory_bytes"]
        return float(statistics.median(answer["times"]))

    def close(self) -> None:
        self.process.communicate()


def peer_torch_model(case: Case, classes: int = CLASSES) -> Any:
    """The torch module that is the case's twin; for parity tests. Needs torch."""
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import peer_torch  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    return peer_torch.build(case, classes)


def make_batch(case: Case, path: Path) -> None:
    """A resident random batch: never constant data, whose denormals and masks would flatter or punish."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.batch, case.channels, case.size, case.size), dtype=np.float32)
    np.savez(path, x=x, y=rng.integers(0, CLASSES, case.batch))


def bench(
    work: str,
    case: str,
    *,
    batch: int | None = None,
    threads: int = 2,
    peer: str | None = None,
    peer_python: str | None = None,
    rounds: int = 7,
    seconds: float = 2.0,
) -> dict[str, Any]:
    """Time `work` ("train" or "eval") of a case; with a peer also the ratio to the peer's best configuration.

    Parameters
    ----------
    work : {"train", "eval"}
    case : str
        ``NET@SIZE``: ``lenet@28``, ``resnet18@32``.
    batch, threads : int
    peer : {"torch"}, optional
        Runs in `peer_python` (default: this interpreter).
    rounds, seconds
        Rounds per side, and seconds per round.

    Returns
    -------
    dict
        ``images_per_second`` (median), ``best``, ``peak_memory_bytes``, ``kernel_set``, machine facts and,
        with a peer, ``peer`` (the same figures and its configuration) and ``ratio`` (median over rounds,
        ours / peer's) with its range.
    """
    if work not in ("train", "eval"):
        raise ValueError(f"bench: work must be train or eval, got {work!r}")
    if peer not in (None, "torch"):
        raise ValueError(f"bench: no peer {peer!r}; there is: torch")
    if rounds < 1 or not seconds > 0:
        raise ValueError(f"bench: rounds must be >= 1 and seconds > 0, got {rounds} and {seconds}")
    what = parse(case, batch)
    with tempfile.TemporaryDirectory() as folder:
        start: dict[str, Any] = {"work": work, "case": list(what), "threads": threads, "save": True}
        start |= {"weights": f"{folder}/weights.npz", "batch": f"{folder}/batch.npz"}
        make_batch(what, Path(start["batch"]))
        ours = Side([sys.executable, "-m", "gapless.bench.worker"], start)
        peers: list[Side] = []
        try:
            if peer:
                for layout, mode in CONFIGURATIONS:
                    side = torch_side({**start, "save": False}, layout, mode, peer_python, threads)
                    peers += [side] if side is not None else []
                same_work(ours, peers)
                peers = [fastest(peers)]
            return measure(what, work, threads, ours, peers, rounds, seconds)
        finally:
            for side in (ours, *peers):
                side.close()


CONFIGURATIONS = (("channels_last", "eager"), ("contiguous", "eager"), ("channels_last", "compile"))


def torch_side(
    start: dict[str, Any], layout: str, mode: str, python: str | None, threads: int
) -> Side | None:
    script = Path(__file__).with_name("peer_torch.py")
    environment = {"OMP_NUM_THREADS": str(threads), "THP_MEM_ALLOC_ENABLE": "1"}
    try:
        return Side(
            [python or sys.executable, str(script)], {**start, "layout": layout, "mode": mode}, environment
        )
    except RuntimeError as error:
        if mode == "compile":  # torch.compile needs a C++ compiler; its absence is said, not fatal
            print(f"{error}; going on without torch.compile", file=sys.stderr)
            return None
        raise


def same_work(ours: Side, peers: list[Side]) -> None:
    """Every side must have the same first loss, else a ratio would compare different work."""
    for side in peers:
        a, b = ours.facts["loss"], side.facts["loss"]
        if not abs(a - b) <= AGREE * abs(b):
            where = side.facts["configuration"]
            raise RuntimeError(f"bench: not the same work: first loss {a:.6f} here, {b:.6f} in {where}")


def fastest(peers: list[Side]) -> Side:
    """The peer's best configuration, by a short trial; the others are ended."""
    trial = [(min(side.round(1.0), side.round(1.0)), k) for k, side in enumerate(peers)]
    best = peers[min(trial)[1]]
    for side in peers:
        if side is not best:
            side.close()
    best.times.clear()
    return best


def measure(
    what: Case, work: str, threads: int, ours: Side, peers: list[Side], rounds: int, seconds: float
) -> dict[str, Any]:
    ours.round(seconds / 2)
    ours.times.clear()
    ratios = []
    for k in range(rounds):
        order = [ours, *peers] if k % 2 == 0 else [*peers, ours]
        medians = {id(side): side.round(seconds) for side in order}
        if peers:
            ratios.append(medians[id(peers[0])] / medians[id(ours)])
    result: dict[str, Any] = {
        "work": work,
        "case": f"{what.net}@{what.size}",
        "batch": what.batch,
        "threads": threads,
    }
    result |= figures(ours, what) | {"kernel_set": ours.facts["kernel_set"], "cpu": cpu_name()}
    if peers:
        result["peer"] = figures(peers[0], what) | {k: peers[0].facts[k] for k in ("peer", "configuration")}
        result |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
    return result


def figures(side: Side, what: Case) -> dict[str, Any]:
    return {
        "images_per_second": what.batch / statistics.median(side.times),
        "best": what.batch / min(side.times),
        "first_step_seconds": side.facts["first_seconds"],
        "peak_memory_bytes": side.peak,
    }
