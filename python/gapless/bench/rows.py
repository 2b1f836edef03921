"""How measurements are shown to people: a table that grows by a row as soon as a case is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Column", "cells", "columns", "head", "line", "number", "size", "table"]


class Column(NamedTuple):
    """Heading and width; numbers stand to the right."""

    name: str
    width: int
    right: bool = True


def number(value: float, digits: int = 3) -> str:
    """Digits that mean something, without an exponent.

    >>> number(12345.6), number(0.04567), number(61.04)
    ('12346', '0.0457', '61.0')
    """
    if value == 0 or not abs(value) < 1e15:
        return f"{value:g}"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if whole:
        return f"{value:.{max(0, digits - whole)}f}"
    text = f"{value:.{digits}g}"
    return f"{value:.9f}".rstrip("0") if "e" in text else text


def size(count: float) -> str:
    """Bytes for people.

    >>> size(1.6e9), size(83_000_000)
    ('1.60 GB', '83.0 MB')
    """
    return f"{number(count / 1e9)} GB" if count >= 1e9 else f"{number(count / 1e6)} MB"


def line(columns: Sequence[Column], words: Sequence[str]) -> str:
    """One row; a word too long for its column pushes the rest."""
    parts = [
        word.rjust(c.width) if c.right else word.ljust(c.width)
        for c, word in zip(columns, words, strict=True)
    ]
    return "  ".join(parts).rstrip()


def head(columns: Sequence[Column]) -> str:
    """The headings and a rule below."""
    names = line(columns, [c.name for c in columns])
    return f"{names}\n{line(columns, ['-' * c.width for c in columns])}"


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """A whole table, its columns as wide as what is in them."""
    fitted = [
        c._replace(width=max([len(c.name), *(len(row[k]) for row in rows)])) for k, c in enumerate(columns)
    ]
    return "\n".join([head(fitted), *(line(fitted, row) for row in rows)])


# ---- one case of train or eval ----

_OURS = (
    Column("case", 24, right=False),
    Column("batch", 5),
    Column("images/s", 8),
    Column("best", 8),
    Column("memory", 8),
    Column("first", 7),
)
_PEER = (
    Column("peer/s", 8),
    Column("best", 8),
    Column("memory", 8),
    Column("first", 7),
    Column("ratio (low–high)", 18),
    Column("peer's configuration", 20, right=False),
)
_SCALING = (Column("against 1 thread", 18),)


def columns(peer: bool, scaling: bool) -> list[Column]:
    """The table's columns, by what is measured."""
    return [*_OURS, *(_PEER if peer else ()), *(_SCALING if scaling else ())]


def _side(result: dict[str, Any]) -> list[str]:
    return [
        number(result["images_per_second"]),
        number(result["best"]),
        size(result["peak_memory_bytes"]),
        f"{number(result['first_step_seconds'], 2)} s",
    ]


def _range(result: dict[str, Any], key: str) -> str:
    return f"{result[key]:.2f} ({result[f'{key}_low']:.2f}–{result[f'{key}_high']:.2f})"


def cells(result: dict[str, Any], peer: bool, scaling: bool) -> list[str]:
    """A case's row."""
    row = [result["case"], str(result["batch"]), *_side(result)]
    if peer and "ratio" in result:
        theirs = result["peer"]
        row += [*_side(theirs), _range(result, "ratio"), theirs["configuration"]]
    elif peer:
        row += ["-"] * 5 + [result.get("error", "")]
    if scaling:
        row += [_range(result, "scaling")]
    return row
