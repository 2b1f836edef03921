"""curves.png: what was measured, epoch by epoch; running figures stand in panels of their own."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gapless.report import style

__all__ = ["curves"]

Row = Mapping[str, Any]


def curves(
    history: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    monitor: str = "val/top1",
    majority: float | None = None,
    title: str | None = None,
) -> Path:
    """Draw accuracy, loss and learning rate over the epochs.

    Parameters
    ----------
    history : sequence of dict
        A row per epoch: ``epoch``, ``lr``, ``train/running/top1``, ``train/running/loss``, and where they
        were measured ``train/clean/top1``, ``train/clean/loss``, ``val/top1``, ``val/loss``, ``val/low`` and
        ``val/high`` (95 % interval), ``val/majority``.
    path : path
        The PNG to write.
    monitor : str
        The number that chose the best epoch, which is marked.
    majority : float, optional
        Accuracy of always answering the largest class; by default ``val/majority`` of the history.
    title : str, optional
        A line above the picture.
    """
    fig = style.figure(11.5, 5.0, [title or ""])
    engine: Any = fig.get_layout_engine()
    engine.set(wspace=0.04, hspace=0.06)
    grid = fig.add_gridspec(3, 3, width_ratios=[1.5, 1.05, 0.75])
    accuracy, loss = fig.add_subplot(grid[:, 0]), fig.add_subplot(grid[:, 1])
    running, running_loss, rate = (fig.add_subplot(grid[i, 2]) for i in range(3))
    for ax in (accuracy, loss, running, running_loss, rate):
        style.plain_axes(ax)
        ax.set_xlim(*_span(history))
        _whole_ticks(ax)
    best = _best(history, monitor)
    _draw_accuracy(accuracy, history, majority, best if monitor.endswith("top1") else None)
    _draw_loss(loss, history, best if monitor.endswith("loss") else None)
    _draw_small(running, history, "train/running/top1", style.ORANGE, "train/running top-1, as fed")
    _draw_small(
        running_loss, history, "train/running/loss", style.ORANGE, "train/running loss, as fed", zero=True
    )
    _draw_small(rate, history, "lr", style.GREY, "learning rate", zero=True)
    for ax in (accuracy, loss, rate):
        ax.set_xlabel("epoch", fontsize=9, color=style.GREY)
    if title:
        fig.suptitle(title, x=0.01, ha="left", **style.text_style(fig, 11, weight="bold"))
    return style.save(fig, path)


def _series(history: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a column, where it was measured and is finite."""
    pairs = [(float(row["epoch"]), row.get(key)) for row in history]
    kept = [(e, float(v)) for e, v in pairs if v is not None and v != "" and math.isfinite(float(v))]
    return [e for e, _ in kept], [v for _, v in kept]


def _span(history: Sequence[Row]) -> tuple[float, float]:
    epochs = [float(row["epoch"]) for row in history] or [1.0]
    pad = max(0.35, 0.02 * (epochs[-1] - epochs[0]))
    return min(epochs) - pad, max(epochs) + pad


def _whole_ticks(ax: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _best(history: Sequence[Row], monitor: str) -> tuple[float, float] | None:
    epochs, values = _series(history, monitor)
    if not values:
        return None
    chosen = min(values) if monitor.endswith("loss") else max(values)
    first = values.index(chosen)
    return epochs[first], chosen


def _line(ax: Any, history: Sequence[Row], key: str, color: str, label: str, **kwargs: Any) -> float | None:
    """Draw a column; few points get markers. Returns the last value."""
    epochs, values = _series(history, key)
    if not values:
        return None
    marker = {"marker": "o", "markersize": 4.5} if len(values) <= 15 else {}
    ax.plot(epochs, values, color=color, label=label, **{"linewidth": 2, **marker, **kwargs})
    return values[-1]


def _draw_accuracy(
    ax: Any, history: Sequence[Row], majority: float | None, best: tuple[float, float] | None
) -> None:
    ax.set_title("accuracy (top-1), measured by evaluate()", fontsize=10, color=style.INK, loc="left")
    low_epochs, low = _series(history, "val/low")
    _, high = _series(history, "val/high")
    if low and len(low) == len(high):
        if len(low) == 1:
            middle = (low[0] + high[0]) / 2
            ax.errorbar(
                low_epochs,
                [middle],
                [[middle - low[0]], [high[0] - middle]],
                color=style.BLUE,
                alpha=0.4,
                capsize=4,
            )
        ax.fill_between(
            low_epochs,
            low,
            high,
            color=style.BLUE,
            alpha=0.16,
            linewidth=0,
            label="validation, 95 % interval",
        )
    _line(ax, history, "train/clean/top1", style.GREEN, "train/clean")
    _line(ax, history, "val/top1", style.BLUE, "val")
    if majority is None:
        measured = _series(history, "val/majority")[1]
        majority = measured[-1] if measured else None
    if majority is not None:
        label = f"majority class, {majority:.3f}"
        ax.axhline(majority, color=style.GREY, linewidth=1.3, linestyle=(0, (4, 3)), label=label)
    _limits(ax, history, majority)
    if best is not None:
        _mark(ax, best, f"best {best[1]:.4f} (epoch {best[0]:.0f})")
    _legend(ax)


def _limits(ax: Any, history: Sequence[Row], majority: float | None) -> None:
    """Show from just below the lowest number up to 1, so that both a bad and a good run can be read."""
    every = [v for key in ("val/top1", "val/low", "train/clean/top1") for v in _series(history, key)[1]]
    every += [] if majority is None else [majority]
    low = min(every, default=0.0)
    measured = [v for key in ("val/top1", "val/high", "train/clean/top1") for v in _series(history, key)[1]]
    high = max(measured, default=1.0)
    top = 1.0 if high > 0.5 else min(1.0, high * 1.25)
    room = 0.05 * (top - low)
    ax.set_ylim(max(-0.01, low - room), min(1.0, top) + 0.6 * room)


def _draw_loss(ax: Any, history: Sequence[Row], best: tuple[float, float] | None) -> None:
    ax.set_title("loss, measured by evaluate()", fontsize=10, color=style.INK, loc="left")
    keys = ("train/clean/loss", "val/loss")
    _line(ax, history, "train/clean/loss", style.GREEN, "train/clean")
    _line(ax, history, "val/loss", style.BLUE, "val")
    values = [v for key in keys for v in _series(history, key)[1]]
    if values and min(values) > 0 and max(values) > 30 * min(values):
        ax.set_yscale("log")
    elif values:
        ax.set_ylim(bottom=0, top=1.08 * max(values) or 1.0)
    if best is not None:
        _mark(ax, best, f"best {best[1]:.4f}")
    _legend(ax)


def _draw_small(
    ax: Any, history: Sequence[Row], key: str, color: str, title: str, *, zero: bool = False
) -> None:
    """A small panel of one column; `zero`: from 0 up, or logarithmic for losses over a wide range."""
    ax.set_title(title, fontsize=8.5, color=style.GREY, loc="left")
    _line(ax, history, key, color, key, linewidth=1.5, markersize=2.5)
    values = _series(history, key)[1]
    if zero and values:
        if key.endswith("loss") and min(values) > 0 and max(values) > 1000 * min(values):
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0, top=1.12 * max(values) or 1.0)
    ax.tick_params(labelsize=8)


def _mark(ax: Any, point: tuple[float, float], text: str) -> None:
    """A ring around a point. Its text stands in the legend: beside the ring it would hide the curves."""
    ax.plot(
        *point,
        linestyle="none",
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=style.INK,
        markeredgewidth=1.3,
        label=text,
    )


def _legend(ax: Any) -> None:
    if ax.get_legend_handles_labels()[0]:
        look = {"frameon": True, "framealpha": 0.93, "edgecolor": "none", "labelcolor": style.INK}
        ax.legend(loc="best", fontsize=9, **look)
