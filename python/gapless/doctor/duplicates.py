"""Near duplicates, across splits and within one: small grey copies propose pairs, the pixels decide.

A pair is a duplicate when one picture explains the other nearly wholly (correlation of aligned pixels), *and*
is much nearer to it than other pictures of the same set are: in clean sets of small simple pictures (digits)
correlations of 0.99 between different pictures happen, and that they are no nearer than the fifth neighbour
tells them from copies. A copy may be mirrored, resized by any of three kernels, or compressed again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .features import TILE, Looked, grey, look, resampled
from .leaks import first_of_pixels
from .subject import permuted

if TYPE_CHECKING:
    from ..data import Data
    from .case import Case

__all__ = ["Pair", "across", "correlation", "duplicated", "repeated", "within", "within_cost"]

Floats = NDArray[np.float32]

NEIGHBOURS = 8  # proposed for each picture, either way round
CONTEXT = 4  # the neighbour (from 0) whose distance tells how near different pictures come
GROUP = 16  # columns searched together for the largest
ROWS = 512
PROPOSED = 0.85  # correlation of tiles below which nothing is proposed, where sizes differ
PROPOSED_SAME = 0.95
DOUBTED = 0.93  # correlation from which a pair of one size is tried as a picture and its JPEG
MOST_WITHIN = 20_000  # of a split's different pictures that are held against each other
TILES = 0.8  # within a split: distance of tiles, as a share of the neighbourhood's, that is worth a look
QUALITIES = (50, 55, 60, 65, 70, 75, 80, 85, 90)
# (correlation at least, distance at most this share of the neighbourhood's): any of them
RULES = ((0.97, 0.16), (0.99, 0.25), (0.996, 0.40), (0.9995, np.inf))


@dataclass(frozen=True)
class Pair:
    """Two pictures of which one is a copy of the other.

    Attributes
    ----------
    first, second : int
        Manifest indices: of training and of validation; within a split the smaller one first.
    correlation : float
    mirrored : bool
    """

    first: int
    second: int
    correlation: float
    mirrored: bool


def across(case: Case) -> list[Pair]:
    """Near duplicates of training samples among validation samples, the best for each; made once.

    Pairs of equal pixels are not among them: those are exact duplicates.
    """

    def make() -> list[Pair]:
        assert case.data is not None
        train, val = look(case, "train"), look(case, "val")
        return duplicated(case.data, train, val, case.budget.ask)

    pairs: list[Pair] = case.keep("near duplicates", make)
    return pairs


def duplicated(data: Data, train: Looked, val: Looked, ask: Callable[[], None] = lambda: None) -> list[Pair]:
    """The decision for each validation sample; see the module's head."""
    if len(train.indices) < CONTEXT + 2 or not len(val.indices):
        return []
    best: dict[int, Pair] = {}
    spread = _typical(train.tiles, val.tiles)
    for mirrored in (False, True):
        for at in range(0, len(val.indices), ROWS):
            ask()
            tiles = val.tiles[at : at + ROWS]
            if mirrored:
                tiles = _mirrored(tiles)
            columns, values = _nearest(tiles, train.tiles)
            far = np.maximum(1 - values[:, CONTEXT], 0.25 * spread)
            for pair, rows in _verified(data, train, val, at, columns, values, far, mirrored):
                have = best.get(rows)
                if have is None or pair.correlation > have.correlation:
                    best[rows] = pair
    equal = data.digests
    return [p for _, p in sorted(best.items()) if equal[p.first] != equal[p.second]]


def within(case: Case, split: str) -> tuple[list[Pair], int]:
    """Near duplicates among the different pictures of one split, and how many of those were looked at; made
    once. Of pictures that are equal to the pixel the first stands for all."""

    def make() -> tuple[list[Pair], int]:
        data = case.data
        assert data is not None
        looked = look(case, split)
        different = list(first_of_pixels(data, looked.indices).values())
        rows = np.flatnonzero(np.isin(looked.indices, different))
        if len(rows) > MOST_WITHIN:
            rows = np.sort(permuted(len(rows), case.seed, 0xD0B1)[:MOST_WITHIN])
        return repeated(data, looked.indices[rows], looked.tiles[rows], case.budget.ask), len(rows)

    pairs: tuple[list[Pair], int] = case.keep(("near duplicates within", split), make)
    return pairs


def within_cost(images: int) -> float:
    """Expected seconds of the search within a split of so many images."""
    n = min(images, MOST_WITHIN)
    return 2e-8 * n * n + 2e-4 * n


def repeated(
    data: Data, indices: NDArray[np.int64], tiles: Floats, ask: Callable[[], None] = lambda: None
) -> list[Pair]:
    """The decision for pairs of one set of pictures, none of which are equal: each pair once.

    A pair has two neighbourhoods; it is held against the nearer one.

    Parameters
    ----------
    indices : (n,) int64
        Manifest indices, ascending.
    tiles : (n, 256) float32
    """
    n = len(indices)
    if n < CONTEXT + 3:
        return []
    best: dict[tuple[int, int], Pair] = {}
    spread = _typical(tiles, tiles, itself=True)
    for mirrored in (False, True):
        columns, values = _neighbours(tiles, mirrored, ask)
        far = np.maximum(1 - values[:, CONTEXT], 0.25 * spread)
        a, b, nearest = _pairs(data.sizes[indices], columns, values, far)
        away = np.minimum(far[a], far[b])
        for k, value in _confirmed(data, indices[a], indices[b], away, nearest, mirrored, ask):
            key = int(indices[a[k]]), int(indices[b[k]])
            if key not in best or value > best[key].correlation:
                best[key] = Pair(*key, value, mirrored)
    return [best[key] for key in sorted(best)]


def _neighbours(tiles: Floats, mirrored: bool, ask: Callable[[], None]) -> tuple[NDArray[np.int64], Floats]:
    """The nearest others of each picture, or of its mirror image."""
    turned = _mirrored(tiles) if mirrored else tiles
    parts = []
    for at in range(0, len(tiles), ROWS):
        ask()
        parts.append(_nearest(turned[at : at + ROWS], tiles, itself=at))
    return np.concatenate([c for c, _ in parts]), np.concatenate([v for _, v in parts])


def _pairs(
    sizes: NDArray[Any], columns: NDArray[np.int64], values: Floats, far: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs of rows worth a look at pixels, the smaller first and each once; and whether one of them is the
    other's nearest."""
    near = _proposed(sizes[columns], sizes, values)
    # every picture asks here; of one size the tiles of a copy are about as near as its pixels
    other = (sizes[columns] != sizes[:, None]).any(axis=2)
    near &= other | (1 - values <= TILES * far[:, None])
    row, place = np.nonzero(near)
    pairs = np.sort(np.stack([row, columns[row, place]], axis=1), axis=1)
    order = np.lexsort((place, pairs[:, 1], pairs[:, 0]))  # the better place of a pair comes first
    pairs, kept = np.unique(pairs[order], axis=0, return_index=True)
    return pairs[:, 0], pairs[:, 1], place[order][kept] == 0


def _mirrored(tiles: Floats) -> Floats:
    return np.ascontiguousarray(tiles.reshape(-1, TILE, TILE)[:, :, ::-1]).reshape(len(tiles), -1)


def _typical(train: Floats, val: Floats, itself: bool = False) -> float:
    """Median distance of a picture's fifth neighbour: the set's own measure of near."""
    step = max(1, len(val) // 256)
    _, values = _nearest(val[::step], train, itself=0 if itself else None, step=step)
    return float(np.median(1 - values[:, CONTEXT]))


def _nearest(
    rows: Floats, others: Floats, itself: int | None = None, step: int = 1
) -> tuple[NDArray[np.int64], Floats]:
    """(n, 8) nearest of `others` by correlation, the nearest first, and their correlations.

    With `itself`, rows are every `step`-th of `others` from there on, and none is its own neighbour.
    """
    like = rows @ others.T
    n, m = like.shape
    if itself is not None:
        like[np.arange(n), itself + step * np.arange(n)] = -2.0
    whole = m // GROUP * GROUP
    k = min(NEIGHBOURS, m)
    if whole >= GROUP * NEIGHBOURS * 4:
        top = like[:, :whole].reshape(n, -1, GROUP).max(axis=2)
        groups = np.argpartition(top, -k, axis=1)[:, -k:]
        columns = (groups[:, :, None] * GROUP + np.arange(GROUP)).reshape(n, -1)
        columns = np.concatenate([columns, np.broadcast_to(np.arange(whole, m), (n, m - whole))], axis=1)
        values = np.take_along_axis(like, columns, axis=1)
    else:
        columns, values = np.broadcast_to(np.arange(m), (n, m)), like
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def _verified(
    data: Data,
    train: Looked,
    val: Looked,
    at: int,
    columns: NDArray[np.int64],
    values: Floats,
    far: Floats,
    mirrored: bool,
) -> Iterable[tuple[Pair, int]]:
    """The proposed pairs that the pixels confirm, with the row of the validation sample."""
    a, b = train.indices[columns], val.indices[at : at + len(columns)]
    r, c = np.nonzero(_proposed(data.sizes[a], data.sizes[b], values))
    first, second = a[r, c], b[r]
    for k, value in _confirmed(data, first, second, far[r], c == 0, mirrored):
        yield Pair(int(first[k]), int(second[k]), value, mirrored), at + int(r[k])


def _proposed(sizes: NDArray[Any], own: NDArray[Any], values: Floats) -> NDArray[np.bool_]:
    """(n, 8): which neighbours (sizes (n, 8, 2), of pictures of sizes (n, 2)) are worth a look at pixels."""
    same = (sizes == own[:, None]).all(axis=2)
    proposed = values >= np.where(same, PROPOSED_SAME, PROPOSED)
    proposed &= values > 0
    # copies of one size keep their place among the neighbours; resampled ones may not
    proposed[:, 3:] &= ~same[:, 3:]
    return np.asarray(proposed)


def _confirmed(
    data: Data,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    far: NDArray[Any],
    nearest: NDArray[np.bool_],
    mirrored: bool,
    ask: Callable[[], None] = lambda: None,
) -> Iterable[tuple[int, float]]:
    """Of pairs of manifest indices those that the pixels confirm: position and correlation.

    Parameters
    ----------
    far : (n,) float
        Distance of different pictures around each pair.
    nearest : (n,) bool
        Whether one is the other's nearest neighbour: only those are tried as a picture and its JPEG.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, sizes in enumerate(np.concatenate([data.sizes[first], data.sizes[second]], axis=1).tolist()):
        groups.setdefault(tuple(sizes), []).append(k)
    for members in groups.values():
        for at in range(0, len(members), ROWS):
            ask()
            part = members[at : at + ROWS]
            one = np.stack([data.load(int(first[k])) for k in part])
            two = np.stack([data.load(int(second[k])) for k in part])
            if mirrored:
                two = two[:, :, ::-1]
            found = correlation(one, two)
            for j, k in enumerate(part):
                doubt = RULES[0][1] * far[k] < 1 - found[j] <= min(0.5 * far[k], 1 - DOUBTED)
                if doubt and nearest[k] and one.shape == two.shape:
                    found[j] = max(found[j], recompressed(one[j], two[j]))
                if any(found[j] >= least and 1 - found[j] <= most * far[k] for least, most in RULES):
                    yield k, float(found[j])


def correlation(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,) correlation of aligned pixels; pictures of two sizes by the kernel that fits best.

    The larger is resampled to the smaller's size and the smaller to the larger's: what was copied is one of
    them. Luma only, because compression halves the resolution of colour; colours must agree coarsely.
    """
    a, b = grey(one), grey(two)
    best = np.full(len(a), -1.0)
    for x, y in _aligned(a, b):
        best = np.maximum(best, _correlated(x, y))
    if one.shape[3] == 3:
        tone = [resampled(v, 4).reshape(len(v), -1, 3) for v in (one, two)]
        tint = [t - t.mean(axis=2, keepdims=True) for t in tone]
        off = np.abs(tint[0] - tint[1]).mean(axis=(1, 2)) > 12.0
        best[off] = np.minimum(best[off], 0.9)
    return best


def recompressed(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    """Correlation with the other one's best JPEG: low quality changes small pictures more than it seems."""
    from PIL import Image

    pictures = [
        Image.fromarray(v[..., 0] if v.shape[2] == 1 else np.ascontiguousarray(v)) for v in (one, two)
    ]
    best = 0.0
    for picture, other in ((pictures[0], two), (pictures[1], one)):
        made = []
        for quality in QUALITIES:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            image = np.asarray(Image.open(file))
            made.append(image if image.ndim == 3 else image[..., None])
        stack = np.stack(made)
        best = max(best, float(correlation(stack, np.broadcast_to(other, stack.shape)).max()))
    return best


def _aligned(a: Floats, b: Floats) -> Iterable[tuple[Floats, Floats]]:
    if a.shape == b.shape:
        yield a, b
        return
    for src, dst in ((a, b), (b, a)):
        h, w = dst.shape[1:]
        yield resampled(src, h, w), dst
        for kernel in (_cubic, _copying):
            down = np.matmul(np.matmul(kernel(src.shape[1], h), src), kernel(src.shape[2], w).T)
            yield down, dst


def _cubic(size: int, out: int) -> Floats:
    """(out, size): Keys' cubic with a = -0.5, as wide as what an output pixel covers."""
    scale = size / out
    support = max(scale, 1.0)
    at = (np.arange(out) + 0.5) * scale - 0.5
    x = np.abs(np.arange(size)[None, :] - at[:, None]) / support
    near = (1.5 * x - 2.5) * x * x + 1
    off = ((-0.5 * x + 2.5) * x - 4) * x + 2
    w = np.where(x < 1, near, np.where(x < 2, off, 0.0))
    return np.asarray(w / w.sum(axis=1, keepdims=True), np.float32)


def _copying(size: int, out: int) -> Floats:
    """(out, size): the nearest pixel."""
    w = np.zeros((out, size), np.float32)
    w[np.arange(out), np.minimum(((np.arange(out) + 0.5) * size / out).astype(int), size - 1)] = 1
    return w


def _correlated(a: Floats, b: Floats) -> NDArray[np.float64]:
    x, y = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray(np.where(norm > 1e-9, (x * y).sum(axis=1) / np.maximum(norm, 1e-9), 0.0))
