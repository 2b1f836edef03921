"""P1: evaluation prepares images otherwise than the model was trained with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..preparing import ALIKE, LOOKED_AT, PASSES, Search, identify, sample_size, scored, searched
from ..result import Remedy, Result
from ..stats import Estimate, paired, samples_for_paired
from ..table import check
from .class_order import best_order
from .resolution import Sized, best_size

__all__ = ["preprocessing"]

MOST = 4000  # validation samples on which the size is measured

Measured = tuple[NDArray[np.bool_], NDArray[np.bool_]] | None


@check(
    "P1",
    "preprocessing",
    "images are prepared otherwise than in training",
    measure="validation accuracy recovered by the preprocessing that the model wants",
    needs=["model", "outputs", "images"],
    cost=lambda case: case.passes(PASSES, most=sample_size(case)) + case.passes(3, most=MOST),
    explains=["W1", "C1", "P2", "P3", "C4", "L3", "B1", "B2", "S3"],
    reference="mlcommons/inference #201 (78.47 against 77.51 by the resize alone); torchvision #2950",
)
def preprocessing(case: Case) -> Result:
    """Searches for the preprocessing that the model wants: order of channels, scale and offset, resize
    kernel, crop, EXIF orientation, layout.

    The steps of the given preprocessing are identified by their pixels, and changed one by one. The best is
    chosen on one half of at most 512 samples and tested twice, so that trying many finds nothing by chance:
    on the other half, and on all validation samples with all that could have been chosen paid for (McNemar;
    twice the smaller p < 0.01). Its size is measured on all of them.
    """
    found = searched(case)
    if found is None:
        return Result.undecided("fewer than 20 validation samples", samples_needed=40)
    numbers = {
        "held_out": found.n,
        "accuracy": found.base,
        "accuracy_of_best": found.accuracy,
        "tried": dict(sorted(found.tried.items(), key=lambda kv: -kv[1])[:30]),
    }
    if found.prepare is None:
        return Result.clear(
            f"none of {len(found.tried)} other preprocessings makes more samples right",
            Estimate(0.0, -0.01, 0.01, 1.0),
            evidence=numbers,
        )
    wants = "; ".join(f"{c.kind}: {c.wants}" for c in found.changes)
    has = "; ".join(f"{c.kind}: {c.has}" for c in found.changes)
    shares = f"{100 * found.accuracy:.1f} instead of {100 * found.base:.1f} %"
    rates = f"{shares} of {found.n} held-out samples are right"
    gain = found.accuracy - found.base
    if found.p >= 0.01 and gain < 0.02:
        e = Estimate(gain, gain - 0.05, gain + 0.05, found.p)
        return Result.clear(
            f"the best other preprocessing ({wants}) gains nothing: {rates}", e, evidence=numbers
        )
    measured = _measured(case, found)
    e = _size(found, measured)
    if e.p >= 0.01:
        needed = 2 * samples_for_paired(max(gain, 0.02), gain + 0.05)
        return Result.undecided(f"{wants} may be better: {rates}", e, samples_needed=needed)
    renamed = _by_renaming(case)
    if renamed >= e.points:  # a red class and a blue one exchanged look like BGR
        return Result.clear(
            f"{wants} would recover {100 * e.points:.1f} points, but renaming classes recovers "
            f"{100 * renamed:.1f}",
            e,
            evidence=numbers,
        )
    simple = len(found.changes) == 1 and found.changes[0].kind != "crop"
    sized = None if simple else best_size(case)
    by_size, worse = (0.0, 0.0) if sized is None else _by_size(case, sized, found, measured)
    enough = 0.5 if worse >= 0.05 or _only_larger(case, found) else ALIKE
    if sized is not None and by_size > 0 and by_size >= enough * e.points:
        return Result.clear(
            f"{wants} would recover {100 * e.points:.1f} points, but {sized.factor:g} times the size alone "
            f"recovers {100 * by_size:.1f}",
            e,
            evidence=numbers,
        )
    if e.points <= 0:
        return Result.clear(f"{wants} gains nothing on all samples", e, evidence=numbers)
    return Result.found(
        f"the model wants {wants} (it is fed {has}): {rates}",
        e,
        evidence={**numbers, "wants": wants, "fed": has},
        remedy=Remedy(
            f"Prepare images as in training: {wants}. Store the preprocessing with the weights and use that "
            "one everywhere."
        ),
    )


def _by_renaming(case: Case) -> float:
    """What another order of classes recovers by itself: there must be no two causes for one loss."""
    out = case.outputs("val")
    order = best_order(out, np.ones(len(out), bool))
    return float((order[out.predictions] == out.labels).mean()) - out.accuracy


def _by_size(case: Case, sized: Sized, found: Search, measured: Measured) -> tuple[float, float]:
    """What another size recovers by itself, on the samples that the preprocessing is measured on: on others
    the two would differ by chance; and the p-value of its being no worse, the other picked out of so many."""
    if sized.prepare is None or measured is None:
        return 0.0, 0.0
    before, other = measured
    after = scored(case, case.sample("val", MOST, stream=14), sized.prepare)
    if after is None:
        return 0.0, 0.0
    return float(after.mean() - before.mean()), paired(after, other).p * max(1, len(found.tried))


def _only_larger(case: Case, found: Search) -> bool:
    """Whether what is wanted is a crop of half the picture at most, in the proportions that are fed: nobody
    prepares images so, and what helps is that things are larger."""
    fed, wanted = identify(case), found.changes[0].steps
    if len(found.changes) != 1 or found.changes[0].kind != "crop" or fed is None or wanted is None:
        return False
    assert case.data is not None
    for i in case.sample("val", LOOKED_AT, stream=11).tolist():
        size = case.data.sizes[i]
        now, then = fed.geometry.zoom(size), wanted.geometry.zoom(size)
        down, across = then[0] / now[0], then[1] / now[1]
        if down * across < 2 or abs(down / across - 1) > 0.05:
            return False
    return True


def _measured(case: Case, found: Search) -> Measured:
    """Whether each of many validation samples is right as it is, and as the model wants it."""
    indices = case.sample("val", MOST, stream=14)
    before, after = scored(case, indices, None), scored(case, indices, found.prepare)
    return None if before is None or after is None else (before, after)


def _size(found: Search, measured: Measured) -> Estimate:
    """Gain on validation; p by the half that had no part in the choice, or by all samples, where each change
    was one of so many."""
    if measured is None:
        return Estimate(0.0, 0.0, 0.0, 1.0)
    e = paired(*measured)
    choices = max(1, len(found.tried)) ** len(found.changes)
    return e._replace(p=min(1.0, 2 * min(found.p, choices * e.p)))
