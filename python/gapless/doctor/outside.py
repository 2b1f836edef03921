"""Data for a model that was trained elsewhere: files that outputs name, or samples that a caller lists."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Data
from ..data import resolve as resolve_data
from ..data.assemble import assemble
from ..data.decode import EXTENSIONS, printable, read
from ..data.sources import Listing, folder, list_file, shorten
from ..errors import DataError
from .outputs import Outputs
from .reading import named_classes

__all__ = ["data_of_images", "data_of_samples", "only"]


@dataclass
class _Sample:
    """One sample, from a file or from another data set."""

    id: str
    label: str
    split: str
    file: str | None = None
    data: Data | None = None
    index: int = 0


class _Reader:
    """Files, and samples of other data."""

    def __init__(self, samples: Sequence[_Sample]) -> None:
        self._samples = samples

    @property
    def in_memory(self) -> bool:
        """Whether the pixels lie in memory already."""
        return all(s.data is not None and s.data.in_memory for s in self._samples)

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 1 or 3)."""
        s = self._samples[index]
        if s.data is not None:
            return s.data.load(s.index)
        assert s.file is not None
        return read(s.file)


def _assembled(samples: Sequence[_Sample], classes: Sequence[str], root: str) -> Data:
    index = {c: k for k, c in enumerate(classes)}
    files = [s.file for s in samples]
    listing = Listing(
        kind="doctor",
        spec={"doctor": root},
        ids=[s.id for s in samples],
        classes=tuple(classes),
        labels=np.array([index[s.label] for s in samples], np.int64),
        reader=_Reader(samples),
        paths=None if None in files else [str(f) for f in files],
        root=f"doctor:{root}",
        given=[s.split for s in samples],
    )
    return assemble(listing, on_unreadable=0.99, val=0)


def only(data: Data, kept: Mapping[str, NDArray[np.int64]]) -> Data:
    """The same samples, of which only some belong to a split; manifest indices stay."""
    other = copy.copy(data)
    other.splits = {k: np.sort(np.asarray(v, np.int64)) for k, v in kept.items()}
    of = ["unused"] * len(data)
    for name, indices in other.splits.items():
        for i in indices.tolist():
            of[i] = name
    other.split_of = of
    return other


# -- images of outputs ----------------------------------------------------------------------------


def data_of_images(
    root: str | os.PathLike[str], outputs: Mapping[str, Outputs]
) -> tuple[Data, dict[str, Outputs], list[str]]:
    """The images that outputs name, found below a folder.

    An id is a path relative to `root`, an absolute path, or the name of a file somewhere below, with or
    without its extension. Of several files of that name it is the one that shares most of the folders above
    with the id (which may be a path of another machine), and of several ids that claim a file it is that of
    the one that shares most; where that leaves two, none is taken.

    Returns
    -------
    data : Data
        In the order of the outputs; the splits are the keys of `outputs`.
    outputs : dict
        The same, but that an id which stands in two splits is called ``train:…`` in the second.
    notes : list of str
        What was not found.
    """
    base = os.path.abspath(os.fspath(root))
    if not os.path.isdir(base):
        raise DataError(f"images: {printable(base)} is no folder")
    files = _files(base, [ident for of in outputs.values() for ident in of.ids])
    samples: list[_Sample] = []
    taken: set[str] = set()
    renamed, notes = {}, []
    for split, of in outputs.items():
        ids, missing = list(of.ids), []
        seen: set[str] = set()
        for i, ident in enumerate(of.ids):
            if ident in seen:  # a row that repeats an id is one image
                ids[i] = f"{split}:{ident}" if ident in taken else ident
                continue
            seen.add(ident)
            file = files[ident]
            if ident in taken:
                ids[i] = f"{split}:{ident}"
            if file is None:
                missing.append(ident)
            else:
                samples.append(_Sample(ids[i], of.classes[of.labels[i]], split, file))
        taken |= seen
        renamed[split] = of if ids == of.ids else replace(of, ids=ids)
        if missing:
            notes.append(
                f"images: {len(missing):,} of {len(seen):,} ids of {split} name no file below "
                f"{printable(base)}: {shorten(missing, 20)}"
            )
    if not samples:
        raise DataError(
            f"images: not one of the {sum(map(len, outputs.values())):,} ids names a file below "
            f"{printable(base)}, such as {next(iter(outputs.values())).ids[0]!r}; give the folder that the "
            "ids are relative to"
        )
    return _assembled(samples, next(iter(outputs.values())).classes, base), renamed, notes


def _files(base: str, ids: Sequence[str]) -> dict[str, str | None]:
    """The file of each id, or None."""
    files = {ident: _direct(base, ident) for ident in ids}
    if None not in files.values():
        return files
    names = _names(base)
    claims: dict[str, list[tuple[int, str]]] = {}
    for ident, direct in files.items():
        file, shared = (direct, sys.maxsize) if direct is not None else _by_name(names, ident)
        if file is not None:
            claims.setdefault(os.path.normpath(file), []).append((shared, ident))
    for file, claim in claims.items():
        most = max(claim)[0]
        first = [ident for shared, ident in claim if shared == most]
        if len(first) == 1 and files[first[0]] is None:
            files[first[0]] = file
    return files


def _direct(base: str, ident: str) -> str | None:
    for path in (os.path.join(base, ident), ident if os.path.isabs(ident) else ""):
        if path and "\0" not in path and os.path.isfile(path):
            return path
    return None


def _names(base: str) -> dict[str, list[str]]:
    """File name, and file name without extension → the paths that have it."""
    found: dict[str, list[str]] = {}
    for here, folders, files in os.walk(base):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() not in EXTENSIONS:
                continue
            for key in {name, os.path.splitext(name)[0]}:
                found.setdefault(key, []).append(os.path.join(here, name))
    return found


def _by_name(names: Mapping[str, list[str]], ident: str) -> tuple[str | None, int]:
    """The file of that name that shares most folders with the id, where there is one, and how many."""
    folders, last = _parted(ident)
    have = names.get(last) or names.get(os.path.splitext(last)[0]) or []
    shared = [_alike(folders, _parted(f)[0]) for f in have]
    most = max(shared, default=0)
    return (have[shared.index(most)] if shared.count(most) == 1 else None), most


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    """How many of the first are the same."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _parted(path: str) -> tuple[list[str], str]:
    """The folders of a path, the nearest first, and the file's name."""
    *folders, last = path.replace("\\", "/").split("/")
    return folders[::-1], last


# -- samples for a model --------------------------------------------------------------------------


def data_of_samples(train: Any, val: Any, classes: Sequence[str] | None) -> Data:
    """One `Data` of the validation and, where given, the training samples of a model.

    Parameters
    ----------
    train, val : Data, path, or sequence of (path, class); train may be None
        Of data with splits of that name, that split; of others all samples. `val` alone may bring both.
    classes : sequence of str, optional
        By output; default: the names that occur, sorted.
    """
    classes = None if classes is None else named_classes(classes)
    own = val if isinstance(val, Data) else None
    if own is not None and train in (None, val) and "val" in own.splits:
        return own if classes is None else own.mapped_to([str(c) for c in classes])
    samples = _samples(val, "val", classes)
    if train is not None:
        more = _samples(train, "train", classes)
        if {s.id for s in samples} & {s.id for s in more}:
            for s in (*samples, *more):
                s.id = f"{s.split}/{s.id}"
        samples = more + samples
    if classes is not None:
        names = [str(c) for c in classes]
    else:
        names = sorted({s.label for s in samples})
        parts = [d.classes for d in (train, val) if isinstance(d, Data)]
        if parts and all(p == parts[0] for p in parts) and set(names) <= set(parts[0]):
            names = list(parts[0])
    unknown = sorted({s.label for s in samples} - set(names))
    if unknown:
        raise DataError(f"classes: samples are of {shorten(map(repr, unknown), 5)}, which is not among them")
    return _assembled(samples, names, _root_of(val))


def _root_of(source: Any) -> str:
    return os.path.abspath(os.fspath(source)) if isinstance(source, str | os.PathLike) else "samples"


def _samples(source: Any, split: str, classes: Sequence[str] | None) -> list[_Sample]:
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if os.path.isdir(path):
            return _of_listing(folder.listing(path), split)
        if list_file.looks_like_list(path) and os.path.isfile(path):
            return _of_listing(list_file.listing(path, classes=classes), split)
        source = resolve_data(path)
    if isinstance(source, Data):
        return _of_data(source, split)
    return _of_pairs(source, split, classes)


def _of_listing(listing: Listing, split: str) -> list[_Sample]:
    assert listing.labels is not None
    assert listing.paths is not None
    given = listing.given or [""] * len(listing.ids)
    kept = [i for i, g in enumerate(given) if g == split] or list(range(len(given)))
    return [
        _Sample(listing.ids[i], listing.classes[listing.labels[i]], split, listing.paths[i]) for i in kept
    ]


def _of_data(data: Data, split: str) -> list[_Sample]:
    indices = data.splits.get(split, np.arange(len(data)))
    return [
        _Sample(data.ids[i], data.classes[data.labels[i]], split, data.file(i), data, i)
        for i in indices.tolist()
    ]


def _of_pairs(source: Any, split: str, classes: Sequence[str] | None) -> list[_Sample]:
    samples = []
    try:
        pairs = list(source)
    except TypeError:
        raise DataError(
            f"{split}: expected a folder, a list file, Data, or (path, class) pairs, got "
            f"{type(source).__name__}"
        ) from None
    for k, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str | os.PathLike):
            raise DataError(f"{split}[{k}]: expected (path, class), got {pair!r:.80}")
        path, label = os.fspath(pair[0]), pair[1]
        if classes is not None and isinstance(label, int | np.integer) and str(label) not in classes:
            if not 0 <= label < len(classes):
                raise DataError(f"{split}[{k}]: class {label} is outside 0..{len(classes) - 1}")
            label = classes[int(label)]
        samples.append(_Sample(printable(path), str(label), split, os.path.abspath(path)))
    if not samples:
        raise DataError(f"{split}: there is no sample")
    twice = len(samples) - len({s.id for s in samples})
    if twice:
        raise DataError(f"{split}: {twice:,} paths stand more than once")
    return samples
