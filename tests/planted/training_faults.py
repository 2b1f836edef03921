"""Faults in the recipe: found in the run that it made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .bed import Bed, Setup
from .faults import fault
from .truth import (
    best_weights,
    generalisation,
    longer,
    lost,
    right_statistics,
    selection,
    with_more_images,
)


@fault("ema-lag", "W3", "recipe", best_weights)
def ema_lag(bed: Bed, setup: Setup) -> Setup:
    """An average of the weights that is slower than the run is long."""
    return setup.with_recipe(ema={"decay": 0.9995, "tau": 1.0})


@fault("all-but-head-frozen", "W4", "recipe", lost)
def all_but_head_frozen(bed: Bed, setup: Setup) -> Setup:
    """Only the last layer trains, on features that nobody trained."""
    return setup.with_recipe(freeze=["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"])


@fault("stale-batchnorm", "B1", "recipe", right_statistics)
def stale_batchnorm(bed: Bed, setup: Setup) -> Setup:
    """Running statistics that move a thousandth per step: the weights are the same to the bit, and the
    statistics still are half the first ones at the end."""
    return replace(setup, options={**setup.options, "momentum": 0.001})


@fault("batch-of-two", "B2", "recipe", right_statistics, slow=True)
def batch_of_two(bed: Bed, setup: Setup) -> Setup:
    """BatchNorm over two images; the learning rate follows the batch."""
    lr = setup.recipe["optimizer"]["lr"] * 2 / setup.recipe["batch_size"]
    epochs = max(2, setup.recipe["epochs"] // 3)
    slower = {**setup.recipe["optimizer"], "lr": lr}
    return setup.with_recipe(batch_size=2, epochs=epochs, optimizer=slower)


@fault("dropout-before-batchnorm", "B3", "recipe", right_statistics)
def dropout_before_batchnorm(bed: Bed, setup: Setup) -> Setup:
    """Dropout of 0.8 before a BatchNorm: the variance that it learned is not the one of evaluation."""
    return replace(setup, options={**setup.options, "dropout": 0.8})


@fault("augmentation-too-strong", "A1", "recipe", lost)
def augmentation_too_strong(bed: Bed, setup: Setup) -> Setup:
    """Random crops of a few per cent of the image."""
    crop = {"name": "RandomResizedCrop", "size": setup.images.size, "scale": [0.02, 0.12]}
    return setup.with_recipe(train=[crop])


@fault("few-images", "G1", "recipe", generalisation)
def few_images(bed: Bed, setup: Setup) -> Setup:
    """Five images of each class, and as many steps as ever."""
    train = setup.images.train
    rows = np.concatenate([np.flatnonzero(train.labels == k)[:5] for k in range(len(setup.images.classes))])
    epochs = round(setup.recipe["epochs"] * len(train) / len(rows) / 3)
    return setup.with_parts(train=train.take(np.sort(rows))).with_recipe(epochs=epochs, batch_size=16)


@fault("noise-memorised", "G2", "recipe", lost, slow=True)
def noise_memorised(bed: Bed, setup: Setup) -> Setup:
    """Wrong labels in training, and so many steps that they are known by heart."""
    from .data_faults import flipped

    train, _ = flipped(setup.images.train, len(setup.images.classes), 0.3, bed.rng(0x62))
    return replace(setup.with_parts(train=train).with_recipe(epochs=3 * setup.recipe["epochs"]), net="lenet")


@fault("too-few-epochs", "G3", "recipe", longer)
def too_few_epochs(bed: Bed, setup: Setup) -> Setup:
    """One epoch at a low rate."""
    return setup.with_recipe(epochs=1, optimizer={**setup.recipe["optimizer"], "lr": 0.003})


@fault("rate-too-large", "G4", "recipe", lost)
def rate_too_large(bed: Bed, setup: Setup) -> Setup:
    """A hundred times the learning rate."""
    return setup.with_recipe(
        optimizer={**setup.recipe["optimizer"], "lr": 100 * setup.recipe["optimizer"]["lr"]}
    )


@fault("rate-too-small", "G4", "recipe", lost)
def rate_too_small(bed: Bed, setup: Setup) -> Setup:
    """A five-hundredth of the learning rate."""
    return setup.with_recipe(
        optimizer={**setup.recipe["optimizer"], "lr": setup.recipe["optimizer"]["lr"] / 500}
    )


@fault("too-few-images", "G5", "recipe", with_more_images, slow=True)
def too_few_images(bed: Bed, setup: Setup) -> Setup:
    """An eighth of the training images."""
    train = setup.images.train
    n = len(train) // 8
    return setup.with_parts(train=train.take(np.arange(n))).with_recipe(epochs=4 * setup.recipe["epochs"])


@fault("chosen-by-few", "M1", "recipe", selection)
def chosen_by_few(bed: Bed, setup: Setup) -> Setup:
    """The best of many evaluations on a few dozen images."""
    val = setup.images.val
    few = setup.with_parts(val=val.take(np.arange(40)))
    return few.with_recipe(schedule={"name": "Constant"}, epochs=2 * setup.recipe["epochs"])
