"""`gapless bench`: how fast a training step or an evaluation is here, beside a peer in the same minutes.

Each side runs in a process of its own (a peer's threads may spin between steps) on the same initial weights
and the same batch; rounds alternate A B B A, so that a machine whose speed drifts is fair to both. The
first results must agree: else the two do not do the same work, and no ratio is given. The peer runs in
the best of its configurations, which a short trial finds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gapless.bench import sides
from gapless.bench.cases import CLASSES, Case, parse
from gapless.bench.machine import TAKEN_WARNING, Taken, cpu_name, machine_facts
from gapless.bench.sides import BenchError, Side
from gapless.bench.worker import need_net

__all__ = ["BenchError", "bench", "cpu_name", "machine_facts", "peer_torch_model"]

ROUNDS, SECONDS = 7, 3.0


def peer_torch_model(case: Case, classes: int = CLASSES) -> Any:
    """The torch module that is the case's twin; for parity tests. Needs torch."""
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import torch_nets  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    return torch_nets.build(case, classes)


def make_batch(case: Case, path: Path) -> None:
    """A resident random batch: never constant data, whose denormals and masks would flatter or punish."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.batch, case.channels, case.size, case.size), dtype=np.float32)
    np.savez(path, x=x, y=rng.integers(0, CLASSES, case.batch))


def bench(
    work: str,
    case: str | Case,
    *,
    batch: int | None = None,
    threads: int = 2,
    peer: str | None = None,
    peer_python: str | None = None,
    peer_configuration: str | None = None,
    scaling: bool = False,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Time `work` ("train" or "eval") of a case; with a peer also the ratio to the peer's best configuration.

    Parameters
    ----------
    work : {"train", "eval"}
    case : str
        ``NET@SIZE``: ``lenet@28``, ``resnet18@32``, ``mobilenet_v2x0.25@224``; ``NET@SIZE:BATCH``.
    batch, threads : int
    peer : {"torch", "keras", "paddle", "onnxruntime"}, optional
        Runs in `peer_python` (default: this interpreter).
    peer_configuration : str, optional
        ``"channels_last,eager"``: only configurations with these words are tried.
    scaling : bool, default False
        Also measure `threads` threads against one.
    rounds, seconds
        Rounds per side, and seconds per round; a round is one step at least.

    Returns
    -------
    dict
        ``images_per_second`` (median), ``best``, ``peak_memory_bytes``, ``first_step_seconds`` (with
        compiling), ``kernel_set``, ``steal`` and ``others`` (shares of the CPUs'
        time that other guests and other processes took) and, with a peer,
        ``peer`` (the same figures, its version and configuration, the trial of all) and ``ratio`` (median
        over rounds, ours / peer's) with ``ratio_low``, ``ratio_high`` and ``ratios``.
    """
    if work not in ("train", "eval"):
        raise ValueError(f"bench: work must be train or eval, got {work!r}")
    if rounds < 1 or not 0 < seconds < 3600:
        raise ValueError(f"bench: rounds must be >= 1 and seconds in (0, 3600), got {rounds} and {seconds}")
    if scaling and threads < 2:
        raise ValueError("bench: scaling compares threads with one; give threads=2 or more")
    tried = sides.configurations(peer, work, peer_configuration) if peer else []
    what = parse(case, batch) if isinstance(case, str) else case
    need_net(what)
    with tempfile.TemporaryDirectory() as folder:
        start: dict[str, Any] = {"work": work, "case": list(what), "threads": threads}
        start |= {key: f"{folder}/{key}" for key in ("weights.npz", "batch.npz", "graph.json")}
        start = {key.partition(".")[0]: value for key, value in start.items()}
        make_batch(what, Path(start["batch"]))
        running: list[Side] = []
        try:
            ours = sides.our_side({**start, "save": True})
            running.append(ours)
            theirs = None
            trial: dict[str, Any] = {}
            if peer:
                theirs, seconds_by, failed = sides.fastest(peer, start, ours, tried, peer_python)
                running.append(theirs)
                trial = {"trial_seconds": seconds_by, "left_out": failed}
            single = sides.our_side({**start, "threads": 1}) if scaling else None
            running += [single] if single is not None else []
            taken = Taken([side.pid for side in running])
            _measure(running, rounds, seconds)
            result = _result(what, work, threads, ours) | taken.shares()
            if theirs is not None:
                result["peer"] = {"name": peer, **_figures(theirs, what), **_peer_facts(theirs), **trial}
                result |= _ratios("ratio", ours, theirs)
            if single is not None:
                result |= _ratios("scaling", ours, single)
            return result
        finally:
            for side in running:
                side.close()


def _measure(running: list[Side], rounds: int, seconds: float) -> None:
    """Rounds of all sides, in alternating order: A B B A A B …"""
    for side in running:
        side.round(seconds / 2)
        side.forget()
    for k in range(rounds):
        for side in running if k % 2 == 0 else running[::-1]:
            side.round(seconds)


def _figures(side: Side, what: Case) -> dict[str, Any]:
    return {
        "images_per_second": what.batch / statistics.median(side.times),
        "best": what.batch / min(side.times),
        "first_step_seconds": side.facts["first_seconds"],
        "peak_memory_bytes": side.peak,
        "steps": len(side.times),
    }


def _peer_facts(side: Side) -> dict[str, Any]:
    return {key: side.facts[key] for key in ("version", "configuration", "agreement")}


def _result(what: Case, work: str, threads: int, ours: Side) -> dict[str, Any]:
    said = {"work": work, "case": what.name, "batch": what.batch, "threads": threads}
    return {**said, **_figures(ours, what), "kernel_set": ours.facts["kernel_set"]}


def _ratios(key: str, ours: Side, other: Side) -> dict[str, Any]:
    """How many times faster ours is, round by round: median, range and all."""
    each = [b / a for a, b in zip(ours.medians, other.medians, strict=True)]
    return {
        key: statistics.median(each),
        f"{key}_low": min(each),
        f"{key}_high": max(each),
        f"{key}s": each,
    }


def warnings_of(result: dict[str, Any]) -> list[str]:
    """What a reader should know beside the figures."""
    said = [f"{text}; left out" for text in result.get("peer", {}).get("left_out", ())]
    for key, who in (("steal", "other guests of its host"), ("others", "other processes")):
        if (result.get(key) or 0.0) > TAKEN_WARNING:
            share = 100 * result[key]
            said.append(
                f"{result['case']}: {share:.0f} % of the CPUs' time went to {who}: not a quiet machine, and "
                "the ratio is not to be quoted"
            )
    return said
