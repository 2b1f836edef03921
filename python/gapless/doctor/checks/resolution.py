"""P3: the network would be right more often at another size of its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...data.pipeline import Pipeline
from ...errors import GaplessError
from ..case import Case
from ..preparing import ALIKE, Floats, Prepare, identify, scored, searched
from ..result import Remedy, Result
from ..stats import Estimate, paired, samples_for_paired
from ..subject import NetSubject, permuted
from ..table import check

__all__ = ["Sized", "best_size", "enlarged", "resolution"]

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
    if len(case.sample("val", MOST, stream=17)) < 40:
        return Result.undecided("fewer than 40 validation samples", samples_needed=200)
    found = best_size(case)
    if found is None:
        return Result.clear("the network takes images of one size only")
    numbers = {"accuracy": found.base, "by_factor": found.tried}
    if found.estimate is None:
        return Result.clear("no other size is better", Estimate(0.0, -0.01, 0.01, 1.0), evidence=numbers)
    e = found.estimate
    rates = f"{100 * found.after:.1f} instead of {100 * found.before:.1f} % are right"
    text = f"at {found.factor:g} times the size {rates}"
    if e.points < 0.02:
        return Result.clear(text, e, evidence=numbers)
    if e.p >= 0.05:
        need = samples_for_paired(e.points, found.changed)
        return Result.undecided(f"{text}: could be chance", e, samples_needed=2 * need, evidence=numbers)
    other = searched(case)
    simple = other is not None and len(other.changes) == 1 and other.changes[0].kind != "crop"
    if other is not None and simple and other.gain >= ALIKE * e.points:
        wants = other.changes[0].wants
        return Result.clear(f"{text}, but {wants} at this size does as well", e, evidence=numbers)
    return Result.found(
        f"{text} (held-out half)",
        e,
        evidence={**numbers, "factor": found.factor},
        remedy=Remedy(
            f"Evaluate at {found.factor:g} times the input size; better still, train the last epochs at it "
            "with only the classifier and BatchNorm moving."
        ),
    )


@dataclass(frozen=True)
class Sized:
    """The best other size.

    Attributes
    ----------
    base : float
        Accuracy as it is, on the half that chooses.
    tried : dict of str to float
        Accuracy there, by factor.
    factor : float
    before, after : float
        Accuracy on the other half as it is, and at the best size.
    changed : float
        Share of that half whose answer changes between right and wrong.
    estimate : Estimate or None
        Of what it brings on that half; None where no size is better.
    prepare : Prepare or None
        Feeds images of the best size.
    """

    base: float
    tried: dict[str, float]
    factor: float = 1.0
    before: float = 0.0
    after: float = 0.0
    changed: float = 0.0
    estimate: Estimate | None = None
    prepare: Prepare | None = None


def best_size(case: Case) -> Sized | None:
    """The size that is best on one half of the samples, measured on the other; None where the network takes
    one size only."""
    made: Sized | None = case.keep("best size", lambda: _searched_size(case))
    return made


def _searched_size(case: Case) -> Sized | None:
    indices = case.sample("val", MOST, stream=17)
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
        return None
    rate = float(base.mean())
    if best[0] <= rate:
        return Sized(rate, tried)
    before, after = scored(case, other, None), scored(case, other, best[2])
    if before is None or after is None:
        return Sized(rate, tried)
    return Sized(
        rate,
        tried,
        best[1],
        float(before.mean()),
        float(after.mean()),
        float(np.mean(before != after)),
        paired(before, after),
        best[2],
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
