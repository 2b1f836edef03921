"""`gapless bench train --profile`: where a step's time goes, op by op, as the core measures it.

While it is timed an evaluation too goes op by op, each over all threads.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from gapless.bench.cases import CLASSES, Case
from gapless.bench.machine import use_threads
from gapless.bench.rows import Column, number, table
from gapless.bench.worker import make_net, make_plan

__all__ = ["profile", "profile_text"]

_TIMES = ("forward_seconds", "backward_seconds", "derive_seconds")


def batch_of(case: Case) -> tuple[Any, Any]:
    """A random batch of the case's shape."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.batch, case.channels, case.size, case.size), dtype=np.float32)
    return x, rng.integers(0, CLASSES, case.batch)


def profile(work: str, case: Case, threads: int, seconds: float) -> dict[str, Any]:
    """Medians over the steps of `seconds`, three at least.

    Returns
    -------
    dict
        ``ops``: rows of `Plan.profile`, in order, with ``macs`` of one sample; ``step_seconds``;
        ``unaccounted_seconds``, what no row has (arguments, copies of results).
    """
    with use_threads(threads):
        plan = make_plan(make_net(case), case, work)
        x, y = batch_of(case)

        def run() -> float:
            began = time.perf_counter()
            if work == "eval":
                plan.forward(x)
            else:
                plan.step(x, y)
            return time.perf_counter() - began

        run()
        plan.profile()
        walls: list[float] = []
        rounds: list[list[dict[str, Any]]] = []
        until = time.perf_counter() + seconds
        while len(walls) < 3 or time.perf_counter() < until:
            walls.append(run())
            rounds.append(plan.profile())
    ops = [dict(row) for row in rounds[0]]
    macs = [row["macs"] for row in plan.describe()] + [0, 0]
    for k, op in enumerate(ops):
        op["macs"] = macs[k]
        for key in _TIMES:
            op[key] = statistics.median(each[k][key] for each in rounds)
    step = statistics.median(walls)
    said = {"work": work, "case": case.name, "batch": case.batch, "threads": threads}
    spent = sum(op[key] for op in ops for key in _TIMES)
    facts = {"kernel_set": plan.kernel_set, "steps": len(walls), "step_seconds": step}
    return {**said, **facts, "unaccounted_seconds": step - spent, "ops": ops}


def _milliseconds(value: float) -> str:
    return number(1e3 * value) if value else "-"


def profile_text(found: dict[str, Any]) -> str:
    """Two tables: every op in order, then ops of a name together, the dearest first."""
    step = found["step_seconds"]
    rows: list[list[str]] = []
    kinds: dict[str, list[float]] = {}
    for op in found["ops"]:
        spent = sum(op[key] for key in _TIMES)
        words = [_milliseconds(op[key]) for key in _TIMES]
        rows.append([op["op"], op["layer"], *words, f"{100 * spent / step:.1f} %", op["choice"]])
        kind = kinds.setdefault(op["op"], [0.0] * 4)
        kind[0] += 1
        for k, key in enumerate(_TIMES, 1):
            kind[k] += op[key]
    left = [Column("op", 0, False), Column("layer", 0, False)]
    times = [Column(name, 0) for name in ("forward ms", "backward ms", "derive ms", "share")]
    whole = table([*left, *times, Column("choice", 0, False)], rows)
    by_kind = [
        [name, f"{n:.0f}", *map(_milliseconds, spent), f"{100 * sum(spent) / step:.1f} %"]
        for name, (n, *spent) in sorted(kinds.items(), key=lambda item: -sum(item[1][1:]))
    ]
    together = table([Column("op", 0, False), Column("count", 0), *times], by_kind)
    line = (
        f"{found['work']} {found['case']}, batch {found['batch']}, {found['threads']} threads, "
        f"{found['kernel_set']}: {_milliseconds(step)} ms a step ({found['steps']} steps), "
        f"{_milliseconds(found['unaccounted_seconds'])} ms outside of the ops"
    )
    return f"{whole}\n\n{together}\n\n{line}"
