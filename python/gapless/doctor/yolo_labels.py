"""A detector's labels: boxes by split, the errors of their files, and what anchors can learn of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ANCHORS",
    "EXAMPLES",
    "IMAGE_SIZE",
    "KINDS",
    "LIMIT",
    "OF_LINES",
    "Problem",
    "Split",
    "YoloLabels",
    "anchor_ratio",
    "best_possible_recall",
]

IMAGE_SIZE = 640
LIMIT = 4.0  # times that a box may be wider or higher than an anchor that is to learn it
#: YOLOv5's anchors for P3, P4 and P5, in pixels at 640.
ANCHORS = (
    (10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326),
)  # fmt: skip
EXAMPLES = 10  # of each kind that are named; all are counted

#: Kinds of errors, and what they mean to a trainer.
KINDS = {
    "columns": "neither 5 columns nor a class and at least 3 points: YOLOv5 leaves the whole image out",
    "not a number": "YOLOv5 leaves the whole image out",
    "not finite": "the loss becomes NaN, or the whole image is left out",
    "class id": "not among the names: training stops, or learns a class that is not there",
    "value outside 0..1": "YOLOv5 leaves the whole image out (are these pixels?)",
    "outside the image": "part of the box is learned where nothing is",
    "zero area": "no anchor can match it",
    "duplicate": "dropped in silence, or counted twice",
    "no label files": "not one image has labels: training stops, or learns that there is nothing",
    "unreadable label": "the image is left out",
    "label without image": "its objects are never trained",
    "unreadable image": "left out",
    "missing image": "named in a list, and not there",
    "image in two splits": "validation is not independent",
}
#: Those that are about a line, so a box.
OF_LINES = ("columns", "not a number", "not finite", "class id", "value outside 0..1", "outside the image",
            "zero area", "duplicate")  # fmt: skip


@dataclass
class Problem:
    """Errors of one kind in one split: how many, and the first of them."""

    kind: str
    split: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind, "split": self.split, "count": self.count, "examples": self.examples,
                "means": KINDS[self.kind]}  # fmt: skip


@dataclass
class Split:
    """One split's images and boxes.

    Attributes
    ----------
    name : str
    ids : list of str
        Paths of images, as messages name them.
    sizes : (n, 2) float64
        Width and height, upright; NaN where the image could not be read.
    boxes : (m, 4) float64
        Centre and size, fractions; lines in error are not among them, save those that only reach outside the
        image.
    classes : (m,) int64
    image : (m,) int64
        Index of each box's image.
    lines : int
        Lines of the label files, right or wrong.
    backgrounds : int
        Images without objects.
    polygons : int
        Lines that are polygons.
    """

    name: str
    ids: list[str]
    sizes: NDArray[np.float64]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    image: NDArray[np.int64]
    lines: int = 0
    backgrounds: int = 0
    polygons: int = 0

    def pixels(self, image_size: int) -> NDArray[np.float64]:
        """(k, 2) width and height of boxes when the longer side of their image is scaled to `image_size`."""
        sizes = self.sizes[self.image]
        known = np.isfinite(sizes).all(axis=1)
        scaled = image_size * sizes[known] / sizes[known].max(axis=1, keepdims=True, initial=1.0)
        return np.asarray(self.boxes[known, 2:] * scaled)

    def counts(self, classes: int) -> NDArray[np.int64]:
        """Boxes by class."""
        return np.bincount(self.classes, minlength=classes)

    def to_dict(self, image_size: int, names: Sequence[str]) -> dict[str, Any]:
        """Statistics, as plain data."""
        n, per_image = len(self.ids), np.bincount(self.image, minlength=len(self.ids))
        sides = self.pixels(image_size)
        area, aspect = sides.prod(axis=1), sides[:, 0] / np.maximum(sides[:, 1], 1e-9)
        bands = np.bincount(np.digitize(area, (32**2, 96**2)), minlength=3)
        return {
            "images": n,
            "backgrounds": self.backgrounds,
            "objects": len(self.boxes),
            "polygons": self.polygons,
            "objects_per_image": {
                "mean": float(per_image.mean()) if n else 0.0,
                "median": float(np.median(per_image)) if n else 0.0,
                "most": int(per_image.max(initial=0)),
            },
            "classes": dict(zip(names, map(int, self.counts(len(names))), strict=True)),
            "box_side": _quantiles(np.sqrt(area)),
            "box_aspect": _quantiles(aspect),
            "box_sizes": dict(zip(("small", "medium", "large"), map(int, bands), strict=True)),
            "best_possible_recall": best_possible_recall(sides) if len(sides) else None,
        }


@dataclass
class YoloLabels:
    """A data set in YOLO's form.

    Attributes
    ----------
    path : str
    names : tuple of str
        Class names by id.
    splits : dict of str to Split
    problems : list of Problem
        Those that occur.
    image_size : int
        The longer side in pixels that sizes are told at.
    notes : list of str
    """

    path: str
    names: tuple[str, ...]
    splits: dict[str, Split]
    problems: list[Problem]
    image_size: int = IMAGE_SIZE
    notes: list[str] = field(default_factory=list)

    def wrong_lines(self, split: str) -> dict[str, int]:
        """Errors of lines by kind."""
        return {p.kind: p.count for p in self.problems if p.split == split and p.kind in OF_LINES}

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "path": self.path,
            "names": list(self.names),
            "image_size": self.image_size,
            "splits": {k: s.to_dict(self.image_size, self.names) for k, s in self.splits.items()},
            "problems": [p.to_dict() for p in self.problems],
            "notes": self.notes,
        }

    def text(self, *, brief: bool = False) -> str:
        """What was read, as text; `brief`: the errors only."""
        from .yolo_text import summary

        return summary(self, brief=brief)

    def __repr__(self) -> str:
        return self.text()


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    at = np.quantile(values, (0.05, 0.5, 0.95))
    return dict(zip(("5 %", "median", "95 %"), (round(float(v), 3) for v in at), strict=True))


def anchor_ratio(sides: NDArray[np.float64], anchors: Any = ANCHORS) -> NDArray[np.float64]:
    """How many times each box differs from its best anchor, in the worse of width and height.

    >>> anchor_ratio(np.array([[10.0, 13.0], [10.0, 130.0]])).round(2).tolist()
    [1.0, 3.0]
    """
    best = np.full(len(sides), np.inf)
    for w, h in anchors:
        r = np.maximum(sides, 1e-9) / (w, h)
        best = np.minimum(best, np.maximum(r, 1 / r).max(axis=1))
    return best


def best_possible_recall(sides: NDArray[np.float64], anchors: Any = ANCHORS) -> float:
    """Share of boxes that some anchor can learn: those that differ less than `LIMIT` times."""
    return float(np.mean(anchor_ratio(sides, anchors) < LIMIT)) if len(sides) else 1.0
