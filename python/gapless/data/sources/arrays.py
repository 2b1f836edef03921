"""Images in memory: NumPy arrays and whatever gives one (``__array__``, buffers, DLPack)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapless.data.sources import Listing, labels_from, shorten
from gapless.errors import DataError

if TYPE_CHECKING:
    from gapless.data.dataset import Data

__all__ = ["ArrayReader", "arrays", "as_array", "as_image", "listing", "listing_of_parts", "to_uint8"]

LAYOUTS = ("NHW", "NHWC", "NCHW")


def arrays(
    images: Any,
    labels: Any,
    *,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    val_data: tuple[Any, Any] | None = None,
    test_data: tuple[Any, Any] | None = None,
    ids: Sequence[str] | None = None,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
    on_unreadable: str | float = "leave_out",
) -> Data:
    """Images in an array (or a list of arrays of several sizes) and their labels.

    Parameters
    ----------
    images : array, or sequence of arrays
        (N, H, W) grey, (N, H, W, C) or (N, C, H, W) with C 1 or 3, or a sequence of (H, W), (H, W, C), (C, H,
        W): anything with ``__array__``, the buffer protocol or DLPack. uint8 is taken as it is and not
        copied; other integers must lie in 0..255; floating-point numbers need ``value_range`` and become
        ``floor(255 * (v - lo) / (hi - lo) + 0.5)``.
    labels : array of int or of str, shape (N,)
        Class indices 0..K-1, or names.
    classes : sequence of str, optional
        Class names in order of their indices. Default: the sorted names, or the numbers 0..K-1.
    layout : {"NHW", "NHWC", "NCHW"}, optional
        Where the shape leaves it open.
    value_range : (float, float), optional
        The values that mean black and white, such as (0, 1); values outside are an error.
    val_data, test_data : (images, labels), optional
        More arrays that are the splits val and test; ``images`` is then train.
    ids : sequence of str, optional
        Default: "0", "1", …; with val_data or test_data: "train/0", ….
    group_by : callable, str, or sequence of N values, optional
        What keeps samples together in one split; a sequence gives the group of each sample.
    split, val, seed, channels, on_unreadable
        As in `gapless.data.folder`.

    Returns
    -------
    Data

    Examples
    --------
    >>> x = np.arange(10 * 4 * 4, dtype=np.uint8).reshape(10, 4, 4)
    >>> data = arrays(x, ["even", "odd"] * 5)
    >>> data.classes, data.channels, data.counts("val").tolist()
    (('even', 'odd'), 1, [1, 1])
    """
    from gapless.data.assemble import assemble

    found = listing(
        images,
        labels,
        classes=classes,
        layout=layout,
        value_range=value_range,
        val_data=val_data,
        test_data=test_data,
        ids=ids,
    )
    return assemble(
        found,
        split=split,
        val=val,
        group_by=group_by,
        seed=seed,
        channels=channels,
        on_unreadable=on_unreadable,
    )


class ArrayReader:
    """Gives the rows of a few arrays one after the other, each (N, H, W, C) uint8, or lists of (H, W, C)."""

    in_memory = True

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.starts = list(itertools.accumulate((len(p) for p in self.parts), initial=0))

    def read(self, index: int) -> NDArray[np.uint8]:
        k = 0
        while index >= self.starts[k + 1]:
            k += 1
        row: NDArray[np.uint8] = self.parts[k][index - self.starts[k]]
        return row


def listing(
    images: Any,
    labels: Any,
    *,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    val_data: tuple[Any, Any] | None = None,
    test_data: tuple[Any, Any] | None = None,
    ids: Sequence[str] | None = None,
) -> Listing:
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"arrays: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    named = {"train": (images, labels), "val": val_data, "test": test_data}
    sets = {}
    for name, pair in named.items():
        if pair is None:
            continue
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"arrays: {name}_data must be a pair (images, labels)")
        sets[name] = pair
    several = len(sets) > 1
    notes: list[str] = []
    parts, raw_labels, names, given = [], [], [], []
    for name, (x, y) in sets.items():
        what = f"arrays ({name})" if several else "arrays"
        part = _images(x, layout, value_range, what, notes)
        y = np.asarray(y) if isinstance(y, (list, tuple)) else as_array(y, f"{what}: labels")
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if len(y) != len(part):
            raise DataError(f"{what}: {len(part):,} images and {len(y):,} labels; expected as many of both")
        parts.append(part)
        raw_labels.append(y)
        names += [f"{name}/{i}" if several else str(i) for i in range(len(part))]
        given += [name] * len(part)
    if sum(len(p) for p in parts) == 0:
        raise DataError("arrays: there are no images")
    if ids is not None:
        names = [str(i) for i in ids]
        if len(names) != len(given) or len(set(names)) != len(names):
            raise DataError(
                f"arrays: ids must be {len(given):,} different names, got {len(set(names)):,} different ones"
            )
    if len({y.dtype.kind in "iub" for y in raw_labels}) > 1:
        raise DataError(
            "arrays: labels are numbers in one split and names in another; expected the same kind"
        )
    joined = raw_labels[0] if len(raw_labels) == 1 else np.concatenate(raw_labels)
    index, found = labels_from(joined, classes, lambda i: f"sample {names[i]}")
    return Listing(
        kind="arrays",
        spec={"arrays": {"images": [len(p) for p in parts]}},
        ids=names,
        classes=found,
        labels=index,
        reader=ArrayReader(parts),
        given=given if several else None,
        notes=notes,
    )


def listing_of_parts(
    kind: str,
    root: str,
    parts: list[NDArray[np.uint8]],
    labels: list[NDArray[np.int64]],
    ids: list[str],
    given: list[str],
    classes: Sequence[str] | None,
    names: Sequence[str] | None = None,
) -> Listing:
    """What the files of a stored set give: arrays of images, one after the other, and each sample's split.

    ``classes`` are the caller's names, ``names`` those of the set itself.
    """
    index, found = labels_from(
        np.concatenate(labels), classes if classes is not None else names, lambda i: ids[i]
    )
    return Listing(
        kind=kind,
        spec={kind: root} | ({} if classes is None else {"classes": list(found)}),
        ids=ids,
        classes=found,
        labels=index,
        reader=ArrayReader(parts),
        given=given,
    )


def as_array(value: Any, what: str) -> NDArray[Any]:
    """A NumPy array of anything that holds one, sharing its memory where possible."""
    try:
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
            try:
                return np.from_dlpack(value)
            except (BufferError, TypeError, RuntimeError, ValueError):
                if not hasattr(value, "__array__"):
                    raise
        a = np.asarray(value)
    except Exception as e:
        raise DataError(f"{what}: {type(value).__name__} does not give an array: {e}") from e
    return a


def _images(x: Any, layout: str | None, value_range: Any, what: str, notes: list[str]) -> Any:
    """(N, H, W, C) uint8, or a list of (H, W, C) uint8."""
    if isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.dtype == object):
        one = layout[1:] if layout else None
        return [
            as_image(v, f"{what}: image {i}", layout=one, value_range=value_range) for i, v in enumerate(x)
        ]
    a = as_array(x, what)
    if a.ndim == 2:
        raise DataError(
            f"{what}: shape {a.shape}: expected (N, H, W), (N, H, W, C) or (N, C, H, W); rows of "
            "flattened images "
            "become images by reshape(-1, H, W)"
        )
    if a.ndim not in (3, 4):
        raise DataError(f"{what}: shape {a.shape}: expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if 0 in a.shape[1:]:
        raise DataError(f"{what}: shape {a.shape}: the images have no pixels")
    a = to_uint8(a, value_range, what, notes)
    return np.ascontiguousarray(_channels_last(a, layout, what))


def _channels_last(a: NDArray[Any], layout: str | None, what: str) -> NDArray[Any]:
    if layout is None:
        layout = _layout(a.shape, what)
    if len(layout) != a.ndim:
        raise DataError(f"{what}: layout {layout!r} does not fit shape {a.shape}")
    if layout == "NHW":
        return a[..., None]
    a = a.transpose(0, 2, 3, 1) if layout == "NCHW" else a
    if a.shape[3] not in (1, 3):
        raise DataError(f"{what}: {a.shape[3]} channels; expected 1 (grey) or 3 (RGB), layout {layout}")
    return a


def _layout(shape: tuple[int, ...], what: str) -> str:
    if len(shape) == 3:
        return "NHW"
    last, first = shape[3] in (1, 3), shape[1] in (1, 3)
    if last and first:
        raise DataError(
            f"{what}: shape {shape} may be NHWC or NCHW; say which: layout='NHWC' or layout='NCHW'"
        )
    if not last and not first:
        raise DataError(
            f"{what}: shape {shape}: neither the last nor the second axis is 1 or 3 long; expected "
            "grey or RGB images"
        )
    return "NHWC" if last else "NCHW"


def as_image(
    value: Any, what: str, *, layout: str | None = None, value_range: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """One image as uint8 (H, W, 1 or 3), from an array, a Pillow image, or an encoded picture's bytes."""
    if isinstance(value, (bytes, bytearray)):
        from gapless.data.decode import decode

        return decode(bytes(value), name=what)
    if type(value).__module__.startswith("PIL."):
        from gapless.data.decode import from_pillow

        return from_pillow(value)
    a = as_array(value, what)
    if a.ndim not in (2, 3) or 0 in a.shape:
        raise DataError(f"{what}: shape {a.shape}: expected (H, W), (H, W, C) or (C, H, W)")
    a = to_uint8(a, value_range, what, None)[None]
    if layout is not None:
        layout = "N" + layout.removeprefix("N")
    return np.ascontiguousarray(_channels_last(a, layout, what)[0])


def to_uint8(
    a: NDArray[Any], value_range: tuple[float, float] | None, what: str, notes: list[str] | None
) -> NDArray[np.uint8]:
    """Values to uint8 by a rule that loses nothing in silence.

    Examples
    --------
    >>> to_uint8(np.array([0.0, 0.5, 1.0]), (0, 1), "x", None).tolist()
    [0, 128, 255]
    """
    if value_range is not None:
        return _scaled(a, value_range, what)
    if a.dtype == np.uint8:
        return a
    if a.dtype == np.bool_:
        return a.astype(np.uint8) * np.uint8(255)
    if a.size == 0:
        return a.astype(np.uint8)
    if a.dtype.kind not in "iuf":
        raise DataError(f"{what}: dtype {a.dtype}: expected uint8, other integers or floating-point numbers")
    lo, hi = a.min(), a.max()
    if a.dtype.kind == "f":
        raise DataError(
            f"{what}: floating-point images, values from {lo:g} to {hi:g}: say which values are black "
            "and white, such as "
            "value_range=(0, 1)"
        )
    if lo < 0 or hi > 255:
        raise DataError(
            f"{what}: integers from {lo} to {hi}; expected 0..255, or say which values are black and white: "
            f"value_range=({min(int(lo), 0)}, {int(hi)})"
        )
    if hi < 64 and notes is not None:
        notes.append(f"{what}: the largest value is {hi}: if that is white, give value_range=(0, {hi})")
    return a.astype(np.uint8)


def _scaled(a: NDArray[Any], value_range: tuple[float, float], what: str) -> NDArray[np.uint8]:
    try:
        lo, hi = (float(v) for v in value_range)
    except (TypeError, ValueError) as e:
        raise DataError(f"{what}: value_range must be two numbers, got {value_range!r}") from e
    if not lo < hi or not np.isfinite([lo, hi]).all():
        raise DataError(f"{what}: value_range must be (black, white) with black < white, got {value_range!r}")
    if a.dtype.kind not in "iufb":
        raise DataError(f"{what}: dtype {a.dtype}: expected numbers")
    if a.dtype == np.uint8 and (lo, hi) == (0, 255):
        return a
    out = np.empty(a.shape, np.uint8)
    whole = a.ndim < 3 or a.shape[0] == 0
    for i in range(1) if whole else range(a.shape[0]):  # image by image: no float64 copy of the whole set
        part = a.astype(np.float64) if whole else a[i].astype(np.float64)
        bad = ~((part >= lo) & (part <= hi))
        if bad.any():
            values = part[bad]
            where = "" if whole else f", image {i}"
            raise DataError(
                f"{what}{where}: {bad.sum():,} value(s) outside value_range=({lo:g}, {hi:g}), such as "
                f"{shorten(values[:3])}"
            )
        scaled = np.floor((part - lo) * 255.0 / (hi - lo) + 0.5).astype(np.uint8)
        if whole:
            out[...] = scaled
        else:
            out[i] = scaled
    return out
