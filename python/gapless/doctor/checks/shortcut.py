"""S7: something beside the content - size, file format, brightness, border - tells the class."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import classifier, features
from ..case import Case
from ..result import Remedy, Result
from ..stats import Z95, Estimate
from ..table import check

__all__ = ["shortcut"]

ABOVE = 0.10  # over guessing the most frequent class
OF_ALL = 0.6  # what a property of the pixels must reach of what all features reach
BINS = 24
MOST = 6000
#: name → whether it is a property of the file rather than of the picture
PROPERTIES = {
    "file format": True,
    "image size": True,
    "aspect": True,
    "brightness": False,
    "contrast": False,
    "border": False,
    "border spread": False,
    "corner": False,
    "red": False,
    "green": False,
    "blue": False,
}


@check(
    "S7",
    "shortcut",
    "a property beside the content tells the class",
    measure="training accuracy that this property alone reaches above guessing the most frequent class",
    needs=["images"],
    cost=lambda case: features.look_cost(case) + 2.0,
    threshold=ABOVE,
    explains=["S3", "P2"],
    reference="Geirhos et al. 2020 (shortcut learning); Deepchecks limits the predictive power score to 0.2",
)
def shortcut(case: Case) -> Result:
    """Guesses the class of each training sample from one property, by samples of the other folds.

    A property of the file (size, format) should tell nothing. Brightness or border may tell something in an
    honest set (a bag is brighter than a sandal): they count where they reach most of what all features of the
    picture reach together.
    """
    data = case.data
    assert data is not None
    split = "train" if "train" in data.splits else next(iter(data.splits))
    looked = features.look(case, split)
    labels = data.labels[looked.indices]
    n, k = len(labels), data.num_classes
    counts = np.bincount(labels, minlength=k)
    if n < 30 or np.count_nonzero(counts) < 2:
        return Result.undecided(f"could not be decided with {n} samples; about 100 would", samples_needed=100)
    majority = float(counts.max() / n)
    tried = properties(case, looked)
    reached = {name: guessed(values, labels, k, case.seed) for name, values in tried.items()}
    accuracy = {name: float(np.mean(right)) for name, right in reached.items()}
    numbers: dict[str, Any] = {"majority": majority, "accuracy": accuracy}
    full = _full(case, looked, labels, k)
    numbers["all_features"] = full
    able = {
        name: a
        for name, a in accuracy.items()
        if a > majority + ABOVE and (PROPERTIES[name] or a - majority > OF_ALL * (full - majority))
    }
    best = max(able or accuracy, key=lambda name: (able or accuracy)[name])
    e = _above(reached[best], majority, len(tried))
    said = (
        f"{best} alone gives {100 * accuracy[best]:.0f} % of training's classes; guessing gives "
        f"{100 * majority:.0f} %"
    )
    if not able:
        return Result.clear(said, e._replace(p=1.0), evidence=numbers)
    if "val" in data.splits and split == "train":
        there = _elsewhere(case, best, tried[best], labels, k)
        numbers["accuracy_on_val"] = there
        said += f"; on validation it gives {100 * there:.0f} %"
    return Result.found(
        said,
        e,
        evidence={**numbers, "property": best},
        remedy=Remedy(
            f"Make {best} the same for every class (crop, re-encode or re-balance the images), and collect "
            "validation images where it does not follow the class."
        ),
    )


def properties(case: Case, looked: features.Looked) -> dict[str, NDArray[np.float64]]:
    """The properties that vary, each as one number per sample."""
    data = case.data
    assert data is not None
    out = dict(looked.measures)
    height, width = out.pop("height"), out.pop("width")
    out["image size"] = height * width
    names = [os.path.splitext(data.path(int(i)))[1].lower() for i in looked.indices]
    code = {name: float(j) for j, name in enumerate(sorted(set(names)))}
    out["file format"] = np.array([code[name] for name in names])
    return {name: out[name] for name in PROPERTIES if name in out and np.ptp(out[name]) > 1e-9}


def _binned(values: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bins of equal counts in `by`; one for each value where there are few."""
    edges = np.unique(by)
    if len(edges) > BINS:
        edges = np.unique(np.quantile(by, np.linspace(0, 1, BINS + 1)[1:-1]))
    else:
        edges = (edges[1:] + edges[:-1]) / 2
    return np.asarray(np.searchsorted(edges, values, side="right"), np.int64)


def _vote(bins: NDArray[np.int64], labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The most frequent class of each bin, the whole's where a bin is empty."""
    table = np.zeros((BINS + 1, k))
    np.add.at(table, (bins, labels), 1)
    table += 1e-3 * table.sum(axis=0) / max(len(labels), 1)
    return np.asarray(table.argmax(axis=1), np.int64)


def guessed(values: NDArray[np.float64], labels: NDArray[np.int64], k: int, seed: int) -> NDArray[np.bool_]:
    """Whether each sample's class is guessed right by the samples of the other folds."""
    fold = classifier.folds_of(len(labels), 5, seed)
    bins = _binned(values, values)
    right = np.zeros(len(labels), bool)
    for f in range(5):
        held = fold == f
        right[held] = _vote(bins[~held], labels[~held], k)[bins[held]] == labels[held]
    return right


def _elsewhere(
    case: Case, name: str, values: NDArray[np.float64], labels: NDArray[np.int64], k: int
) -> float:
    """Accuracy of the same guess on validation."""
    data = case.data
    assert data is not None
    val = features.look(case, "val")
    if name == "file format":
        train = features.look(case, "train")
        ends = {os.path.splitext(data.path(int(i)))[1].lower() for i in train.indices}
        code = {end: float(j) for j, end in enumerate(sorted(ends))}
        other = np.array(
            [code.get(os.path.splitext(data.path(int(i)))[1].lower(), -1.0) for i in val.indices]
        )
    else:
        found = properties(case, val).get(name)
        if found is None:  # all the same there
            m = val.measures
            found = m["height"] * m["width"] if name == "image size" else m[name]
        other = found
    vote = _vote(_binned(values, values), labels, k)
    return float(np.mean(vote[_binned(other, values)] == data.labels[val.indices]))


def _full(case: Case, looked: features.Looked, labels: NDArray[np.int64], k: int) -> float:
    """Out-of-fold accuracy with all features, on at most some thousands."""
    rows = np.arange(len(labels))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng([case.seed, 7]).permutation(len(rows))[:MOST])
    x, _ = features.whitened(looked.matrix[rows], looked.matrix[:1])
    p = classifier.out_of_fold(x, labels[rows], k, case.seed, ask=case.budget.ask)
    return float(np.mean(p.argmax(axis=1) == labels[rows]))


def _above(right: NDArray[np.bool_], majority: float, tried: int) -> Estimate:
    """Accuracy over the majority's; p counts how many properties were tried."""
    from scipy.stats import binomtest

    n, hit = len(right), int(right.sum())
    a = hit / n
    half = Z95 * float(np.sqrt(a * (1 - a) / n + majority * (1 - majority) / n))
    p = float(binomtest(hit, n, majority, alternative="greater").pvalue)
    return Estimate(a - majority, a - majority - half, a - majority + half, min(1.0, p * tried))
