"""Y3: the objects of validation are others than those of training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..result import Remedy, Result
from ..stats import Z95, Estimate
from ..table import check
from ..yolo import Split

__all__ = ["object_shift"]

THRESHOLD = 0.10
MOST = 20_000  # images of a split that are looked at
DRAWS = 999
BANDS = (8.0, 16.0, 32.0, 64.0, 96.0, 160.0, 320.0)  # sides in pixels


@check(
    "Y3",
    "object-shift",
    "classes or sizes of objects differ between training and validation",
    measure="share of validation's objects that would have to be others for both to agree",
    needs=["yolo labels"],
    cost=2.0,
    threshold=THRESHOLD,
    reference="total variation distance; images, not boxes, are permuted, for boxes of an image go together",
)
def object_shift(case: Case) -> Result:
    """Compares the shares of classes, and of box sizes, between splits.

    The null is what comes out when images are dealt out anew: boxes of one image stay together, so that many
    boxes of one kind in one image count as one draw. Two comparisons are made, and p-values are doubled.
    """
    labels = case.yolo
    assert labels is not None
    train, val = labels.splits["train"], labels.splits.get("val")
    if val is None or not len(val.boxes) or not len(train.boxes):
        return Result.left_out("needs labelled objects in both train and val")
    rng = np.random.default_rng([case.seed, 0x0B5])
    found: dict[str, tuple[Estimate, list[str]]] = {}
    sizes = [_sizes(s, labels.image_size) for s in (train, val)]
    classes = [_counted(s.classes, s.image, len(labels.names)) for s in (train, val)]
    found["classes"] = compare(classes[0], classes[1], labels.names, rng)
    case.budget.ask()
    found["sizes"] = compare(sizes[0], sizes[1], _bands(), rng)
    name, (e, moved) = min(found.items(), key=lambda kv: (kv[1][0].p, -kv[1][0].points))
    e = e._replace(p=min(1.0, 2 * e.p))
    evidence: dict[str, Any] = {f"{k}_distance": v[0].points for k, v in found.items()}
    evidence |= {f"{k}_moved": v[1] for k, v in found.items()}
    said = f"{name} of objects differ by {100 * e.points:.1f} points between training and validation: "
    said += ", ".join(moved)
    if e.points < THRESHOLD:
        return Result.clear(said, e, evidence=evidence)
    return Result.found(
        said,
        e,
        evidence=evidence,
        remedy=Remedy(
            "Split anew so that images of every kind are on both sides (by source or scene, not by file "
            "name), or report validation by class and size."
        ),
    )


def compare(
    a: NDArray[np.float64], b: NDArray[np.float64], names: Sequence[str], rng: np.random.Generator
) -> tuple[Estimate, list[str]]:
    """Distance of two sets of images (rows: counts by kind), above what dealing them out anew gives."""
    a, b = _some(a, rng), _some(b, rng)
    both = np.concatenate([a, b])
    seen = distance(a.sum(axis=0), b.sum(axis=0))
    null = np.empty(DRAWS)
    for k in range(DRAWS):
        chosen = rng.permutation(len(both))[: len(b)]
        part = both[chosen].sum(axis=0)
        null[k] = distance(both.sum(axis=0) - part, part)
    drawn = np.array(
        [
            distance(
                a[rng.integers(0, len(a), len(a))].sum(axis=0), b[rng.integers(0, len(b), len(b))].sum(axis=0)
            )
            for _ in range(200)
        ]
    )
    p = (1 + int(np.count_nonzero(null >= seen))) / (1 + DRAWS)
    # the noise of both sides adds to a distance as the sum of squares, so that is what is taken off
    points = float(np.sqrt(max(seen**2 - float(np.mean(null**2)), 0.0)))
    half = Z95 * float(drawn.std(ddof=1)) + (seen - points) / 2
    shares = [x.sum(axis=0) / max(x.sum(), 1) for x in (a, b)]
    order = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:3]
    moved = [f"{names[i]} {100 * shares[0][i]:.0f} % → {100 * shares[1][i]:.0f} %" for i in order]
    return Estimate(points, max(points - half, 0.0), min(points + half, 1.0), p), moved


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Total variation distance of two lists of counts.

    >>> distance(np.array([3.0, 1.0]), np.array([1.0, 1.0]))
    0.25
    """
    return float(np.abs(a / max(a.sum(), 1e-9) - b / max(b.sum(), 1e-9)).sum() / 2)


def _some(rows: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return rows if len(rows) <= MOST else rows[rng.choice(len(rows), MOST, replace=False)]


def _counted(kind: NDArray[np.int64], image: NDArray[np.int64], kinds: int) -> NDArray[np.float64]:
    """(images, kinds) counts, of images that have objects."""
    kept, code = np.unique(image, return_inverse=True)
    out = np.zeros((len(kept), kinds))
    np.add.at(out, (code, kind), 1.0)
    return out


def _sizes(s: Split, image_size: int) -> NDArray[np.float64]:
    known = np.isfinite(s.sizes[s.image]).all(axis=1)
    side = np.sqrt(s.pixels(image_size).prod(axis=1))
    return _counted(np.digitize(side, BANDS), s.image[known], len(BANDS) + 1)


def _bands() -> list[str]:
    edges = [0, *(int(b) for b in BANDS)]
    return [f"{a}–{b} px" for a, b in itertools.pairwise(edges)] + [f"over {edges[-1]} px"]
