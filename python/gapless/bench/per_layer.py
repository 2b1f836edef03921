"""`gapless bench kernels`: each distinct layer of a net alone, by pass, against the machine's limits.

A layer is compiled into a small net of its own, and the plan's timer reads the layer's ops only:

- forward, and backward for the weights: nothing before the layer wants a gradient. The first layer reads the
  network's input, as pixels; the others read what a frozen layer made, in the layout that they meet in a net;
- backward for the data: layers that learn stand before it, and its own weights are frozen;
- backward of a depthwise layer: layers that learn stand before it, and it learns too. One sweep makes both
  gradients there, so either alone would say nothing about training.

So nothing is taken as a difference of two measurements. A layer has two limits, the products and what must
move; it can come near the one that takes longer, and a kernel that is far from both lets them take turns.
In a whole net, layers are fused: what BatchNorm
and activations cost there is what ``gapless bench train --profile`` shows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gapless.bench.cases import Case
from gapless.bench.machine import TRIAD_BYTES, fma_peak, stream, use_threads
from gapless.bench.rows import Column, number, table
from gapless.bench.worker import make_net

__all__ = ["kernels", "kernels_text"]

FORWARD, DATA, WEIGHTS, BACKWARD = "forward", "backward-data", "backward-weights", "backward"
_SHOWN_SHARE = 0.002  # of the time; smaller rows are not printed
_FIRST = 8  # channels of the small nets' inputs
_FREE = {"Identity", "Dropout", "Flatten", "Input"}  # no work, or none that is a kernel's
# float passes over the output beside input and output themselves, in the least that backward needs
_BACKWARD_READS = {
    "BatchNorm2d": "in",
    "Mul": "in",
    "Add": None,
    "AdaptiveAvgPool2d": None,
    "MaxPool2d": None,
}


class Layer(NamedTuple):
    """A layer with its shapes, and how often the net has it."""

    kind: str
    config: tuple[tuple[str, Any], ...]
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    first: bool  # reads the pictures: no gradient of its input
    macs: int

    @property
    def depthwise(self) -> bool:
        said = dict(self.config)
        return self.kind == "Conv2d" and said["groups"] > 1 and said["groups"] == said["in_channels"]

    @property
    def group(self) -> str:
        """The class of kernels that it belongs to."""
        said = dict(self.config)
        if self.kind != "Conv2d":
            return "linear" if self.kind == "Linear" else "elementwise and pools"
        if self.depthwise:
            return "depthwise"
        kernel, stride = _side(said["kernel_size"]), _side(said["stride"])
        if self.inputs[0][1:] == (1, 1):
            return "1x1 on one pixel"
        if self.first:
            return "stem"
        return {(3, 1): "3x3 stride 1", (1, 1): "1x1"}.get(
            (kernel, stride), f"{kernel}x{kernel} stride {stride}"
        )

    @property
    def text(self) -> str:
        shape = "×".join(map(str, self.inputs[0]))
        said = dict(self.config)
        if self.kind == "Conv2d":
            kernel, stride, groups = _side(said["kernel_size"]), _side(said["stride"]), said["groups"]
            apart = "" if groups == 1 else " depthwise" if self.depthwise else f" in {groups} groups"
            return f"conv {kernel}x{kernel} s{stride}{apart} {shape} → {self.output[0]}"
        return f"{self.kind} {shape}" + (f" → {self.output[0]}" if self.kind == "Linear" else "")


def _side(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(value[0])


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def layers_of(net: Any) -> dict[Layer, int]:
    """The distinct layers of a net and how often each is there, in order of their first place."""
    graph = net.graph()
    found: dict[Layer, int] = {}
    for k, node in enumerate(net.document["nodes"]):
        if node["layer"] in _FREE:
            continue
        config = tuple((key, _frozen(value)) for key, value in sorted(node["config"].items()))
        inputs = tuple(tuple(graph.shape(v)) for v in node["in"])
        layer = Layer(
            node["layer"], config, inputs, tuple(graph.shape(k + 1)), 0 in node["in"], graph.macs(k)
        )
        found[layer] = found.get(layer, 0) + 1
    return found


# ---- small nets ----


def _before(shape: tuple[int, ...], size: tuple[int, ...]) -> Any:
    """What makes a value of that shape, and wants its gradient."""
    from gapless import nn

    if len(shape) == 1:
        return nn.Linear(_FIRST, shape[0])
    parts = [nn.Conv2d(_FIRST, shape[0], 1, bias=False)]
    return nn.Sequential(*parts, *([nn.AdaptiveAvgPool2d(1)] if shape[1:] != size else []))


def _small_net(layer: Layer, alone: bool) -> tuple[Any, tuple[int, ...]]:
    """The layer as `probe` in a module that ends in a vector; with the shape of its input."""
    from gapless import nn

    largest = max(layer.inputs, key=len)
    size = max((shape[1:] for shape in layer.inputs), key=lambda s: s[0] if s else 0)

    class Small(nn.Module):
        def __init__(self) -> None:
            self.probe = getattr(nn, layer.kind)(**dict(layer.config))
            if not alone:
                for k, shape in enumerate(layer.inputs):
                    self.add_module(f"before{k}", _before(shape, size))
            self.after = nn.AdaptiveAvgPool2d(1)

        def forward(self, x: Any) -> Any:
            ready = [x] if alone else [getattr(self, f"before{k}")(x) for k in range(len(layer.inputs))]
            y = self.probe(*ready)
            return nn.flatten(self.after(y)) if len(layer.output) == 3 else y

    if alone:
        return Small(), largest
    return Small(), (_FIRST, *size) if len(largest) == 3 else (_FIRST,)


class _Timed(NamedTuple):
    """A layer's ops over some steps, in seconds; and what was chosen."""

    forward: list[float]
    backward: list[float]
    choice: str


def _run(layer: Layer, batch: int, seconds: float, *, alone: bool, frozen: str | None = None) -> _Timed:
    """frozen: the part that does not learn."""
    import gapless as gl

    module, shape = _small_net(layer, alone)
    net = module.net(shape, seed=0)
    if frozen is not None:
        net.freeze(frozen)
    plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=1e-6), (batch, *shape))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape), dtype=np.float32)
    y = rng.integers(0, layer.output[0], batch)
    plan.step(x, y)
    plan.profile()
    forward: list[float] = []
    backward: list[float] = []
    until = time.perf_counter() + seconds
    while len(forward) < 3 or time.perf_counter() < until:
        plan.step(x, y)
        mine = [row for row in plan.profile() if row["layer"] == "probe"]
        forward.append(sum(row["forward_seconds"] for row in mine))
        backward.append(sum(row["backward_seconds"] for row in mine))
    return _Timed(forward, backward, "; ".join(dict.fromkeys(row["choice"] for row in mine if row["choice"])))


def _passes(layer: Layer, batch: int, seconds: float) -> Iterator[tuple[str, list[float], str]]:
    """Each pass of a layer with its seconds; one that was fused into a neighbour is left out."""
    weighted = layer.kind in ("Conv2d", "Linear")
    alone = weighted and layer.first
    timed = _run(layer, batch, seconds, alone=alone, frozen="before0" if weighted and not alone else None)
    found = [(FORWARD, timed.forward)]
    if layer.depthwise and not layer.first:
        found.append((BACKWARD, _run(layer, batch, seconds, alone=False).backward))
    elif weighted:
        if not layer.first:
            found.append((DATA, _run(layer, batch, seconds, alone=False, frozen="probe").backward))
        found.append((WEIGHTS, timed.backward))
    else:
        found.append((BACKWARD, timed.backward))
    for which, times in found:
        if max(times) > 0:
            yield which, times, timed.choice


def _least_bytes(layer: Layer, which: str, batch: int) -> int:
    """What must move between memory and the core at least, weights not counted."""
    inside = sum(int(np.prod(shape)) for shape in layer.inputs)
    outside = int(np.prod(layer.output))
    if which == BACKWARD:  # gradients in and out, and what they are computed from
        again = "in" if layer.depthwise else _BACKWARD_READS.get(layer.kind, "out")
        return (
            4 * batch * (inside + outside + (inside if again == "in" else outside if again == "out" else 0))
        )
    return 4 * batch * (inside + outside)


# ---- the measurement ----


class _Limits:
    """The machine's limits with some threads; STREAM is measured at the size that a layer works on."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.flops = fma_peak(threads) * threads
        self._streams: dict[int, float] = {}

    def bytes_per_second(self, size: int) -> float:
        near = min(TRIAD_BYTES, 1 << max(20, size.bit_length()))
        if near not in self._streams:
            self._streams[near] = stream(self.threads, near)
        return self._streams[near]


def _row(
    layer: Layer, count: int, which: str, times: list[float], batch: int, limits: _Limits
) -> dict[str, Any]:
    """Rates are those of the best step: the limits are best ones too."""
    seconds = min(times)
    row: dict[str, Any] = {"layer": layer.text, "group": layer.group, "pass": which, "count": count}
    row |= {"milliseconds": 1e3 * statistics.median(times), "best_milliseconds": 1e3 * seconds}
    row |= {"gflops": None, "peak_share": None}
    if layer.macs:
        gradients = 2 if which == BACKWARD else 1  # in one sweep, each with the products of a forward
        rate = 2 * layer.macs * gradients * batch / seconds
        row |= {"gflops": rate / 1e9, "peak_share": rate / limits.flops}
    size = _least_bytes(layer, which, batch)
    row |= {"gb_per_second": size / seconds / 1e9}
    row |= {"stream_share": size / seconds / limits.bytes_per_second(size)}
    return row


def kernels(
    case: Case, threads: int, seconds: float, told: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Every distinct layer of a case's net by pass, the dearest first.

    Returns
    -------
    dict
        ``layers``: rows with ``milliseconds`` (median) and ``best_milliseconds`` of one layer at the case's
        batch; of the best, effective ``gflops`` (those
        of a direct convolution), ``peak_share`` (of the measured FMA peak of all threads),
        ``gb_per_second`` (the least that must move, weights not counted) and ``stream_share``
        (of STREAM's triad at that size); ``share`` of the sum over all layers of the net. ``groups``: the
        same by class of kernel.
    """
    with use_threads(threads):
        limits = _Limits(threads)
        found = layers_of(make_net(case))
        rows: list[dict[str, Any]] = []
        for k, (layer, count) in enumerate(found.items(), 1):
            if told is not None:
                told(f"{case.name}: {k} of {len(found)}: {layer.text}")
            for which, times, choice in _passes(layer, case.batch, seconds):
                rows.append({**_row(layer, count, which, times, case.batch, limits), "choice": choice})
        limit = {
            "fma_gflops": limits.flops / 1e9,
            "stream_gb_per_second": limits.bytes_per_second(TRIAD_BYTES) / 1e9,
        }
    total = sum(row["milliseconds"] * row["count"] for row in rows)
    for row in rows:
        row["share"] = row["milliseconds"] * row["count"] / total
    rows.sort(key=lambda row: -row["share"])
    said = {"work": "kernels", "case": case.name, "batch": case.batch, "threads": threads}
    return {**said, **limit, "total_milliseconds": total, "groups": _groups(rows), "layers": rows}


def _groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a class and pass together; shares of the limits weighted by time."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["group"], row["pass"]), []).append(row)
    groups = []
    for (name, which), members in found.items():
        share = sum(row["share"] for row in members)
        group: dict[str, Any] = {"group": name, "pass": which, "layers": len(members), "share": share}
        group["milliseconds"] = sum(row["milliseconds"] * row["count"] for row in members)
        for key in ("peak_share", "stream_share"):
            known = [row for row in members if row[key] is not None]
            group[key] = sum(row[key] * row["share"] for row in known) / share if known else None
        groups.append(group)
    return sorted(groups, key=lambda group: -group["share"])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _maybe(value: float | None) -> str:
    return "-" if value is None else number(value)


def kernels_text(found: dict[str, Any]) -> str:
    """Both tables and a line that says what the shares are of."""
    limits = [Column(name, 0) for name in ("of peak", "of STREAM", "share")]
    groups = [
        [g["group"], g["pass"], str(g["layers"]), number(g["milliseconds"]), *_shares(g)]
        for g in found["groups"]
    ]
    left = [Column("kernels", 0, False), Column("pass", 0, False)]
    first = table([*left, Column("shapes", 0), Column("ms in all", 0), *limits], groups)
    rows = [
        [
            row["layer"],
            row["pass"],
            str(row["count"]),
            number(row["milliseconds"]),
            number(row["best_milliseconds"]),
            _maybe(row["gflops"]),
            _maybe(row["gb_per_second"]),
            *_shares(row),
            row["choice"],
        ]
        for row in found["layers"]
        if row["share"] >= _SHOWN_SHARE
    ]
    middle = [Column(name, 0) for name in ("count", "ms", "best", "GFLOP/s", "GB/s")]
    left = [Column("layer", 0, False), Column("pass", 0, False)]
    second = table([*left, *middle, *limits, Column("choice", 0, False)], rows)
    small = len(found["layers"]) - len(rows)
    left_out = f"\n{small} more below {100 * _SHOWN_SHARE:g} % each: --json has all" if small else ""
    line = (
        f"{found['case']}, batch {found['batch']}, {found['threads']} threads: layers alone take "
        f"{number(found['total_milliseconds'])} ms in all; FMA peak {number(found['fma_gflops'])} GFLOP/s, "
        f"STREAM {number(found['stream_gb_per_second'])} GB/s beyond the caches (shares are of STREAM at a "
        "layer's size); rates of the best step"
    )
    return f"{first}\n\n{second}{left_out}\n\n{line}"


def _shares(row: dict[str, Any]) -> list[str]:
    return [_percent(row["peak_share"]), _percent(row["stream_share"]), f"{100 * row['share']:.1f} %"]
