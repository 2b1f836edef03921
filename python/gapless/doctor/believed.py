"""Labels that are believed instead of the given ones, where out-of-fold predictions are sure that those are
wrong: what the waterfall scores training samples against."""

from __future__ import annotations

import math

from ..errors import GaplessError
from . import noise, table
from .case import Case

__all__ = ["believed_labels"]

_SHARE = 0.2  # of the time that is left


def believed_labels(case: Case) -> dict[int, int] | None:
    """Manifest index → class, for the training samples that check label-noise holds for wrong.

    As many as it estimates, the most suspect first. None where it finds nothing, or where the budget does not
    reach; the case's notes say so. The network has no part in it: its own mistakes are not explained away.
    """
    row = table.named("label-noise")
    if not set(row.needs) <= case.facts or case.data is None:
        return None
    cost = row.cost(case)
    if cost > _SHARE * case.budget.left:
        case.notes.append(f"wrong training labels have no step of their own: about {math.ceil(cost)} s")
        return None
    try:
        result = row.measured(case)
    except GaplessError as e:
        case.notes.append(f"wrong training labels have no step of their own: {e}")
        return None
    share = result.evidence.get("train")
    if result.outcome != "found" or share is None or share["low"] <= 0:
        return None
    from .checks.label_noise import probabilities

    indices, p = probabilities(case, "train")
    found = noise.suspects(p, case.data.labels[indices])
    most = round(share["share"] * len(indices))
    pairs = zip(indices[found.rows[:most]].tolist(), found.better[:most].tolist(), strict=True)
    return {int(i): int(k) for i, k in pairs}
