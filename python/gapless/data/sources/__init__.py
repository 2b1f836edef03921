"""What a source of samples gives before any pixel is looked at: a `Listing`. One file per source.

A source's module has a function ``listing(value, …) -> Listing``, whose parameters are the options of that
source, and a public function that turns the listing into a `gapless.data.Data`. To add a source: write its
module, and name it in `MODULES` when a stored recipe can open it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gapless.data.decode import MAX_PIXELS, read
from gapless.errors import DataError

__all__ = ["LIVE", "MODULES", "FileReader", "Listing", "Reader", "labels_from", "shorten"]

# key of a spec -> module in this package; these can be opened again from the spec alone
MODULES = {"folder": "folder", "list": "list_file", "digits": "digits", "idx": "idx", "cifar": "cifar"}
# keys of a spec whose data lives in the caller's program
LIVE = {"arrays": "arrays", "callable": "from_callable", "object": "from_object"}


class Reader(Protocol):
    """Gives pixels by position in the listing; called from many threads at once."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 1 or 3)."""
        ...


class FileReader:
    """Reads and decodes files."""

    def __init__(self, paths: list[str], max_pixels: int = MAX_PIXELS) -> None:
        self.paths = paths
        self.max_pixels = max_pixels

    def read(self, index: int) -> NDArray[np.uint8]:
        return read(self.paths[index], max_pixels=self.max_pixels)


@dataclass
class Listing:
    """Samples as a source lists them, in the order of their ids."""

    kind: str
    spec: dict[str, Any]
    ids: list[str]
    classes: tuple[str, ...]
    labels: NDArray[np.int64] | None  # None: the reader's `label(i)` tells, once sample i was read
    reader: Any  # a Reader; with `label(i)` where labels is None
    paths: list[str] | None = None  # files, in the order of ids, where there are files: their scan is cached
    root: str = ""  # what names the cache of the scan
    given: list[str] | None = None  # the split of each sample where the source has one
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)  # named values per sample, for group_by


def shorten(items: Iterable[object], limit: int = 10) -> str:
    """The first few of many things, and how many more there are."""
    items = list(items)
    text = ", ".join(str(x) for x in items[:limit])
    return text + (f", … and {len(items) - limit:,} more" if len(items) > limit else "")


def _as_classes(classes: object) -> tuple[str, ...]:
    if isinstance(classes, (str, bytes)) or not isinstance(classes, Iterable):
        raise DataError(f"classes: expected a list of class names, got {classes!r}")
    names = tuple(str(c) for c in classes)
    if len(set(names)) != len(names):
        twice = sorted({c for c in names if names.count(c) > 1})
        raise DataError(f"classes: named twice: {shorten(twice)}")
    return names


def labels_from(
    values: Any, classes: Iterable[str] | None, where: Any = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class indices and class names from labels that are names or indices.

    Names are sorted by code point unless ``classes`` gives their order. Indices run from 0 to K-1; without
    ``classes`` the class names are the numbers 0 to the largest label.

    Parameters
    ----------
    values : array of int or of str, shape (n,)
    classes : iterable of str, optional
    where : callable, optional
        position -> text, to say in an error where a label stands.

    Examples
    --------
    >>> labels_from(["cat", "ant", "cat"], None)
    (array([1, 0, 1]), ('ant', 'cat'))
    """
    where = where or (lambda i: f"sample {i}")
    a = np.asarray(values)
    if a.ndim == 2 and a.shape[1] > 1:
        raise DataError(
            f"labels: expected one label per sample, shape (n,), got {a.shape}; one-hot rows become "
            "labels by "
            "labels.argmax(1)"
        )
    a = a.reshape(-1)
    names = None if classes is None else _as_classes(classes)
    if a.size == 0:
        return np.zeros(0, np.int64), names or ()
    if a.dtype.kind in "iub":
        return _indices(a.astype(np.int64), names, where)
    if a.dtype.kind == "f":
        raise DataError(
            "labels: expected integers or names, got floating-point numbers; use labels.astype(int)"
        )
    if a.dtype.kind == "S":
        texts = [v.decode("utf-8") for v in a.tolist()]
    else:
        texts = [v if isinstance(v, str) else _not_a_name(v, where(i)) for i, v in enumerate(a.tolist())]
    if names is None:
        names = tuple(sorted(set(texts)))
    index = {c: k for k, c in enumerate(names)}
    bad = [i for i, t in enumerate(texts) if t not in index]
    if bad:
        raise DataError(
            f"labels: {len(bad):,} label(s) are not among the {len(names)} classes: "
            + shorten(f"{texts[i]!r} ({where(i)})" for i in bad)
            + f"; classes are {shorten(names)}"
        )
    return np.array([index[t] for t in texts], np.int64), names


def _not_a_name(value: object, where: str) -> str:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"labels: {where} has the label {value!r}; expected a name or an integer")


def _indices(
    a: NDArray[np.int64], names: tuple[str, ...] | None, where: Any
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    top = int(a.max())
    if names is None:
        distinct = len(np.unique(a))
        if top + 1 > 10 * distinct + 1000:
            raise DataError(
                f"labels: {distinct} different values up to {top}; class indices run from 0 to K-1: "
                "give names as "
                "text instead, or the list classes=[…] that the indices point into"
            )
        names = tuple(str(k) for k in range(max(top, 0) + 1))
    bad = np.flatnonzero((a < 0) | (a >= len(names)))
    if len(bad):
        raise DataError(
            f"labels: {len(bad):,} label(s) out of range 0..{len(names) - 1}: "
            + shorten(f"{a[i]} ({where(i)})" for i in bad)
        )
    return a, names
