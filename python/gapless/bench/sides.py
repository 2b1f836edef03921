"""The processes of a comparison: ours, and a peer's in its configurations."""

from __future__ import annotations

import ctypes.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from gapless.errors import GaplessError

__all__ = ["PEERS", "BenchError", "Configuration", "Side", "configurations", "fastest", "same_work"]

AGREE_LOSS = 1e-4  # relative difference of the first loss that still counts as the same work
AGREE_OUTPUTS = 1e-3  # the same for an evaluation's outputs, of the largest of them
PAUSE = 0.02  # seconds before a round: the other side's threads may spin for a while
TRIAL_SECONDS = 1.5


class BenchError(GaplessError):
    """A side ended, or does other work than ours."""


class Configuration(NamedTuple):
    """One way to run a peer: words that its script understands, and variables of its environment."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        preloaded = dict(self.environment).get("LD_PRELOAD")
        return ", ".join([*self.words, *([preloaded.partition(".")[0]] if preloaded else [])])


def _allocator() -> str | None:
    """A better malloc than the system's, to preload where there is one."""
    for name in ("jemalloc", "tcmalloc", "tcmalloc_minimal"):
        found = ctypes.util.find_library(name)
        if found:
            return found
    return None


def _torch(work: str) -> list[Configuration]:
    allocator = _allocator()
    common: tuple[tuple[str, str], ...] = (("THP_MEM_ALLOC_ENABLE", "1"),)  # huge pages for its tensors
    preload = (("LD_PRELOAD", allocator),) if allocator else ()
    modes = ["eager", "compile"] + (["frozen"] if work == "eval" else [])
    made = [
        Configuration((layout, mode), common + preload)
        for mode in modes
        for layout in ("channels_last", "contiguous")
    ]
    if preload:
        made.append(Configuration(("channels_last", "eager"), common))
    return made


def _keras(work: str) -> list[Configuration]:
    return [Configuration(("channels_last", mode)) for mode in ("graph", "xla")]


def _paddle(work: str) -> list[Configuration]:
    onednn = (("FLAGS_use_mkldnn", "1"), ("FLAGS_use_onednn", "1"))
    return [
        Configuration((mode, *(["onednn"] if flags else [])), flags)
        for mode in ("eager", "static")
        for flags in ((), onednn)
    ]


def _onnxruntime(work: str) -> list[Configuration]:
    if work != "eval":
        raise ValueError("bench: onnxruntime evaluates only; say gapless bench eval")
    return [Configuration(("all optimizations",))]


PEERS = {"torch": _torch, "keras": _keras, "paddle": _paddle, "onnxruntime": _onnxruntime}


def configurations(peer: str, work: str, only: str | None = None) -> list[Configuration]:
    """The configurations that are tried; `only` leaves those whose words hold all of its words.

    >>> [str(c.words) for c in configurations("torch", "train", "channels_last,eager")][0]
    "('channels_last', 'eager')"
    """
    if peer not in PEERS:
        raise ValueError(f"bench: no peer {peer!r}; there are: {', '.join(PEERS)}")
    made = PEERS[peer](work)
    if only is None:
        return made
    wanted = {word.strip() for word in only.split(",")}
    chosen = [c for c in made if wanted <= set(c.words)]
    if not chosen:
        said = "; ".join(dict.fromkeys(", ".join(c.words) for c in made))
        raise ValueError(f"bench: {peer} has no configuration {only!r}; there are: {said}")
    return chosen


class Side:
    """One process that does the work when told.

    What it prints on standard error is kept, and shown only when it ends before its time.
    """

    def __init__(
        self,
        command: list[str],
        start: dict[str, Any],
        environment: dict[str, str] | None = None,
        name: str = "gapless",
    ) -> None:
        self.name = name
        self.times: list[float] = []
        self.medians: list[float] = []  # of each round
        self.peak = 0
        self._said = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115  # closed by close()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            self._said.close()
            raise BenchError(f"bench: {name}: {command[0]} cannot be started: {error.strerror}") from None
        try:
            self.facts = self.ask(start)
        except BaseException:
            self.close()
            raise

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"bench: {self.name} ended with status {self._process.wait()}: {self._last()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last(self) -> str:
        """What it said last, in a line."""
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def round(self, seconds: float) -> float:
        """Works for so many seconds, one unit at least; gives the median of its units."""
        time.sleep(PAUSE)
        answer = self.ask({"seconds": seconds})
        self.times += answer["times"]
        self.peak = answer["peak_memory_bytes"]
        self.medians.append(statistics.median(answer["times"]))
        return self.medians[-1]

    def forget(self) -> None:
        """Leaves out what was measured so far."""
        self.times.clear()
        self.medians.clear()

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    @property
    def pid(self) -> int:
        return self._process.pid


def our_side(start: dict[str, Any]) -> Side:
    """This library, in a process of its own."""
    return Side([sys.executable, "-m", "gapless.bench.worker"], start)


def script(peer: str) -> Path:
    """What a peer's interpreter runs."""
    return Path(__file__).with_name(f"peer_{peer}.py")


def peer_side(peer: str, start: dict[str, Any], configuration: Configuration, python: str | None) -> Side:
    """A peer in one configuration; its script runs under `python`."""
    environment = {"OMP_NUM_THREADS": str(start["threads"]), **dict(configuration.environment)}
    command = [python or sys.executable, str(script(peer))]
    said = {**start, "configuration": list(configuration.words)}
    return Side(command, said, environment, name=f"{peer} ({configuration})")


def same_work(ours: Side, theirs: Side) -> float:
    """How far the first results are apart, relatively; BenchError where that is not the same work."""
    a, b = ours.facts, theirs.facts
    if "outputs" in a:
        largest = max(abs(v) for v in b["outputs"])
        apart = max(abs(u - v) for u, v in zip(a["outputs"], b["outputs"], strict=True)) / (largest or 1.0)
        what, bound = "outputs", AGREE_OUTPUTS
    else:
        apart = abs(a["loss"] - b["loss"]) / abs(b["loss"] or 1.0)
        what, bound = f"loss {a['loss']:.6f} here, {b['loss']:.6f} there", AGREE_LOSS
    if not apart <= bound:  # also where one is not a number
        raise BenchError(
            f"bench: not the same work: first {what}, apart by {apart:.2g} of at most {bound:g} "
            f"in {theirs.name}"
        )
    return float(apart)


def _trial(ours: Side, side: Side) -> float:
    """Seconds per unit of work, after it was seen to be the same work."""
    side.facts["agreement"] = same_work(ours, side)
    side.round(TRIAL_SECONDS / 2)
    side.round(TRIAL_SECONDS)
    return min(side.times)


def fastest(
    peer: str, start: dict[str, Any], ours: Side, tried: list[Configuration], python: str | None
) -> tuple[Side, dict[str, float], list[str]]:
    """The peer's best configuration, by a short trial of each, one after the other.

    Returns
    -------
    Side
        It runs on.
    dict of str to float
        Seconds per unit of work in the trial, by configuration.
    list of str
        Which did not take part, and why.
    """
    best: Side | None = None
    seconds: dict[str, float] = {}
    failed: list[str] = []
    for configuration in tried:
        side: Side | None = None
        try:
            side = peer_side(peer, start, configuration, python)
            took = _trial(ours, side)
        except BenchError as error:
            failed.append(str(error))
            if side is not None:
                side.close()
            continue
        except BaseException:
            for one in (side, best):
                if one is not None:
                    one.close()
            raise
        side.facts["configuration"] = str(configuration)
        loser = side if best is not None and took >= min(seconds.values()) else best
        best = best if loser is side else side
        if loser is not None:
            loser.close()
        seconds[str(configuration)] = took
    if best is None:
        more = f" (and so {len(failed) - 1} more configurations)" if len(failed) > 1 else ""
        absent = any(text in failed[0] for text in ("No module named", "cannot be started"))
        hint = "; --peer-python names the interpreter that has it" if absent else ""
        raise BenchError(f"{failed[0]}{more}{hint}")
    best.forget()
    return best, seconds, failed
