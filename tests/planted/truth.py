"""What a planted fault costs: counterfactuals, each in the measure that the check's row states.

A truth is a function of (bed, without, planted): the same diagnosis without this fault and with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .bed import Bed, Setup

__all__ = [
    "Truth",
    "changed_labels",
    "generalisation",
    "lost",
    "lost_to_samples",
]

Truth = Callable[[Bed, Setup, Setup], float]


def lost(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy on the planted validation samples without the fault minus with it."""
    val = planted.images.val
    return bed.accuracy(without, val) - bed.accuracy(planted, val)


def lost_to_samples(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy of the planted model on the validation samples as they were minus on the planted ones."""
    return bed.accuracy(planted, without.images.val) - bed.accuracy(planted)


def generalisation(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy on training samples minus accuracy on all samples that were not trained on."""
    images = planted.images
    val = images.val.plus(images.spare.images, images.spare.labels, images.spare.names)
    return bed.accuracy(planted, images.train) - bed.accuracy(planted, val)


def changed_labels(split: str) -> Truth:
    """Share of a split's samples whose label is another than without the fault."""

    def share(bed: Bed, without: Setup, planted: Setup) -> float:
        before, after = getattr(without.images, split), getattr(planted.images, split)
        of = dict(zip(before.names, before.labels.tolist(), strict=True))
        return float(np.mean([of[n] != k for n, k in zip(after.names, after.labels.tolist(), strict=True)]))

    return share


def over_confidence(bed: Bed, without: Setup, planted: Setup) -> float:
    """Mean stated confidence minus accuracy."""
    return _confidence(bed, planted) - bed.accuracy(planted)


def _confidence(bed: Bed, setup: Setup) -> float:
    z = bed.scores(setup, setup.images.val)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return float((e / e.sum(axis=1, keepdims=True)).max(axis=1).mean())


def learnt_otherwise(bed: Bed, without: Setup, planted: Setup) -> float:
    """What a linear model of the pixels has more where that is five points or more, else what training three
    times as long gives: the two questions of G3, in their order."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, now = planted.images, bed.accuracy(planted)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    model.fit(images.train.images.reshape(len(images.train), -1), images.train.labels)
    right = model.predict(images.val.images.reshape(len(images.val), -1)) == images.val.labels
    more = float(right.mean()) - now
    if more >= 0.05:
        return more
    return bed.accuracy(planted.with_recipe(epochs=3 * planted.recipe["epochs"])) - now


def best_weights(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy of the raw weights of the same checkpoint minus that of those that are deployed."""
    return bed.accuracy(replace(planted, weights="raw")) - bed.accuracy(planted)


def right_statistics(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy of the same weights with BatchNorm's statistics taken anew over all training images, minus
    accuracy as it is."""
    return bed.accuracy(replace(planted, weights="recalibrated")) - bed.accuracy(planted)


def batch_statistics(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy on training images with the statistics of each batch, of the size of training and drawn six
    times, minus with the running ones."""
    train, n = planted.images.train, planted.recipe["batch_size"]
    rng, own = bed.rng(0xBA7C), replace(planted, mode="batches")
    drawn = [train.take(rng.permutation(len(train) // n * n)) for _ in range(6)]
    return float(np.mean([bed.accuracy(own, d) for d in drawn])) - bed.accuracy(planted, train)
