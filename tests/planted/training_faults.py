"""Faults in the recipe: found in the run that it made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .bed import Bed, Setup
from .data_faults import by_heart
from .fault import fault
from .truth import (
    batch_statistics,
    best_weights,
    generalisation,
    learnt_otherwise,
    lost,
    right_statistics,
)


def _best_checkpoint(setup: Setup) -> Setup:
    return replace(setup, weights="trained")


@fault("last-instead-of-best", "W2", "recipe", lost, undo=_best_checkpoint)
def last_instead_of_best(bed: Bed, setup: Setup) -> Setup:
    """A warm restart in the last epoch spoils the weights, and the last checkpoint is deployed."""
    epochs, lr = setup.recipe["epochs"], setup.recipe["optimizer"]["lr"]
    steps = -(-len(setup.images.train) // setup.recipe["batch_size"])
    falling = 0.5 * lr * (1 + np.cos(np.pi * np.arange((epochs - 1) * steps) / ((epochs - 1) * steps)))
    values = [*falling.tolist(), *[8 * lr] * steps]
    return replace(setup.with_recipe(schedule={"name": "Lambda", "values": values}), weights="last")


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


@fault("batch-of-two", "B2", "recipe", batch_statistics, slow=True)
def batch_of_two(bed: Bed, setup: Setup) -> Setup:
    """BatchNorm over two images; the learning rate follows the batch."""
    lr = setup.recipe["optimizer"]["lr"] * 2 / setup.recipe["batch_size"]
    epochs = max(2, setup.recipe["epochs"] // 3)
    slower = {**setup.recipe["optimizer"], "lr": lr}
    return setup.with_recipe(batch_size=2, epochs=epochs, optimizer=slower)


def _softer(setup: Setup) -> Setup:
    crop = {"name": "RandomResizedCrop", "size": setup.images.size, "scale": [0.5, 1.0]}
    return setup.with_recipe(train=[crop])


COLOUR = {"shapes": "a drawing's colour is left in any crop: 0 to 2 points"}


@fault("augmentation-too-strong", "A1", "recipe", lost, undo=_softer, not_on=COLOUR)
def augmentation_too_strong(bed: Bed, setup: Setup) -> Setup:
    """Random crops of a few per cent of the image (of larger images fewer, so that no form is left)."""
    scale = [0.02, 0.12] if bed.name == "digits" else [0.004, 0.02]
    crop = {"name": "RandomResizedCrop", "size": setup.images.size, "scale": scale}
    return setup.with_recipe(train=[crop])


ENOUGH = {"shapes": "a few of these drawings are nearly enough"}


@fault("few-images", "G1", "recipe", generalisation, not_on=ENOUGH)
def few_images(bed: Bed, setup: Setup) -> Setup:
    """Thirty images of digits, sixty of others, known by heart: the last weights are deployed, for validation
    may choose a checkpoint that does not know them yet."""
    return replace(by_heart(setup, 30 if bed.name == "digits" else 60), weights="last")


@fault("too-few-epochs", "G3", "recipe", learnt_otherwise)
def too_few_epochs(bed: Bed, setup: Setup) -> Setup:
    """One epoch at a third of the rate."""
    optimizer = setup.recipe["optimizer"]
    return setup.with_recipe(epochs=1, optimizer={**optimizer, "lr": optimizer["lr"] / 3})


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
