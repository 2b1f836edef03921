"""G3: the network does not learn, or has not learned enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.decode import as_channels
from ..case import Case
from ..features import resampled
from ..lr_range import range_of, seconds_of_range
from ..result import Remedy, Result
from ..stats import Estimate, paired, share
from ..table import check
from ..trial import Trial, plain_recipe, retrained, seconds_of

__all__ = ["not_learning"]

LEAST = 0.05
GOOD = 1 - LEAST  # training accuracy from which a network has learned: longer training cannot bring that much
BATCH, STEPS = 8, 200  # of the over-fit of one batch
LONGER = 3
SIDE, MOST = 8, 2000  # the linear model: pixels a side, and images
FAR = 20.0  # mean of the input, in deviations, or its deviation, beyond which it is of the wrong scale
QUESTIONS = 3  # that can end in a finding: each p-value counts so often


@check(
    "G3",
    "not-learning",
    "the network does not learn, or was not trained long enough",
    measure="validation accuracy that a linear model of the pixels has more, or that longer training gives "
    "(before training: share of one batch that cannot be learned)",
    needs=["recipe", "images"],
    cost=lambda case: 1.0 + seconds_of(case, images=BATCH * STEPS) + seconds_of_range(case),
    threshold=LEAST,
    explains=["G5", "C4"],
    reference="Karpathy 2019, A Recipe for Training Neural Networks; Zhang et al. 2017, arXiv 1611.03530",
)
def not_learning(case: Case) -> Result:
    """Is the network more often right with images than with an input of zeros? If so, and training images are
    mostly right, there is nothing to find. Else: is the loss at the beginning that of guessing, can a copy
    learn eight images by heart, does a linear model of small pictures do better on validation than the
    network, and does a copy that trains three times as long? Where the network does not use its input, a
    linear model of the pictures as they are tells whether the pipeline took out what there was to see."""
    blank = _blank(case) if case.subject is not None and "splits" in case.facts else None
    used = blank is None or blank.low > 0
    if used and "train outputs" in case.facts and case.outputs("train").accuracy >= GOOD:
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
    if blank is None:
        return _before_training(one, numbers)
    numbers["val_accuracy_with_blank_input"] = case.outputs("val").accuracy - blank.points
    return _after_training(case, one, numbers, used)


def _blank(case: Case) -> Estimate:
    """Validation accuracy with images minus with zeros in their place (the same answer for every sample)."""
    assert case.subject is not None
    assert case.data is not None
    out = case.outputs("val")
    x = case.subject.prepared(case.data, case.data.indices("val")[:1].tolist())
    said = int(np.argmax(case.subject.logits(np.zeros_like(x))[0]))
    return paired(out.labels == said, out.right)


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


def _after_training(case: Case, one: _OneBatch, numbers: dict[str, Any], used: bool) -> Result:
    val = case.outputs("val")
    linear = _linear_right(case, _fed)
    e = _counted(paired(val.right, linear))
    numbers |= {"val_accuracy": val.accuracy, "linear_val_accuracy": float(linear.mean())}
    said = f"validation {100 * val.accuracy:.1f} %, a linear model of the pixels {100 * linear.mean():.1f} %"
    remedy = _no_start() if one.accuracy < 1 else _start_is_fine(case, one)
    if not used:
        same = numbers["val_accuracy_with_blank_input"]
        said = (
            f"with zeros in place of images {100 * same:.1f} % would be right: it does not use them; {said}"
        )
        remedy = _scale(case, numbers) or remedy
        seen = _linear_right(case, _pictures)
        if paired(linear, seen).low > 0:
            e, remedy = _counted(paired(val.right, seen)), _nothing_fed()
            numbers["linear_val_accuracy_of_pictures"] = float(seen.mean())
            said += f" as the network is fed them and {100 * seen.mean():.1f} % as they are"
    if e.low > 0 and e.points >= LEAST:
        high = max(e.high, 1.0 - val.accuracy)  # a network that learns is better than a linear model
        return Result.found(said, e._replace(high=high), evidence=numbers, remedy=remedy)
    train = case.outputs("train").accuracy if "train outputs" in case.facts else math.nan
    if case.saved is None or not train - val.accuracy < 0.05:
        return Result.clear(said, e, evidence=numbers)
    epochs = plain_recipe(case)["epochs"]
    made = retrained(case, {"epochs": LONGER * epochs})
    longer = _counted(made.estimate)
    numbers["val_accuracy_when_longer"] = made.after.accuracy
    said += (
        f"; {made.said} for {LONGER} times as many epochs, {100 * made.after.accuracy:.1f} % instead of "
        f"{100 * made.before.accuracy:.1f} %"
    )
    if longer.low <= 0:
        return Result.clear(said, longer, evidence=numbers)
    text = f"Train longer: {LONGER * epochs} epochs instead of {epochs}."
    return Result.found(said, longer, evidence=numbers, remedy=Remedy(text, {"epochs": LONGER * epochs}))


def _scale(case: Case, numbers: dict[str, Any]) -> Remedy | None:
    """What the network is fed, where that is far from mean 0 and deviation 1."""
    x = _fed(case, case.sample("val", 64, 0x12)).astype(np.float64)
    mean, std = float(x.mean()), float(x.std())
    numbers |= {"mean_of_input": mean, "deviation_of_input": std}
    if abs(mean) < FAR * std and 1 / FAR < std < FAR:
        return None
    return Remedy(
        f"The network is fed numbers of mean {mean:.3g} and standard deviation {std:.3g}: set mean and std "
        "of Normalize to those of the images (in units of pixels / 255), or leave it out of the recipe: then "
        "they are measured."
    )


def _nothing_fed() -> Remedy:
    return Remedy(
        "What the network is fed tells less of the classes than the pictures do: look at what the pipeline "
        "does to them (crops, padding, size, mean and std in units of pixels / 255)."
    )


def _start_is_fine(case: Case, one: _OneBatch) -> Remedy:
    own = plain_recipe(case)["optimizer"]["lr"]
    if one.lr != own:
        return Remedy(f"Set optimizer.lr to {one.lr:g}: there it learns.", {"optimizer.lr": one.lr})
    return Remedy(
        "It can learn single images, so look at the whole: too few epochs, labels that do not belong to "
        "their images (misaligned-labels), augmentation that leaves nothing to see (augmentation-strength)."
    )


def _counted(e: Estimate) -> Estimate:
    """The p-value with all questions counted."""
    return e._replace(p=min(1.0, QUESTIONS * e.p))


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


Pixels = Callable[[Case, NDArray[np.int64]], NDArray[np.float32]]


def _linear_right(case: Case, pixels: Pixels) -> NDArray[np.bool_]:
    """Which validation samples a logistic regression on small grey or colour pictures has right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data = case.data
    assert data is not None
    train, val = case.sample("train", MOST, 0x11), data.indices("val")
    x, held = _small(case, train, pixels), _small(case, val, pixels)
    scale = StandardScaler().fit(x)
    y = data.labels[train]
    if len(np.unique(y)) < 2:
        return np.asarray(data.labels[val] == y[0])
    model = LogisticRegression(C=0.1, max_iter=100).fit(scale.transform(x), y)
    return np.asarray(model.predict(scale.transform(held)) == data.labels[val])


def _fed(case: Case, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Pictures as the network is fed them, (n, C, H, W)."""
    assert case.subject is not None
    assert case.data is not None
    return case.subject.prepared(case.data, indices.tolist())


def _pictures(case: Case, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Pictures as they are, brought to one size."""
    data = case.data
    assert data is not None
    images = [as_channels(data.load(int(i)), data.channels)[None] for i in indices]
    return np.concatenate([resampled(x, SIDE) for x in images]).transpose(0, 3, 1, 2)


def _small(case: Case, indices: NDArray[np.int64], pixels: Pixels) -> NDArray[np.float64]:
    """About 8 pixels a side, by means over blocks."""
    parts = []
    for at in range(0, len(indices), 64):
        case.budget.ask()
        x = pixels(case, indices[at : at + 64])
        n, c, h, w = x.shape
        a, b = max(1, h // SIDE), max(1, w // SIDE)
        x = x[:, :, : h // a * a, : w // b * b].reshape(n, c, h // a, a, w // b, b).mean(axis=(3, 5))
        parts.append(x.reshape(n, -1).astype(np.float64))
    return np.concatenate(parts)
