"""List files: ``path label`` lines (as PaddleClas writes them), or CSV with a header."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gapless.data.decode import printable
from gapless.data.sources import FileReader, Listing, labels_from, shorten
from gapless.data.split import canonical_split
from gapless.errors import DataError

if TYPE_CHECKING:
    from gapless.data.dataset import Data

__all__ = ["list_file", "listing", "looks_like_list"]

_PATH_COLUMNS = (
    "path",
    "filepath",
    "file_path",
    "image_path",
    "filename",
    "file_name",
    "file",
    "image",
    "img",
)
_LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "label_name")
_CSV = (".csv", ".tsv")
_MAX_LINE = 1 << 16


def list_file(
    path: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    *,
    root: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    encoding: str = "utf-8",
    path_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
    on_unreadable: str | float = "leave_out",
    max_pixels: int | None = None,
    progress: bool | None = None,
    threads: int | None = None,
) -> Data:
    """Pictures named in a text file, with their labels.

    A ``.csv`` or ``.tsv`` file has a header; any other has lines ``path label``, where the label is what
    follows the last blank, so that paths may hold blanks. Labels are names or class indices; a column
    ``split`` of a CSV file, or one file per split, says the splits. The order of lines does not matter:
    samples are sorted by path.

    Parameters
    ----------
    path : path, or mapping from split to path
        One list, or one per split: ``{"train": "train.txt", "val": "val.txt"}``.
    root : path, optional
        What relative paths are relative to; default: the folder of the list.
    classes : sequence of str or path, optional
        The class names in order of their indices, or a file with a name (or ``index name``, as PaddleClas has
        it) per line.
    encoding : str
        Of the list; a byte order mark is understood.
    path_column, label_column : str, optional
        Columns of a CSV file; default: the usual names (path, file, image, …; label, class, …).
    delimiter : str, optional
        Default: comma in ``.csv``, tab in ``.tsv``, the last blank or tab otherwise.
    group_by : callable or str, optional
        As in `folder`; also the name of a CSV column.
    split, val, seed, channels, on_unreadable, max_pixels, progress, threads
        As in `folder`.

    Returns
    -------
    Data

    Examples
    --------
    >>> import pathlib, tempfile, PIL.Image
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(4):
    ...     PIL.Image.new("L", (8, 8), 60 * i).save(root / f"{i}.png")
    >>> _ = (root / "all.txt").write_text("0.png cat\\n1.png dog\\n2.png cat\\n3.png dog\\n")
    >>> data = list_file(root / "all.txt", split=(0.5, 0.5))
    >>> data.classes, data.channels, data.labels.tolist()
    (('cat', 'dog'), 1, [0, 1, 0, 1])
    """
    from gapless.data.assemble import assemble

    return assemble(
        listing(
            path,
            root=root,
            classes=classes,
            encoding=encoding,
            path_column=path_column,
            label_column=label_column,
            delimiter=delimiter,
        ),
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


def listing(
    path: Any,
    *,
    root: str | os.PathLike[str] | None = None,
    classes: Any = None,
    encoding: str = "utf-8",
    path_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
) -> Listing:
    files = _files(path)
    rows: list[dict[str, str]] = []  # _path _label _where, and the columns of a CSV file
    for part, file in files:
        got = _rows(file, encoding, path_column, label_column, delimiter)
        for row in got:
            if part is not None:
                row["_split"] = part
        rows += got
    if not rows:
        raise DataError(f"list: no samples in {', '.join(f for _, f in files)}; expected lines 'path label'")
    base = os.path.abspath(os.fspath(root)) if root is not None else None
    for row in rows:
        row["_file"] = os.path.join(base or os.path.dirname(row["_list"]), row["_path"])
        row["_id"] = printable(os.path.normpath(row["_path"]).replace(os.sep, "/"))
    rows, notes = _once(rows)
    names = _class_names(classes, encoding)
    texts = [r["_label"] for r in rows]
    integers = all(is_index(t) for t in texts)
    values: Any = texts
    if integers and (names is None or not set(texts) <= set(names)):
        values = [int(t) for t in texts]
    labels, found = labels_from(values, names, lambda i: rows[i]["_where"])
    paths = [r["_file"] for r in rows]
    columns = sorted({k for r in rows for k in r if not k.startswith("_")})
    spec: dict[str, Any] = {"list": files[0][1] if files[0][0] is None else {str(p): f for p, f in files}}
    for key, value in (
        ("path_column", path_column),
        ("label_column", label_column),
        ("delimiter", delimiter),
    ):
        if value is not None:
            spec[key] = value
    if base is not None:
        spec["root"] = base
    if encoding != "utf-8":
        spec["encoding"] = encoding
    if names is not None:
        spec["classes"] = list(found)
    return Listing(
        kind="list",
        spec=spec,
        ids=[r["_id"] for r in rows],
        classes=found,
        labels=labels,
        reader=FileReader(paths),
        paths=paths,
        root="list:" + ":".join(sorted(f for _, f in files)) + ":" + (base or ""),
        given=_given(rows),
        notes=notes,
        columns={c: [r.get(c, "") for r in rows] for c in columns},
    )


def looks_like_list(path: str) -> bool:
    """Whether a file's name is one that a list would have."""
    return os.path.splitext(path)[1].lower() in (*_CSV, ".txt", ".lst", ".list")


def _files(path: Any) -> list[tuple[str | None, str]]:
    if not isinstance(path, Mapping):
        return [(None, os.path.abspath(os.fspath(path)))]
    files: list[tuple[str | None, str]] = []
    for name, file in path.items():
        part = canonical_split(str(name))
        if part is None:
            raise DataError(f"list: {name!r} is not a split; known are train, val, test, dev")
        files.append((part, os.path.abspath(os.fspath(file))))
    if not files:
        raise DataError("list: expected a list file, got an empty mapping")
    return files


_REMEDY = "give its encoding, such as encoding='gb18030' or 'latin-1'"


def read_text(file: str, encoding: str, what: str, remedy: str = _REMEDY) -> str:
    """The text of a file, or an error that says where it is not in that encoding, and what to do."""
    try:
        with open(file, "rb") as f:
            raw = f.read()
    except OSError as e:
        raise DataError(f"{what}: {file} cannot be read: {e.strerror}") from e
    try:
        text = raw.decode(
            "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        )
    except LookupError as e:
        raise DataError(f"{what}: encoding={encoding!r} is not an encoding that Python knows") from e
    except UnicodeError as e:
        at = getattr(e, "start", 0)
        line = raw.count(b"\n", 0, at) + 1
        raise DataError(f"{what}: {file}, line {line}: not valid {encoding} (byte {at}); {remedy}") from e
    if "\0" in text:
        raise DataError(f"{what}: {file} holds NUL characters; it is no text in {encoding}")
    return text


def _rows(
    file: str, encoding: str, path_column: str | None, label_column: str | None, delimiter: str | None
) -> list[dict[str, str]]:
    text = read_text(file, encoding, "list")
    extension = os.path.splitext(file)[1].lower()
    if extension in _CSV or path_column is not None or label_column is not None:
        delimiter = delimiter or ("\t" if extension == ".tsv" else ",")
        return _csv_rows(file, text, path_column, label_column, delimiter)
    return _plain_rows(file, text, delimiter)


def _plain_rows(file: str, text: str, delimiter: str | None) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.rsplit(delimiter, 1)
        if len(parts) != 2 or not parts[0] or len(line) > _MAX_LINE:
            raise DataError(f"list: {file}, line {number}: expected 'path label', got {line[:80]!r}")
        rows.append(_row(file, number, parts[0], parts[1]))
    return rows


def _row(file: str, number: int, path: str, label: str) -> dict[str, str]:
    where = f"{os.path.basename(file)}, line {number}"
    if not label.strip() or not path.strip():
        raise DataError(
            f"list: {file}, line {number}: expected a path and a label, got {path!r} and {label!r}"
        )
    return {"_path": path.strip(), "_label": label.strip(), "_where": where, "_list": file}


def _csv_rows(
    file: str, text: str, path_column: str | None, label_column: str | None, delimiter: str
) -> list[dict[str, str]]:
    if len(delimiter) != 1:
        raise DataError(f"list: delimiter must be one character, got {delimiter!r}")
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = [h.strip() for h in next(reader, [])]
        at_path = _column(file, header, path_column, _PATH_COLUMNS, "path")
        at_label = _column(file, header, label_column, _LABEL_COLUMNS, "label")
        for cells in reader:
            if not any(c.strip() for c in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"list: {file}, line {reader.line_num}: {len(cells)} cells, expected {len(header)} "
                    "as in the header"
                )
            row = _row(file, reader.line_num, cells[at_path], cells[at_label])
            row.update(
                {h: c.strip() for h, c in zip(header, cells, strict=True) if h and not h.startswith("_")}
            )
            rows.append(row)
    except csv.Error as e:
        raise DataError(f"list: {file}, line {reader.line_num}: {e}") from e
    return rows


def _column(file: str, header: list[str], wanted: str | None, usual: tuple[str, ...], what: str) -> int:
    if wanted is not None:
        if wanted in header:
            return header.index(wanted)
        near = difflib.get_close_matches(wanted, header, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"list: {file} has no column {wanted!r}; columns are {shorten(header, 30)}{hint}")
    low = [h.lower() for h in header]
    for name in usual:
        if name in low:
            return low.index(name)
    raise DataError(
        f"list: {file}: no {what} column among {shorten(header, 30)}; expected one of "
        f"{', '.join(usual)}, or give "
        f"{what}_column='…'"
    )


def _once(rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """Sorted by id, each once; the same path with two labels or two splits is an error."""
    by_id: dict[str, dict[str, str]] = {}
    again, conflicts = 0, []
    for row in rows:
        first = by_id.setdefault(row["_id"], row)
        if first is row:
            continue
        again += 1
        for key, what in (("_label", "labels"), ("_split", "splits"), ("split", "splits")):
            if first.get(key) != row.get(key):
                conflicts.append(
                    f"{row['_id']}: two {what}, {first.get(key)} ({first['_where']}) and "
                    f"{row.get(key)} ({row['_where']})"
                )
                break
    if conflicts:
        raise DataError(
            f"list: {len(conflicts):,} path(s) listed twice and differently: {shorten(conflicts, 5)}"
        )
    notes = [f"{again:,} lines repeat a path that is listed already; each counts once"] if again else []
    return [by_id[k] for k in sorted(by_id)], notes


def is_index(text: str) -> bool:
    """Whether a text is a class index: digits, perhaps with a minus."""
    return text.isascii() and (text.isdigit() or (text[:1] == "-" and text[1:].isdigit())) and len(text) < 10


def _class_names(classes: Any, encoding: str) -> list[str] | None:
    if classes is None:
        return None
    if not isinstance(classes, (str, os.PathLike)):
        return [str(c) for c in classes]
    lines = [x.strip() for x in read_text(os.fspath(classes), encoding, "classes").split("\n") if x.strip()]
    numbered = [x.split(None, 1) for x in lines]
    if lines and all(len(p) == 2 and p[0].isdigit() and int(p[0]) == k for k, p in enumerate(numbered)):
        return [p[1].strip() for p in numbered]
    return lines


def _given(rows: list[dict[str, str]]) -> list[str] | None:
    key = "_split" if "_split" in rows[0] else "split"
    if not any(key in r for r in rows):
        return None
    given, bad = [], []
    for row in rows:
        part = canonical_split(row.get(key, ""))
        given.append(part or "")
        if part is None:
            bad.append(f"{row.get(key, '')!r} ({row['_where']})")
    if bad:
        raise DataError(
            f"list: the column split names no split in {len(bad):,} line(s): {shorten(bad, 5)}; known "
            "are train, val, test, dev"
        )
    return given
