"""What the figures were measured on: the processor, its limits, and how much of it others took meanwhile."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Taken", "cpu_name", "machine_facts", "machine_line", "use_threads"]

TRIAD_BYTES = 192 << 20  # far beyond the caches
TAKEN_WARNING = 0.02  # share of the CPUs' time that others had
DRIFT_WARNING = 0.03  # of the FMA peak, before against after


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@contextmanager
def use_threads(n: int) -> Iterator[None]:
    """So many threads of the core within; as before behind it."""
    import gapless as gl

    before = gl.get_num_threads()
    gl.set_num_threads(n)
    try:
        yield
    finally:
        gl.set_num_threads(before)


def fma_peak(threads: int) -> float:
    """Fp32 operations per second and core, out of registers, on so many threads at once."""
    from gapless import _core

    with use_threads(threads):
        return _core.bench_fma() / threads


def stream(threads: int, size: int = TRIAD_BYTES) -> float:
    """Bytes per second of STREAM's triad."""
    from gapless import _core

    with use_threads(threads):
        return _core.bench_triad(size)


def machine_facts(threads: int) -> dict[str, Any]:
    """CPU, measured limits on one and on `threads` threads, versions.

    Returns
    -------
    dict
        ``fma_gflops_per_core`` and ``stream_gb_per_second`` by number of threads, as text: keys of JSON.
    """
    import numpy as np

    import gapless

    counts = sorted({1, threads})
    return {
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "fma_gflops_per_core": {str(n): round(fma_peak(n) / 1e9, 1) for n in counts},
        "stream_gb_per_second": {str(n): round(stream(n) / 1e9, 2) for n in counts},
        "gapless": gapless.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The facts in a line for people."""
    peak, triad = facts["fma_gflops_per_core"], facts["stream_gb_per_second"]
    counts = " / ".join(peak)
    cores, moved = (" / ".join(f"{v:g}" for v in of.values()) for of in (peak, triad))
    return (
        f"{facts['cpu']}, {facts['cpus']} CPUs; fp32 peak {cores} GFLOP/s per core and STREAM {moved} GB/s "
        f"on {counts} thread{'' if counts == '1' else 's'}; gapless {facts['gapless']}, "
        f"Python {facts['python']}"
    )


def _ticks() -> list[int]:
    """The CPUs' ticks by kind: user, nice, system, idle, iowait, irq, softirq, steal. Empty: not told."""
    try:
        return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return []


def _ticks_of(pid: int) -> int:
    """Ticks that a process has used, its threads and ended children included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(word) for word in fields[11:15])


class Taken:
    """Who else used the CPUs since this was made, beside the processes `pids` and this one."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._ticks = _ticks()
        self._own = sum(map(_ticks_of, self._pids))

    def shares(self) -> dict[str, float | None]:
        """Shares of all CPUs' time: ``steal`` (other guests of the host), ``others`` (other processes)."""
        now = _ticks()
        if len(now) < 8 or len(self._ticks) < 8 or sum(now) <= sum(self._ticks):
            return {"steal": None, "others": None}
        spent = [b - a for a, b in zip(self._ticks, now, strict=True)]
        busy = sum(spent) - spent[3] - spent[4] - spent[7]
        others = busy - (sum(map(_ticks_of, self._pids)) - self._own)
        return {"steal": spent[7] / sum(spent), "others": max(0.0, others / sum(spent))}
