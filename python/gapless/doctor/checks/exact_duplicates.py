"""S4: validation images that are training images, pixel for pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..leaks import judged
from ..result import Result
from ..table import check

__all__ = ["exact_duplicates"]


@check(
    "S4",
    "exact-duplicates",
    "validation images are in training too",
    measure="validation accuracy without the copies minus with them; without a model the share of validation "
    "images that are copies (negative: they flatter validation)",
    needs=["splits"],
    threshold=0.005,
    explains=["S5", "G2"],
    reference="Barz and Denzler 2020 (ciFAIR): 3.3 % of CIFAR-10's and 10 % of CIFAR-100's test images",
)
def exact_duplicates(case: Case) -> Result:
    """Takes the validation samples whose decoded pixels equal a training sample's out of the score.

    What is compared is pixels after decoding: a copy of another name or lossless format counts.
    """
    assert case.data is not None
    pairs = copies(case)
    return judged(
        case,
        [v for _, v in pairs],
        pairs,
        what="exact copies of training images",
        clear="no validation image has the pixels of a training image",
        evidence=_within(case),
    )


def copies(case: Case) -> list[tuple[int, int]]:
    """(training, validation) manifest indices of equal pixels, one for each such validation sample."""
    data = case.data
    assert data is not None
    first: dict[str, int] = {}
    for i in data.indices("train"):
        first.setdefault(data.digests[i], int(i))
    return [(first[data.digests[v]], int(v)) for v in data.indices("val") if data.digests[v] in first]


def _within(case: Case) -> dict[str, int]:
    """How many samples repeat an earlier one of their own split."""
    data = case.data
    assert data is not None

    def again(indices: NDArray[np.int64]) -> int:
        return len(indices) - len({data.digests[i] for i in indices})

    return {f"repeated_within_{s}": again(data.indices(s)) for s in ("train", "val")}
