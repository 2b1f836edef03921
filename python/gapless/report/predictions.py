"""train_pred.png, val_pred.png: the most confident errors, each with its truth, what was said, and how
surely."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapless.report import fonts, style
from gapless.report.batch import grid, show

__all__ = ["predictions", "worst"]

MOST = 24


def worst(labels: ArrayLike, predicted: ArrayLike, confidence: ArrayLike, most: int) -> list[int]:
    """Return the positions of the most confident errors, most confident first.

    Examples
    --------
    >>> worst([0, 1, 2], [1, 1, 0], [0.6, 0.9, 0.8], 5)
    [2, 0]
    """
    truth, said, sure = np.asarray(labels), np.asarray(predicted), np.asarray(confidence, dtype=np.float64)
    wrong = np.flatnonzero(truth != said)
    return [int(i) for i in wrong[np.argsort(-sure[wrong], kind="stable")][:most]]


def predictions(
    load: Callable[[int], NDArray[np.uint8]] | ArrayLike,
    labels: ArrayLike,
    predicted: ArrayLike,
    confidence: ArrayLike,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    ids: Sequence[str] | None = None,
    title: str | None = None,
    most: int = MOST,
) -> Path:
    """Draw the most confident errors; where there is none, the right answers that were the least sure.

    Parameters
    ----------
    load : callable or uint8 array (n, H, W, C)
        ``load(position)`` gives the picture of a sample; only those that are drawn are asked for.
    labels, predicted : array of int (n)
        Truth and prediction of each sample.
    confidence : array of float (n)
        Probability that was given to the prediction.
    path : path
        The PNG to write.
    classes : sequence of str
        Names of the classes.
    ids : sequence of str, optional
        Names of the samples, shown below the pictures.
    title : str, optional
        Begins the line above the picture.
    most : int
        Pictures that are drawn.
    """
    truth, said, sure = np.asarray(labels), np.asarray(predicted), np.asarray(confidence, dtype=np.float64)
    wrong = int(np.count_nonzero(truth != said))
    chosen = worst(truth, said, sure, most)
    if wrong:
        shown = f", the {len(chosen)} most confident" if wrong > len(chosen) else ""
        what = f"{wrong:,} error{'s' * (wrong != 1)} of {len(truth):,}{shown}"
    else:
        chosen = [int(i) for i in np.argsort(sure, kind="stable")[:most]]
        what = (
            f"no errors in {len(truth):,}; the least confident answers"
            if len(truth)
            else "nothing was scored"
        )
    heading = f"{title}: {what}" if title else what
    names = [
        (fonts.shorten(classes[int(truth[i])], 14), fonts.shorten(classes[int(said[i])], 10)) for i in chosen
    ]
    labels_below = [_sample_name(ids[i]) for i in chosen] if ids is not None else []
    every = [text for pair in names for text in pair]
    fig, axes = grid(
        len(chosen), [*every, *labels_below, heading], heading, lines_above=2, line_below=bool(labels_below)
    )
    for k, (ax, i) in enumerate(zip(axes, chosen, strict=True)):
        show(ax, load(i) if callable(load) else np.asarray(load)[i])
        right = truth[i] == said[i]
        colour = style.GREEN if right else style.RED
        ax.set_title(f"truth {names[k][0]}", pad=14, **style.text_style(fig, 8))
        look = style.text_style(fig, 8, colour, "bold")
        where = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        ax.annotate(
            f"said {names[k][1]} {sure[i]:.2f}", (0.5, 1), xytext=(0, 3), ha="center", **where, **look
        )
        if labels_below:
            ax.set_xlabel(labels_below[k], labelpad=2, **style.text_style(fig, 6.5, style.GREY))
        ax.spines[:].set_color(colour)
    return style.save(fig, path)


def _sample_name(name: str) -> str:
    return fonts.shorten(str(name).replace("\\", "/").rsplit("/", 1)[-1], 24)
