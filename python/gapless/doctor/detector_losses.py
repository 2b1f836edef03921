"""A detector's losses image by image, from any trainer, and what of their difference is scale.

Objectness loss is a mean over all cells of the output grid, most of which are empty; box and class losses are
means over the cells that have an object. So objectness loss goes with the share of positive cells: it changes
when mosaic puts four images' objects into one, and box loss does not.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import _peers
from ..data.decode import printable
from ..errors import DataError

__all__ = ["COLUMNS", "DetectorLosses", "Factor", "factors", "parse", "read"]

SIDES = ("train", "val")
COLUMNS = ("id", "images", "pipeline", "box", "obj", "cls", "n_pos", "n_cells")
_WORDS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 1}
_MOST_BYTES = 1 << 28
_DRAWS = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DetectorLosses:
    """Rows of the table; the same id in both pipelines is the same image.

    Attributes
    ----------
    ids : list of str
    images, pipeline : (n,) int64
        0 training, 1 validation.
    box, obj, cls : (n,) float64
        Losses as the trainer means them: box and cls over positive cells, obj over all.
    n_pos, n_cells : (n,) float64
    source : str
    """

    ids: list[str]
    images: NDArray[np.int64]
    pipeline: NDArray[np.int64]
    box: Floats
    obj: Floats
    cls: Floats
    n_pos: Floats
    n_cells: Floats
    source: str = ""

    def cell(self, images: int, pipeline: int) -> NDArray[np.bool_]:
        """Which rows are in that cell of the 2 × 2."""
        return np.asarray((self.images == images) & (self.pipeline == pipeline))

    @property
    def whole(self) -> bool:
        """Whether all four cells have rows."""
        return all(self.cell(i, p).any() for i in (0, 1) for p in (0, 1))

    def means(self, images: int, pipeline: int) -> dict[str, float] | None:
        """Losses of a cell as a trainer reports them, and objectness per positive; None without rows."""
        at = self.cell(images, pipeline)
        if not at.any():
            return None
        cells, positive = float(self.n_cells[at].sum()), float(self.n_pos[at].sum())
        total = float((self.obj * self.n_cells)[at].sum())
        over = max(positive, 1.0)
        return {
            "images": int(at.sum()),
            "obj": total / cells,
            "positive_share": positive / cells,
            "obj_per_positive": total / positive if positive else math.nan,
            "box": float((self.box * self.n_pos)[at].sum() / over),
            "cls": float((self.cls * self.n_pos)[at].sum() / over),
        }


@dataclass(frozen=True)
class Factor:
    """How many times larger validation's figure is, with its 95 % interval and its standard error in logs."""

    times: float
    low: float
    high: float
    error: float

    def __str__(self) -> str:
        return f"×{self.times:.2f} [{self.low:.2f}, {self.high:.2f}]"


# -- reading --------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str] | DetectorLosses) -> DetectorLosses:
    """The table of a CSV file with a header.

    Raises
    ------
    DataError
        Not such a table; the message names the line.
    """
    if isinstance(path, DetectorLosses):
        return path
    file = Path(path)
    what = printable(str(file))
    if file.is_dir():
        raise DataError(f"detector losses: {what} is a folder; give the CSV file")
    if not file.is_file():
        raise DataError(f"detector losses: {what}: there is no such file")
    if file.stat().st_size > _MOST_BYTES:
        raise DataError(f"detector losses: {what}: {file.stat().st_size:,} bytes are too many")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"detector losses: {what}: not UTF-8 text, byte {e.start}") from None
    return parse(text, what)


def parse(text: str, what: str = "table") -> DetectorLosses:
    """The table that `text` is.

    Examples
    --------
    >>> t = parse("id,images,pipeline,box,obj,cls,n_pos,n_cells\\na,train,val,0.1,0.02,0.3,4,25200\\n")
    >>> t.means(0, 1)["obj_per_positive"]
    126.0
    """
    if "\0" in text:
        raise DataError(f"detector losses: {what}: not a text table: it has zero bytes")
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        head = [h.strip().lower() for h in next(rows, [])]
        at = _columns(head, what)
        kept = [(rows.line_num, row) for row in rows if any(v.strip() for v in row)]
    except csv.Error as e:
        raise DataError(f"detector losses: {what}, line {rows.line_num}: {e}") from None
    if not kept:
        raise DataError(f"detector losses: {what}: no rows under the header")
    values = [_values(row, at, len(head), f"{what}, line {line}") for line, row in kept]
    table = np.array([v[1] for v in values], np.float64)
    words = np.array([v[2] for v in values], np.int64)
    return DetectorLosses(
        [v[0] for v in values],
        words[:, 0],
        words[:, 1],
        table[:, 0].copy(),
        table[:, 1].copy(),
        table[:, 2].copy(),
        table[:, 3].copy(),
        table[:, 4].copy(),
        what,
    )


def _columns(head: Sequence[str], what: str) -> dict[str, int]:
    missing = [c for c in COLUMNS if c not in head and c not in ("box", "cls")]
    if missing:
        near = _peers.nearest(missing[0], [h for h in head if h and h not in COLUMNS])
        hint = f"is it {printable(near)!r}?" if near else f"expected {','.join(COLUMNS)}, with commas between"
        raise DataError(f"detector losses: {what}: no column {missing[0]!r}; {hint}")
    twice = [c for c in COLUMNS if head.count(c) > 1]
    if twice:
        raise DataError(f"detector losses: {what}: column {twice[0]!r} is there twice")
    return {c: head.index(c) for c in COLUMNS if c in head}


def _values(
    row: Sequence[str], at: Mapping[str, int], columns: int, where: str
) -> tuple[str, list[float], list[int]]:
    if len(row) != columns:
        raise DataError(f"detector losses: {where}: {len(row)} columns, the header has {columns}")
    numbers = []
    for name in ("box", "obj", "cls", "n_pos", "n_cells"):
        text = row[at[name]].strip() if name in at else "0"
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"detector losses: {where}: {name} is no number: {text[:20]!r}") from None
        if not 0 <= value < 1e15:
            raise DataError(f"detector losses: {where}: {name} must be finite and >= 0, got {text[:20]}")
        numbers.append(value)
    if numbers[4] < 1:
        raise DataError(f"detector losses: {where}: n_cells must be >= 1, got {numbers[4]:g}")
    if numbers[3] > numbers[4]:
        raise DataError(f"detector losses: {where}: n_pos {numbers[3]:g} is more than n_cells {numbers[4]:g}")
    sides = []
    for name in ("images", "pipeline"):
        word = row[at[name]].strip().lower()
        if word not in _WORDS:
            raise DataError(f"detector losses: {where}: {name} must be train or val, got {word[:20]!r}")
        sides.append(_WORDS[word])
    return printable(row[at["id"]]), numbers, sides


# -- the 2 × 2 ------------------------------------------------------------------------------------


def factors(t: DetectorLosses, seed: int = 0) -> dict[str, dict[str, Factor]]:
    """Validation's figure against training's, as factors whose product is the whole.

    Rows of the answer: ``obj`` (the loss), ``positive_share`` and ``obj_per_positive`` (whose product it is),
    ``box``. Columns: ``whole``, and where the 2 × 2 is complete ``pipeline`` (the same images, the other
    pipeline) and ``images`` (the same pipeline, the other images), each a mean of its two ways. Intervals by
    bootstrap over images: an image keeps its rows in both pipelines.
    """
    sides = [_by_image(t, side) for side in (0, 1)]
    point = _logs(np.concatenate([s.sum(axis=0) for s in sides])[None], t.whole)
    rng = np.random.default_rng([seed, 0xDE7])
    sums = np.concatenate([_redrawn(s, rng) for s in sides], axis=1)
    drawn = _logs(sums, t.whole)
    out: dict[str, dict[str, Factor]] = {}
    for (row, column), (value,) in point.items():
        every = drawn[row, column][np.isfinite(drawn[row, column])]
        if not math.isfinite(value) or len(every) < _DRAWS // 2:
            continue
        error = float(every.std(ddof=1))
        low, high = np.quantile(every, (0.025, 0.975))
        out.setdefault(row, {})[column] = Factor(
            math.exp(value), math.exp(min(low, value)), math.exp(max(high, value)), error
        )
    return out


def _by_image(t: DetectorLosses, side: int) -> Floats:
    """(images, 2, 4): for each image of a side, by pipeline, sums of objectness, cells, positives, box."""
    which = np.flatnonzero(t.images == side)
    names: dict[str, int] = {}
    code = np.array([names.setdefault(t.ids[i], len(names)) for i in which], np.int64)
    out = np.zeros((max(len(names), 1), 2, 4))
    columns = np.stack([t.obj * t.n_cells, t.n_cells, t.n_pos, t.box * t.n_pos], axis=1)
    np.add.at(out, (code, t.pipeline[which]), columns[which])
    return out


def _redrawn(images: Floats, rng: np.random.Generator) -> Floats:
    """(draws, 2, 4): the sums over images drawn with replacement."""
    n, flat = len(images), images.reshape(len(images), 8)
    parts = [
        rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS // 20).astype(np.float64) @ flat for _ in range(20)
    ]
    return np.concatenate(parts).reshape(-1, 2, 4)


def _logs(sums: Floats, whole: bool) -> dict[tuple[str, str], Floats]:
    """Log factors by row and column, of (draws, 4, 4) sums by cell of the 2 × 2: images, then pipeline."""
    out: dict[tuple[str, str], Floats] = {}
    with np.errstate(divide="ignore", invalid="ignore"):  # a cell without rows, or a loss of 0: not a number
        total, cells, positive, box = np.moveaxis(np.log(sums), 2, 0)
        figures = {
            "obj": total - cells,
            "positive_share": positive - cells,
            "obj_per_positive": total - positive,
            "box": box - positive,
        }
        for name, f in figures.items():
            tt, tv, vt, vv = f.T
            out[name, "whole"] = vv - tt
            if whole:
                out[name, "pipeline"] = ((tv - tt) + (vv - vt)) / 2
                out[name, "images"] = ((vt - tt) + (vv - tv)) / 2
    return out
