"""CIFAR-10 and CIFAR-100, the binary version and the "python version"."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapless.data.sources import Listing
from gapless.data.sources._stored import read_stored
from gapless.data.sources.arrays import listing_of_parts
from gapless.errors import DataError

if TYPE_CHECKING:
    from gapless.data.dataset import Data

__all__ = ["cifar", "listing", "looks_like_cifar"]

_PIXELS = 3 * 32 * 32
_MAX_FILE = 1 << 29
_BATCHES = [f"data_batch_{k}" for k in range(1, 6)]
# version -> (files of train, files of test, file of the class names, labels in front of the pixels)
_BINARY = {
    "CIFAR-10": ([f"{b}.bin" for b in _BATCHES], ["test_batch.bin"], "batches.meta.txt", 1),
    "CIFAR-100": (["train.bin"], ["test.bin"], "fine_label_names.txt", 2),
}
_PYTHON = {
    "CIFAR-10": (_BATCHES, ["test_batch"], "batches.meta", "labels", "label_names"),
    "CIFAR-100": (["train"], ["test"], "meta", "fine_labels", "fine_label_names"),
}
_SUBFOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")


def cifar(
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
) -> Data:
    """CIFAR-10 or CIFAR-100 as unpacked from their archives, in the binary or the "python version".

    The "python version" is read by a small interpreter that knows arrays, bytes, texts, numbers, lists and
    dicts, and nothing that could run. CIFAR-100 has its 100 fine classes.

    Parameters
    ----------
    path : path
        The folder with ``data_batch_1…``, or the one around it.
    classes : sequence of str, optional
        Default: the names that come with the files.
    val : float, optional
        The share of train that becomes val, default 0.1; 0: none.
    split, group_by, seed, channels
        As in `gapless.data.folder`.

    Returns
    -------
    Data
        With the splits train, val and test.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> record = lambda k: bytes([k]) + bytes([k] * 3072)
    >>> for k in range(1, 6):
    ...     _ = (root / f"data_batch_{k}.bin").write_bytes(record(0) * 3 + record(k) * 2)
    >>> _ = (root / "test_batch.bin").write_bytes(record(9))
    >>> import warnings; warnings.simplefilter("ignore")
    >>> cifar(root, val=0).counts("train").tolist()
    [15, 2, 2, 2, 2, 2, 0, 0, 0, 0]
    """
    from gapless.data.assemble import assemble

    return assemble(
        listing(path, classes=classes), split=split, val=val, group_by=group_by, seed=seed, channels=channels
    )


def listing(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> Listing:
    root = os.path.abspath(os.fspath(path))
    found = _version(root)
    if found is None:
        raise DataError(
            f"cifar: no CIFAR files in {root}; expected data_batch_1 … test_batch (with or without "
            ".bin), or train and "
            "test; an archive must be unpacked first"
        )
    where, version, binary = found
    read = _read_binary if binary else _read_python
    parts, raw, ids, given, own = read(where, version)
    return listing_of_parts("cifar", root, parts, raw, ids, given, classes, own)


def looks_like_cifar(path: str) -> bool:
    """Whether a folder holds CIFAR files, by their names."""
    return _version(path) is not None


def _version(root: str) -> tuple[str, str, bool] | None:
    for sub in _SUBFOLDERS:
        where = os.path.join(root, sub) if sub else root
        for binary, table in ((True, _BINARY), (False, _PYTHON)):
            for version, row in table.items():
                wanted = [*row[0], *row[1], *([] if binary else [row[2]])]
                if any(os.path.isfile(os.path.join(where, f)) for f in (row[0][0], row[2])) and all(
                    os.path.isfile(os.path.join(where, str(f))) for f in wanted
                ):
                    return where, version, binary
    return None


_Read = tuple[list[NDArray[np.uint8]], list[NDArray[np.int64]], list[str], list[str], list[str]]


def _load(file: str) -> bytes:
    try:
        with open(file, "rb") as f:
            data = f.read(_MAX_FILE + 1)
    except OSError as e:
        raise DataError(f"cifar: {file} cannot be read: {e.strerror or e}") from e
    if len(data) > _MAX_FILE:
        raise DataError(f"cifar: {file} has more than {_MAX_FILE:,} bytes; it is no CIFAR file")
    return data


def _read_binary(where: str, version: str) -> _Read:
    train, test, names_file, n_labels = _BINARY[version]
    parts, raw, ids, given = [], [], [], []
    row = n_labels + _PIXELS
    for part, files in (("train", train), ("test", test)):
        rows = []
        for name in files:
            data = _load(os.path.join(where, name))
            if not data or len(data) % row:
                raise DataError(
                    f"cifar: {os.path.join(where, name)}: {len(data):,} bytes are no whole number of "
                    f"{version} records "
                    f"of {row} bytes; truncated?"
                )
            rows.append(np.frombuffer(data, np.uint8).reshape(-1, row))
        table = np.concatenate(rows)
        raw.append(table[:, n_labels - 1].astype(np.int64))
        parts.append(_to_nhwc(table[:, n_labels:]))
        ids += [f"{part}/{i:05d}" for i in range(len(table))]
        given += [part] * len(table)
    names = [str(k) for k in range(10 if n_labels == 1 else 100)]
    file = os.path.join(where, names_file)
    if os.path.isfile(file):
        lines = _load(file).decode("utf-8", "replace").split()
        if len(lines) == len(names):
            names = lines
    return parts, raw, ids, given, names


def _read_python(where: str, version: str) -> _Read:
    train, test, meta, label_key, names_key = _PYTHON[version]
    parts, raw, ids, given = [], [], [], []
    for part, files in (("train", train), ("test", test)):
        images, labels = [], []
        for name in files:
            file = os.path.join(where, name)
            got = _mapping(file)
            data, label = got.get("data"), got.get(label_key)
            if (
                not isinstance(data, np.ndarray)
                or data.ndim != 2
                or data.shape[1] != _PIXELS
                or data.dtype != np.uint8
            ):
                raise DataError(f"cifar: {file}: 'data' is no uint8 array of shape (n, {_PIXELS})")
            if isinstance(label, np.ndarray):
                label = label.tolist()
            if (
                not isinstance(label, list)
                or not all(type(k) is int for k in label)
                or len(label) != len(data)
            ):
                raise DataError(f"cifar: {file}: {label_key!r} is no list of {len(data)} integers")
            images.append(data)
            labels += label
        table = np.concatenate(images)
        parts.append(_to_nhwc(table))
        raw.append(np.array(labels, np.int64))
        ids += [f"{part}/{i:05d}" for i in range(len(table))]
        given += [part] * len(table)
    names = _mapping(os.path.join(where, meta)).get(names_key)
    if not isinstance(names, list) or not names:
        raise DataError(f"cifar: {os.path.join(where, meta)}: no list {names_key!r}")
    return parts, raw, ids, given, [_text(n) for n in names]


def _mapping(file: str) -> dict[str, Any]:
    got = read_stored(_load(file), file)
    if not isinstance(got, dict):
        raise DataError(f"cifar: {file} holds {type(got).__name__}, expected a dict")
    return {_text(k): v for k, v in got.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _to_nhwc(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
