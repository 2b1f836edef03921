"""What data checks know of images: small grey copies, plain measures, and features that need no training.

One pass over a split makes all of it (`look`), kept in the case. Features are gradient orientations in cells,
a small grey picture and a smaller coloured one: any size and one or three channels give the same length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.decode import as_channels
from ..data.scan import usable_cpus
from .case import Case, Indices
from .subject import NetSubject

if TYPE_CHECKING:
    from ..data import Data

__all__ = [
    "Looked",
    "described",
    "look",
    "look_cost",
    "looked_both",
    "net_features",
    "per_image_cost",
    "resampled",
    "standard",
    "thumbnail",
]

Floats = NDArray[np.float32]

SIDE = 32  # of the grey picture that gradients are taken from
CELLS, DIRECTIONS = 6, 8
GREY, COLOUR = 12, 4  # sides of the grey and the coloured picture among the features
TILE = 16  # side of the picture that duplicates are proposed by
MOST_FILES = {
    "train": 20_000,
    "val": 10_000,
}  # of pictures that must be decoded; what is in memory is all seen
MOST = 70_000
KEPT = 96  # principal components that classifiers get
CHUNK = 256


@dataclass(frozen=True)
class Looked:
    """What one pass over samples of a split gives; rows belong to `indices`.

    Attributes
    ----------
    indices : (n,) int64
        Manifest indices.
    all : bool
        Whether the whole split was looked at.
    matrix : (n, d) float32
        Features, not standardised.
    tiles : (n, 256) float32
        Grey 16x16 copies with mean 0 and length 1; zeros for an image of one brightness.
    measures : dict of str to (n,) float64
        brightness, contrast, border, border spread, corner, height, width, aspect; red, green, blue.
    """

    indices: Indices
    all: bool
    matrix: Floats
    tiles: Floats
    measures: dict[str, NDArray[np.float64]]


# -- resampling ---------------------------------------------------------------------------------


@cache
def _weights(size: int, out: int) -> Floats:
    """(out, size): a triangle filter as wide as what one output pixel covers; rows sum to 1."""
    scale = size / out
    support = max(scale, 1.0)
    centre = (np.arange(out) + 0.5) * scale - 0.5
    w = np.maximum(0.0, 1 - np.abs(np.arange(size)[None, :] - centre[:, None]) / support)
    w /= w.sum(axis=1, keepdims=True)
    return np.asarray(w, np.float32)


def resampled(images: Any, height: int, width: int | None = None) -> Floats:
    """(n, h, w, …) to (n, height, width, …) by an antialiasing triangle filter, in float32.

    >>> resampled(np.full((1, 5, 7, 1), 9, np.uint8), 3).round(3)[0, :, :, 0].tolist()
    [[9.0, 9.0, 9.0], [9.0, 9.0, 9.0], [9.0, 9.0, 9.0]]
    """
    x = np.asarray(images, np.float32)
    width = height if width is None else width
    if x.shape[1] != height:
        x = np.moveaxis(np.tensordot(x, _weights(x.shape[1], height), axes=(1, 1)), -1, 1)
    if x.shape[2] != width:
        x = np.moveaxis(np.tensordot(x, _weights(x.shape[2], width), axes=(2, 1)), -1, 2)
    return np.ascontiguousarray(x)


# -- one batch ----------------------------------------------------------------------------------


def grey(images: Any) -> Floats:
    """(n, H, W): luma."""
    x = np.asarray(images, np.float32)
    if x.shape[3] == 1:
        return x[..., 0]
    return np.asarray(x @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def described(images: NDArray[np.uint8]) -> Floats:
    """(n, d): features of images of one size; d is the same for every size and number of channels.

    Parameters
    ----------
    images : (n, H, W, C) uint8
    """
    luma = grey(images)
    small = np.asarray(resampled(luma, SIDE) / 255, np.float32)
    gradients = _gradients(small)
    picture = resampled(small, GREY).reshape(len(images), -1)
    if images.shape[3] == 3:
        tone = resampled(images, COLOUR) / 255
        colour = (tone - tone.mean(axis=3, keepdims=True))[..., :2].reshape(len(images), -1)
    else:
        colour = np.zeros((len(images), 2 * COLOUR**2), np.float32)
    return np.concatenate([gradients, picture, 2 * colour], axis=1, dtype=np.float32)


def _gradients(small: Floats) -> Floats:
    """Strength of edges by direction, averaged over overlapping cells, each image's brought to length 1."""
    n = len(small)
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1)), mode="edge")
    gx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    gy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    pool = _weights(SIDE, CELLS)
    cells = np.empty((n, DIRECTIONS, CELLS, CELLS), np.float32)
    for k in range(DIRECTIONS):
        angle = 2 * np.pi * k / DIRECTIONS
        edge = np.maximum(np.float32(np.cos(angle)) * gx + np.float32(np.sin(angle)) * gy, 0)
        cells[:, k] = pool @ edge @ pool.T
    flat = np.sqrt(cells.reshape(n, -1))
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(norm, 1e-6), np.float32)


def _tiles(images: NDArray[np.uint8]) -> Floats:
    flat = resampled(grey(images), TILE).reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.where(norm > 8.0, flat / np.maximum(norm, 1e-6), 0), np.float32)


def _measured(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    n, h, w, c = images.shape
    luma = grey(images)
    edge = np.concatenate([luma[:, 0], luma[:, -1], luma[:, :, 0], luma[:, :, -1]], axis=1)
    flat = luma.reshape(n, -1)
    out = {
        "brightness": flat.mean(axis=1),
        "contrast": flat.std(axis=1),
        "border": edge.mean(axis=1),
        "border spread": edge.std(axis=1),
        "corner": np.mean([luma[:, a, b] for a in (0, -1) for b in (0, -1)], axis=0),
        "height": np.full(n, h),
        "width": np.full(n, w),
        "aspect": np.full(n, w / h),
    }
    if c == 3:
        means = np.asarray(images.reshape(n, -1, 3).mean(axis=1), np.float64)
        out |= {name: means[:, k] for k, name in enumerate(("red", "green", "blue"))}
    return {k: np.asarray(v, np.float64) for k, v in out.items()}


# -- a pass over samples ------------------------------------------------------------------------


def _batches(case: Case, indices: Indices) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Positions in `indices` and their images, stacked: images of one size together."""
    data = case.data
    assert data is not None
    threads = 1 if data.in_memory else usable_cpus()
    with ThreadPoolExecutor(threads) as pool:
        for at in range(0, len(indices), CHUNK):
            case.budget.ask()
            part = [int(i) for i in indices[at : at + CHUNK]]
            read = map(data.load, part) if threads == 1 else pool.map(data.load, part)
            by: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
            for k, image in enumerate(read):
                image = as_channels(image, data.channels)
                by.setdefault(image.shape, []).append((at + k, image))
            for group in by.values():
                yield np.array([k for k, _ in group]), np.stack([image for _, image in group])


def seen(case: Case, split: str) -> Indices:
    """The samples of a split that data checks look at: all of them, unless too many must be decoded."""
    data = case.data
    assert data is not None
    return case.sample(split, MOST if data.in_memory else MOST_FILES.get(split, 10_000), stream=11)


def look(case: Case, split: str) -> Looked:
    """Features, tiles and measures of a split; made once."""

    def make() -> Looked:
        assert case.data is not None
        indices = seen(case, split)
        n = len(indices)
        matrix: Floats | None = None
        tiles = np.zeros((n, TILE * TILE), np.float32)
        measures: dict[str, NDArray[np.float64]] = {}
        for rows, images in _batches(case, indices):
            found = described(images)
            if matrix is None:
                matrix = np.zeros((n, found.shape[1]), np.float32)
            matrix[rows] = found
            tiles[rows] = _tiles(images)
            for name, values in _measured(images).items():
                measures.setdefault(name, np.zeros(n))[rows] = values
        if matrix is None:
            matrix = np.zeros((0, 1), np.float32)
        return Looked(indices, n == len(case.data.indices(split)), matrix, tiles, measures)

    looked: Looked = case.keep(("looked", split), make)
    return looked


def looked_both(case: Case) -> tuple[Looked, Looked]:
    """Training and validation."""
    return look(case, "train"), look(case, "val")


def standard(case: Case) -> tuple[Floats, Floats]:
    """Features of training and validation: standardised and turned to principal axes by training's."""

    def make() -> tuple[Floats, Floats]:
        train, val = looked_both(case)
        return whitened(train.matrix, val.matrix)

    pair: tuple[Floats, Floats] = case.keep("standard features", make)
    return pair


def whitened(fit: Floats, other: Floats, kept: int = KEPT) -> tuple[Floats, Floats]:
    """Both projected onto the first principal axes of `fit`, brought to one scale as a whole."""
    mean = fit.mean(axis=0)
    step = max(1, len(fit) // 8000)  # axes do not change with more
    part = (fit[::step] - mean).astype(np.float64)
    values, axes = np.linalg.eigh(part.T @ part / max(len(part) - 1, 1))
    order = np.argsort(values)[::-1][: min(kept, max(1, len(part) - 1))]
    order = order[values[order] > 1e-9 * max(values.max(), 1e-12)]
    if not len(order):
        return np.zeros((len(fit), 1), np.float32), np.zeros((len(other), 1), np.float32)
    # the root of the spread: axes of little variance count, but less than they would if wholly whitened
    turn = (axes[:, order] / values[order] ** 0.25 / values[order].mean() ** 0.25).astype(np.float32)
    return np.asarray((fit - mean) @ turn, np.float32), np.asarray((other - mean) @ turn, np.float32)


def net_features(case: Case, split: str) -> tuple[Indices, Floats] | None:
    """What the deployed network feeds its last linear layer, or None where there is no such layer.

    Only features of samples that it was *not* trained on are honest.
    """

    def make() -> tuple[Indices, Floats] | None:
        subject = case.subject
        cut = _cut(subject) if isinstance(subject, NetSubject) else None
        if cut is None or case.data is None or subject is None:
            return None
        indices = case.sample(split, 5000, stream=12)
        parts = []
        for at in range(0, len(indices), 64):
            case.budget.ask()
            out = cut(subject.prepared(case.data, indices[at : at + 64].tolist()))
            parts.append(np.asarray(out, np.float32).reshape(len(out), -1))
        return indices, np.concatenate(parts)

    got: tuple[Indices, Floats] | None = case.keep(("net features", split), make)
    return got


def _cut(subject: NetSubject) -> Any:
    """The net without its last linear layer, on the same weights."""
    from ..nn import Net

    document = subject.net.document
    nodes = document["nodes"]
    last = next((k for k in range(len(nodes) - 1, -1, -1) if nodes[k]["layer"] == "Linear"), None)
    if last is None or last + 1 not in document["outputs"]:  # value 0 is the input
        return None
    used = {**document, "nodes": nodes[:last], "outputs": list(nodes[last]["in"])}
    names = {node["name"] for node in used["nodes"]}
    used["order"] = [name for name in document["order"] if name in names]
    return Net(used, store=subject.net.store)


# -- costs --------------------------------------------------------------------------------------


def per_image_cost(case: Case) -> float:
    """Seconds to read one image and describe it: from a few, once."""

    def measure() -> float:
        import time

        data = case.data
        if data is None or not len(data):
            return 0.0
        some = np.linspace(0, len(data) - 1, min(16, len(data))).astype(int)
        for i in some[:1]:
            described(data.load(int(i))[None])
        began = time.perf_counter()
        for i in some:
            data.load(int(i))
        read = (time.perf_counter() - began) / len(some)
        return read + 4e-4  # what it takes to describe one

    return float(case.keep("seconds per image looked at", measure))


def look_cost(case: Case, splits: Sequence[str] = ("train", "val")) -> float:
    """Expected seconds of looking at these splits, where that was not done yet."""
    data = case.data
    if data is None:
        return 0.0
    todo = [s for s in splits if s in data.splits and ("looked", s) not in case._kept]
    return per_image_cost(case) * sum(len(seen(case, s)) for s in todo)


# -- pictures -----------------------------------------------------------------------------------


def thumbnail(data: Data, index: int, side: int = 64) -> NDArray[np.uint8]:
    """A sample as a picture of evidence, at most `side` pixels in either direction."""
    image = data.load(int(index))
    h, w = image.shape[:2]
    most = max(h, w)
    if most > side:
        image = resampled(image[None], max(1, h * side // most), max(1, w * side // most))[0]
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image)
