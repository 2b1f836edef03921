"""Tables of outputs as they stand in files, before anything is known of classes: `Columns`."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..data.sources import shorten
from ..data.sources.list_file import is_index, read_text
from ..errors import DataError

__all__ = ["MAX_BYTES", "MAX_ROWS", "Columns", "all_indices", "is_number", "of_arrays", "of_file"]

MAX_BYTES = 1 << 30
MAX_ROWS = 5_000_000
_MAX_COLUMNS = 100_010

_IDS: tuple[str, ...] = ("id", "path", "image", "file", "filename", "file_name", "filepath", "file_path")
_IDS += ("image_path", "image_id", "img", "sample", "ids", "paths", "name", "filenames", "file_names")
_IDS += ("filepaths", "file_paths", "image_paths", "image_ids", "files")
_TARGETS: tuple[str, ...] = ("target", "label", "true", "y", "truth", "y_true", "true_label", "ground_truth")
_TARGETS += ("gt", "class", "targets", "labels")
_SAID: tuple[str, ...] = ("prediction", "pred", "predicted", "y_pred", "predicted_class", "predicted_label")
_SAID += ("predictions", "preds")
_WHOLE = {"logits": "logits", "probabilities": "probabilities", "probs": "probabilities"}
_WHOLE |= {"proba": "probabilities", "scores": "scores", "outputs": "scores", "softmax": "probabilities"}
_WHOLE |= dict.fromkeys(_SAID, "scores")  # what ``model.predict`` gives is often kept by such a name
# Files that are no text, by how they begin, whatever their extension says.
_NO_TEXT = {b"\x1f\x8b": "compressed (gzip)", b"PK": "an Excel or zip file", b"PAR1": "a Parquet file"}
_NO_TEXT |= {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
# Columns that say something of one sample, not of one class; gapless's own tables have them.
_OTHER = {"probability", "probability_of_label", "loss", "right", "correct", "confidence", "rank", "split"}
_CALLED = (
    (re.compile(r"(?:logits?)[_\-. ]?(.+)", re.I), "logits"),
    (re.compile(r"(?:prob|probs|proba|probability|softmax|p)[_\-. ](.+)", re.I), "probabilities"),
    (re.compile(r"(?:prob|proba|p)(\d+)", re.I), "probabilities"),
    (re.compile(r"(?:scores?|outputs?|out|class)[_\-. ]?(\d+)", re.I), "scores"),
)


@dataclass
class Columns:
    """One table, by meaning; classes are still the texts that stood there.

    Attributes
    ----------
    file : str
        What to call it in messages.
    ids, target : list of str
    prediction : list of str or None
    scores : (n, classes) float64 or None
    score_names : list of str or None
        What the columns' names say of the classes: names, or "0", "1", ….
    called : {"logits", "probabilities", "scores"}
    lines : list of int
        Line of each row; empty for arrays.
    read_as : str
        Which columns were taken for what.
    unused : list of str
    """

    file: str
    ids: list[str]
    target: list[str]
    prediction: list[str] | None
    scores: NDArray[np.float64] | None
    score_names: list[str] | None
    called: str
    lines: list[int] = field(default_factory=list)
    read_as: str = ""
    unused: list[str] = field(default_factory=list)

    def where(self, row: int) -> str:
        """``file, line 7``, or ``file, row 6`` of arrays."""
        return f"{self.file}, " + (f"line {self.lines[row]}" if self.lines else f"row {row}")


@dataclass
class _Roles:
    """Which column is what."""

    ident: str | None = None
    target: str = ""
    said: str | None = None
    scores: list[str] = field(default_factory=list)  # in the order of classes
    names: list[str] | None = None
    called: str = "scores"

    def text(self) -> str:
        parts = [f"ids from {self.ident!r}" if self.ident else "ids are the positions"]
        parts.append(f"targets from {self.target!r}")
        if self.scores:
            ends = self.scores[0] if len(self.scores) == 1 else f"{self.scores[0]!r} … {self.scores[-1]!r}"
            parts.append(f"scores from {ends}")
        if self.said:
            parts.append(f"predictions from {self.said!r}")
        return ", ".join(parts)


def all_indices(texts: Iterable[str]) -> bool:
    """Whether all of them are indices from 0 up."""
    return all(is_index(t) and not t.startswith("-") for t in texts)


# -- files ----------------------------------------------------------------------------------------


def of_file(path: str, classes: Sequence[str] | None) -> Columns:
    """The table in a file: npz by its extension, else text."""
    try:
        size = os.path.getsize(path)
    except OSError as e:
        raise DataError(f"outputs: {path} cannot be read: {e.strerror or e}") from e
    if not os.path.isfile(path):
        raise DataError(f"outputs: {path} is no file")
    if size > MAX_BYTES:
        raise DataError(f"outputs: {path} has {size:,} bytes; the limit is {MAX_BYTES:,}; npz takes less")
    if os.path.splitext(path)[1].lower() == ".npz":
        return of_arrays(_npz(path), path, classes)
    header, rows, lines = _rows(path)
    return _of_rows(path, header, rows, lines, classes)


def _rows(path: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, cells and line numbers; the header is made up where text has none."""
    text = _text(path)
    separate = os.path.splitext(path)[1].lower() in (".csv", ".tsv") or _has_commas(text)
    cells, lines = _csv_cells(path, text) if separate else _text_cells(text)
    if not cells:
        raise DataError(f"outputs: {path} has no row")
    header, start = [c.strip().lstrip("#").strip() for c in cells[0]], 1
    header = [h for h in header if h] if not separate else header
    if header and header[0].lower() in ("", "unnamed: 0") and _first(header, _IDS) is None:
        header[0] = "id"  # the index of a data frame
    if not separate and not {h.lower() for h in header} & {*_TARGETS}:
        header, start = _made_up(path, len(cells[0]), lines[0]), 0
    rows, lines = cells[start:], lines[start:]
    if not rows:
        raise DataError(f"outputs: {path} has a header and no row")
    if len(rows) > MAX_ROWS or len(header) > _MAX_COLUMNS:
        raise DataError(f"outputs: {path} has {len(rows):,} rows and {len(header):,} columns: too many")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(f"outputs: {path}, line {line}: {len(row)} cells, expected {len(header)}")
    return header, rows, lines


def _text(path: str) -> str:
    with open(path, "rb") as f:
        begin = f.read(4)
    for magic, what in _NO_TEXT.items():
        if begin.startswith(magic):
            raise DataError(f"outputs: {path} is {what}; expected CSV or text in UTF-8, or an npz file")
    text = read_text(path, "utf-8", "outputs", remedy="save it as UTF-8")
    if not text.strip():
        raise DataError(f"outputs: {path} is empty")
    return text


def _has_commas(text: str) -> bool:
    """Whether commas or semicolons part the first line, not the blanks beside them."""
    head = text.lstrip().split("\n", 1)[0]
    between = max(1, len(head.split()) - 1)
    return "\t" not in head and max(map(head.count, ",;")) >= between


def _made_up(path: str, width: int, line: int) -> list[str]:
    """Names for columns without a header: id, target, then the prediction or one score per class."""
    if width < 3:
        raise DataError(
            f"outputs: {path}, line {line}: expected a header with id and target, or 'id target "
            f"prediction', or 'id target score score …', got {width} cells"
        )
    return ["id", "target", *(["prediction"] if width == 3 else [f"score_{k}" for k in range(width - 2)])]


def _csv_cells(path: str, text: str) -> tuple[list[list[str]], list[int]]:
    head = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    # a blank before a quote belongs to neither cell
    lines_of = io.StringIO(text, newline="")
    reader = csv.reader(lines_of, delimiter=delimiter, strict=True, skipinitialspace=True)
    cells, lines = [], []
    try:
        for row in reader:
            if any(c.strip() for c in row):
                cells.append(row)
                lines.append(reader.line_num)
    except csv.Error as e:
        raise DataError(f"outputs: {path}, line {reader.line_num}: {e}") from e
    return cells, lines


def _text_cells(text: str) -> tuple[list[list[str]], list[int]]:
    """Words of each line; a ``#`` begins a comment, but for the first line, which may be a header."""
    cells: list[list[str]] = []
    lines: list[int] = []
    tabs = "\t" in text.split("\n", 1)[0]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or (line.lstrip().startswith("#") and cells):
            continue
        words = line.strip("\r\n").split("\t") if tabs else line.split()
        cells.append([w for w in words if w != "#"] if not cells else words)
        lines.append(number)
    return cells, lines


def _of_rows(
    path: str, header: list[str], rows: list[list[str]], lines: list[int], classes: Sequence[str] | None
) -> Columns:
    twice = sorted({h for h in header if h and header.count(h) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise DataError(f"outputs: {path}: column {twice[0]!r} stands there twice")
    at = {h: k for k, h in enumerate(header)}
    first: dict[str, Any] = dict(zip(header, rows[0], strict=True))
    targets: set[str] = set()
    target = _first(header, _TARGETS)
    if target is not None:
        targets = {_cell(row[at[target]]) for row in rows}
    roles = _roles(path, header, first, targets, classes, needs_id=True)

    def whole(name: str, what: str, cell: Callable[[str], str] = _cell) -> list[str]:
        values = [cell(row[at[name]]) for row in rows]
        for value, line in zip(values, lines, strict=True):
            if not value:
                raise DataError(f"outputs: {path}, line {line}: no {what}")
        return values

    assert roles.ident is not None
    return Columns(
        path,
        whole(roles.ident, "id", str.strip),
        whole(roles.target, "target"),
        whole(roles.said, "prediction") if roles.said else None,
        _numbers(path, rows, lines, [at[s] for s in roles.scores]) if roles.scores else None,
        roles.names,
        roles.called,
        lines,
        roles.text(),
        _unused(header, roles),
    )


def _cell(text: str) -> str:
    """Without blanks; an index that a data frame wrote as ``3.0`` is ``3``."""
    text = text.strip()
    return text[:-2] if text.endswith(".0") and is_index(text[:-2]) else text


def _numbers(path: str, rows: list[list[str]], lines: list[int], places: list[int]) -> NDArray[np.float64]:
    out = np.empty((len(rows), len(places)), np.float64)
    for i, row in enumerate(rows):
        try:
            out[i] = [_number(row[k]) for k in places]
        except ValueError:
            bad = next(row[k] for k in places if not is_number(row[k]))
            raise DataError(f"outputs: {path}, line {lines[i]}: {bad[:40]!r} is no number") from None
    return out


def _number(text: str) -> float:
    """A number; one decimal comma counts as a point."""
    try:
        return float(text)
    except ValueError:
        if text.count(",") != 1 or "." in text:
            raise
        return float(text.replace(",", "."))


# -- arrays ---------------------------------------------------------------------------------------


def _npz(path: str) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file; nothing in it is unpickled, and no array is larger than its bytes."""
    out: dict[str, NDArray[Any]] = {}
    left = 4 * MAX_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > 1000:
                raise DataError(f"outputs: {path} holds {len(archive.infolist())} arrays")
            for info in archive.infolist():
                if info.file_size > left:
                    raise DataError(f"outputs: {path} unpacks to more than {4 * MAX_BYTES:,} bytes")
                with archive.open(info) as f:
                    data = f.read(info.file_size + 1)
                left -= len(data)
                out[info.filename.removesuffix(".npy")] = _npy(data)
    except DataError:
        raise
    except Exception as e:  # zipfile, zlib and NumPy's header raise whatever a bad byte gave
        raise DataError(f"outputs: {path} is no sound npz file ({type(e).__name__}: {e})") from e
    return out


def _npy(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read; save ids as an array of text")
    if dtype.kind not in "fiubUS" or not dtype.itemsize:
        raise ValueError(f"an array of {dtype}; expected numbers or text")
    count = math.prod(shape)
    if count < 0 or count * dtype.itemsize != len(data) - file.tell():
        raise ValueError("an array's shape and its bytes do not agree")
    a = np.frombuffer(data, dtype, count, file.tell()) if count else np.empty(0, dtype)
    if count and dtype.kind == "U" and a.view(np.dtype("u4").newbyteorder(dtype.byteorder)).max() > 0x10FFFF:
        raise ValueError("text with numbers that are no characters")
    return a.reshape(shape, order="F" if fortran else "C")


def of_arrays(arrays: Mapping[str, Any], file: str, classes: Sequence[str] | None) -> Columns:
    """The table that arrays by name are."""
    held = {str(k): _flat(str(k), _array(k, v, file), file) for k, v in arrays.items() if v is not None}
    plain = {k: v for k, v in held.items() if v.ndim == 1}
    whole = _whole(held, file)
    target = _first(list(plain), _TARGETS)
    targets = set(_texts(plain[target], target, file)) if target is not None else set()
    first = {k: v[0] for k, v in plain.items() if len(v)}
    roles = _roles(file, list(plain), first, targets, classes, needs_id=False, have_scores=whole is not None)
    n = len(plain[roles.target])
    if n == 0:
        raise DataError(f"outputs: {file} has no sample")
    if n > MAX_ROWS:
        raise DataError(f"outputs: {file} has {n:,} samples: too many")
    scores = None
    if whole is not None:
        name, roles.called, scores = whole
        roles.scores, roles.names = [name], None
    elif roles.scores:
        same = {len(plain[s]) for s in roles.scores}
        if len(same) > 1:
            raise DataError(f"outputs: {file}: scores of {shorten(sorted(same))} samples")
        scores = np.stack([_floats(plain[s], s, file) for s in roles.scores], axis=1)
    for one in (roles.ident, roles.said):
        if one is not None and len(plain[one]) != n:
            raise DataError(f"outputs: {file}: {n} targets and {len(plain[one])} of {one!r}")
    if scores is not None and len(scores) != n:
        raise DataError(f"outputs: {file}: {n} targets and scores of {len(scores)} samples")
    ids = _texts(plain[roles.ident], roles.ident, file) if roles.ident else [str(i) for i in range(n)]
    return Columns(
        file,
        ids,
        _texts(plain[roles.target], roles.target, file),
        _texts(plain[roles.said], roles.said, file) if roles.said else None,
        scores,
        roles.names,
        roles.called,
        [],
        roles.text(),
        _unused(list(held), roles),
    )


def _array(name: object, value: Any, file: str) -> NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except ValueError as e:
        raise DataError(f"outputs: {file}: {name!r} has rows of unequal length") from e


def _flat(name: str, a: NDArray[Any], file: str) -> NDArray[Any]:
    """Targets and predictions as (n,); what is one column of a matrix is that."""
    if name.lower() not in (*_TARGETS, *_SAID) or a.ndim == 1:
        return a
    if a.ndim == 2 and a.shape[1] == 1:
        return a[:, 0]
    if name.lower() in _TARGETS:
        raise DataError(
            f"outputs: {file}: {name!r} has shape {a.shape}, expected (n,): class indices or names"
        )
    return a


def _whole(held: Mapping[str, NDArray[Any]], file: str) -> tuple[str, str, NDArray[np.float64]] | None:
    """The one array that is (n, classes), what it is called, and its numbers."""
    found = [(k, _WHOLE[k.lower()]) for k, v in held.items() if k.lower() in _WHOLE and v.ndim == 2]
    if not found:
        return None
    found.sort(key=lambda pair: ("logits", "probabilities", "scores").index(pair[1]))
    name, called = found[0]
    if held[name].shape[1] < 2:
        raise DataError(f"outputs: {file}: {name!r} has shape {held[name].shape}, expected (n, classes)")
    return name, called, _floats(held[name], name, file)


def _floats(a: NDArray[Any], name: str, file: str) -> NDArray[np.float64]:
    if a.dtype.kind not in "fiub":
        raise DataError(f"outputs: {file}: {name!r} must hold numbers, got {a.dtype}")
    return np.ascontiguousarray(a, np.float64)


def _texts(a: NDArray[Any], name: str, file: str) -> list[str]:
    if a.dtype.kind == "f":
        if not np.isfinite(a).all() or (a != np.floor(a)).any() or np.abs(a).max(initial=0) > 1e9:
            raise DataError(f"outputs: {file}: {name!r} must hold whole numbers or names")
        a = a.astype(np.int64)
    if a.dtype.kind == "S":
        return [v.decode("utf-8", "backslashreplace") for v in a.tolist()]
    if a.dtype.kind not in "iubUO":
        raise DataError(f"outputs: {file}: {name!r} must hold whole numbers or names, got {a.dtype}")
    return [str(v) for v in a.tolist()]


# -- which column is what -------------------------------------------------------------------------


def _first(header: Sequence[str], names: Sequence[str]) -> str | None:
    low = {h.lower(): h for h in reversed(header)}
    return next((low[n] for n in names if n in low), None)


def _roles(
    file: str,
    header: Sequence[str],
    first: Mapping[str, Any],
    targets: set[str],
    classes: Sequence[str] | None,
    *,
    needs_id: bool,
    have_scores: bool = False,
) -> _Roles:
    ident, target, said = _first(header, _IDS), _first(header, _TARGETS), _first(header, _SAID)
    if target is None:
        raise DataError(
            f"outputs: {file}: no column of targets among {shorten(header, 12)}; "
            f"expected one of {', '.join(_TARGETS[:8])}"
        )
    if ident is None and needs_id:
        raise DataError(
            f"outputs: {file}: no column of ids among {shorten(header, 12)}; "
            f"expected one of {', '.join(_IDS[:6])}"
        )
    rest = [h for h in header if h not in (ident, target, said) and h.lower() not in _OTHER]
    roles = _Roles(ident, target, said)
    if not have_scores:
        roles.scores, roles.names, roles.called = _score_columns(file, rest, first, targets, classes)
    if not roles.scores and said is None and not have_scores:
        one = [h for h in rest if h.lower() in _WHOLE or any(p.fullmatch(h) for p, _ in _CALLED)]
        few = f" ({one[0]!r} alone does not say the other classes' scores)" if one else ""
        raise DataError(
            f"outputs: {file}: no logits, probabilities or predictions among {shorten(header, 12)}{few}; "
            "expected logit_0 …, prob_0 …, p_<class> …, a column per class, or prediction"
        )
    return roles


def _score_columns(
    file: str,
    rest: Sequence[str],
    first: Mapping[str, Any],
    targets: set[str],
    classes: Sequence[str] | None,
) -> tuple[list[str], list[str] | None, str]:
    """The columns with a score per class, the classes that their names say, and what they are called."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for h in rest:
        for pattern, called in _CALLED:
            m = pattern.fullmatch(h)
            if m and is_number(first.get(h)):
                groups.setdefault(called, []).append((h, m.group(1).strip()))
                break
    for called in ("logits", "probabilities", "scores"):
        found = groups.get(called, [])
        if len(found) >= 2:
            if all_indices(name for _, name in found):
                found.sort(key=lambda pair: int(pair[1]))
                numbers = [int(name) for _, name in found]
                if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
                    raise DataError(
                        f"outputs: {file}: {called} of classes {shorten(numbers, 12)}: some are missing"
                    )
            return [h for h, _ in found], [name for _, name in found], called
    own = [h for h in rest if h in set(classes or ()) or (classes is None and h in targets)]
    if classes is None and len(own) >= 2 and targets <= set(own):  # between them, classes that no target has
        between = rest[rest.index(own[0]) : rest.index(own[-1]) + 1]
        own = [h for h in between if is_number(first.get(h))]
    if len(own) >= 2 and (classes is None or len(own) == len(classes)):
        own = sorted(own, key=int) if all_indices(own) else own
        return own, list(own), "scores"
    return [], None, "scores"


def is_number(value: Any) -> bool:
    """Whether it is a number, or a text that reads as one."""
    try:
        _number(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return False
    return True


def _unused(header: Sequence[str], roles: _Roles) -> list[str]:
    used = {roles.ident, roles.target, roles.said, *roles.scores}
    return [h for h in header if h and h not in used]
