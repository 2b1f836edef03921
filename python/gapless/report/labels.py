"""labels.png: images per class and split; empty and tiny classes stand out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gapless.report import fonts, style

__all__ = ["labels"]

MOST_NAMED = 60  # classes that get a bar and a name each
TINY = 5


def labels(
    counts: Mapping[str, ArrayLike],
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    title: str | None = None,
) -> Path:
    """Draw how many images each class has in each split.

    Parameters
    ----------
    counts : dict of str to array of int (classes,)
        Images per class, for each split.
    path : path
        The PNG to write.
    classes : sequence of str
        Names of the classes.
    title : str, optional
        A line above the picture.
    """
    table = {name: np.asarray(row, dtype=np.int64) for name, row in counts.items()}
    for name, row in table.items():
        if row.shape != (len(classes),):
            raise ValueError(
                f"labels: counts[{name!r}] must have one number for each of {len(classes)} classes"
            )
    if len(classes) <= MOST_NAMED:
        fig = _bars(table, classes, title)
    else:
        fig = _ranks(table, classes, title)
    return style.save(fig, path)


def _totals(table: Mapping[str, Any]) -> str:
    return "   ".join(f"{name}: {int(row.sum()):,}" for name, row in table.items())


def _bars(table: Mapping[str, Any], classes: Sequence[str], title: str | None) -> Any:
    from matplotlib.ticker import MaxNLocator

    names = [fonts.shorten(c, 28) for c in classes]
    n, splits = len(classes), list(table)
    thick = 0.8 / max(1, len(splits))
    fig = style.figure(8, 1.1 + n * max(0.24, 0.13 * len(splits)), [*names, title or ""])
    ax = fig.add_subplot()
    style.plain_axes(ax)
    ax.grid(False, axis="y")
    y = np.arange(n)
    largest = max((int(row.max()) for row in table.values() if row.size), default=1) or 1
    for i, name in enumerate(splits):
        where = y - 0.4 + thick * (i + 0.5)
        color = style.SEQUENCE[i % len(style.SEQUENCE)]
        ax.barh(
            where, table[name], height=thick * 0.92, color=color, label=f"{name} ({int(table[name].sum()):,})"
        )
        for yy, count in zip(where, table[name], strict=True):
            few = count < TINY
            ax.text(
                count + 0.008 * largest, yy, f"{count:,}" + (" !" if few else ""), va="center",
                fontsize=7 if n > 25 or len(splits) > 2 else 8, color=style.RED if few else style.GREY,
            )  # fmt: skip
    ax.set_yticks(y, names, **style.text_style(fig, 9))
    ax.set_ylim(n - 0.5, -0.5)
    ax.set_xlim(0, largest * 1.12)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.set_xlabel("images", fontsize=9, color=style.GREY)
    ax.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=len(splits), fontsize=9, frameon=False, borderpad=0
    )
    if title:
        fig.suptitle(title, x=0.01, ha="left", **style.text_style(fig, 11, weight="bold"))
    return fig


def _ranks(table: Mapping[str, Any], classes: Sequence[str], title: str | None) -> Any:
    """Many classes: counts sorted by size, and the smallest classes by name."""
    total = np.sum(list(table.values()), axis=0)
    order = np.argsort(-total, kind="stable")
    smallest = order[::-1][:20]
    names = [fonts.shorten(classes[i], 26) for i in smallest]
    fig = style.figure(11, 4.8, [*names, title or ""])
    grid = fig.add_gridspec(1, 2, width_ratios=[2.2, 1])
    ax, small = fig.add_subplot(grid[0]), fig.add_subplot(grid[1])
    style.plain_axes(ax)
    for i, (name, row) in enumerate(table.items()):
        color = style.SEQUENCE[i % len(style.SEQUENCE)]
        ax.plot(np.arange(1, len(order) + 1), row[order], color=color, linewidth=1.6, label=name)
    ax.set_xlabel(f"{len(classes):,} classes, largest first", fontsize=9, color=style.GREY)
    ax.set_title(f"images per class     {_totals(table)}", fontsize=9.5, color=style.INK, loc="left")
    ax.set_ylim(bottom=0)
    ax.legend(loc="best", fontsize=9, frameon=False)
    style.plain_axes(small)
    small.grid(False, axis="y")
    small.barh(np.arange(len(smallest)), total[smallest], color=style.GREY, height=0.7)
    small.set_yticks(np.arange(len(smallest)), names, **style.text_style(fig, 8))
    small.set_ylim(len(smallest) - 0.5, -0.5)
    small.set_title("smallest classes, all splits", fontsize=9.5, color=style.INK, loc="left")
    if title:
        fig.suptitle(title, x=0.01, ha="left", **style.text_style(fig, 11, weight="bold"))
    return fig
