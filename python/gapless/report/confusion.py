"""confusion.png: what was taken for what; rows are the truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapless.report import fonts, style

__all__ = ["confusion", "matrix_of", "most_confused"]

MOST_COUNTED = 25  # classes up to which every cell shows its count
MOST_NAMED = 60  # classes up to which the axes have names


def matrix_of(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count samples by truth (row) and prediction (column).

    Examples
    --------
    >>> matrix_of([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    truth, said = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    counts = np.bincount(truth * classes + said, minlength=classes * classes)
    return counts.reshape(classes, classes)


def most_confused(matrix: ArrayLike, most: int) -> list[tuple[int, int, int]]:
    """Return (truth, prediction, count) of the most frequent errors, most frequent first."""
    counts = np.array(matrix, dtype=np.int64)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [(int(i) // counts.shape[1], int(i) % counts.shape[1]) for i in order]
    return [(t, p, int(counts[t, p])) for t, p in pairs if counts[t, p] > 0]


def confusion(
    matrix: ArrayLike,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    title: str | None = None,
) -> Path:
    """Draw a confusion matrix: colour is the share of the row, numbers are counts.

    Parameters
    ----------
    matrix : array of int (classes, classes)
        Counts; rows are the truth, columns the prediction (see `matrix_of`).
    path : path
        The PNG to write.
    classes : sequence of str
        Names of the classes.
    title : str, optional
        A line above the picture.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    n = len(classes)
    if counts.shape != (n, n):
        raise ValueError(f"confusion: the matrix must be ({n}, {n}) for {n} classes, got {counts.shape}")
    names = [fonts.shorten(c, 20 if n <= MOST_COUNTED else 14) for c in classes]
    side = float(np.clip(1.6 + 0.42 * n, 4.2, 11)) if n <= MOST_NAMED else 9.0
    listed = most_confused(counts, 12 if n <= 12 else 20)
    fig = style.figure(side + 3.4, side, [*names, title or ""])
    grid = fig.add_gridspec(1, 2, width_ratios=[side, 3.2])
    ax, text = fig.add_subplot(grid[0]), fig.add_subplot(grid[1])
    _draw_matrix(fig, ax, counts, names, side - 1.4)
    _draw_list(fig, text, counts, names, listed)
    if title:
        fig.suptitle(title, x=0.01, ha="left", **style.text_style(fig, 11, weight="bold"))
    return style.save(fig, path)


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "gapless", ["#ffffff", "#cfe0f2", "#7fb0dc", style.BLUE, "#173a66"]
    )


def _draw_matrix(fig: Any, ax: Any, counts: NDArray[np.int64], names: list[str], side: float) -> None:
    n = len(names)
    rows = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(rows, 1)
    # errors are rare: a root makes 1 % visible without hiding the diagonal
    ax.imshow(np.sqrt(share), cmap=_colours(), vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    ax.spines[:].set_color("#b9c0c8")
    ax.tick_params(length=0)
    if n <= MOST_NAMED:
        size = float(np.clip(200 / max(n, 1), 5.5, 10))
        style_of = style.text_style(fig, size)
        widest = max((fonts.width(name) for name in names), default=0) * size * 0.6 / 72  # inches
        turned = widest > 0.9 * side / max(n, 1)
        ax.set_xticks(range(n), names, rotation=45 if turned else 0, ha="right" if turned else "center",
                      rotation_mode="anchor" if turned else "default", **style_of)  # fmt: skip
        ax.set_yticks(range(n), names, **style_of)
    else:
        ax.tick_params(labelsize=8, labelcolor=style.GREY)
    if n <= MOST_COUNTED:
        size = float(np.clip(150 / max(n, 1), 6, 11))
        for i in range(n):
            for j in range(n):
                if counts[i, j]:
                    dark = share[i, j] > 0.36
                    ax.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", fontsize=size,
                            color="white" if dark else style.INK if i == j else style.RED)  # fmt: skip
    ax.set_xlabel("prediction", fontsize=9, color=style.GREY)
    ax.set_ylabel("truth", fontsize=9, color=style.GREY)


def _draw_list(
    fig: Any, ax: Any, counts: NDArray[np.int64], names: list[str], listed: list[tuple[int, int, int]]
) -> None:
    ax.set_axis_off()

    def line(down: float, left: str, right: str = "", size: float = 8, **look: Any) -> None:
        for x, text, more in ((0, left, look), (1, right, {"color": style.RED})):
            ax.annotate(
                text,
                (x, 1),
                xycoords="axes fraction",
                xytext=(0, -down),
                textcoords="offset points",
                ha="right" if x else "left",
                va="top",
                **style.text_style(fig, size, **more),
            )

    total, hits = int(counts.sum()), int(np.trace(counts))
    line(0, f"{hits:,} of {total:,} right ({hits / max(total, 1):.4f})", size=10, weight="bold")
    if not listed:
        line(20, "No errors." if total else "Nothing was scored.", size=9, color=style.GREY)
        return
    line(20, "most frequent errors: truth → prediction", color=style.GREY)
    for k, (t, p, count) in enumerate(listed):
        words = f"{fonts.shorten(names[t], 15)} → {fonts.shorten(names[p], 15)}"
        line(38 + 15 * k, words, f"{count:,} of {int(counts[t].sum()):,}")
