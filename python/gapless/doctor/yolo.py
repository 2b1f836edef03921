"""YOLO's data: ``data.yaml``, images, and a label file per image, read with every error counted and named.

Nothing is repaired: what a trainer would drop in silence is said. The trainers' rules, which this follows:
an image's labels are in the file where ``/images/`` is replaced by ``/labels/`` and the ending by ``.txt``
(beside the image where there is no ``images`` folder); no such file means an image without objects; a line is
``class cx cy w h`` as fractions of the image, or ``class x y x y x y …``, a polygon, which becomes its box.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.decode import printable
from ..errors import DataError, RecipeError
from .yolo_labels import (
    ANCHORS,
    EXAMPLES,
    IMAGE_SIZE,
    KINDS,
    LIMIT,
    Problem,
    Split,
    YoloLabels,
    anchor_ratio,
    best_possible_recall,
)

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

__all__ = [
    "ANCHORS",
    "IMAGE_SIZE",
    "LIMIT",
    "Problem",
    "Split",
    "YoloLabels",
    "anchor_ratio",
    "best_possible_recall",
    "check",
    "parse",
    "read",
]

SPLITS = ("train", "val", "test")
ENDINGS = frozenset({".bmp", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"})
_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
_MOST_BYTES = 4 << 20
_MOST_CLASSES = 100_000

# -- reading --------------------------------------------------------------------------------------


class _Reading:
    """What is counted while files are read."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.found: dict[tuple[str, str], Problem] = {}

    def wrong(self, kind: str, split: str, what: str) -> None:
        p = self.found.setdefault((kind, split), Problem(kind, split))
        p.count += 1
        if len(p.examples) < EXAMPLES:
            p.examples.append(printable(what))

    def problems(self) -> list[Problem]:
        rank = {k: i for i, k in enumerate(KINDS)}
        return sorted(self.found.values(), key=lambda p: (rank[p.kind], p.split))


def read(path: str | os.PathLike[str], *, image_size: int = IMAGE_SIZE) -> YoloLabels:
    """Read ``data.yaml`` and everything it names.

    Parameters
    ----------
    path : path
    image_size : int
        The longer side that images are trained at.

    Raises
    ------
    DataError
        The file itself cannot be used: no names, no ``train``, folders that are not there. What is wrong with
        images and labels is in ``.problems``.

    Examples
    --------
    >>> import pathlib, tempfile, PIL.Image
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> (root / "images").mkdir(); (root / "labels").mkdir()
    >>> PIL.Image.new("RGB", (64, 48)).save(root / "images" / "a.png")
    >>> _ = (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.5\\n7 0.5 0.5 0.1 0.1\\n")
    >>> _ = (root / "data.yaml").write_text("train: images\\nnames: [cat, dog]\\n")
    >>> labels = read(root / "data.yaml")
    >>> len(labels.splits["train"].boxes), [(p.kind, p.count) for p in labels.problems]
    (1, [('class id', 1)])
    """
    if not 1 <= image_size <= 1 << 16:
        raise DataError(f"yolo: image_size must be a side in pixels, got {image_size}")
    path = Path(path)
    what = printable(str(path))
    document = parse(_text(path, what), what)
    names = _names(document, what)
    folder, sources = _sources(document, path, what)
    reading = _Reading(names)
    splits: dict[str, Split] = {}
    seen: dict[str, str] = {}
    lists = {os.path.abspath(s) for given in sources.values() for s in given}
    for split, given in sources.items():
        images = list(dict.fromkeys(i for s in given for i in _images(s, split, folder, reading)))
        for image in images:
            if seen.setdefault(image, split) != split:
                reading.wrong("image in two splits", split, f"{_shown(image, folder)}, also in {seen[image]}")
        splits[split] = _split(split, images, folder, reading, lists)
    if not any(len(s.ids) for s in splits.values()):
        raise DataError(f"{what}: no images ({', '.join(sorted(ENDINGS))}) in {', '.join(sources)}")
    notes = [f"{name}: no images" for name, s in splits.items() if not s.ids]
    if "val" not in splits:
        other = next((k for k in ("valid", "validation") if document.get(k)), None)
        hint = f" (a key {other!r} is not read)" if other else ""
        notes.append(f"there is no val{hint}: nothing to compare training with")
    return YoloLabels(what, names, splits, reading.problems(), image_size, notes)


def _regular(path: Path | str) -> os.stat_result | None:
    """The status of a plain file; None for what is not there, or would make one wait (pipes)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _text(path: Path, what: str) -> str:
    status = _regular(path)
    if status is None:
        raise DataError(
            f"{what}: " + ("give the data.yaml in it" if path.is_dir() else "there is no such file")
        )
    if status.st_size > _MOST_BYTES:
        raise DataError(f"{what}: {status.st_size:,} bytes are too many for a data.yaml")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{what}: not UTF-8 text, byte {e.start}") from None
    except OSError as e:
        raise DataError(f"{what}: cannot be read: {e.strerror or e}") from None


def parse(text: str, what: str = "data.yaml") -> dict[str, Any]:
    """The document of a data.yaml."""
    from .. import _yaml

    try:
        document = _yaml.load(text, what, number_keys=True)
    except RecipeError as e:
        raise DataError(str(e)) from None
    if not isinstance(document, dict):
        raise DataError(f"{what}: expected keys train, val, names, got {type(document).__name__}")
    return document


def _names(document: Mapping[Any, Any], what: str) -> tuple[str, ...]:
    """Class names by id, from a list or a dict of them, or from their number alone."""
    names, nc = document.get("names"), document.get("nc")
    if nc is not None and (type(nc) is not int or not 0 < nc <= _MOST_CLASSES):
        raise DataError(f"{what}: nc must be the number of classes, got {nc!r}")
    if names is None and nc is not None:
        return tuple(f"class {i}" for i in range(nc))
    if isinstance(names, dict):
        ids = list(names)
        if not all(type(k) is int for k in ids) or sorted(ids) != list(range(len(ids))):
            raise DataError(f"{what}: names must be numbered 0, 1, 2, … without gaps, got {ids[:10]}")
        names = [names[i] for i in range(len(ids))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{what}: names must list the classes, got {names!r:.80}")
    if len(names) > _MOST_CLASSES or any(isinstance(n, dict | list) or n is None for n in names):
        raise DataError(f"{what}: names must be words, at most {_MOST_CLASSES:,}")
    if nc is not None and nc != len(names):
        raise DataError(f"{what}: nc is {nc}, and there are {len(names)} names")
    words = tuple(str(n) for n in names)
    twice = sorted({n for n in words if words.count(n) > 1}) if len(set(words)) < len(words) else []
    if twice:
        raise DataError(f"{what}: names has {', '.join(map(repr, twice[:5]))} twice")
    return words


def _sources(document: Mapping[Any, Any], path: Path, what: str) -> tuple[Path, dict[str, list[str]]]:
    """The folder that paths are relative to, and what each split names."""
    given: dict[str, list[str]] = {}
    for split in SPLITS:
        value = document.get(split)
        if value is None or value == "":
            continue
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(v, str) and v and "\0" not in v for v in values):
            raise DataError(f"{what}: {split} must be a folder, a list file, or several, got {value!r:.80}")
        given[split] = values
    if "train" not in given:
        known = ", ".join(str(k) for k in list(document)[:10])
        raise DataError(f"{what}: train is missing; there are {known or 'no keys'}")
    root = document.get("path")
    if root is not None and (not isinstance(root, str) or "\0" in root):
        raise DataError(f"{what}: path must be a folder, got {root!r:.80}")
    here = path.resolve().parent
    tried = [here / (root or "."), Path.cwd() / (root or "."), here]
    first = given["train"][0]
    if first.startswith("../") and not any(os.path.exists(t / first) for t in tried):
        # exports that mean a folder beside the file, which trainers take as such
        given = {k: [v.removeprefix("../") for v in vs] for k, vs in given.items()}
        tried, first = [*tried, *(t / ".." for t in tried)], given["train"][0]
    for folder in tried:
        if os.path.exists(folder / os.path.expanduser(first)):
            break
    else:
        places = dict.fromkeys(printable(os.path.normpath(t / first)) for t in tried)
        raise DataError(f"{what}: train is not there; looked for {', '.join(places)}")
    resolved = {k: [os.path.normpath(folder / os.path.expanduser(v)) for v in vs] for k, vs in given.items()}
    for split, sources in resolved.items():
        for source in sources:
            if not os.path.exists(source) and split != "test":
                raise DataError(f"{what}: {split}: there is no {printable(source)}")
    return folder, {k: [s for s in v if os.path.exists(s)] for k, v in resolved.items()}


def _images(source: str, split: str, folder: Path, reading: _Reading) -> Iterator[str]:
    """Images of a folder, with those below it, or of a list file, in order. A list's lines are relative to
    the list, to the data's folder or to where one is, as trainers have it."""
    if os.path.isdir(source):
        found = []
        for here, folders, names in os.walk(source):
            folders.sort()
            found += [os.path.join(here, f) for f in names if Path(f).suffix.lower() in ENDINGS]
        yield from sorted(found)
        return
    if Path(source).suffix.lower() in ENDINGS:
        yield source
        return
    status = _regular(source)
    if status is None or status.st_size > 64 * _MOST_BYTES:
        raise DataError(f"yolo: {printable(source)}: not a list of images that could be read")
    bases = dict.fromkeys((os.path.dirname(source), str(folder), os.getcwd()))
    for line in Path(source).read_bytes().decode("utf-8", "surrogateescape").splitlines():
        name = line.strip()
        if not name or "\0" in name:
            continue
        files = (os.path.normpath(os.path.join(base, name)) for base in bases)
        file = next((f for f in files if _regular(f) is not None), None)
        if file is None:
            reading.wrong("missing image", split, name)
        else:
            yield file


def label_path(image: str) -> str:
    """Where an image's labels are.

    >>> label_path("/d/images/train/a.b.jpg")
    '/d/labels/train/a.b.txt'
    """
    head, found, tail = image.rpartition(f"{os.sep}images{os.sep}")
    moved = f"{head}{os.sep}labels{os.sep}{tail}" if found else image
    return os.path.splitext(moved)[0] + ".txt"


def _shown(path: str, folder: Path) -> str:
    return printable(os.path.relpath(path, folder)).replace(os.sep, "/")


def _split(name: str, images: list[str], folder: Path, reading: _Reading, lists: set[str]) -> Split:
    sizes = np.full((len(images), 2), np.nan)
    rows: list[tuple[float, ...]] = []
    done = Split(name, [_shown(i, folder) for i in images], sizes, *_arrays([]))
    labels: dict[str, None] = {}
    missing = 0
    for k, image in enumerate(images):
        try:
            sizes[k] = _size(image)
        except _UnreadableError as e:
            reading.wrong("unreadable image", name, f"{done.ids[k]}: {e}")
        label = label_path(image)
        labels[label] = None
        status = _regular(label)
        if status is None:
            missing += 1
            if os.path.lexists(label):
                reading.wrong("unreadable label", name, f"{_shown(label, folder)}: not a plain file")
            done.backgrounds += 1
            continue
        found = _lines(label, status, _shown(label, folder), done, sizes[k], reading)
        done.backgrounds += not found
        rows += [(*r, k) for r in found]
    done.boxes, done.classes, done.image = _arrays(rows)
    if images and missing == len(images):
        where = _shown(next(iter(labels)), folder)
        reading.wrong("no label files", name, f"of {missing:,} images; that of the first would be {where}")
    for orphan in _orphans(labels, lists):
        reading.wrong("label without image", name, _shown(orphan, folder))
    return done


def _arrays(rows: Sequence[tuple[float, ...]]) -> tuple[Any, Any, Any]:
    table = np.asarray(rows, np.float64).reshape(len(rows), 6)
    return table[:, 1:5].copy(), table[:, 0].astype(np.int64), table[:, 5].astype(np.int64)


def _orphans(labels: Mapping[str, None], lists: set[str]) -> Iterator[str]:
    """Label files beside those that belong to images."""
    for folder in dict.fromkeys(os.path.dirname(label) for label in labels):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            file = os.path.join(folder, name)
            other = file in labels or name == "classes.txt" or os.path.abspath(file) in lists
            if name.endswith(".txt") and not other and _regular(file) is not None:
                yield file


class _UnreadableError(Exception):
    """Why an image has no size."""


def _size(image: str) -> tuple[int, int]:
    """Upright width and height from the header; the pixels are not looked at."""
    from PIL import Image

    if _regular(image) is None:
        raise _UnreadableError("not a plain file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about the file: it is not decoded here
            with Image.open(image, formats=_FORMATS) as im:
                w, h = im.size
                turned = im.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception as e:  # hostile headers make Pillow raise anything
        raise _UnreadableError(" ".join(str(e).split())[:120] or type(e).__name__) from None
    if w < 1 or h < 1:
        raise _UnreadableError(f"{w} × {h} pixels")
    return (h, w) if turned else (w, h)


# -- a label file ---------------------------------------------------------------------------------


def _lines(
    label: str, status: os.stat_result, shown: str, split: Split, size: NDArray[np.float64], reading: _Reading
) -> list[tuple[float, ...]]:
    """The boxes of a label file; what is wrong with a line is counted, and the line left out."""
    if status.st_size > _MOST_BYTES:
        reading.wrong("unreadable label", split.name, f"{shown}: {status.st_size:,} bytes")
        return []
    try:
        text = Path(label).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        reading.wrong("unreadable label", split.name, f"{shown}: {' '.join(str(e).split())[:100]}")
        return []
    rows: list[tuple[float, ...]] = []
    known: set[tuple[float, ...]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        split.lines += 1
        try:
            row = _row(words, len(reading.names))
            split.polygons += len(words) > 5
            if row in known:
                raise _WrongError("duplicate", "the same line twice")
            known.add(row)
            rows.append(row)
            _inside(row, size)
        except _WrongError as e:
            reading.wrong(e.kind, split.name, f"{shown}:{number}: {e}")
    return rows


class _WrongError(Exception):
    """What is wrong with a line."""

    def __init__(self, kind: str, says: str) -> None:
        super().__init__(says)
        self.kind = kind


def _row(words: Sequence[str], classes: int) -> tuple[float, ...]:
    """Class, centre and size of one line."""
    n = len(words)
    if n != 5 and (n < 7 or n % 2 == 0):
        raise _WrongError("columns", f"{n} columns")
    try:
        values = [float(w) for w in words]
    except ValueError:
        bad = next(w for w in words if not _is_number(w))
        raise _WrongError("not a number", f"{bad[:20]!r}") from None
    if not all(np.isfinite(v) for v in values):
        raise _WrongError("not finite", " ".join(words[:5])[:60])
    if values[0] != int(values[0]) or not 0 <= values[0] < classes:
        raise _WrongError("class id", f"class {words[0][:20]}, there are 0..{classes - 1}")
    far = [w for w, v in zip(words[1:], values[1:], strict=True) if not 0 <= v <= 1]
    if far:
        negative = n == 5 and min(values[3:]) < 0
        kind = "zero area" if negative else "value outside 0..1"
        raise _WrongError(kind, " ".join(w[:12] for w in words[:7]))
    if n > 5:
        x, y = values[1::2], values[2::2]
        box = ((min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y))
    else:
        box = (values[1], values[2], values[3], values[4])
    if box[2] <= 0 or box[3] <= 0:
        raise _WrongError("zero area", f"{box[2]:g} × {box[3]:g}")
    return (values[0], *box)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _inside(row: tuple[float, ...], size: NDArray[np.float64]) -> None:
    """That no edge is more than a pixel outside the image."""
    _, cx, cy, w, h = row
    slack = 1 / size if np.isfinite(size).all() else np.array([0.005, 0.005])
    over = max(
        w / 2 - cx - slack[0], cx + w / 2 - 1 - slack[0], h / 2 - cy - slack[1], cy + h / 2 - 1 - slack[1]
    )
    if over > 0:
        edges = ", ".join(f"{v:.3f}" for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
        raise _WrongError("outside the image", f"edges at {edges}")


# -- checking -------------------------------------------------------------------------------------


def check(labels: YoloLabels, *, budget: float = 60.0, seed: int = 0, verbose: int = 0) -> Diagnosis:
    """Run the checks that look at a detector's labels."""
    from . import running, table
    from .case import Budget, Case

    case = Case(budget=Budget(budget), yolo=labels, seed=seed)
    rows = [r for r in table.rows() if "yolo labels" in r.needs]
    return running.examine(case, rows, verbose=verbose, with_waterfall=False)
