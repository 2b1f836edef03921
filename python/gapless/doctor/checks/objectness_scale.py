"""Y1: a detector's objectness loss is on another scale in validation than in training."""

from __future__ import annotations

import math
from typing import Any

from ..case import Case
from ..detector_losses import DetectorLosses, Factor, factors
from ..result import Remedy, Result
from ..stats import Estimate
from ..table import check

__all__ = ["objectness_scale"]

THRESHOLD = 0.10


@check(
    "Y1",
    "objectness-scale",
    "objectness loss is a mean over all cells, and validation's pipeline has another share of positive ones",
    measure="objectness loss of validation above training's by the pipeline alone, same images and weights",
    needs=["detector losses"],
    threshold=THRESHOLD,
    explains=["G1"],
    reference="YOLOv5 #13012, #12198, #7384, #1932",
)
def objectness_scale(case: Case) -> Result:
    """Compares the same weights on {training, validation images} × {training, validation pipeline}.

    What changes with the pipeline on the same images is no property of the images, so no over-fitting; what
    changes with the images under the same pipeline is. The factors multiply to the whole difference. Beside
    them stands the loss per positive cell, which the share of positive cells does not move.
    """
    t = case.losses
    assert t is not None
    cells = {f"{i} images, {p} pipeline": t.means(a, b) for a, i in _SIDES for b, p in _SIDES}
    evidence: dict[str, Any] = {k: v for k, v in cells.items() if v is not None}
    if not (t.cell(0, 0).any() and t.cell(1, 1).any()):
        return Result.left_out(
            "needs training images by the training pipeline and validation's by validation's"
        )
    found = factors(t, case.seed)
    evidence["factors"] = {row: {k: _plain(f) for k, f in c.items()} for row, c in found.items()}
    if "obj" not in found:
        return Result.undecided("objectness loss is 0 on one side: there is no factor", evidence=evidence)
    said = _whole(t, found)
    if not t.whole or "pipeline" not in found["obj"]:
        return Result.undecided(
            f"{said}. Pipeline and images cannot be told apart: add rows of training images by the "
            "validation pipeline and of validation images by the training pipeline, of the same weights",
            evidence=evidence,
        )
    pipeline, images = found["obj"]["pipeline"], found["obj"]["images"]
    e = estimate(pipeline)
    says = f"{said}. The pipeline makes {pipeline}, the images {images}"
    share = found.get("positive_share", {}).get("pipeline")
    if abs(e.points) < THRESHOLD:
        return Result.clear(says, e, evidence=evidence)
    if share is not None:
        says += f"; of the pipeline's, {share} is the share of positive cells"
    return Result.found(
        says,
        e,
        evidence=evidence,
        remedy=Remedy(
            "Compare objectness loss per positive cell (obj · n_cells / n_pos), or score both sides by one "
            "pipeline; by itself this difference is no sign of over-fitting."
        ),
    )


_SIDES = ((0, "training"), (1, "validation"))


def estimate(f: Factor) -> Estimate:
    """The factor as points above 1, tested against 1."""
    log = math.log(f.times)
    p = math.erfc(abs(log) / f.error / math.sqrt(2)) if f.error > 0 else float(log == 0)
    return Estimate(f.times - 1, f.low - 1, f.high - 1, p)


def _whole(t: DetectorLosses, found: dict[str, dict[str, Factor]]) -> str:
    """The difference, and what of it is scale."""
    a, b = t.means(0, 0), t.means(1, 1)
    assert a is not None
    assert b is not None
    said = (
        f"objectness loss {a['obj']:.4g} in training, {b['obj']:.4g} in validation ({found['obj']['whole']})"
    )
    said += (
        "; it is a mean over all cells: scaled by positive fraction, "
        f"{100 * a['positive_share']:.3g} % and {100 * b['positive_share']:.3g} %"
    )
    if "obj_per_positive" in found:
        per = found["obj_per_positive"]["whole"]
        said += f"; per positive {a['obj_per_positive']:.4g} and {b['obj_per_positive']:.4g} ({per})"
    if "box" in found:
        said += f"; box loss {a['box']:.4g} and {b['box']:.4g} ({found['box']['whole']})"
    return said


def _plain(f: Factor) -> dict[str, float]:
    return {"times": f.times, "low": f.low, "high": f.high}
