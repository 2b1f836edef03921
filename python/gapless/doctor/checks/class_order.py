"""C1: the class indices of evaluation are not those of training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..outputs import Outputs
from ..reading import inner, is_simplex
from ..result import Remedy, Result
from ..stats import paired
from ..table import check
from ..verdict import FLAT, opinion

__all__ = ["class_order"]


@check(
    "C1",
    "class-order",
    "class indices differ between training and evaluation",
    measure="validation accuracy recovered by renaming classes",
    needs=["outputs"],
    threshold=0.10,
    explains=["W1", "P1", "P2", "P3", "L2", "L3", "C2", "C4", "G1", "G3"],
    reference="torchvision #714, timm #222: string against natural order of numeric folders",
)
def class_order(case: Case) -> Result:
    """Renames predicted classes so that most samples come out right, and asks whether that beats chance.

    The renaming is fitted on one half of the samples and scored on the other, and the other way round:
    what is recovered is no effect of the fitting.
    """
    out = case.outputs("val")
    k = out.num_classes
    half = _halves(out)
    renamed = out.predictions.copy()
    orders = []
    for side in (True, False):
        order = best_order(out, half == side)
        orders.append(order)
        renamed[half != side] = order[out.predictions[half != side]]
    e = paired(out.right, renamed == out.labels)
    order = best_order(out, np.ones(len(out), bool))
    moved = np.flatnonzero(order != np.arange(k))
    name = _name(order, out.classes)
    numbers = {"accuracy": out.accuracy, "accuracy_renamed": float(np.mean(renamed == out.labels))}
    if _has_no_opinion(out):
        return Result.clear(
            "the outputs are almost uniform: a network without an opinion", e, evidence=numbers
        )
    sure = opinion(out).get("confidence", 0.0)
    logged = 0.0 if case.logged is None else case.logged
    if e.points >= 0.10 and numbers["accuracy_renamed"] < 0.5 * max(logged, sure):
        claim = "training logged" if logged >= sure else "the outputs claim"
        return Result.clear(
            f"renamed, {100 * numbers['accuracy_renamed']:.1f} % are right: less than half of what {claim}, "
            "as of a network that tells some classes apart without having learned them",
            e,
            evidence=numbers,
        )
    if e.points < 0.10 or not len(moved):
        return Result.clear(f"renaming classes recovers {100 * e.points:.1f} points", e, evidence=numbers)
    pairs = {out.classes[j]: out.classes[order[j]] for j in moved}
    return Result.found(
        f"{name}: with classes renamed {100 * numbers['accuracy_renamed']:.1f} % are right instead of "
        f"{100 * out.accuracy:.1f} %",
        e,
        evidence={**numbers, "kind": name, "predicted_means": pairs},
        remedy=Remedy(
            "Store the class names with the weights and map by name; until then rename the model's outputs "
            "as in evidence.predicted_means."
        ),
    )


def _has_no_opinion(out: Outputs) -> bool:
    """Whether the outputs are almost uniform; those of a doubled softmax look so, and are not."""
    if opinion(out).get("entropy", 0.0) < FLAT or out.scores is None:
        return False
    return not is_simplex(out.scores) if out.kind == "logits" else inner(out.scores) is None


def best_order(out: Outputs, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each output the class it means, so that most of these samples are right (Kuhn 1955)."""
    from scipy.optimize import linear_sum_assignment

    k = out.num_classes
    counts = np.zeros((k, k))
    np.add.at(counts, (out.predictions[rows], out.labels[rows]), 1)
    # among equals the order as it is: half a sample in its favour
    _, columns = linear_sum_assignment(-(counts + 0.5 * np.eye(k)))
    return np.asarray(columns, np.int64)


def _halves(out: Outputs) -> NDArray[np.bool_]:
    """Every other sample of each class, in the order of ids: the same whatever order outputs came in."""
    side = np.zeros(len(out), bool)
    ids = np.array(out.ids, dtype=object)
    for c in np.unique(out.labels):
        at = np.flatnonzero(out.labels == c)
        side[at[np.argsort(ids[at])][::2]] = True
    return side


def _name(order: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """What kind of renaming it is: a shift, text against number order, or some other one."""
    k = len(order)
    if k == 2:
        return "the two classes are exchanged"
    moves = (order - np.arange(k)) % k
    values, counts = np.unique(moves, return_counts=True)
    shift = int(values[np.argmax(counts)])
    if shift and counts.max() >= 0.8 * k:
        signed = shift if shift <= k // 2 else shift - k
        return f"class indices are off by {signed:+d}"
    if all(c.isdigit() for c in classes):
        by_text = np.argsort(np.array(classes), kind="stable")
        by_number = np.argsort([int(c) for c in classes], kind="stable")
        for a, b in ((by_text, by_number), (by_number, by_text)):
            table = np.empty(k, np.int64)
            table[np.argsort(a)] = np.argsort(b)
            if np.mean(table == order) >= 0.8 or np.mean(np.argsort(table) == order) >= 0.8:
                return "numeric class names in text order on one side and in number order on the other"
    return f"{int(np.count_nonzero(moves))} of {k} classes are permuted"
