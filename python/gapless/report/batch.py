"""train_batch0.png: the pixels of a batch exactly as the network is fed them, before normalisation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapless.report import fonts, style

__all__ = ["batch", "grid", "show"]

MOST = 32


def batch(
    images: ArrayLike,
    labels: ArrayLike,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    title: str | None = None,
    most: int = MOST,
) -> Path:
    """Draw the images of a batch with their labels.

    Parameters
    ----------
    images : uint8 array (n, H, W, C)
        As they come out of the training pipeline.
    labels : array (n) of int, or (n, classes) of float
        Classes, or soft targets: then the two largest shares are shown.
    path : path
        The PNG to write.
    classes : sequence of str
        Names of the classes.
    title : str, optional
        A line above the picture; by default the batch's size.
    most : int
        Images that are drawn.
    """
    pixels, targets = np.asarray(images), np.asarray(labels)
    n = min(len(pixels), most)
    names = [_target(targets[i], classes) for i in range(n)]
    if title is None and len(pixels):
        h, w = pixels.shape[1:3]
        title = f"the first batch as fed: {len(pixels)} images, {h} × {w}" + (
            f", {n} shown" if n < len(pixels) else ""
        )
    lines = 2 if targets.ndim == 2 else 1
    fig, axes = grid(n, [*names, title or ""], title, lines_above=lines)
    for ax, image, name in zip(axes, pixels, names, strict=False):
        show(ax, image)
        ax.set_title(name, pad=3, **style.text_style(fig, 8.5))
    return style.save(fig, path)


def _target(target: Any, classes: Sequence[str]) -> str:
    if np.ndim(target) == 0:
        return fonts.shorten(classes[int(target)], 17)
    order = np.argsort(-np.asarray(target), kind="stable")[:2]
    shares = [(fonts.shorten(classes[int(k)], 14), float(target[k])) for k in order]
    return "\n".join(f"{name} {share:.2f}" for name, share in shares if share > 0.005) or "none"


def grid(
    n: int, texts: Sequence[str], title: str | None, *, lines_above: int = 1, line_below: bool = False
) -> tuple[Any, list[Any]]:
    """Return a figure with room for n square pictures, each with lines of text above and below, and their
    axes."""
    columns = max(1, min(8, n))
    rows = max(1, -(-n // columns))
    side, gap, edge = 1.4, 0.14, 0.1  # inches
    above, below = 0.17 * lines_above + 0.06, 0.17 if line_below else 0.05
    head = 0.34 if title else edge
    width = max(columns * (side + gap) - gap + 2 * edge, 4.4)
    height = head + rows * (side + above + below) + edge
    fig = style.figure(width, height, texts, placed=True)  # a layout engine is slow with so many axes
    axes = []
    for k in range(n):
        left = edge + (k % columns) * (side + gap)
        top = head + (k // columns) * (side + above + below) + above
        ax = fig.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_color("#b9c0c8")
        ax.set_anchor("N")  # headings of wide pictures stand at one height with the others
        axes.append(ax)
    if title:
        fig.text(edge / width, 1 - 0.1 / height, title, va="top", **style.text_style(fig, 10, weight="bold"))
    return fig, axes


def show(ax: Any, image: NDArray[np.uint8]) -> None:
    """Draw a uint8 (H, W, C) picture: pixels as squares where they are few, smooth where they are many."""
    picture = np.asarray(image)
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    few = max(picture.shape[:2]) <= 96
    colours = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
    ax.imshow(picture, interpolation="nearest" if few else "antialiased", **colours)
