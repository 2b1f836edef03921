"""Fonts for class names of any script: which installed font can draw which character, and what to do without
one."""

from __future__ import annotations

import functools
import unicodedata
import warnings
from collections.abc import Iterable

__all__ = ["MissingGlyphs", "families", "shorten", "width"]

# First the fonts that look right with the default one; then anything installed that has the character.
_PREFERRED = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti SC",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Sans Hebrew",
    "Noto Emoji",
)
_UNDRAWABLE = ("Last Resort", "STIX", "cm")  # fonts of placeholders and of formulas


class MissingGlyphs(UserWarning):
    """Characters that no installed font can draw."""


@functools.cache
def _glyphs(path: str, index: int) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path, face_index=index) if index else FT2Font(path)
    except TypeError:  # an older matplotlib opens the first face only
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap())


@functools.cache
def _installed() -> tuple[tuple[str, str, int], ...]:
    """(family, path, face) of each usable upright font: the preferred ones first, then by name."""
    from matplotlib import font_manager

    rank = {name: i for i, name in enumerate(_PREFERRED)}
    found: dict[str, tuple[str, int]] = {}
    for font in font_manager.fontManager.ttflist:
        regular = str(font.weight) in ("400", "normal", "regular", "book")
        upright = font.style == "normal" and regular
        if upright and not font.name.startswith(_UNDRAWABLE) and font.name not in found:
            found[font.name] = (font.fname, int(getattr(font, "index", 0) or 0))
    order = sorted(found, key=lambda name: (rank.get(name, len(rank)), name))
    return tuple((name, *found[name]) for name in order)


def _needed(texts: Iterable[str]) -> set[int]:
    """Characters that must be drawn: not spaces, not controls, not marks that select a variant."""
    skip = ("Zs", "Cc", "Cf", "Zl", "Zp")
    every = {c for text in texts for c in text}
    return {ord(c) for c in every if unicodedata.category(c) not in skip and not 0xFE00 <= ord(c) <= 0xFE0F}


def families(texts: Iterable[str]) -> list[str]:
    """Return font families that together draw `texts`; matplotlib falls back from one to the next.

    Where no installed font has a character, a warning names the characters and what to install; they are
    drawn as boxes.

    Examples
    --------
    >>> families(["cat", "dog"])
    ['DejaVu Sans']
    """
    missing = _needed(texts)
    chosen = []
    for name, path, index in _installed():
        if not missing:
            break
        covered = missing & _glyphs(path, index)
        if covered:
            chosen.append(name)
            missing -= covered
    if missing:
        shown = "".join(chr(c) for c in sorted(missing)[:20])
        warnings.warn(
            f"no installed font has {shown!r}: these characters are drawn as boxes. "
            "Install fonts that have them (on Debian: apt install fonts-noto-cjk fonts-noto-core)",
            MissingGlyphs,
            stacklevel=3,
        )
    if "DejaVu Sans" not in chosen:
        chosen.insert(0, "DejaVu Sans")  # always installed with matplotlib: digits and punctuation
    return chosen


def width(text: str) -> int:
    """Return how many columns a text takes; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, most: int) -> str:
    """Cut `text` to `most` columns (a Chinese character takes two), in the middle, where the least is lost.

    Also what a picture cannot draw is made visible: line breaks and controls become blanks, ``$`` stays a
    dollar.

    Examples
    --------
    >>> shorten("a_rather_long_class_name", 12)
    'a_rath…_name'
    """
    text = (
        "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") else c for c in text).strip()
        or "·"
    )
    if width(text) <= most:
        return text
    head: list[str] = []
    tail: list[str] = []
    room = most - 1
    left, right = 0, len(text) - 1
    while room > 0 and left <= right:
        front = len(head) <= len(tail)
        c = text[left] if front else text[right]
        if width(c) > room:
            break
        room -= width(c)
        if front:
            head.append(c)
            left += 1
        else:
            tail.append(c)
            right -= 1
    return "".join(head) + "…" + "".join(reversed(tail))
