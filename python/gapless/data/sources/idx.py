"""IDX files, plain or gzipped: MNIST, Fashion-MNIST, EMNIST and their kind."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapless.data.sources import Listing, shorten
from gapless.data.sources.arrays import listing_of_parts
from gapless.errors import DataError

if TYPE_CHECKING:
    from gapless.data.dataset import Data

__all__ = ["idx", "listing", "looks_like_idx", "read_idx"]

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_BYTES = 1 << 33
PLACES = ("/usr/share/datasets",)  # where Debian's dataset-* packages put theirs


def idx(
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
) -> Data:
    """A folder with the four files of MNIST and its kind (``train-images-idx3-ubyte.gz``, …).

    The files of ``train`` and of ``t10k`` (or ``test``) are the splits train and test; val is taken from
    train.

    Parameters
    ----------
    path : path
        The folder; also the name of one in ``/usr/share/datasets``, such as ``fashion-mnist``.
    classes : sequence of str, optional
        Names of the classes; default: the numbers.
    val : float, optional
        The share of train that becomes val, default 0.1; 0: none.
    split : optional
        Not for a folder that has both train and test.
    group_by, seed, channels
        As in `gapless.data.folder`.

    Returns
    -------
    Data

    Examples
    --------
    >>> import pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (20, 2, 2))
    >>> _ = (root / "train-images-idx3-ubyte").write_bytes(head + bytes(range(80)))
    >>> labels = bytes([0, 0, 8, 1, 0, 0, 0, 20]) + bytes([0, 1] * 10)
    >>> _ = (root / "train-labels-idx1-ubyte").write_bytes(labels)
    >>> data = idx(root)
    >>> data.size, {k: len(v) for k, v in data.splits.items()}
    ((2, 2), {'train': 18, 'val': 2})
    """
    from gapless.data.assemble import assemble

    return assemble(
        listing(path, classes=classes), split=split, val=val, group_by=group_by, seed=seed, channels=channels
    )


def listing(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> Listing:
    root = _root(os.fspath(path))
    files = _find(root)
    parts: list[NDArray[Any]] = []
    raw: list[NDArray[np.int64]] = []
    ids: list[str] = []
    given: list[str] = []
    for part in ("train", "test"):
        if part not in files:
            continue
        images_file, labels_file = files[part]
        images, labels = read_idx(images_file), read_idx(labels_file)
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
            raise DataError(
                f"idx: {images_file} holds {images.dtype} of shape {images.shape}; expected uint8 "
                "images (N, H, W)"
            )
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            raise DataError(
                f"idx: {labels_file} holds {labels.dtype} of shape {labels.shape}; expected "
                f"{len(images)} integers"
            )
        images = images[..., None] if images.ndim == 3 else images
        if images.shape[3] not in (1, 3):
            raise DataError(f"idx: {images_file}: {images.shape[3]} channels; expected 1 or 3")
        parts.append(images)
        raw.append(labels.astype(np.int64))
        ids += [f"{part}/{i:05d}" for i in range(len(images))]
        given += [part] * len(images)
    return listing_of_parts("idx", root, parts, raw, ids, given, classes)


def _root(path: str) -> str:
    if not os.path.exists(path):
        path = installed(path) or path
    if not os.path.isdir(path):
        raise DataError(
            f"idx: {os.path.abspath(path)} is not a folder; expected one with train-images-idx3-ubyte(.gz) …"
        )
    return os.path.abspath(path)


def installed(name: str) -> str | None:
    """The folder of a data set that the system's package manager installed, by its name."""
    if os.sep in name or name in ("", ".", ".."):
        return None
    places = (os.path.join(place, name) for place in PLACES)
    return next((p for p in places if os.path.isdir(p)), None)


def looks_like_idx(path: str) -> bool:
    """Whether a folder holds IDX files, by their names."""
    return any("idx3" in n and "image" in n for n in os.listdir(path))


def _find(root: str) -> dict[str, tuple[str, str]]:
    """split -> (images, labels). A plain file is preferred to the same one gzipped."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in sorted(os.listdir(root)):
        low = name.lower()
        what = "images" if "image" in low else "labels" if "label" in low else None
        part = "train" if "train" in low else "test" if "t10k" in low or "test" in low else None
        if "idx" not in low or what is None or part is None or not os.path.isfile(os.path.join(root, name)):
            continue
        found.setdefault((part, what), {})[name.removesuffix(".gz")] = os.path.join(root, name)
        if not name.endswith(".gz"):
            found[part, what][name] = os.path.join(root, name)
    files: dict[str, tuple[str, str]] = {}
    for part in ("train", "test"):
        images, labels = found.get((part, "images"), {}), found.get((part, "labels"), {})
        if not images and not labels:
            continue
        if len(images) > 1 or len(labels) > 1:
            raise DataError(
                f"idx: {root} has several sets for {part}: {shorten([*images, *labels])}; put each set "
                "in its own folder"
            )
        if not images or not labels:
            raise DataError(
                f"idx: {root} has {shorten([*images, *labels])} but not its "
                f"{'images' if labels else 'labels'}"
            )
        files[part] = (next(iter(images.values())), next(iter(labels.values())))
    if "train" not in files and "test" not in files:
        raise DataError(f"idx: no files such as train-images-idx3-ubyte(.gz) in {root}")
    return files


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an IDX file, plain or gzipped (by content), checked against its own header.

    Examples
    --------
    >>> import os, tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), "x")
    >>> _ = open(file, "wb").write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(file).tolist()
    [7, 8, 9]
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not zipped:
                return _read(plain, name)
            with gzip.GzipFile(fileobj=plain) as f:
                return _read(f, name)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise DataError(f"idx: {name}: damaged or truncated gzip data ({e})") from e
    except OSError as e:
        raise DataError(f"idx: {name} cannot be read: {e.strerror or e}") from e


def _read(f: IO[bytes] | gzip.GzipFile, name: str) -> NDArray[Any]:
    head = f.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 4:
        raise DataError(
            f"idx: {name} is no IDX file: it begins with {head.hex()}, expected 0000, a type and 1 to 4 axes"
        )
    dims = f.read(4 * head[3])
    if len(dims) < 4 * head[3]:
        raise DataError(f"idx: {name}: truncated within the header")
    shape = tuple(int.from_bytes(dims[4 * k : 4 * k + 4], "big") for k in range(head[3]))
    dtype = np.dtype(_TYPES[head[2]])
    size = math.prod(shape) * dtype.itemsize
    if size > _MAX_BYTES:
        raise DataError(f"idx: {name}: shape {shape} means {size:,} bytes; the limit is {_MAX_BYTES:,}")
    body = _exactly(f, size)
    if len(body) != size:
        raise DataError(
            f"idx: {name}: truncated: {len(body):,} bytes of data, expected {size:,} for shape {shape}"
        )
    if f.read(1):
        raise DataError(f"idx: {name}: more than the {size:,} bytes that shape {shape} has")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _exactly(f: IO[bytes] | gzip.GzipFile, size: int) -> bytes:
    """Up to `size` bytes, in pieces: a header that lies does not make us allocate what it says."""
    pieces = []
    while size > 0:
        piece = f.read(min(size, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
