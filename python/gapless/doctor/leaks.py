"""What S4, S5 and S6 share: what validation would be without samples that training has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .case import Case
from .features import thumbnail
from .result import Picture, Remedy, Result
from .stats import Estimate, difference, share

if TYPE_CHECKING:
    from ..data import Data

__all__ = ["LISTED", "copied", "first_of_pixels", "judged", "pictured", "without"]

LISTED = 50
REMEDY = Remedy(
    "Take the listed samples out of validation, or draw the split so that copies stay on one side "
    "(group_by=), and report the accuracy without them."
)


def without(case: Case, taken: Sequence[int]) -> Estimate | None:
    """Validation accuracy without these samples (manifest indices) minus with them; None without outputs.

    With share s of the samples taken out this is s times (accuracy of the others minus accuracy of these):
    the interval is the difference's.
    """
    if "outputs" not in case.facts or case.data is None:
        return None
    out = case.outputs("val")
    ids = {case.data.ids[i] for i in taken}
    mask = np.array([i in ids for i in out.ids])
    n, k = len(mask), int(mask.sum())
    if not 0 < k < n:
        return None
    d = difference(int(out.right[~mask].sum()), n - k, int(out.right[mask].sum()), k)
    s = k / n
    return Estimate(s * d.points, s * d.low, s * d.high, d.p)


def copied(case: Case) -> NDArray[np.bool_]:
    """Which validation outputs are of an image that is, to the pixel, a training image; none where that is
    not known."""
    data, ids = case.data, case.outputs("val").ids
    if data is None or "train" not in data.splits or not all(i in data for i in ids):
        return np.zeros(len(ids), bool)
    trained = {data.digests[i] for i in data.splits["train"]}
    return np.array([data.digests[data.index_of(i)] in trained for i in ids], bool)


def first_of_pixels(data: Data, indices: Iterable[Any]) -> dict[str, int]:
    """By the digest of its pixels, the first of these samples (manifest indices) that has them."""
    first: dict[str, int] = {}
    for i in map(int, indices):
        first.setdefault(data.digests[i], i)
    return first


def judged(
    case: Case,
    taken: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    *,
    what: str,
    clear: str,
    evidence: Mapping[str, Any],
    remedy: Remedy = REMEDY,
    of: int | None = None,
) -> Result:
    """The result of taking samples out: in accuracy where there is a model, else as a share.

    Parameters
    ----------
    taken : sequence of int
        Manifest indices of validation samples.
    pairs : sequence of (train, val)
        For evidence.
    of : int, optional
        How many validation samples were looked at; default all.
    """
    data = case.data
    assert data is not None
    n = len(data.indices("val")) if of is None else of
    numbers = {"count": len(taken), "of": n, **evidence}
    if not taken:
        return Result.clear(clear, share(0, n, 1.0), evidence=numbers)
    numbers["pairs"] = [[data.ids[a], data.ids[b]] for a, b in pairs[:LISTED]]
    numbers["other_label"] = sum(int(data.labels[a] != data.labels[b]) for a, b in pairs)
    says = f"{len(taken):,} of {n:,} validation images ({100 * len(taken) / n:.1f} %) are {what}"
    e = without(case, taken)
    counted = -share(len(taken), n)
    if e is None:
        return Result.found(says, counted, evidence=numbers, remedy=remedy, pictures=pictured(case, pairs))
    accuracy = case.outputs("val").accuracy
    numbers |= {"accuracy": accuracy, "accuracy_without": accuracy + e.points}
    says += (
        f"; without them accuracy is {100 * (accuracy + e.points):.1f} % instead of {100 * accuracy:.1f} %"
    )
    e = e._replace(p=0.0)  # that they are there was counted; the interval is of what they do to accuracy
    if e.high < 0:
        return Result.found(says, e, evidence=numbers, remedy=remedy, pictures=pictured(case, pairs))
    if e.low > -0.005:
        return Result.clear(f"{says}: it makes no difference here", e, evidence=numbers)
    k, s = len(taken), len(taken) / n
    gap = max(abs(e.points) / s, 0.01)
    needed = int(np.ceil(4 * accuracy * (1 - accuracy) / gap**2 * (n / k + n / max(n - k, 1))))
    return Result.undecided(
        f"{says}: too few to tell", e, samples_needed=max(needed, n + 1), evidence=numbers
    )


def pictured(case: Case, pairs: Sequence[tuple[int, int]], most: int = 8) -> list[Picture]:
    """Both pictures of the first pairs."""
    data = case.data
    assert data is not None
    out = []
    for a, b in pairs[:most]:
        for i in (a, b):
            label = data.classes[int(data.labels[i])]
            out.append(Picture(thumbnail(data, i), f"{data.split_of[i]} {data.ids[i]}: {label}"))
    return out
