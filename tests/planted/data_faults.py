"""Faults in the images, their labels, and how they were split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .bed import Bed, Setup
from .fault import fault
from .sets import ImageSet, Part, Pixels
from .truth import changed_labels, lost_to_samples


def flipped(
    part: Part, classes: int, share: float, rng: np.random.Generator
) -> tuple[Part, NDArray[np.int64]]:
    """The part with exactly that share of labels changed to any other one; and which."""
    at = np.sort(rng.choice(len(part), size=round(share * len(part)), replace=False))
    labels = part.labels.copy()
    labels[at] = (labels[at] + rng.integers(1, classes, len(at))) % classes
    return part.with_labels(labels), at


@fault("labels-wrong-in-train", "L1", "data", changed_labels("train"))
def labels_wrong_in_train(bed: Bed, setup: Setup) -> Setup:
    """One training label in seven is another class."""
    train, _ = flipped(setup.images.train, len(setup.images.classes), 0.15, bed.rng(0x11))
    return setup.with_parts(train=train)


@fault("labels-wrong-in-val", "L1", "data", changed_labels("val"))
def labels_wrong_in_val(bed: Bed, setup: Setup) -> Setup:
    """One validation label in seven is another class."""
    val, _ = flipped(setup.images.val, len(setup.images.classes), 0.15, bed.rng(0x12))
    return setup.with_parts(val=val)


def _rolled(part: Part) -> Part:
    order = np.argsort(np.array(part.names))
    labels = part.labels.copy()
    labels[order] = np.roll(part.labels[order], 1)
    return part.with_labels(labels)


@fault("labels-shifted", "L2", "data", changed_labels("val"))
def labels_shifted(bed: Bed, setup: Setup) -> Setup:
    """In the list of validation samples every label stands one line too low."""
    return setup.with_parts(val=_rolled(setup.images.val))


@fault("two-annotators", "L3", "data", changed_labels("val"))
def two_annotators(bed: Bed, setup: Setup) -> Setup:
    """Who labelled validation calls most of one class by the name of another."""
    val = setup.images.val
    a, b = bed.rng(0x13).choice(len(setup.images.classes), 2, replace=False)
    at = np.flatnonzero(val.labels == a)
    labels = val.labels.copy()
    labels[at[: round(0.6 * len(at))]] = b
    return setup.with_parts(val=val.with_labels(labels))


def _without_last_class(bed: Bed, without: Setup, planted: Setup) -> float:
    right, known = bed.right(planted), planted.images.val.labels != len(planted.images.classes) - 1
    return float(right[known].mean() - right.mean())


@fault("ordered-split", "S1", "data", _without_last_class)
def ordered_split(bed: Bed, setup: Setup) -> Setup:
    """The split cut a list that was sorted by class: training lacks the last class."""
    train = setup.images.train
    return setup.with_parts(train=train.take(train.labels != len(setup.images.classes) - 1))


def _as_in_training(bed: Bed, without: Setup, planted: Setup) -> float:
    """Recall of each class on all samples that were not trained on, weighted as training has the classes and
    as validation has them."""
    images = planted.images
    held = images.val.plus(images.spare.images, images.spare.labels, images.spare.names)
    right = bed.right(planted, held)
    recall = np.array([right[held.labels == k].mean() for k in range(len(images.classes))])
    shares = [np.bincount(p.labels, minlength=len(recall)) / len(p) for p in (images.train, images.val)]
    return float(recall @ (shares[0] - shares[1]))


@fault("other-shares", "S2", "data", _as_in_training)
def other_shares(bed: Bed, setup: Setup) -> Setup:
    """Training has few images of every other class, validation has them as often as the others."""
    train = setup.images.train
    rare = [np.flatnonzero(train.labels == k)[:6] for k in range(1, len(setup.images.classes), 2)]
    rows = np.sort(np.concatenate([np.flatnonzero(train.labels % 2 == 0), *rare]))
    return setup.with_parts(train=train.take(rows))


def _darker(part: Part, rng: np.random.Generator) -> Part:
    x = part.images.astype(np.float64) * 0.45 + 20
    return part.with_images(np.clip(x + rng.normal(0, 10, x.shape), 0, 255).astype(np.uint8))


@fault("val-darker", "S3", "data", lost_to_samples)
def val_darker(bed: Bed, setup: Setup) -> Setup:
    """Validation images come from a camera that is darker, flatter and noisier. The last weights are
    deployed: by such images a checkpoint that has learned nothing is chosen as soon as any other one."""
    return replace(setup.with_parts(val=_darker(setup.images.val, bed.rng(0x53))), weights="last")


def _copied(bed: Bed, setup: Setup, changed: Callable[[Pixels, int], Pixels]) -> Setup:
    """Further validation samples, half as many as there were, that are training images; looked at before
    training, where what is stated is their share."""
    train, val = setup.images.train, setup.images.val
    rows = np.sort(bed.rng(0xD0B).choice(len(train), len(val) // 2, replace=False))
    copies = train.take(rows)
    images = np.stack([changed(image, i) for i, image in enumerate(copies.images)])
    names = tuple(f"{7 * i % 99991:05d}x" for i in range(len(rows)))  # between the others'
    return replace(setup.with_parts(val=val.plus(images, copies.labels, names)), form="data")


def _added(bed: Bed, without: Setup, planted: Setup) -> float:
    """Share of validation that the fault added; negative, for it flatters."""
    return len(without.images.val) / len(planted.images.val) - 1.0


@fault("exact-duplicates", "S4", "data", _added)
def exact_duplicates(bed: Bed, setup: Setup) -> Setup:
    """A third of validation are copies of training images."""
    return _copied(bed, setup, lambda image, i: image)


@fault("near-duplicates", "S5", "data", _added)
def near_duplicates(bed: Bed, setup: Setup) -> Setup:
    """A third of validation are training images that were saved as JPEG, or resized and back."""
    return _copied(bed, setup, _again)


def _again(image: Pixels, i: int) -> Pixels:
    import io

    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    if i % 2 == 0:
        f = io.BytesIO()
        picture.save(f, "JPEG", quality=90)
        picture = Image.open(f)
    else:
        side = picture.width
        larger = picture.resize((2 * side, 2 * side), Image.Resampling.BICUBIC)
        picture = larger.resize((side, side), Image.Resampling.BOX)
    out = np.asarray(picture)
    return out[..., None] if grey else out


def _above_guessing(bed: Bed, without: Setup, planted: Setup) -> float:
    labels = planted.images.train.labels
    return float(1 - np.bincount(labels).max() / len(labels))


@fault("border-tells-class", "S7", "data", _above_guessing)
def border_tells_class(bed: Bed, setup: Setup) -> Setup:
    """In training and validation alike, each class comes with a border of its own brightness."""
    images = setup.images
    levels = np.linspace(0, 255, len(images.classes)).astype(np.uint8)
    parts = (_bordered(p, levels[p.labels]) for p in (images.train, images.val))
    return setup.with_parts(train=next(parts), val=next(parts))


def _bordered(part: Part, level: Pixels) -> Part:
    x = part.images.copy()
    for rows in (np.s_[:, :1], np.s_[:, -1:], np.s_[:, :, :1], np.s_[:, :, -1:]):
        x[rows] = level[:, None, None, None]
    return part.with_images(x)


@fault("frames-of-a-clip", "S6", "data", lambda bed, without, planted: -1.0)
def frames_of_a_clip(bed: Bed, setup: Setup) -> Setup:
    """Images come in clips of several frames, and the split was drawn over frames: every validation image
    is a further frame of one of training's clips, in slightly other light."""
    rng, train, n = bed.rng(0x66), setup.images.train, len(setup.images.val)
    rows = np.sort(rng.choice(len(train), n, replace=False))
    first, second = (
        np.stack([_frame(image, rng) for image in images]) for images in (train.images, train.images[rows])
    )
    names = tuple(f"clip{i:04d}_0" for i in range(len(train)))
    further = tuple(f"clip{i:04d}_1" for i in rows)
    parts = Part(first, train.labels, names), Part(second, train.labels[rows], further)
    return replace(setup.with_parts(train=parts[0], val=parts[1]), form="data")


def _frame(image: Pixels, rng: np.random.Generator) -> Pixels:
    lit = image * rng.uniform(0.9, 1.1) + rng.normal(0, 4, image.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


# -- what leaks, in a trained run -----------------------------------------------------------------


def by_heart(setup: Setup, n: int) -> Setup:
    """So many training images, as many of each class, without augmentation, shown until a net with two linear
    layers knows them by heart."""
    train, k = setup.images.train, len(setup.images.classes)
    rows = np.concatenate([np.flatnonzero(train.labels == c)[: n // k] for c in range(k)])
    few = setup.with_parts(train=train.take(np.sort(rows)))
    optimizer = {"name": "SGD", "lr": 0.02, "momentum": 0.9}
    return replace(few.with_recipe(train=[], epochs=150, batch_size=16, optimizer=optimizer), net="lenet")


KNOWN, TIMES, FRESH = 60, 6, 200  # so that of what is learned by heart more is hidden than shows


def _by_heart(setup: Setup) -> Setup:
    """A net that knows its few images better than new ones. That is a fault too (G1), of which validation
    that leaks shows a third: the leak has to be told first, for it spoils the figure of every remedy."""
    return by_heart(setup, KNOWN).with_parts(val=setup.images.val.take(np.arange(FRESH)))


def _leaking(setup: Setup, changed: Callable[[Pixels, int], Pixels]) -> Setup:
    """Validation with every training image in it several times over: two thirds of it are no news."""
    few = _by_heart(setup)
    train, val = few.images.train, few.images.val
    for k in range(TIMES):
        images = np.stack([changed(image, i + k) for i, image in enumerate(train.images)])
        val = val.plus(images, train.labels, tuple(f"{7 * i % 99991:05d}x{k}" for i in range(len(train))))
    return few.with_parts(val=val)


def _flattered(bed: Bed, without: Setup, planted: Setup) -> float:
    """Accuracy on the validation samples that did not leak minus accuracy on all of them: counted."""
    right = bed.right(planted)
    return float(right[:FRESH].mean() - right.mean())


@fault("exact-duplicates-trained", "S4", "data", _flattered)
def exact_duplicates_trained(bed: Bed, setup: Setup) -> Setup:
    """A run that was validated, two thirds, on the very images that it was trained on."""
    return _leaking(setup, lambda image, i: image)


@fault("near-duplicates-trained", "S5", "data", _flattered)
def near_duplicates_trained(bed: Bed, setup: Setup) -> Setup:
    """The same with images that were saved as JPEG, or resized and back."""
    return _leaking(setup, _again)


@fault("frames-of-a-clip-trained", "S6", "data", _flattered)
def frames_of_a_clip_trained(bed: Bed, setup: Setup) -> Setup:
    """A run on clips of seven frames, split by frames: one is in training and the others in validation, of
    which a third is of clips of its own."""
    rng, few = bed.rng(0x67), _by_heart(setup)
    train, val = few.images.train, few.images.val

    def frames(part: Part, k: int, first: int) -> Part:
        names = tuple(f"clip{first + i:04d}_{k}" for i in range(len(part)))
        return Part(np.stack([_frame(image, rng) for image in part.images]), part.labels, names)

    new = frames(val, 0, len(train))
    for k in range(1, 1 + TIMES):
        further = frames(train, k, 0)
        new = new.plus(further.images, further.labels, further.names)
    return few.with_parts(train=frames(train, 0, 0), val=new)


ODD = 0.12


def _odd(folder: Path, images: ImageSet) -> None:
    """Every so many file is 16 bit deep, has an alpha channel, or lies on its side with an EXIF entry."""
    for part in (images.train, images.val):
        for i in range(round(ODD * len(part))):
            path = folder / f"{part.names[i]}.png"
            picture = Image.open(path)
            if i % 2 == 0 and picture.mode == "L":
                deep = np.asarray(picture).astype(np.uint16) * 257
                Image.fromarray(deep).save(path)
            elif i % 2 == 0:
                picture.putalpha(255)
                picture.save(path)
            else:
                exif = Image.Exif()
                exif[0x0112] = 6
                picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


@fault("odd-files", "S8", "data", lambda bed, without, planted: ODD)
def odd_files(bed: Bed, setup: Setup) -> Setup:
    """One file in eight is not what it looks like."""
    return replace(setup, files=_odd)
