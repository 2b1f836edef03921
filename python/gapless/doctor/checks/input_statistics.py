"""P2: what the network is fed in validation has other statistics than in training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..preparing import Floats, fed, scored
from ..result import Remedy, Result
from ..stats import Estimate, paired
from ..subject import NetSubject
from ..table import check

__all__ = ["input_statistics"]

MOST = 512
SHIFT, RATIO = 0.5, 2.0


@check(
    "P2",
    "input-statistics",
    "the network is fed other brightness or contrast than in training",
    measure="validation accuracy recovered by giving inputs the mean and deviation of training",
    needs=["model", "outputs", "splits", "train images and model"],
    cost=lambda case: case.passes(1, "train", MOST) + case.passes(3, most=2 * MOST),
    explains=["B1", "G1", "G5", "L3", "C4"],  # not S3: where the pictures differ, that is the cause
    reference="doctor.md: mean shift above half a deviation, or deviations apart by more than 2",
)
def input_statistics(case: Case) -> Result:
    """Compares mean and deviation per channel of what the network is fed, in training and in validation.

    For a run the training side is its training pipeline with its draws. A difference is a finding only where
    accuracy comes back when validation inputs are scaled to training's mean and deviation.
    """
    assert case.subject is not None
    val = _statistics(fed(case, case.subject, case.sample("val", MOST, stream=15).tolist()))
    train = _training(case)
    shift = np.abs(val[0] - train[0]) / np.maximum(train[1], 1e-6)
    ratio = val[1] / np.maximum(train[1], 1e-6)
    numbers = {
        "train_mean": train[0],
        "train_deviation": train[1],
        "val_mean": val[0],
        "val_deviation": val[1],
    }
    text = (
        f"means differ by up to {shift.max():.2f} deviations, deviations have ratios of {ratio.min():.2f} to "
        f"{ratio.max():.2f}"
    )
    odd = shift.max() > SHIFT or ratio.max() > RATIO or ratio.min() < 1 / RATIO
    if not odd:
        return Result.clear(f"inputs are alike: {text}", evidence=numbers)
    indices = case.sample("val", 2 * MOST, stream=16)
    subject = case.subject
    scale = (train[1] / np.maximum(val[1], 1e-6)).astype(np.float32)[:, None, None]
    mean, new = (m.astype(np.float32)[:, None, None] for m in (val[0], train[0]))
    before = scored(case, indices, None)
    after = scored(case, indices, lambda data, i: (subject.prepared(data, i) - mean) * scale + new)
    if before is None or after is None:
        return Result.undecided(f"{text}; the model could not be scored", evidence=numbers)
    e: Estimate = paired(before, after)
    if e.points < 0.02:
        return Result.clear(
            f"{text}, but scaling them alike recovers {100 * e.points:.1f} points", e, evidence=numbers
        )
    return Result.found(
        f"{text}; scaled alike {100 * after.mean():.1f} instead of {100 * before.mean():.1f} % are right",
        e,
        evidence=numbers,
        remedy=Remedy(
            "Find what differs between the two sets: exposure, background, file format, or a normalisation "
            "on one side only; normalise both in the same way."
        ),
    )


def _statistics(parts: object) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each channel."""
    count, total, square = 0, np.zeros(1), np.zeros(1)
    for x in parts:  # type: ignore[attr-defined]
        y: NDArray[np.float64] = np.asarray(x, np.float64)
        count += y.shape[0] * y.shape[2] * y.shape[3]
        total = total + y.sum(axis=(0, 2, 3))
        square = square + (y * y).sum(axis=(0, 2, 3))
    mean = total / max(count, 1)
    return mean, np.sqrt(np.maximum(square / max(count, 1) - mean * mean, 0))


def _training(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert case.subject is not None
    indices = case.sample("train", MOST, stream=15).tolist()
    if case.saved is None or not isinstance(case.subject, NetSubject):
        return _statistics(fed(case, case.subject, indices))
    from ...data.pipeline import Pipeline

    pipeline, seed = Pipeline(case.saved.recipe["train"]), int(case.saved.recipe["seed"])

    def parts() -> object:
        assert case.data is not None
        for at in range(0, len(indices), 64):
            case.budget.ask()
            few = indices[at : at + 64]
            x = pipeline([case.data.load(i) for i in few], few, 0, seed)
            yield _as_fed(x)

    return _statistics(parts())


def _as_fed(x: NDArray[np.generic]) -> Floats:
    if x.dtype == np.uint8:
        return x.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    return np.asarray(x, np.float32)
