"""Small pieces of HTML for notebooks; every text is escaped, because class names and paths are anybody's
words."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["fields", "image", "png", "table"]

_CELL = "padding:2px 10px 2px 0;text-align:left;border:none"
_NUMBER = "padding:2px 10px 2px 0;text-align:right;border:none;font-variant-numeric:tabular-nums"


def _cell(value: Any, tag: str) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = f"{value:,}" if isinstance(value, int) and number else f"{value:.4g}" if number else str(value)
    return f'<{tag} style="{_NUMBER if number else _CELL}">{escape(text)}</{tag}>'


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> str:
    """Return a table; numbers stand to the right.

    Examples
    --------
    >>> "&lt;b&gt;" in table(("class", "n"), [("<b>", 3)])
    True
    """
    head = "".join(_cell(h, "th") for h in heads)
    body = "".join(f"<tr>{''.join(_cell(value, 'td') for value in row)}</tr>" for row in rows)
    caption = f"<b>{escape(title)}</b>" if title else ""
    return f'{caption}<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def fields(values: Iterable[tuple[str, Any]], *, title: str | None = None) -> str:
    """Return names and values, one pair a line."""
    body = "".join(f"<tr>{_cell(name, 'th')}{_cell(value, 'td')}</tr>" for name, value in values)
    caption = f"<b>{escape(title)}</b>" if title else ""
    return f'{caption}<table style="border-collapse:collapse">{body}</table>'


def png(data: bytes, *, alt: str = "") -> str:
    """Return an image with its bytes inside the page."""
    text = base64.b64encode(data).decode("ascii")
    return f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/png;base64,{text}">'


def image(path: str | os.PathLike[str]) -> str:
    """Return a PNG file as an image inside the page; nothing where there is no such file."""
    file = Path(path)
    return png(file.read_bytes(), alt=file.name) if file.is_file() else ""
