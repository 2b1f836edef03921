"""The image sets: small, without network, and hard enough that faults have a size.

digits   scikit-learn's 8×8 grey digits.
patches  20×20 RGB: a piece of scikit-learn's two photographs, turned and scaled, in some light, on a blurred
         piece; the class is the material. Every patch has a place, angle, scale and ground of its own.
shapes   24×24 RGB drawings: a shape in a hue that goes with it, anywhere, on a background with noise.
fashion  28×28 grey, where the Debian package dataset-fashion-mnist is installed; optional.

All are drawn by a seed: other seeds give other samples in other splits.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["OPTIONAL", "SETS", "ImageSet", "Part", "available", "draw", "write"]

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Part:
    """Samples of one split: uint8 (n, H, W, C), class indices, and names of files without an ending."""

    images: Pixels
    labels: Labels
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.labels) == len(self.names)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, at: NDArray[np.int64] | NDArray[np.bool_]) -> Part:
        """Some of the samples, in that order."""
        rows = np.flatnonzero(at) if at.dtype == bool else at
        return Part(self.images[rows], self.labels[rows], tuple(self.names[int(i)] for i in rows))

    def plus(self, images: Pixels, labels: Labels, names: tuple[str, ...]) -> Part:
        """With more samples after them."""
        return Part(
            np.concatenate([self.images, images]), np.concatenate([self.labels, labels]), self.names + names
        )

    def with_labels(self, labels: Labels) -> Part:
        """The same images with other labels."""
        return replace(self, labels=labels.astype(np.int64))

    def with_images(self, images: Pixels) -> Part:
        """Other images under the same names."""
        return replace(self, images=images)


@dataclass(frozen=True)
class ImageSet:
    """A drawn set: what is trained on, what validates, and further samples of the same kind."""

    name: str
    seed: int
    classes: tuple[str, ...]
    train: Part
    val: Part
    spare: Part

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return int(self.train.images.shape[1])

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(self.train.images.shape[3])

    def with_parts(self, *, train: Part | None = None, val: Part | None = None) -> ImageSet:
        """With other training or validation samples."""
        return replace(self, train=train or self.train, val=val or self.val)


# -- sources ------------------------------------------------------------------------------------


@cache
def _digits() -> tuple[Pixels, Labels, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    got = load_digits()
    images = np.floor(got.images * (255 / 16) + 0.5).astype(np.uint8)[..., None]
    return images, got.target.astype(np.int64), tuple("0123456789")


#: Where each material lies in its photograph: (photo, top, left, bottom, right), away from its edges.
_MATERIALS = {
    "building": (("china", 140, 100, 325, 310),),
    "foliage": (("china", 375, 10, 427, 240), ("china", 335, 360, 427, 545), ("china", 190, 592, 427, 640)),
    "leaf": (("flower", 20, 0, 330, 165), ("flower", 20, 470, 300, 640)),
    "petal": (("flower", 115, 205, 325, 400),),
    "water": (("china", 215, 345, 300, 545),),
}


def _patches(seed: int, n: int) -> tuple[Pixels, Labels, tuple[str, ...]]:
    """`n` patches of each material: turned, scaled, in other light, on a blurred piece of a photograph."""
    rng = np.random.default_rng([seed, 0x9A7C])
    classes = tuple(sorted(_MATERIALS))
    labels = np.repeat(np.arange(len(classes)), n)
    return np.stack([_patch(classes[k], rng) for k in labels]), labels.astype(np.int64), classes


@cache
def _photos() -> tuple[dict[str, Image.Image], dict[str, Image.Image]]:
    """Both photographs, and both blurred."""
    from PIL import ImageFilter
    from sklearn.datasets import load_sample_image

    sharp = {k: Image.fromarray(load_sample_image(f"{k}.jpg")) for k in ("china", "flower")}
    return sharp, {k: v.filter(ImageFilter.GaussianBlur(4)) for k, v in sharp.items()}


def _patch(material: str, rng: np.random.Generator, side: int = 20) -> Pixels:
    sharp, blurred = _photos()
    places = _MATERIALS[material]
    photo, top, left, bottom, right = places[int(rng.integers(len(places)))]
    front = _turned(sharp[photo], rng.uniform(top, bottom), rng.uniform(left, right), side, rng)
    ground = blurred[("china", "flower")[int(rng.integers(2))]]
    back = _turned(ground, rng.uniform(20, 400), rng.uniform(20, 620), side, rng)
    centre, radius = side / 2 - 0.5 + rng.uniform(-2, 2, 2), rng.uniform(0.36, 0.48) * side
    y, x = np.mgrid[:side, :side] - centre[:, None, None]
    mask = np.clip(radius - np.hypot(x, y * rng.uniform(0.8, 1.2)) + 0.5, 0, 1)[..., None]
    light = rng.uniform(0.75, 1.15) * rng.uniform(0.95, 1.05, 3)
    image = (mask * front + (1 - mask) * back) * light + rng.normal(0, 4, (side, side, 3))
    return np.floor(np.clip(image, 0, 255) + 0.5).astype(np.uint8)


def _turned(
    photo: Image.Image, y: float, x: float, side: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A square around (y, x), at some angle and scale."""
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.2)
    c, s, h = scale * np.cos(angle), scale * np.sin(angle), side / 2
    affine = (c, -s, x - c * h + s * h, s, c, y - s * h - c * h)
    cut = photo.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(cut, np.float64)


_HUES = (0.00, 0.09, 0.33, 0.50, 0.62, 0.80)  # of the shapes below, in their order
_SHAPES = ("bar", "cross", "disc", "ring", "square", "triangle")


def _shapes(seed: int, n: int) -> tuple[Pixels, Labels, tuple[str, ...]]:
    """`n` drawings of each class."""
    rng = np.random.default_rng([seed, 0x5A9E])
    labels = np.repeat(np.arange(len(_SHAPES)), n)
    return np.stack([_drawing(int(k), rng) for k in labels]), labels.astype(np.int64), _SHAPES


def _drawing(label: int, rng: np.random.Generator, side: int = 24) -> Pixels:
    """One shape; its hue is near its class's own, so that a model uses colour and form."""
    centre, radius = rng.uniform(9, side - 9, 2), rng.uniform(6.5, 9.5)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:side, :side] - centre[:, None, None]
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius
    v = (np.cos(angle) * y - np.sin(angle) * x) / radius
    far = np.hypot(u, v)
    inside = {
        "bar": (np.abs(u) < 1) & (np.abs(v) < 0.3),
        "cross": (np.maximum(np.abs(u), np.abs(v)) < 1) & (np.minimum(np.abs(u), np.abs(v)) < 0.3),
        "disc": far < 0.85,
        "ring": (far < 1) & (far > 0.55),
        "square": np.maximum(np.abs(u), np.abs(v)) < 0.75,
        "triangle": (v > -0.6) & (v < 0.9 - 1.7 * np.abs(u)),
    }[_SHAPES[label]]
    hue = (_HUES[label] + rng.normal(0, 0.04)) % 1.0
    colour = _rgb(hue, rng.uniform(0.5, 0.95), rng.uniform(0.6, 1.0))
    ground = _rgb(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.1, 0.5))
    slope = 1 + rng.uniform(-0.25, 0.25) * np.linspace(-1, 1, side)[:, None, None]
    image = np.where(inside[..., None], colour, ground * slope) + rng.normal(0, 0.05, (side, side, 3))
    return np.floor(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _rgb(hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    import colorsys

    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _fashion() -> tuple[Pixels, Labels, tuple[str, ...]]:
    from gapless.data.sources.idx import read_idx

    images = read_idx(str(FASHION / "train-images-idx3-ubyte.gz"))[:6000]
    labels = read_idx(str(FASHION / "train-labels-idx1-ubyte.gz"))[:6000]
    return images[..., None].copy(), labels.astype(np.int64), tuple("0123456789")


# -- drawing ------------------------------------------------------------------------------------

#: name → (samples of a seed, training samples, validation samples)
SETS: Mapping[str, tuple[Callable[[int], tuple[Pixels, Labels, tuple[str, ...]]], int, int]] = {
    "digits": (lambda seed: _digits(), 800, 450),
    "patches": (lambda seed: _patches(seed, 390), 900, 450),
    "shapes": (lambda seed: _shapes(seed, 330), 900, 450),
}
OPTIONAL: Mapping[str, tuple[Callable[[int], tuple[Pixels, Labels, tuple[str, ...]]], int, int]] = {
    "fashion": (lambda seed: _fashion(), 1000, 500)
}


def available() -> tuple[str, ...]:
    """The sets that can be drawn here."""
    return (*SETS, *(OPTIONAL if FASHION.is_dir() else ()))


def draw(name: str, seed: int, train: int | None = None) -> ImageSet:
    """A set by a seed: splits are drawn at random, stratified by class, under names that tell nothing.

    Parameters
    ----------
    name : str
        A key of `SETS` or `OPTIONAL`.
    seed : int
    train : int, optional
        Other than the usual number of training samples.
    """
    source, usual, n_val = {**SETS, **OPTIONAL}[name]
    images, labels, classes = source(seed)
    rng = np.random.default_rng([seed, len(name)])
    order = _stratified(labels, rng)
    n = train or usual
    assert n + n_val <= len(order), f"{name} has {len(order)} samples"
    numbers = rng.permutation(len(order))

    def part(at: NDArray[np.int64]) -> Part:
        rows = rng.permutation(at)
        return Part(images[rows], labels[rows], tuple(f"{numbers[i]:05d}" for i in rows))

    val, rest = order[:n_val], order[n_val:]
    return ImageSet(name, seed, classes, part(rest[:n]), part(val), part(rest[n:]))


def _stratified(labels: Labels, rng: np.random.Generator) -> NDArray[np.int64]:
    """An order of which every beginning has the classes in nearly their shares."""
    place = np.empty(len(labels))
    for k in np.unique(labels):
        at = rng.permutation(np.flatnonzero(labels == k))
        place[at] = (np.arange(len(at)) + rng.random()) / len(at)
    return np.argsort(place, kind="stable")


# -- files --------------------------------------------------------------------------------------


def write(folder: Path, parts: Mapping[str, Part], classes: tuple[str, ...]) -> Path:
    """PNG files and the list that names them, class and split; gives the list's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, part in parts.items():
        for image, label, name in zip(part.images, part.labels, part.names, strict=True):
            rows.append((f"{name}.png", classes[int(label)], split, image))
    rows.sort(key=lambda row: row[0])  # by name, which says nothing of split or class
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        out.writerow(("path", "label", "split"))
        for path, label, split, image in rows:
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(
                folder / path, compress_level=1
            )
            out.writerow((path, label, split))
    return folder / "list.csv"
