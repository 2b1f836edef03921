"""Y2: boxes that a detector cannot learn: wrong lines, and boxes that no anchor fits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..result import Remedy, Result
from ..stats import share
from ..table import check
from ..yolo import ANCHORS, IMAGE_SIZE, LIMIT, anchor_ratio, best_possible_recall

__all__ = ["anchors_and_boxes", "fitted"]

REFERENCE = 0.98  # best possible recall below which YOLOv5 makes new anchors


@check(
    "Y2",
    "anchors-and-boxes",
    "label lines that are wrong, and boxes that no anchor fits",
    measure="share of training objects that cannot be learned as they are labelled",
    needs=["yolo labels"],
    reference="YOLOv5 autoanchor: best possible recall at a ratio of 4 is to be above 0.98",
)
def anchors_and_boxes(case: Case) -> Result:
    """Counts lines of training labels that are wrong, and boxes that no anchor fits within 4 times.

    Nothing is estimated: every line is looked at. The anchors are YOLOv5's for P3 to P5; boxes are taken at
    the image size that is trained at.
    """
    labels = case.yolo
    assert labels is not None
    split, size = labels.splits["train"], labels.image_size
    if not split.lines:
        return Result.left_out("needs training labels: there is no line")
    wrong = {k: n for k, n in labels.wrong_lines("train").items() if k != "outside the image"}
    sides = split.pixels(size)
    # anchors stay as they are in pixels, whatever the image size: so do trainers that are not told otherwise
    ratio = anchor_ratio(sides)
    unfit = int(np.count_nonzero(ratio >= LIMIT))
    recall = best_possible_recall(sides)
    evidence: dict[str, Any] = {
        "lines": split.lines,
        "wrong": labels.wrong_lines("train"),
        "boxes_without_anchor": unfit,
        "best_possible_recall": recall,
        "image_size": size,
    }
    if unfit:
        evidence["without_anchor_ids"] = _worst(case, ratio)
    e = share(sum(wrong.values()) + unfit, split.lines)
    said = f"best possible recall {recall:.4f} with YOLOv5's anchors at {size}: "
    said += f"{unfit} of {len(sides)} boxes fit none"
    if wrong:
        said += "; lines: " + ", ".join(f"{n} {k}" for k, n in wrong.items())
    if e.points < 0.02:
        return Result.clear(said, e, evidence=evidence)
    remedy = []
    if unfit > 0.005 * len(sides):
        new = fitted(sides)
        evidence |= {"anchors_that_fit": new, "recall_with_them": best_possible_recall(sides, new)}
        remedy.append("Train with anchors fitted to these boxes (evidence.anchors_that_fit)")
        if size < IMAGE_SIZE or np.median(sides.max(axis=1)) < 16:
            remedy.append("or at a larger image size")
    if wrong:
        remedy.append(f"{'and correct' if remedy else 'Correct'} the {sum(wrong.values())} wrong label lines")
    return Result.found(said, e, evidence=evidence, remedy=Remedy(" ".join(remedy) + "."))


def fitted(sides: NDArray[np.float64], most: int = 5000) -> list[list[int]]:
    """Nine anchors by k-means on the logs of width and height, small to large."""
    from sklearn.cluster import KMeans

    known = np.unique(np.maximum(sides, 1.0), axis=0)
    if len(known) > most:
        known = known[np.random.default_rng(0).choice(len(known), most, replace=False)]
    n = min(len(ANCHORS), len(known))
    centres = np.exp(KMeans(n, n_init=3, random_state=0).fit(np.log(known)).cluster_centers_)
    return [[round(float(w)), round(float(h))] for w, h in centres[np.argsort(centres.prod(axis=1))]]


def _worst(case: Case, ratio: NDArray[np.float64]) -> list[str]:
    """Images of the boxes that are farthest from any anchor."""
    assert case.yolo is not None
    split = case.yolo.splits["train"]
    at = split.image[np.isfinite(split.sizes[split.image]).all(axis=1)]
    order = np.argsort(-ratio, kind="stable")
    names = dict.fromkeys(split.ids[at[i]] for i in order[:200] if ratio[i] >= LIMIT)
    return list(names)[:50]
