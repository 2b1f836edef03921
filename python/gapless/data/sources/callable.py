"""Samples from the caller's own code: a function of an id, or an object with ``__getitem__``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapless.data.sources import Listing, labels_from
from gapless.data.sources.arrays import LAYOUTS, as_image
from gapless.errors import DataError

if TYPE_CHECKING:
    from gapless.data.dataset import Data

__all__ = ["CallReader", "from_callable", "from_object"]


def from_callable(
    ids: Iterable[Any],
    load: Callable[[Any], Any],
    *,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    parallel: bool = False,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
    on_unreadable: str | float = "leave_out",
    progress: bool | None = None,
    threads: int | None = None,
) -> Data:
    """Samples from a function: ``load(id)`` gives an image, or an image and its label.

    The function must give the same image whenever it is asked: augmentation belongs into the recipe's
    pipeline. An exception that it raises makes the sample unreadable.

    Parameters
    ----------
    ids : iterable of str or int
        All different.
    load : callable
        id -> image, or (image, label) where ``labels`` is not given. An image is an array as `arrays` takes
        it, a Pillow image, or the bytes of a JPEG, PNG, WebP or BMP file.
    labels : array of int or of str, optional
        One per id.
    classes, layout, value_range
        As in `arrays`, for one image: layout "HW", "HWC" or "CHW".
    parallel : bool
        Whether ``load`` may be called from several threads at once.
    split, val, group_by, seed, channels, on_unreadable, progress, threads
        As in `folder`.

    Returns
    -------
    Data

    Examples
    --------
    >>> data = from_callable(range(10), lambda i: (np.full((4, 4), 20 * i, np.uint8), "ab"[i % 2]))
    >>> data.classes, data.load(3)[0, 0].tolist()
    (('a', 'b'), [60])
    """
    if not callable(load):
        raise DataError(f"from_callable: load must be a function of an id, got {type(load).__name__}")
    keys = list(ids)
    common = {
        "split": split,
        "val": val,
        "group_by": group_by,
        "seed": seed,
        "channels": channels,
        "on_unreadable": on_unreadable,
        "progress": progress,
        "threads": threads,
    }
    return _assemble("callable", keys, load, labels, classes, layout, value_range, parallel, common)


def from_object(
    samples: Any,
    *,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    parallel: bool = False,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
    on_unreadable: str | float = "leave_out",
    progress: bool | None = None,
    threads: int | None = None,
) -> Data:
    """Samples from an object with ``__len__`` and ``__getitem__``, such as a PyTorch or torchvision data set.

    ``samples[i]`` gives ``(image, label)``, or an image where ``labels`` is given. The ids are the positions.
    The class names are taken from ``samples.classes`` where there is one.

    Parameters
    ----------
    samples : object
    labels, classes, layout, value_range, parallel
        As in `from_callable`.
    split, val, group_by, seed, channels, on_unreadable, progress, threads
        As in `folder`.

    Returns
    -------
    Data

    Examples
    --------
    >>> pairs = [(np.full((3, 8, 8), i, np.uint8), i % 2) for i in range(10)]
    >>> from_object(pairs).size
    (8, 8)
    """
    if not hasattr(samples, "__len__") or not hasattr(samples, "__getitem__"):
        raise DataError(
            f"from_object: expected an object with __len__ and __getitem__, got {type(samples).__name__}"
        )
    own = getattr(samples, "classes", None)
    if classes is None and isinstance(own, (list, tuple)) and all(isinstance(c, str) for c in own):
        classes = own
    keys = list(range(len(samples)))
    common = {
        "split": split,
        "val": val,
        "group_by": group_by,
        "seed": seed,
        "channels": channels,
        "on_unreadable": on_unreadable,
        "progress": progress,
        "threads": threads,
    }
    return _assemble(
        "object", keys, samples.__getitem__, labels, classes, layout, value_range, parallel, common
    )


def _assemble(
    kind: str,
    keys: list[Any],
    load: Callable[[Any], Any],
    labels: Any,
    classes: Sequence[str] | None,
    layout: str | None,
    value_range: Any,
    parallel: bool,
    common: dict[str, Any],
) -> Data:
    from gapless.data.assemble import assemble

    names = [str(k) for k in keys]
    if not names:
        raise DataError(f"from_{kind}: there are no samples")
    if len(set(names)) != len(names):
        twice = next(k for k in names if names.count(k) > 1)
        raise DataError(f"from_{kind}: ids must be all different; {twice!r} is there more than once")
    if layout is not None and layout not in LAYOUTS and "N" + layout not in LAYOUTS:
        raise DataError(f"from_{kind}: layout must be 'HW', 'HWC' or 'CHW', got {layout!r}")
    reader = CallReader(names, keys, load, labels is None, layout, value_range, parallel)
    index, found = None, tuple(str(c) for c in classes) if classes is not None else ()
    if labels is not None:
        if len(labels) != len(names):
            raise DataError(
                f"from_{kind}: {len(names):,} ids and {len(labels):,} labels; expected as many of both"
            )
        index, found = labels_from(labels, classes, lambda i: f"sample {names[i]}")
    what = (
        getattr(load, "__qualname__", type(load).__name__)
        if kind == "callable"
        else type(getattr(load, "__self__", load)).__name__
    )
    listing = Listing(kind=kind, spec={kind: what}, ids=names, classes=found, labels=index, reader=reader)
    return assemble(listing, **common)


class CallReader:
    """Calls the caller's function, one thread at a time unless it may be called by several."""

    def __init__(
        self,
        names: list[str],
        keys: list[Any],
        load: Callable[[Any], Any],
        labelled: bool,
        layout: str | None,
        value_range: Any,
        parallel: bool,
    ) -> None:
        self.names, self.keys, self.load = names, keys, load
        self.labelled, self.layout, self.value_range, self.parallel = labelled, layout, value_range, parallel
        self._lock = threading.Lock()
        self._pid = 0
        self.labels: dict[int, Any] = {}

    def read(self, index: int) -> NDArray[np.uint8]:
        got = self._call(self.keys[index])
        what = f"sample {self.names[index]}"
        if self.labelled:
            if not isinstance(got, (tuple, list)) or len(got) != 2:
                raise DataError(
                    f"{what}: expected (image, label), got {type(got).__name__}; or give labels=… "
                    "beside the images"
                )
            got, label = got
            self.labels.setdefault(index, label)
        elif isinstance(got, tuple) and len(got) == 2:
            got = got[0]
        return as_image(got, what, layout=self.layout, value_range=self.value_range)

    def _call(self, key: Any) -> Any:
        if self.parallel:
            return self.load(key)
        import os

        if self._pid != os.getpid():  # a lock that was held when the process forked stays locked in the child
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            return self.load(key)

    def label(self, index: int) -> Any:
        """The label that came with an image that was read."""
        label = self.labels[index]
        if isinstance(label, (str, bytes, int)):
            return label
        a = np.asarray(label)
        if a.size != 1:
            raise DataError(f"sample {self.names[index]}: expected one label, got {label!r}")
        return a.item()
