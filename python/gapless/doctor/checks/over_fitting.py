"""G1: the same weights are much better on the images that they were trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...metrics import wilson
from ..case import Case
from ..leaks import copied
from ..outputs import Outputs
from ..result import Remedy, Result
from ..stats import Z95, Estimate, difference
from ..table import check

__all__ = ["over_fitting", "remedies"]

LEAST = 0.05


@check(
    "G1",
    "over-fitting",
    "the model knows its training images better than new ones",
    measure="accuracy on training images minus accuracy on validation images, same weights and pipeline",
    needs=["outputs", "train outputs"],
    cost=lambda case: case.passes(1.0, "train") + case.passes(1.0, "val"),
    threshold=LEAST,
    explains=["G5", "C4"],
    reference="Zhang et al. 2017, arXiv 1611.03530",
)
def over_fitting(case: Case) -> Result:
    """Scores the deployed weights on training and on validation samples by the evaluation pipeline: no
    augmentation, no dropout, no moving weights are between the two numbers.

    Two questions. Could it be chance, that is, are training samples like any others to the model? That is
    asked of the counts, as if both were drawn, and of the losses where there are scores. How large is it?
    What is right on training images is known where all of them were looked at: only validation is a sample.

    Validation images that are training images to the pixel tell nothing of either: both are asked of the new
    ones. The points are what shows in validation as it is, the copies in it counted as they are; what the
    copies hide, exact-duplicates finds.
    """
    train, val = case.outputs("train"), case.outputs("val")
    copies = copied(case)
    if copies.all():
        return Result.undecided("every validation image is a training image: nothing tells over-fitting")
    right, n = int(val.right[~copies].sum()), int((~copies).sum())
    e = _shown(train, val, copies, _gap(case, train, val, ~copies))
    numbers: dict[str, Any] = {
        "train_accuracy": train.accuracy,
        "val_accuracy": val.accuracy,
        "val_accuracy_of_new_images": right / n,
        "train_n": len(train),
        "val_n": len(val),
        "val_images_that_are_training_images": int(copies.sum()),
    }
    said = f"{100 * train.accuracy:.1f} % of training images are right, {100 * right / n:.1f} % of new ones"
    if copies.any():
        said += f" (of {n}; the other {len(val) - n} validation images are training images)"
    if e.points < LEAST:
        return Result.clear(said, e, evidence=numbers)
    if e.low <= 0:
        rate = (train.accuracy + right / n) / 2
        needed = math.ceil(2 * Z95**2 * rate * (1 - rate) / e.points**2)
        return Result.undecided(
            f"{said}: with {n} validation images that could be chance", e, samples_needed=needed
        )
    ordered = remedies(case.recipe.to_dict() if case.recipe is not None else {})
    numbers["remedies_in_order"] = [text for text, _ in ordered]
    return Result.found(said, e, evidence=numbers, remedy=Remedy(*ordered[0]))


def _gap(case: Case, train: Outputs, val: Outputs, fresh: NDArray[np.bool_]) -> Estimate:
    """Accuracy on training images minus that on new ones."""
    right, n = int(val.right[fresh].sum()), int(fresh.sum())
    e = difference(int(train.right.sum()), len(train), right, n)
    if case.data is not None and len(train) == len(case.data.indices("train")):
        low, high = wilson(right, n)
        e = e._replace(low=train.accuracy - high, high=train.accuracy - low)
    if train.scores is not None and val.scores is not None:
        e = e._replace(p=min(1.0, 2 * min(e.p, _p_of_losses(_losses(train), _losses(val)[fresh]))))
    return e


def _shown(train: Outputs, val: Outputs, copies: NDArray[np.bool_], of_new: Estimate) -> Estimate:
    """The same against all of validation: the copies are no sample of anything, and count as they are."""
    if not copies.any():
        return of_new
    share = float(copies.mean())
    known = share * (train.accuracy - float(val.right[copies].mean()))
    points, low, high = (known + (1 - share) * v for v in of_new[:3])
    return Estimate(points, low, high, of_new.p)


def _losses(outputs: Outputs) -> NDArray[np.float64]:
    """(n,) minus the logarithm of what the right class was given."""
    probabilities = outputs.probabilities
    assert probabilities is not None
    given = probabilities[np.arange(len(outputs)), outputs.labels]
    return -np.log(np.maximum(given, np.finfo(np.float64).tiny))


def _p_of_losses(train: NDArray[np.float64], val: NDArray[np.float64]) -> float:
    """Of the hypothesis that losses on both are of one distribution: the log-rank test (Savage's scores), for
    over-fitting shows in the tail of losses that training lacks. Its normal approximation came out up to
    twice too small below 0.01 in simulations with 30 against 450 samples: twice the value is given."""
    from scipy.stats import logrank

    return min(1.0, 2 * float(logrank(train, val).pvalue))


def remedies(recipe: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What usually helps, the strongest first, without what the recipe does already: text and change."""
    out: list[tuple[str, dict[str, Any]]] = []
    ops = [op for op in recipe.get("train") or () if op["name"] != "Normalize"]
    moving = [op for op in ops if op["name"].startswith("Random")]
    tail = [op for op in recipe.get("train") or () if op["name"] == "Normalize"]
    size = recipe.get("image_size")
    if recipe and not moving and size:
        short = size if isinstance(size, int) else min(size)
        crop = {"name": "RandomCrop", "size": size, "padding": max(1, short // 8)}
        out.append(
            ("Augment: crop at random after padding (flip too, where a mirror image keeps its class).",
             {"train": [*ops, crop, *tail]})
        )  # fmt: skip
    optimizer = recipe.get("optimizer") or {}
    if optimizer.get("weight_decay") == 0.0:
        decay = 0.05 if optimizer.get("name") == "AdamW" else 5e-4
        out.append((f"Set weight decay to {decay:g}.", {"optimizer.weight_decay": decay}))
    loss = recipe.get("loss") or {}
    if loss.get("name") == "CrossEntropy" and not loss.get("label_smoothing"):
        out.append(("Smooth the labels by 0.1.", {"loss.label_smoothing": 0.1}))
    if recipe and not recipe.get("early_stopping"):
        patience = max(3, int(recipe.get("epochs") or 20) // 10)
        text = "Stop when validation gets no better: fewer epochs over the same images memorise less."
        out.append((text, {"early_stopping": patience}))
    out.append(("Collect more training images; check learning-curve says how much they would give.", {}))
    out.append(("Use a smaller network, or dropout before its last layer.", {}))
    return out
