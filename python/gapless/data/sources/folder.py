"""Image folders: one folder per class; ``train/ val/ test/`` on top are splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gapless.data.decode import EXTENSIONS, printable
from gapless.data.sources import FileReader, Listing, labels_from, shorten
from gapless.data.split import canonical_split
from gapless.errors import DataError

if TYPE_CHECKING:
    from gapless.data.dataset import Data

__all__ = ["folder", "listing"]


def folder(
    path: str | os.PathLike[str],
    *,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    channels: int | None = None,
    on_unreadable: str | float = "leave_out",
    max_pixels: int | None = None,
    progress: bool | None = None,
    threads: int | None = None,
) -> Data:
    """Pictures in a folder per class.

    A folder that has ``train/`` (and ``val/``, also called ``valid/`` or ``validation/``, and ``test/``) uses
    them as its splits; any other is split once, stratified by class. Classes are the folders' names in order
    of their code points, over all splits together, and always travel by name. Hidden files are skipped; files
    with other extensions than JPEG, PNG, WebP and BMP have are counted in ``Data.ignored``.

    Parameters
    ----------
    path : path
        The folder.
    split : sequence of float, mapping, path, optional
        Shares such as ``(0.8, 0.1, 0.1)`` for train, val, test; ``{"train": 0.9, "dev": 0.1}``; ids by split,
        ``{"train": [...], "val": [...]}``; or the path of a stored split (``split.json``). Default ``(0.8,
        0.2)``.
    val : float, optional
        Where the folder has ``train/`` but no ``val/``: the share of train that becomes val, default 0.1; 0:
        none.
    group_by : callable or str, optional
        What keeps samples together in one split: a function of the id, or a regular expression that is
        searched in the id (its first group, else the whole match, is the group).
    seed : int
        Of the split's draws.
    classes : sequence of str, optional
        The classes and their order, where the folders' names are not to decide.
    channels : {1, 3}, optional
        Default: 1 if every picture is grey, else 3.
    on_unreadable : {"leave_out", "error"} or float
        Up to 1 % (or the given share) of unreadable files is left out, listed and counted; more is an error.
    max_pixels : int, optional
        Larger pictures are refused before decoding; default 89 million.
    progress : bool, optional
        Show a bar while files are read for the first time; default: on a terminal or in a notebook.
    threads : int, optional
        Threads that read; default: one per CPU.

    Returns
    -------
    Data

    Raises
    ------
    DataError
        If there are no pictures, or too many that cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile, PIL.Image
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (root / name).mkdir()
    ...     for i in range(5):
    ...         PIL.Image.new("RGB", (8, 6), (40 * i, 9, ord(name[0]))).save(root / name / f"{name}{i}.png")
    >>> data = folder(root)
    >>> data.classes, {k: len(v) for k, v in data.splits.items()}, data.size
    (('cat', 'dog'), {'train': 8, 'val': 2}, (6, 8))
    """
    from gapless.data.assemble import assemble

    return assemble(
        listing(path, classes=classes),
        split=split,
        val=val,
        group_by=group_by,
        seed=seed,
        channels=channels,
        on_unreadable=on_unreadable,
        max_pixels=max_pixels,
        progress=progress,
        threads=threads,
    )


def listing(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> Listing:
    root = os.path.abspath(os.fspath(path))
    if not os.path.isdir(root):
        what = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise DataError(f"folder: {root} {what}")
    top = _subfolders(root)
    split_dirs = _split_folders(top, root)
    ignored: dict[str, int] = {}
    rows: list[tuple[str, str, str, str | None]] = []  # id, path, class, split
    found: set[str] = set()  # every class folder, the empty ones too
    loose: list[str] = []
    places = [(d, canonical_split(d)) for d in split_dirs] if split_dirs else [("", None)]
    for place, part in places:
        base = os.path.join(root, place) if place else root
        loose += _loose(base, place, ignored)
        for name in _subfolders(base):
            found.add(printable(name))
            for rel in _walk(os.path.join(base, name), ignored):
                ident = "/".join(x for x in (place, name, rel) if x)
                rows.append((printable(ident), os.path.join(root, ident), printable(name), part))
    if not rows:
        raise DataError(_nothing(root, found, loose, ignored))
    rows.sort()
    notes = []
    if loose:
        notes.append(f"{len(loose):,} pictures outside any class folder are not used: {shorten(loose, 3)}")
    outside = [d for d in top if split_dirs and d not in split_dirs]
    if outside:
        notes.append(f"folders beside {', '.join(sorted(split_dirs))} are not used: {shorten(outside)}")
    notes += _deeper([r[0].rpartition("/")[0] for r in rows], 2 if split_dirs else 1)
    labels, names = labels_from(
        [r[2] for r in rows], sorted(found) if classes is None else classes, lambda i: rows[i][0]
    )
    paths = [r[1] for r in rows]
    return Listing(
        kind="folder",
        spec={"folder": root} | ({} if classes is None else {"classes": list(names)}),
        ids=[r[0] for r in rows],
        classes=names,
        labels=labels.astype(np.int64),
        reader=FileReader(paths),
        paths=paths,
        root=root,
        given=[r[3] or "" for r in rows] if split_dirs else None,
        ignored=ignored,
        notes=notes,
    )


def _deeper(folders: list[str], depth: int) -> list[str]:
    """A note on pictures that lie below a class's own folder: classes of two levels may have been meant."""
    deep = [f for f in folders if f.count("/") >= depth]
    if not deep:
        return []
    where = shorten(sorted(set(deep)), 3)
    return [f"{len(deep):,} pictures lie below a class's folder and are of that class: {where}"]


def _subfolders(path: str) -> list[str]:
    return sorted(e.name for e in _entries(path) if e.is_dir())


def _entries(path: str) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden."""
    try:
        with os.scandir(path) as it:
            return [e for e in it if not _hidden(e.name)]
    except OSError as e:
        raise DataError(f"folder: {printable(path)} cannot be listed: {e.strerror}") from e


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "__pycache__")


def _split_folders(top: list[str], root: str) -> list[str]:
    """The subfolders that are splits; none where, say, "train" is a class beside "car"."""
    named = [d for d in top if canonical_split(d) is not None]
    parts = [canonical_split(d) for d in named]
    if not named or not (named == top or ("train" in parts and len(named) > 1)):
        return []
    if not all(_subfolders(os.path.join(root, d)) for d in named):
        return []
    for p in set(parts):
        if parts.count(p) > 1:
            twice = [d for d in named if canonical_split(d) == p]
            raise DataError(
                f"folder: {root} has {' and '.join(twice)}, all names for the split {p!r}; keep one"
            )
    return named


def _image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _count(name: str, ignored: dict[str, int]) -> None:
    extension = printable(os.path.splitext(name)[1].lower()) or "(no extension)"
    ignored[extension] = ignored.get(extension, 0) + 1


def _loose(base: str, place: str, ignored: dict[str, int]) -> list[str]:
    found = []
    for e in _entries(base):
        if not e.is_file():
            continue
        if _image(e.name):
            found.append(printable("/".join(x for x in (place, e.name) if x)))
        else:
            _count(e.name, ignored)
    return sorted(found)


def _walk(base: str, ignored: dict[str, int]) -> list[str]:
    """Pictures below a class folder, as paths relative to it; links are followed, loops are not."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    stack = [""]
    while stack:
        rel = stack.pop()
        here = os.path.join(base, rel) if rel else base
        st = os.stat(here)
        if (st.st_dev, st.st_ino) in seen:
            continue
        seen.add((st.st_dev, st.st_ino))
        for e in _entries(here):
            name = f"{rel}/{e.name}" if rel else e.name
            if e.is_dir():
                stack.append(name)
            elif _image(e.name):
                found.append(name)
            else:
                _count(e.name, ignored)
    return found


def _nothing(root: str, found: set[str], loose: list[str], ignored: dict[str, int]) -> str:
    text = f"folder: no pictures in class folders below {root}; expected {root}/CLASS/picture.jpg"
    if loose:
        text += f"; {len(loose):,} pictures lie outside any class folder ({shorten(loose, 3)})"
    if found:
        text += f"; empty folders: {shorten(sorted(found))}"
    if ignored:
        text += "; files of other kinds: " + shorten(f"{n} {ext}" for ext, n in sorted(ignored.items()))
    return text
