"""S5: validation images that are training images compressed again, resized or mirrored."""

from __future__ import annotations

from .. import duplicates, features
from ..case import Case
from ..leaks import judged
from ..result import Result
from ..table import check

__all__ = ["near_duplicates"]


def _cost(case: Case) -> float:
    data = case.data
    if data is None:
        return 0.0
    train, val = (len(features.seen(case, s)) for s in ("train", "val"))
    return features.look_cost(case) + 1.5e-8 * train * val + 1e-3 * val


@check(
    "S5",
    "near-duplicates",
    "validation images are nearly the same as training images",
    measure="validation accuracy without the near copies minus with them; without a model the share of "
    "validation images that are near copies (negative: they flatter validation)",
    needs=["splits"],
    cost=_cost,
    threshold=0.01,
    explains=["G2"],
    reference="Barz and Denzler 2020 (ciFAIR); thresholds measured on digits and Fashion-MNIST",
)
def near_duplicates(case: Case) -> Result:
    """Takes the validation samples that are near copies of a training sample out of the score.

    Small grey copies propose pairs; pixels aligned under the resizing, mirroring or compression that fits
    best decide, held against how near different pictures of this set come to each other.
    """
    pairs = [(p.train, p.val) for p in duplicates.across(case)]
    train, val = features.looked_both(case)
    part = "" if train.all and val.all else " among those looked at"
    mirrored = sum(p.mirrored for p in duplicates.across(case))
    return judged(
        case,
        [v for _, v in pairs],
        pairs,
        what=f"near copies of training images{part} ({mirrored} of them mirrored)",
        clear=f"no validation image is nearly a training image{part}",
        evidence={"mirrored": mirrored, "looked_at": {"train": len(train.indices), "val": len(val.indices)}},
        of=None if val.all else len(val.indices),
    )
