"""S4: validation images that are training images, pixel for pixel, and images that are twice in one split."""

from __future__ import annotations

from ..case import Case
from ..leaks import first_of_pixels, judged
from ..repeats import equal_pairs, repeats, with_repeats
from ..result import Result
from ..table import check

__all__ = ["exact_duplicates"]


@check(
    "S4",
    "exact-duplicates",
    "validation images are in training too",
    measure="validation accuracy without the copies minus with them; without a model the share of validation "
    "images that are copies (negative: they flatter validation); where only copies within a split contradict "
    "each other, the least share of its labels that is wrong",
    needs=["splits"],
    threshold=0.005,
    explains=["S5", "G2"],
    reference="Barz and Denzler 2020 (ciFAIR): 3.3 % of CIFAR-10's and 10 % of CIFAR-100's test images",
)
def exact_duplicates(case: Case) -> Result:
    """Takes the validation samples whose decoded pixels equal a training sample's out of the score.

    What is compared is pixels after decoding: a copy of another name or lossless format counts. Copies within
    training or within validation flatter nothing; where their labels differ, labels are wrong.
    """
    data = case.data
    assert data is not None
    pairs = copies(case)
    result = judged(
        case,
        [v for _, v in pairs],
        pairs,
        what="exact copies of training images",
        clear="no validation image has the pixels of a training image",
        evidence={},
    )
    within = [repeats(data, s, len(data.indices(s)), equal_pairs(data, s)) for s in ("train", "val")]
    return with_repeats(case, result, within, "exactly")


def copies(case: Case) -> list[tuple[int, int]]:
    """(training, validation) manifest indices of equal pixels, one for each such validation sample."""
    data = case.data
    assert data is not None
    first = first_of_pixels(data, data.indices("train"))
    return [(first[data.digests[v]], int(v)) for v in data.indices("val") if data.digests[v] in first]
