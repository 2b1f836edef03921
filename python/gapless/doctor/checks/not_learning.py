"""G3: the network does not learn, or has not learned enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..lr_range import range_of, seconds_of_range
from ..result import Remedy, Result
from ..stats import Estimate, paired, share
from ..table import check
from ..trial import Trial, plain_recipe, retrained, seconds_of

__all__ = ["not_learning"]

GOOD = 0.9  # training accuracy from which a network has learned
BATCH, STEPS = 8, 200  # of the over-fit of one batch
LONGER = 3
SIDE, MOST = 8, 2000  # the linear model: pixels a side, and images


@check(
    "G3",
    "not-learning",
    "the network does not learn, or was not trained long enough",
    measure="validation accuracy that a linear model of the pixels has more, or that longer training gives "
    "(before training: share of one batch that cannot be learned)",
    needs=["recipe", "images"],
    cost=lambda case: 1.0 + seconds_of(case, images=BATCH * STEPS) + seconds_of_range(case),
    threshold=0.05,
    explains=["G5", "C4"],
    reference="Karpathy 2019, A Recipe for Training Neural Networks; Zhang et al. 2017, arXiv 1611.03530",
)
def not_learning(case: Case) -> Result:
    """Where training images are mostly right, there is nothing to find. Else: is the loss at the beginning
    that of guessing, can a copy learn eight images by heart, does a linear model of small pictures do
    better on validation than the network, and does a copy that trains three times as long?"""
    if "train outputs" in case.facts and case.outputs("train").accuracy >= GOOD:
        accuracy = case.outputs("train").accuracy
        return Result.clear(f"{100 * accuracy:.1f} % of training images are right: it has learned")
    one = _one_batch(case)
    numbers: dict[str, Any] = {
        "first_loss": one.first_loss,
        "log_classes": math.log(max(len(case.classes), 2)),
        "one_batch_accuracy": one.accuracy,
        "one_batch_steps": one.steps,
        "one_batch_lr": one.lr,
    }
    if case.subject is None or "splits" not in case.facts:
        return _before_training(one, numbers)
    return _after_training(case, one, numbers)


def _before_training(one: _OneBatch, numbers: dict[str, Any]) -> Result:
    if one.accuracy == 1.0:
        said = f"{one.size} images are learned by heart in {one.steps} steps"
        return Result.clear(f"{said}; the first loss is {one.first_loss:.2f}", evidence=numbers)
    e = share(round((1 - one.accuracy) * one.size), one.size, 0.0)
    said = f"of {one.size} images the network cannot learn {100 * (1 - one.accuracy):.0f} % by heart"
    return Result.found(f"{said} in {STEPS} steps at any rate", e, evidence=numbers, remedy=_no_start())


def _no_start() -> Remedy:
    return Remedy(
        "Look at what lies between input and loss: first weights (all zero? dead ReLUs?), an activation "
        "after the last layer (the loss takes logits), inputs of the wrong scale."
    )


def _after_training(case: Case, one: _OneBatch, numbers: dict[str, Any]) -> Result:
    val = case.outputs("val")
    linear = _linear_right(case)
    e = _doubled(paired(val.right, linear))
    numbers |= {"val_accuracy": val.accuracy, "linear_val_accuracy": float(linear.mean())}
    said = f"validation {100 * val.accuracy:.1f} %, a linear model of the pixels {100 * linear.mean():.1f} %"
    if e.low > 0 and e.points >= 0.05:
        remedy = _no_start() if one.accuracy < 1 else _start_is_fine(case, one)
        high = max(e.high, 1.0 - val.accuracy)  # a network that learns is better than a linear model
        return Result.found(said, e._replace(high=high), evidence=numbers, remedy=remedy)
    train = case.outputs("train").accuracy if "train outputs" in case.facts else math.nan
    if case.saved is None or not train - val.accuracy < 0.05:
        return Result.clear(said, e, evidence=numbers)
    epochs = plain_recipe(case)["epochs"]
    made = retrained(case, {"epochs": LONGER * epochs})
    longer = _doubled(made.estimate)
    numbers["val_accuracy_when_longer"] = made.after.accuracy
    said += (
        f"; {made.said} for {LONGER} times as many epochs, {100 * made.after.accuracy:.1f} % instead of "
        f"{100 * made.before.accuracy:.1f} %"
    )
    if longer.low <= 0:
        return Result.clear(said, longer, evidence=numbers)
    text = f"Train longer: {LONGER * epochs} epochs instead of {epochs}."
    return Result.found(said, longer, evidence=numbers, remedy=Remedy(text, {"epochs": LONGER * epochs}))


def _start_is_fine(case: Case, one: _OneBatch) -> Remedy:
    own = plain_recipe(case)["optimizer"]["lr"]
    if one.lr != own:
        return Remedy(f"Set optimizer.lr to {one.lr:g}: there it learns.", {"optimizer.lr": one.lr})
    return Remedy(
        "It can learn single images, so look at the whole: too few epochs, labels that do not belong to "
        "their images (misaligned-labels), augmentation that leaves nothing to see (augmentation-strength)."
    )


def _doubled(e: Estimate) -> Estimate:
    """Two questions are asked: each p-value counts twice."""
    return e._replace(p=min(1.0, 2 * e.p))


@dataclass(frozen=True)
class _OneBatch:
    """How one batch was learned by heart: accuracy 1.0 where it was."""

    size: int
    first_loss: float
    accuracy: float
    steps: int
    lr: float


def _one_batch(case: Case) -> _OneBatch:
    """At the recipe's own rate, and where that fails at the one of the range test."""
    made: _OneBatch = case.keep("one batch by heart", lambda: _learned(case, None))
    if made.accuracy < 1:
        again: _OneBatch = case.keep(
            "one batch by heart, other rate", lambda: _learned(case, range_of(case).suggested)
        )
        if again.accuracy > made.accuracy:
            made = again
    return made


def _learned(case: Case, lr: float | None) -> _OneBatch:
    trial = Trial(case, {"batch_size": BATCH, "clean_samples": 0, "drop_last": False})
    batch = next(iter(trial.feed()))
    rate = float(plain_recipe(case)["optimizer"]["lr"]) if lr is None else lr
    best, first, n = 0, math.nan, len(batch.y)
    for step in range(STEPS):
        case.budget.ask()
        loss, right = trial.update(batch, rate)
        if not trial.finite:
            break
        first = loss if step == 0 else first
        best = max(best, right)
        if right == n:
            return _OneBatch(n, first, 1.0, step + 1, rate)
    return _OneBatch(n, first, best / n, STEPS, rate)


def _linear_right(case: Case) -> NDArray[np.bool_]:
    """Which validation samples a logistic regression on small grey or colour pictures has right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data = case.data
    assert data is not None
    train, val = case.sample("train", MOST, 0x11), data.indices("val")
    x, held = _small(case, train), _small(case, val)
    scale = StandardScaler().fit(x)
    y = data.labels[train]
    if len(np.unique(y)) < 2:
        return np.asarray(data.labels[val] == y[0])
    model = LogisticRegression(C=0.1, max_iter=100).fit(scale.transform(x), y)
    return np.asarray(model.predict(scale.transform(held)) == data.labels[val])


def _small(case: Case, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pictures as the network is fed them, made about 8 pixels a side by means over blocks."""
    assert case.subject is not None
    assert case.data is not None
    parts = []
    for at in range(0, len(indices), 64):
        case.budget.ask()
        x = case.subject.prepared(case.data, indices[at : at + 64].tolist())
        n, c, h, w = x.shape
        a, b = max(1, h // SIDE), max(1, w // SIDE)
        x = x[:, :, : h // a * a, : w // b * b].reshape(n, c, h // a, a, w // b, b).mean(axis=(3, 5))
        parts.append(x.reshape(n, -1).astype(np.float64))
    return np.concatenate(parts)
