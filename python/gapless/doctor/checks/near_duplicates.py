"""S5: validation images that are training images compressed again, resized or mirrored; such copies within a
split."""

from __future__ import annotations

from .. import duplicates, features
from ..case import Case
from ..leaks import judged
from ..repeats import equal_pairs, note_of, repeats, with_repeats
from ..result import Result
from ..table import check

__all__ = ["near_duplicates"]


def _cost(case: Case) -> float:
    data = case.data
    if data is None:
        return 0.0
    train, val = (len(features.seen(case, s)) for s in ("train", "val"))
    within = duplicates.within_cost(train) + duplicates.within_cost(val)
    return features.look_cost(case) + 1.5e-8 * train * val + 1e-3 * val + within


@check(
    "S5",
    "near-duplicates",
    "validation images are nearly the same as training images",
    measure="validation accuracy without the near copies minus with them; without a model the share of "
    "validation images that are near copies (negative: they flatter validation); where only near copies "
    "within a split contradict each other, the least share of its labels that is wrong",
    needs=["splits"],
    cost=_cost,
    threshold=0.01,
    explains=["G2"],
    reference="Barz and Denzler 2020 (ciFAIR); thresholds measured on digits and Fashion-MNIST",
)
def near_duplicates(case: Case) -> Result:
    """Takes the validation samples that are near copies of a training sample out of the score.

    Small grey copies propose pairs; pixels aligned under the resizing, mirroring or compression that fits
    best decide, held against how near different pictures of this set come to each other. The same search
    within training and within validation: there copies cost nothing by themselves, but labels that differ
    are wrong, and validation's number of samples is really smaller.
    """
    pairs = [(p.first, p.second) for p in duplicates.across(case)]
    train, val = features.looked_both(case)
    part = "" if train.all and val.all else " among those looked at"
    mirrored = sum(p.mirrored for p in duplicates.across(case))
    result = judged(
        case,
        [v for _, v in pairs],
        pairs,
        what=f"near copies of training images{part} ({mirrored} of them mirrored)",
        clear=f"no validation image is nearly a training image{part}",
        evidence={"mirrored": mirrored, "looked_at": {"train": len(train.indices), "val": len(val.indices)}},
        of=None if val.all else len(val.indices),
    )
    data = case.data
    assert data is not None
    near = [(s, *duplicates.within(case, s)) for s in ("train", "val")]
    within = [repeats(data, s, n, [(p.first, p.second) for p in found]) for s, found, n in near]
    found = [(p.first, p.second) for p in near[1][1]]
    every = repeats(data, "val", len(data.indices("val")), [*found, *equal_pairs(data, "val")])
    note = note_of(every)
    if note is not None:
        case.notes.append(note)
    return with_repeats(case, result, within, "nearly", every)
