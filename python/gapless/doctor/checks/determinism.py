"""D1: the same image gets another answer: by chance, or by the images beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import Data
from ..case import Case
from ..result import Remedy, Result
from ..stats import Estimate, paired
from ..subject import FunctionSubject, Subject, permuted
from ..table import check

__all__ = ["determinism"]

MOST = 256
SIZED = 1024  # samples on which the cost is measured
ROUNDS = 8
TIE = 1e-3  # of the spread of logits: two classes so close may change places by rounding


@check(
    "D1",
    "determinism",
    "answers depend on chance or on the other images of the batch",
    measure="validation accuracy recovered when each image is answered by itself",
    needs=["model", "outputs", "images"],
    cost=lambda case: case.passes(5, most=MOST),
    explains=["W1", "P1", "P2", "P3", "C4", "B1", "B2", "B3", "L3", "C1"],
    reference="PaddleClas #2168 (0.914 and 0.926 of one model); Keras #6977; PyTorch #4741",
)
def determinism(case: Case) -> Result:
    """Asks for the same samples twice, in another order, and alone.

    Answers that differ between two equal calls: dropout, or a random preprocessing. Answers that differ with
    the batch: BatchNorm that takes its statistics from the batch. Both are a network that was left in
    training mode. What that costs is told by the mean answer over several mixed batches, which comes near to
    evaluation mode.
    """
    subject, data = case.subject, case.data
    assert subject is not None
    assert data is not None
    picked = case.sample("val", MOST, stream=18)
    few = picked[: min(len(picked), 32)].tolist()
    random_input = _random_input(subject, data, few)
    order = permuted(len(picked), case.seed, 0xD1)
    first, again = (_logits(case, subject, picked, order, 64) for _ in range(2))
    assert first is not None
    assert again is not None
    mixed = _logits(case, subject, picked, permuted(len(picked), case.seed, 0xD2), 64)
    alone = _logits(case, subject, picked[: min(len(picked), 64)], None, 1)
    numbers: dict[str, Any] = {
        "samples": len(picked),
        "random_preprocessing": random_input,
        "changed_when_repeated": _changed(first, again),
        "changed_in_other_batches": _changed(first, mixed),
        "changed_alone": None if alone is None else _changed(first[: len(alone)], alone),
        "refuses_one_image": alone is None,
    }
    changed = max(
        numbers["changed_when_repeated"], numbers["changed_in_other_batches"], numbers["changed_alone"] or 0
    )
    if not changed and alone is not None:
        return Result.clear(
            f"0 of {len(picked)} predictions change when repeated, shuffled, or alone",
            Estimate(0.0, -0.005, 0.005, 1.0),
            evidence=numbers,
        )
    cause, remedy = _cause(numbers)
    e, more = _cost(case)
    text = (
        f"{cause}: of {len(picked)} predictions {numbers['changed_when_repeated']} change when repeated, "
        f"{numbers['changed_in_other_batches']} among other images, "
        + (
            "and a single image is refused"
            if alone is None
            else f"{numbers['changed_alone']} of {len(alone)} alone"
        )
    )
    numbers |= more
    if e.points < 0.02:
        return Result.clear(f"{text}; it costs {100 * e.points:.1f} points", e, evidence=numbers)
    alike, mixed_ones = more["accuracy_in_batches_of_one_class"], more["accuracy_in_mixed_batches"]
    alone_rate, rate = more["accuracy_of_mean"], more["accuracy"]
    return Result.found(
        f"{text}; {100 * alike:.1f} % are right in batches of one class, {100 * mixed_ones:.1f} % in mixed "
        f"ones; answered by themselves {100 * alone_rate:.1f} instead of {100 * rate:.1f} % would be",
        e,
        evidence=numbers,
        remedy=Remedy(remedy),
    )


def _random_input(subject: Subject, data: Data, few: list[int]) -> bool:
    """Whether the same image is prepared in two ways; then nothing that was prepared may be used again."""
    if not isinstance(subject, FunctionSubject):
        return not np.array_equal(subject.prepared(data, few), subject.prepared(data, few))
    if np.array_equal(subject.prepared_anew(data, few), subject.prepared_anew(data, few)):
        return False
    subject.keep_nothing()
    return True


def _cause(numbers: dict[str, Any]) -> tuple[str, str]:
    if numbers["random_preprocessing"]:
        return (
            "the preprocessing draws at random",
            "Take random operations out of the evaluation preprocessing; prepare an image in one way.",
        )
    if numbers["changed_in_other_batches"] > numbers["changed_when_repeated"] or numbers["refuses_one_image"]:
        return (
            "the network was left in training mode (its answers depend on the other images of the batch)",
            "Switch the network to evaluation mode before scoring (model.eval(), training=False). Its "
            "running statistics moved while it was scored in training mode: load the weights again.",
        )
    if numbers["changed_when_repeated"]:
        return (
            "the network was left in training mode (its answers differ from call to call: dropout)",
            "Switch the network to evaluation mode before scoring (model.eval(), training=False).",
        )
    return (
        "answers depend on the batch",
        "Make an image's answer independent of its batch: evaluation mode, no statistics over a batch.",
    )


def _logits(
    case: Case, subject: Subject, picked: NDArray[np.int64], order: NDArray[np.int64] | None, batch: int
) -> NDArray[np.float64] | None:
    """Logits in the order of `picked`, asked for in another one; None where the model refuses."""
    order = np.arange(len(picked)) if order is None else order
    try:
        out = case.outputs_of(subject, picked[order], batch=batch)
    except Exception:  # whatever the caller's model raises for a single image
        if batch > 1:
            raise
        return None
    assert out.scores is not None
    logits = np.empty_like(out.scores)
    logits[order] = out.scores
    return logits


def _changed(a: NDArray[np.float64], b: NDArray[np.float64] | None) -> int:
    """Predictions that differ by more than rounding explains."""
    if b is None:
        return 0
    spread = float(a.std()) or 1.0
    rows = np.arange(len(a))
    first, second = a.argmax(axis=1), b.argmax(axis=1)
    clear = np.maximum(a[rows, first] - a[rows, second], b[rows, second] - b[rows, first]) > TIE * spread
    return int(np.count_nonzero((first != second) & clear))


def _cost(case: Case) -> tuple[Estimate, dict[str, float]]:
    """Accuracy of the mean answer over mixed batches minus that of the answers as they were given."""
    from ... import metrics

    subject, out = case.subject, case.outputs("val")
    assert subject is not None
    assert case.data is not None
    at = {ident: i for i, ident in enumerate(out.ids)}
    indices = case.sample("val", SIZED, stream=19)
    rows = np.array([at[case.data.ids[i]] for i in indices], np.int64)
    labels = out.labels[rows]
    total: NDArray[np.float64] = np.zeros((len(indices), out.num_classes))
    by_half: list[float] = []
    one: list[float] = []
    for k in range(ROUNDS):
        logits = _logits(case, subject, indices, permuted(len(indices), case.seed, 0xD100 + k), 64)
        assert logits is not None
        total += np.log(np.clip(metrics.softmax(logits).astype(np.float64), 1e-12, 1))
        one.append(float((logits.argmax(axis=1) == labels).mean()))
        if k + 1 in (ROUNDS // 2, ROUNDS):
            by_half.append(float((total.argmax(axis=1) == labels).mean()))
    sorted_rate = _by_class(case, subject, indices, labels)
    before, after = out.right[rows], total.argmax(axis=1) == labels
    e = paired(before, after)
    # the mean answer is not the answer of evaluation mode, only near to it
    room = max(abs(by_half[1] - by_half[0]), 0.01)
    numbers = {
        "accuracy": float(before.mean()),
        "accuracy_of_mean": float(after.mean()),
        "accuracy_in_mixed_batches": float(np.mean(one)),
        "accuracy_in_batches_of_one_class": sorted_rate,
    }
    return Estimate(e.points, e.low - room, e.high + room, e.p), numbers


def _by_class(case: Case, subject: Subject, indices: NDArray[np.int64], labels: Sequence[int] | Any) -> float:
    order = np.argsort(np.asarray(labels), kind="stable")
    logits = _logits(case, subject, indices, order, 64)
    assert logits is not None
    return float((logits.argmax(axis=1) == labels).mean())
