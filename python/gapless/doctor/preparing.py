"""Preparing images by known steps: which steps a preprocessing takes, and what others would give the model.

`identify` finds the resize, crop, channel order, scale and offset whose result is what a preprocessing gives,
by comparing pixels. Variants then change one of these and leave the others; where a preprocessing does
something else, variants change its result. `searched` is the search for the variant that the model wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Data, decode
from ..data.pipeline import Pipeline
from ..errors import DataError
from .case import Case
from .stats import mcnemar
from .subject import Subject, permuted

__all__ = ["Change", "Geometry", "Search", "Steps", "fed", "identify", "scored", "searched", "variants"]

Floats = NDArray[np.float32]
Prepare = Callable[[Data, Sequence[int]], Floats]

LOOKED_AT = 24  # images from which steps are identified
AGREES = 0.995  # explained variance from which they are
MOST = 512  # samples to choose and to test on
PASSES = 12  # over them that the search takes
FIRST = 128  # samples on which all variants are tried; the best few go on
FEW = 4
ALIKE = 0.8  # of two causes of one loss, the simpler one stands where it explains as much of it
TIE = 0.004  # of accuracy: the more usual of two variants is taken
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: name, mean and standard deviation on the scale 0..1
FAMILIES: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("pixels divided by 255", (0.0,), (1.0,)),
    ("pixels as they are, 0 to 255", (0.0,), (1 / 255,)),
    ("pixels divided by 255 twice", (0.0,), (255.0,)),
    ("pixels from -1 to 1", (0.5,), (0.5,)),
    ("ImageNet's mean and standard deviation", _MEAN, _STD),
    ("ImageNet's mean taken from pixels 0 to 255", _MEAN, (1 / 255,)),
    ("CIFAR-10's mean and standard deviation", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    ("MNIST's mean and standard deviation", (0.1307,), (0.3081,)),
)


@dataclass(frozen=True)
class Geometry:
    """How an image becomes (height, width).

    Attributes
    ----------
    height, width : int
    way : {"as it is", "squash", "crop"}
        Resize both sides; or resize the shorter side to `short`, and cut out the middle.
    short : int
    interpolation : str
    antialias : bool
    """

    height: int
    width: int
    way: str = "squash"
    short: int = 0
    interpolation: str = "bilinear"
    antialias: bool = True

    def ops(self) -> list[dict[str, Any]]:
        """As a pipeline takes them."""
        if self.way == "as it is":
            return []
        how = {"name": "Resize", "interpolation": self.interpolation, "antialias": self.antialias}
        if self.way == "squash":
            return [{**how, "size": (self.height, self.width)}]
        return [{**how, "size": self.short}, {"name": "CenterCrop", "size": (self.height, self.width)}]

    def scaled(self, by: float) -> Geometry:
        """The same way to another size."""
        h, w = max(1, round(self.height * by)), max(1, round(self.width * by))
        if self.way == "as it is":
            return Geometry(h, w)
        return replace(self, height=h, width=w, short=max(h, w, round(self.short * by)) if self.short else 0)

    def zoom(self, size: tuple[int, int]) -> tuple[float, float]:
        """How much larger than in an image of that size (height, width) things are, down and across."""
        if self.way == "as it is":
            return 1.0, 1.0
        if self.way == "squash":
            return self.height / size[0], self.width / size[1]
        return self.short / min(size), self.short / min(size)

    def __str__(self) -> str:
        if self.way == "as it is":
            return "no resize"
        kernel = self.interpolation + (
            "" if self.antialias or self.interpolation == "nearest" else " without antialias"
        )
        if self.way == "squash":
            return f"{kernel} resize to {self.width}×{self.height}"
        return f"{kernel} resize of the shorter side to {self.short}, centre {self.width}×{self.height}"


@dataclass(frozen=True)
class Steps:
    """A preprocessing as known steps: decode, turn upright, resize and crop, order of channels, scale.

    ``x[c] = scale[c] * pixel[order[c]] + offset[c]`` with pixels from 0 to 255.
    """

    geometry: Geometry
    order: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    upright: bool = True

    def __call__(self, data: Data, indices: Sequence[int]) -> Floats:
        pixels = self.pixels(data, indices)[..., list(self.order)].astype(np.float32)
        x = pixels * np.asarray(self.scale, np.float32) + np.asarray(self.offset, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))

    def pixels(self, data: Data, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (n, H, W, C) after the geometry."""
        images = [_image(data, int(i), len(self.order), self.upright) for i in indices]
        pipeline = Pipeline(self.geometry.ops())
        return np.asarray(pipeline.run(images, np.arange(len(images))))

    def in_family(self, mean: Sequence[float], std: Sequence[float]) -> Steps:
        """With that mean and deviation of pixels in 0..1 instead; they follow the order of channels, RGB."""
        channels = len(self.order)
        if channels == 1:  # grey images, and numbers made for colour
            mean, std = [float(np.mean(mean))], [float(np.mean(std))]
        m = np.broadcast_to(np.asarray(mean, np.float64), (channels,))[list(self.order)]
        s = np.broadcast_to(np.asarray(std, np.float64), (channels,))[list(self.order)]
        return replace(self, scale=tuple(1 / (255 * s)), offset=tuple(-m / s))

    def near(self, other: Steps) -> bool:
        """Whether scale and offset are the same but for what fitting leaves."""
        a, b = np.asarray(self.scale), np.asarray(other.scale)
        c, d = np.asarray(self.offset), np.asarray(other.offset)
        return bool(
            (np.abs(a - b) <= 0.01 * np.abs(b)).all() and (np.abs(c - d) <= 0.02 * 255 * np.abs(b)).all()
        )


@dataclass(frozen=True)
class Change:
    """One variant: what it changes, from what to what."""

    kind: str
    wants: str
    has: str
    prepare: Prepare
    steps: Steps | None = None


# -- images ---------------------------------------------------------------------------------------


def _image(data: Data, i: int, channels: int, upright: bool) -> NDArray[np.uint8]:
    image = decode.as_channels(data.load(i), channels)
    turned = 1 if upright else orientation(data, i)
    if turned > 1:  # data.load turned it upright: turn it back
        image = decode.orient(image, {6: 8, 8: 6}.get(turned, turned))
    return np.ascontiguousarray(image)


def orientation(data: Data, i: int) -> int:
    """The number in a JPEG's EXIF; 1 where there is none."""
    file = data.file(i)
    if file is None:
        return 1
    try:
        with open(file, "rb") as f:
            head = f.read(1 << 17)
    except OSError:
        return 1
    if head[:3] != b"\xff\xd8\xff":
        return 1
    block = decode._jpeg_exif(head)
    return decode.exif_orientation(block) if block else 1


def fed(
    case: Case, subject: Subject, indices: Sequence[int], prepare: Prepare | None = None
) -> Iterator[Floats]:
    """What the network is fed, 64 images at a time."""
    assert case.data is not None
    make = prepare or subject.prepared
    for at in range(0, len(indices), 64):
        case.budget.ask()
        yield make(case.data, list(indices[at : at + 64]))


# -- which steps ----------------------------------------------------------------------------------


def identify(case: Case) -> Steps | None:
    """The steps of the subject's preprocessing, or None where it does something else."""
    return case.keep("steps", lambda: _identify(case))  # type: ignore[no-any-return]


def _identify(case: Case) -> Steps | None:
    data, subject = case.data, case.subject
    assert data is not None
    assert subject is not None
    picked = case.sample("val", LOOKED_AT, stream=11).tolist()
    x = subject.prepared(data, picked)
    if x.shape[1] not in (1, 3):
        return None
    turned = any(orientation(data, i) > 1 for i in picked)
    best: tuple[float, Steps] | None = None
    for geometry in geometries(data, picked, x.shape[2], x.shape[3]):
        for upright in (True, False) if turned else (True,):
            steps = Steps(
                geometry, tuple(range(x.shape[1])), (1.0,) * x.shape[1], (0.0,) * x.shape[1], upright
            )
            try:
                pixels = steps.pixels(data, picked)
            except (DataError, ValueError):
                continue
            found = _fitted(steps, pixels, x)
            if best is None or found[0] > best[0] + 1e-9:
                best = found
    return best[1] if best is not None and best[0] >= AGREES else None


def _fitted(steps: Steps, pixels: NDArray[np.uint8], x: Floats) -> tuple[float, Steps]:
    """Scale and offset per channel by least squares, in the better order of channels; explained variance."""
    found = []
    for order in dict.fromkeys((steps.order, steps.order[::-1])):
        scale, offset, explained = [], [], []
        for c, source in enumerate(order):
            p = pixels[..., source].ravel().astype(np.float64)
            y = x[:, c].ravel().astype(np.float64)
            vp, vy = float(p.var()), float(y.var())
            slope = float(((p - p.mean()) * (y - y.mean())).mean()) / vp if vp > 0 else 0.0
            scale.append(slope)
            offset.append(float(y.mean() - slope * p.mean()))
            left = float((y - slope * p - offset[-1]).var())
            explained.append(1 - left / vy if vy > 0 and slope > 0 else 0.0)
        made = replace(steps, order=order, scale=tuple(scale), offset=tuple(offset))
        found.append((min(explained), made))
    return max(found, key=lambda pair: pair[0])


def geometries(data: Data, indices: Sequence[int], h: int, w: int) -> list[Geometry]:
    """The usual ways to that size, the usual ones first; one alone where images have it already."""
    sizes = {tuple(data.sizes[i]) for i in indices}
    if sizes == {(h, w)}:
        return [Geometry(h, w, "as it is")]
    kernels = [
        ("bilinear", True),
        ("bicubic", True),
        ("nearest", False),
        ("bilinear", False),
        ("lanczos", True),
    ]
    kernels += [("bicubic", False), ("box", True)]
    side = max(h, w)
    shorts = list(dict.fromkeys((round(side / 0.875), side, round(side * 256 / 224), side + 32)))
    square = all(a == b for a, b in sizes)
    found = []
    for kernel, antialias in kernels:
        found.append(Geometry(h, w, "squash", 0, kernel, antialias))
        for short in shorts:
            if not (short == side and square and h == w):
                found.append(Geometry(h, w, "crop", short, kernel, antialias))
    if all(a >= h and b >= w for a, b in sizes):
        found.append(Geometry(h, w, "crop", int(min(min(s) for s in sizes))))
    return found


# -- variants -------------------------------------------------------------------------------------


def variants(case: Case, steps: Steps | None, base: Prepare) -> list[Change]:
    """What could be otherwise, each a change of one thing."""
    if steps is None:
        return _of_results(base)
    data = case.data
    assert data is not None
    picked = case.sample("val", LOOKED_AT, stream=11).tolist()
    found: list[Change] = []

    def add(kind: str, wants: str, has: str, made: Steps) -> None:
        found.append(Change(kind, wants, has, made, made))

    now = _family(steps)
    if len(steps.order) == 3 and _coloured(data, picked):
        names = {(0, 1, 2): "RGB", (2, 1, 0): "BGR"}
        back = steps.order[::-1]
        flipped = replace(steps, order=back, scale=steps.scale[::-1], offset=steps.offset[::-1])
        add("channel order", names[back], names[steps.order], flipped)
        # mean and deviation stay where they are: they were written down in the other order
        if max(steps.scale) - min(steps.scale) > 1e-6 * abs(steps.scale[0]):
            add("channel order", names[back], names[steps.order], replace(steps, order=back))
    for name, mean, std in (*FAMILIES, _own(case, steps)):
        made = steps.in_family(mean, std)
        if not made.near(steps):
            add("scale", name, now, made)
    if any(orientation(data, i) > 1 for i in picked):
        words = ("as their EXIF says", "as they are stored")
        add(
            "orientation",
            words[steps.upright],
            words[not steps.upright],
            replace(steps, upright=not steps.upright),
        )
    g = steps.geometry
    for other in geometries(data, picked, g.height, g.width):
        if other != g and (other.way, other.short) == (g.way, g.short):
            add("resize kernel", str(other), str(g), replace(steps, geometry=other))
        elif other != g and (other.interpolation, other.antialias) == (g.interpolation, g.antialias):
            add("crop", str(other), str(g), replace(steps, geometry=other))
    return found + [c for c in _of_results(base) if c.kind == "layout"]


def _of_results(base: Prepare) -> list[Change]:
    """Changes of what a preprocessing gives, whatever it does."""

    def of(change: Callable[[Floats], Floats]) -> Prepare:
        return lambda data, indices: np.ascontiguousarray(change(base(data, indices)), np.float32)

    def as_hwc(x: Floats) -> Floats:  # (C, H, W) was said of rows that lie as (H, W, C)
        n, c, h, w = x.shape
        return x.reshape(n, h, w, c).transpose(0, 3, 1, 2)

    return [
        Change("channel order", "the channels the other way round", "as they are", of(lambda x: x[:, ::-1])),
        Change("scale", "values divided by 255", "not divided", of(lambda x: x / np.float32(255))),
        Change("scale", "values times 255", "divided by 255", of(lambda x: x * 255)),
        Change("scale", "values from -1 to 1", "from 0 to 1", of(lambda x: x * 2 - 1)),
        Change(
            "scale", "values from 0 to 1", "from -1 to 1", of(lambda x: x / np.float32(2) + np.float32(0.5))
        ),
        Change("layout", "rows and columns exchanged", "as they are", of(lambda x: x.transpose(0, 1, 3, 2))),
        Change("layout", "channels last, reshaped", "channels first", of(as_hwc)),
    ]


def _family(steps: Steps) -> str:
    """The name of the scale, or its numbers."""
    for name, mean, std in FAMILIES:
        if steps.in_family(mean, std).near(steps):
            return name
    deviation = [1 / (255 * a) if a else math.inf for a in steps.scale]
    means = [-b * s for b, s in zip(steps.offset, deviation, strict=True)]
    return f"mean {_short(means)}, deviation {_short(deviation)}"


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"


def _coloured(data: Data, picked: Sequence[int]) -> bool:
    return data.channels == 3 and any(
        int(np.abs(im[..., 0].astype(np.int16) - im[..., 2]).max()) > 2
        for im in (data.load(i) for i in picked[:8])
    )


def _own(case: Case, steps: Steps) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of these very images, by channel."""

    def make() -> tuple[str, tuple[float, ...], tuple[float, ...]]:
        assert case.data is not None
        split = "train" if "train" in case.data.splits and len(case.data.splits["train"]) else "val"
        straight = replace(steps, order=tuple(sorted(steps.order)))
        p = straight.pixels(case.data, case.sample(split, 64, stream=12).tolist()) / 255.0
        mean, std = p.mean(axis=(0, 1, 2)), np.maximum(p.std(axis=(0, 1, 2)), 1e-3)
        return "mean and standard deviation of these images", tuple(mean.tolist()), tuple(std.tolist())

    return case.keep(("own statistics", steps.geometry), make)  # type: ignore[no-any-return]


# -- the search -----------------------------------------------------------------------------------


@dataclass
class Search:
    """What the model wants.

    Attributes
    ----------
    changes : list of Change
        From the preprocessing as it is to the best one, one after the other; empty where it is the best.
    prepare : callable or None
        The best one.
    base, accuracy : float
        Of the held-out half: as it is, and with the best one.
    p : float
        McNemar's, on the held-out half.
    n : int
        Samples of that half.
    tried : dict of str to float
        Accuracy on the other half, by what was changed.
    """

    changes: list[Change] = field(default_factory=list)
    prepare: Prepare | None = None
    base: float = 0.0
    accuracy: float = 0.0
    p: float = 1.0
    n: int = 0
    tried: dict[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """Accuracy that comes back on the held-out half; 0 where it could be chance."""
        return self.accuracy - self.base if self.p < 0.01 else 0.0


def searched(case: Case) -> Search | None:
    """The search, once per case; None where there is no sample to spare."""
    return case.keep("preprocessing search", lambda: _search(case))  # type: ignore[no-any-return]


def scored(case: Case, indices: NDArray[np.int64], prepare: Prepare | None) -> NDArray[np.bool_] | None:
    """Whether each sample is right with that preprocessing; None where the model cannot take it.

    In mixed order, so that a model whose answers depend on their neighbours has the same neighbours always.
    """
    assert case.subject is not None
    order = permuted(len(indices), case.seed, 0xD0D)
    try:
        out = case.outputs_of(case.subject, indices[order], prepare=prepare)
    except (DataError, ValueError, RuntimeError, TypeError):
        return None
    right = np.empty(len(indices), bool)
    right[order] = out.right
    return right


def sample_size(case: Case) -> int:
    """Samples for the search: 512 where the model is quick, fewer where the budget could not take them."""
    if case.subject is None or case.data is None:
        return MOST
    seconds = case.seconds_per_image()
    fits = [n for n in (MOST, 256, 128) if PASSES * n * seconds < 0.3 * case.budget.seconds]
    return max(fits, default=64)


def _search(case: Case) -> Search | None:
    assert case.subject is not None
    picked = case.sample("val", sample_size(case), stream=13)
    if len(picked) < 20:
        return None
    order = permuted(len(picked), case.seed, 0xD0E)
    half, other = np.sort(picked[order[::2]]), np.sort(picked[order[1::2]])
    first = scored(case, half, None)
    if first is None:
        raise DataError("the model fails on what its own preprocessing gives")
    state = Search(n=len(other))
    steps, now = identify(case), first
    base: Prepare = case.subject.prepared
    for _ in range(3):
        best, best_right = _best(case, half, variants(case, steps, base), now, state)
        if best is None or best_right is None:
            break
        state.changes.append(best)
        state.prepare, base, now, steps = best.prepare, best.prepare, best_right, best.steps
    before = scored(case, other, None)
    after = before if state.prepare is None else scored(case, other, state.prepare)
    if before is None or after is None:
        raise DataError("the model fails on some of the samples")
    state.base, state.accuracy = float(before.mean()), float(after.mean())
    if state.prepare is not None:
        state.p = mcnemar(int((after & ~before).sum()), int((before & ~after).sum()))
    return state


def _best(
    case: Case, half: NDArray[np.int64], changes: Sequence[Change], now: NDArray[np.bool_], state: Search
) -> tuple[Change | None, NDArray[np.bool_] | None]:
    """The change that makes most of this half right, if that is more than chance makes of so many changes.

    All are tried on a part of the half, the best few on all of it.
    """
    done = {c.kind for c in state.changes}
    part = half[permuted(len(half), case.seed, 0xD10)[:FIRST]]
    rates: list[tuple[float, int]] = []
    for k, change in enumerate(changes):
        right = None if change.kind in done else scored(case, part, change.prepare)
        if right is None:
            continue
        rate = float(right.mean())
        rates.append((-rate, k))
        if not state.changes:
            name = f"{change.kind}: {change.wants}"
            state.tried[name] = max(rate, state.tried.get(name, 0.0))
    rates.sort()
    simple = [(rate, k) for rate, k in rates if changes[k].kind != "crop"]
    whole = []
    for k in sorted({k for _, k in [*rates[:FEW], *simple[:1]]}):
        right = scored(case, half, changes[k].prepare)
        if right is not None:
            whole.append((changes[k], right))
    if not whole:
        return None, None
    most = max(float(right.mean()) for _, right in whole)
    change, right = next(pair for pair in whole if float(pair[1].mean()) >= most - TIE)
    # a crop shows objects at another size, as much else does: what explains as much without one stands
    if change.kind == "crop":
        least = float(now.mean()) + ALIKE * (most - float(now.mean()))
        alike = [pair for pair in whole if pair[0].kind != "crop" and float(pair[1].mean()) >= least]
        change, right = max(alike, key=lambda pair: float(pair[1].mean()), default=(change, right))
    gained, lost = int((right & ~now).sum()), int((now & ~right).sum())
    chance = mcnemar(gained, lost)
    # the held-out half tests the first change; a further one must earn its place here
    least, level = (0.02, 0.01) if state.changes else (0.01, 0.1)
    if gained <= lost or (gained - lost) / len(half) < least or chance > level:
        return None, None
    return change, right
