"""Faults in what is evaluated: a model trained elsewhere, its preprocessing, its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .bed import Bed, Feed, Setup
from .fault import fault
from .sets import Part
from .truth import lost, over_confidence

Table = dict[str, Any]
GREY = {"digits": "grey images have no order of channels", "fashion": "grey images have no order of channels"}
SHAPES = {"shapes": "the net is nearly as right when drawings are smaller or narrower: 1 to 6 points"}
DRAWN = {
    "digits": "8×8 images are no smaller version of a larger picture",
    "fashion": "the files are as large as what the network is fed",
}


def _model(setup: Setup, **change: Any) -> Setup:
    return replace(setup, form="model", **change)


@fault("weights-not-loaded", "W1", "model", lost)
def weights_not_loaded(bed: Bed, setup: Setup) -> Setup:
    """The network is made, and no file is loaded into it."""
    return _model(setup, weights="fresh")


@fault("weights-not-loaded-outputs", "W1", "outputs", lost)
def weights_not_loaded_outputs(bed: Bed, setup: Setup) -> Setup:
    """The same, seen through its outputs alone; training outputs come from the same empty network."""
    return replace(setup, form="outputs", weights="fresh")


@fault("bgr", "P1", "model", lost, not_on=GREY)
def bgr(bed: Bed, setup: Setup) -> Setup:
    """Channels in the order of OpenCV."""
    return _model(setup, feed=replace(setup.feed, order="bgr"))


@fault("no-255", "P1", "model", lost)
def no_255(bed: Bed, setup: Setup) -> Setup:
    """Pixels are not divided by 255."""
    return _model(setup, feed=replace(setup.feed, scale=1.0))


@fault("twice-255", "P1", "model", lost)
def twice_255(bed: Bed, setup: Setup) -> Setup:
    """Pixels are divided by 255 twice."""
    return _model(setup, feed=replace(setup.feed, scale=255.0 * 255.0))


@fault("no-mean-std", "P1", "model", lost)
def no_mean_std(bed: Bed, setup: Setup) -> Setup:
    """Pixels in 0..1 where the model was trained on standardised ones."""
    n = setup.images.channels
    return _model(setup, feed=replace(setup.feed, mean=(0.0,) * n, std=(1.0,) * n))


def _enlarged(part: Part, bed: Bed) -> Part:
    """Twice the size, with a pattern as fine as the pixels (a weave) that any averaging takes out."""
    from PIL import Image

    side = 2 * part.images.shape[1]
    rng = bed.rng(0xB16, len(part))
    weave = 1.0 - 2.0 * (np.add.outer(np.arange(side), np.arange(side)) % 2)
    out = []
    for image in part.images:
        small = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        big = np.asarray(small.resize((side, side), Image.Resampling.NEAREST), np.float64)
        fine = weave * rng.choice((-1, 1)) * rng.uniform(60, 120)
        out.append(np.clip(big.reshape(side, side, -1) + fine[..., None], 0, 255).astype(np.uint8))
    return part.with_images(np.stack(out))


def _right_kernel(setup: Setup) -> Setup:
    return replace(setup, feed=replace(setup.feed, kernel="BILINEAR"))


@fault("resize-kernel", "P1", "model", lost, not_on=DRAWN, undo=_right_kernel)
def resize_kernel(bed: Bed, setup: Setup) -> Setup:
    """Files of twice the size, trained with an averaging resize, evaluated by taking every other pixel."""
    images, side = setup.images, setup.images.size
    resize = {"name": "Resize", "size": side}
    grown = setup.with_parts(train=_enlarged(images.train, bed), val=_enlarged(images.val, bed))
    trained = grown.with_recipe(image_size=side, train=[resize], eval=[resize])
    return _model(trained, feed=Feed(size=side, kernel="NEAREST"))


def _wide(part: Part) -> Part:
    """Half as wide again, by mirroring what is at the sides."""
    n = part.images.shape[1] // 4
    return part.with_images(np.pad(part.images, ((0, 0), (0, 0), (n, n), (0, 0)), mode="reflect"))


def _right_crop(setup: Setup) -> Setup:
    return replace(setup, feed=replace(setup.feed, crop=True))


@fault("squashed", "P1", "model", lost, undo=_right_crop, not_on=SHAPES)
def squashed(bed: Bed, setup: Setup) -> Setup:
    """Wide pictures, trained on their middle square, evaluated squeezed into a square."""
    images, side = setup.images, setup.images.size
    crop = {"name": "CenterCrop", "size": side}
    wide = setup.with_parts(train=_wide(images.train), val=_wide(images.val))
    trained = wide.with_recipe(image_size=side, train=[crop], eval=[crop])
    return _model(trained, feed=Feed(size=side, crop=False))


@fault("wrong-size", "P3", "model", lost, not_on=SHAPES)
def wrong_size(bed: Bed, setup: Setup) -> Setup:
    """Images are shrunk to two thirds (8×8 to 6×6) before they are fed: nothing refuses another size."""
    side = setup.images.size
    return _model(setup, feed=replace(setup.feed, size=6 if side == 8 else round(side / 1.5)))


@fault("classes-permuted", "C1", "outputs", lost)
def classes_permuted(bed: Bed, setup: Setup) -> Setup:
    """Some classes stand at other indices."""
    k = len(setup.images.classes)
    order = np.arange(k)
    some = bed.rng(0xC1A5).choice(k, size=max(3, k // 2), replace=False)
    order[some] = np.roll(some, 1)
    return replace(setup, form="outputs", said=lambda z: z[:, order])


@fault("classes-shifted", "C1", "model", lost)
def classes_shifted(bed: Bed, setup: Setup) -> Setup:
    """Indices are off by one, as by a class for the background."""
    return _model(setup, said=lambda z: np.roll(z, 1, axis=1))


@fault(
    "classes-in-text-order",
    "C1",
    "outputs",
    lost,
    not_on=dict.fromkeys(("patches", "shapes", "fashion"), "its classes are words or single digits"),
)
def classes_in_text_order(bed: Bed, setup: Setup) -> Setup:
    """Classes 1 to 10, where one side sorts numbers and the other one texts."""
    names = tuple(str(k + 1) for k in range(len(setup.images.classes)))
    order = np.argsort(np.array(names), kind="stable")
    named = replace(setup, images=replace(setup.images, classes=names))
    return replace(named, form="outputs", said=lambda z: z[:, order])


def _softmax(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _confidence_taken(bed: Bed, without: Setup, planted: Setup) -> float:
    """Mean confidence of one softmax minus that of two."""
    once = _softmax(bed.scores(without, planted.images.val))
    return float(np.mean(once.max(axis=1) - _softmax(once).max(axis=1)))


def _as_probabilities(table: Table) -> Table:
    return {"id": table["id"], "target": table["target"], "probabilities": table["logits"]}


@fault("softmax-twice", "C3", "outputs", _confidence_taken)
def softmax_twice(bed: Bed, setup: Setup) -> Setup:
    """Softmax is in the model, and again behind it: what is handed over as probabilities is flat."""
    return replace(setup, form="outputs", said=lambda z: _softmax(_softmax(z)), table=_as_probabilities)


@fault("softmax-in-model", "C3", "model", _confidence_taken)
def softmax_in_model(bed: Bed, setup: Setup) -> Setup:
    """The model ends in a softmax, and is treated as if it gave logits."""
    return _model(setup, said=_softmax)


@fault("over-sure", "C4", "outputs", over_confidence)
def over_sure(bed: Bed, setup: Setup) -> Setup:
    """A poor model (one epoch) whose logits are multiplied: a temperature left from elsewhere."""
    weak = setup.with_recipe(epochs=1, batch_size=128, optimizer={**setup.recipe["optimizer"], "lr": 0.02})
    return replace(weak, form="outputs", said=lambda z: 400.0 * z)


@fault("left-in-training-mode", "D1", "model", lost)
def left_in_training_mode(bed: Bed, setup: Setup) -> Setup:
    """BatchNorm takes the batch's statistics, and dropout draws at every call."""
    return _model(setup, mode="training")


def _times(wrong: int, n: int) -> int:
    """How often each wrong sample comes again: three times, or until the table is a tenth longer."""
    return max(3, -(-n // (10 * max(wrong, 1))))


def _hard_repeated(bed: Bed, setup: Setup) -> Callable[[Table], Table]:
    """Rows whose prediction is wrong stand several times in the table."""

    def repeated(table: Table) -> Table:
        wrong = np.flatnonzero(table["logits"].argmax(axis=1) != table["target"])
        n = len(table["id"])
        rows = np.r_[np.arange(n), np.repeat(wrong, _times(len(wrong), n))]
        return {
            "id": [table["id"][i] for i in rows],
            "target": table["target"][rows],
            "logits": table["logits"][rows],
        }

    return repeated


def _counted(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy over the rows minus accuracy over the samples."""
    right = bed.right(planted)
    rows = np.r_[right, np.repeat(right[~right], _times(int((~right).sum()), len(right)))]
    return float(rows.mean() - right.mean())


@fault("samples-repeated", "C2", "outputs", _counted)
def samples_repeated(bed: Bed, setup: Setup) -> Setup:
    """A sampler that gives hard samples more often was left in evaluation."""
    return replace(setup, form="outputs", table=_hard_repeated(bed, setup))
