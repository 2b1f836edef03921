"""P3: the network would be right more often at another size of its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.pipeline import Pipeline
from ...errors import GaplessError
from ..case import Case
from ..preparing import Floats, Prepare, identify, scored
from ..result import Remedy, Result
from ..stats import Estimate, mcnemar, paired, samples_for_paired
from ..subject import NetSubject, permuted
from ..table import check

__all__ = ["enlarged", "resolution"]

FACTORS = (0.75, 1.15, 1.3, 1.5)
MOST = 1024


@check(
    "P3",
    "resolution",
    "the network would be right more often at another input size",
    measure="validation accuracy recovered at the better size",
    needs=["model", "outputs", "images"],
    cost=lambda case: case.passes(8, most=MOST),
    explains=["P1", "C1", "W1", "L3", "C4"],
    reference="Touvron et al. 2019, Fixing the train-test resolution discrepancy",
)
def resolution(case: Case) -> Result:
    """Evaluates at 0.75, 1.15, 1.3 and 1.5 times the input size, where the network takes other sizes.

    Random crops show objects larger than a centre crop does, so a network trained with them often wants
    larger images. The size is chosen on one half of the samples and tested on the other.
    """
    indices = case.sample("val", MOST, stream=17)
    if len(indices) < 40:
        return Result.undecided("fewer than 40 validation samples", samples_needed=200)
    order = permuted(len(indices), case.seed, 0xD0F)
    half, other = np.sort(indices[order[::2]]), np.sort(indices[order[1::2]])
    base = scored(case, half, None)
    tried: dict[str, float] = {}
    best: tuple[float, float, Prepare] | None = None
    for factor in FACTORS:
        prepare = scaled(case, factor)
        right = None if prepare is None else scored(case, half, prepare)
        if right is None or prepare is None:
            continue
        rate = float(right.mean())
        tried[f"{factor:g}"] = rate
        if best is None or rate > best[0]:
            best = (rate, factor, prepare)
    if base is None or best is None:
        return Result.clear("the network takes images of one size only")
    numbers = {"accuracy": float(base.mean()), "by_factor": tried}
    if best[0] <= float(base.mean()):
        return Result.clear("no other size is better", Estimate(0.0, -0.01, 0.01, 1.0), evidence=numbers)
    before, after = scored(case, other, None), scored(case, other, best[2])
    if before is None or after is None:
        return Result.undecided("the model fails on some samples", evidence=numbers)
    p = mcnemar(int((after & ~before).sum()), int((before & ~after).sum()))
    e = paired(before, after)
    rates = f"{100 * after.mean():.1f} instead of {100 * before.mean():.1f} % are right"
    text = f"at {best[1]:g} times the size {rates}"
    if e.points < 0.02:
        return Result.clear(text, e, evidence=numbers)
    if p >= 0.05:
        need = samples_for_paired(e.points, float(np.mean(before != after)))
        return Result.undecided(f"{text}: could be chance", e, samples_needed=2 * need, evidence=numbers)
    return Result.found(
        f"{text} (held-out half)",
        e,
        evidence={**numbers, "factor": best[1]},
        remedy=Remedy(
            f"Evaluate at {best[1]:g} times the input size; better still, train the last epochs at it with "
            "only the classifier and BatchNorm moving."
        ),
    )


def scaled(case: Case, factor: float) -> Prepare | None:
    """A preprocessing that feeds images of that many times the size, or None."""
    subject, data = case.subject, case.data
    assert subject is not None
    assert data is not None
    if isinstance(subject, NetSubject):
        pipeline = _scaled_pipeline(subject, factor)
        if pipeline is None:
            return None
        larger = NetSubject(subject.net, pipeline, subject.classes, subject.precision, subject.name)
        return larger.prepared
    steps = identify(case)
    if steps is not None:
        from dataclasses import replace

        return replace(steps, geometry=steps.geometry.scaled(factor))
    return lambda d, i: enlarged(subject.prepared(d, i), factor)


def _scaled_pipeline(subject: NetSubject, factor: float) -> Pipeline | None:
    """The evaluation pipeline with its sizes scaled; where it has none, a resize at its end."""
    _, h, w = subject.net.input_shape
    config, sized = [], False
    for op in subject.pipeline.config():
        op = dict(op)
        if op["name"] in ("Resize", "CenterCrop") and op.get("size") is not None:
            size = op["size"]
            op["size"] = (
                max(1, round(size * factor))
                if isinstance(size, int)
                else tuple(max(1, round(s * factor)) for s in size)
            )
            sized = True
        if op.get("max_size") is not None:
            op["max_size"] = max(1, round(op["max_size"] * factor))
        config.append(op)
    if not sized:
        at = next((k for k, op in enumerate(config) if op["name"] == "Normalize"), len(config))
        config.insert(at, {"name": "Resize", "size": (max(1, round(h * factor)), max(1, round(w * factor)))})
    try:
        c = subject.net.input_shape[0]
        subject.net.graph((c, max(1, round(h * factor)), max(1, round(w * factor))))
        return Pipeline(config, evaluation=True)
    except (GaplessError, ValueError):
        return None


def enlarged(x: Floats, factor: float) -> Floats:
    """(N, C, H, W) at another size, bilinear, pixel centres kept.

    >>> enlarged(np.ones((1, 1, 4, 4), np.float32), 1.5).shape
    (1, 1, 6, 6)
    """
    for axis in (2, 3):
        n = x.shape[axis]
        m = max(1, round(n * factor))
        at = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        low = np.floor(at).astype(np.int64)
        share = (at - low).astype(np.float32)
        shape = [1, 1, 1, 1]
        shape[axis] = m
        weight: NDArray[np.float32] = share.reshape(shape)
        below, above = np.take(x, low, axis), np.take(x, np.minimum(low + 1, n - 1), axis)
        x = below * (1 - weight) + above * weight
    return np.ascontiguousarray(x, np.float32)
