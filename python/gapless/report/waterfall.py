"""waterfall.png: from the accuracy that training logged to the stand-alone validation accuracy, in steps."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gapless.report import fonts, style
from gapless.report.text import is_absent, is_joint

__all__ = ["draw", "waterfall", "waterfall_png"]

Step = Mapping[str, Any]

ROW = 0.46  # inches
NAME = 40  # columns of a name, before it is wrapped
COSTS, GIVES, JOINT = style.ORANGE, style.BLUE, "#8f98a3"


def waterfall(
    steps: Sequence[Step],
    path: str | os.PathLike[str],
    *,
    first: float,
    last: float,
    title: str | None = None,
) -> Path:
    """Draw the waterfall.

    Parameters
    ----------
    steps : sequence of dict
        ``step`` (a name), ``points`` (a fraction: accuracy before the step minus after it), ``low``, ``high``
        (its 95 % interval). A step whose name says "not separable" or "together" is several causes, and is
        hatched.
    path : path
        The PNG to write.
    first, last : float
        The accuracy that training logged, and the stand-alone validation accuracy.
    title : str, optional
        A line above the picture; default: the gap.
    """
    return style.save(draw(steps, first, last, title), path)


def waterfall_png(steps: Sequence[Step], *, first: float, last: float, title: str | None = None) -> bytes:
    """The same as the bytes of a PNG."""
    return style.png(draw(steps, first, last, title))


def draw(steps: Sequence[Step], first: float, last: float, title: str | None = None) -> Any:
    """The figure; steps that are 0 by what the run is have no row."""
    steps = [s for s in steps if not is_absent(s["points"], s["low"], s["high"])]
    names = ["logged in training", *(_lines(str(s["step"])) for s in steps), "validation, stand-alone"]
    title = title or f"training {first:.4f}, validation {last:.4f}: {100 * (first - last):+.1f} points"
    extra = sum(name.count("\n") for name in names)
    fig = style.figure(9.6, 1.15 + ROW * len(names) + 0.17 * extra, [*names, title])
    ax = fig.add_subplot()
    style.plain_axes(ax)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    places = _places(names)
    span = _limits(ax, steps, first, last)
    _total(fig, ax, places[0], first, span)
    level = first
    for y, s in zip(places[1:-1], steps, strict=True):
        level = _step(fig, ax, y, level, s, span)
    _total(fig, ax, places[-1], last, span)
    _connect(ax, places, steps, first)
    ax.set_yticks(places, names, **style.text_style(fig, 9.5))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(places[-1] + 0.75, -0.75)
    ax.set_xlabel("accuracy; to the left: what a step costs, to the right: what it gives", fontsize=9,
                  color=style.GREY)  # fmt: skip
    _legend(fig, steps)
    fig.suptitle(title, x=0.01, ha="left", **style.text_style(fig, 11, weight="bold"))
    return fig


def _lines(name: str) -> str:
    """A name on lines of its own, at most three."""
    name = fonts.shorten(name, 3 * NAME - 6)
    if fonts.width(name) <= NAME:
        return name
    wide = fonts.width(name) > len(name)
    return "\n".join(textwrap.wrap(name, NAME // 2 if wide else NAME))


def _places(names: Sequence[str]) -> list[float]:
    """Where each row stands: those of several lines take more room."""
    at, places = 0.0, []
    for k, name in enumerate(names):
        room = 0.17 / ROW * name.count("\n") / 2
        at += (1.0 if k else 0.0) + room
        places.append(at)
        at += room
    return places


def _limits(ax: Any, steps: Sequence[Step], first: float, last: float) -> float:
    """Show all levels and intervals, and room at both ends for the numbers; gives the width shown."""
    level, ends = first, [first, last]
    for s in steps:
        ends += [level - s["low"], level - s["high"], level - s["points"]]
        level -= s["points"]
    ends = [min(max(e, -0.02), 1.02) for e in ends]
    low, high = min(ends), max(ends)
    span = max(high - low, 0.004)
    middle = (low + high) / 2
    low, high = middle - span / 2, middle + span / 2
    ax.set_xlim(low - 0.2 * span, high + 0.2 * span)
    return 1.4 * span


def _total(fig: Any, ax: Any, y: float, value: float, span: float) -> None:
    ax.plot([value], [y], marker="D", markersize=7, color=style.INK, linestyle="none", zorder=4)
    ax.text(value + 0.015 * span, y, f"{value:.4f}", va="center", ha="left",
            **style.text_style(fig, 9.5, weight="bold"))  # fmt: skip


def _step(fig: Any, ax: Any, y: float, before: float, s: Step, span: float) -> float:
    """Draw one bar, its error bar and its number; gives the level after it."""
    value = float(s["points"])
    after = before - value
    joint = is_joint(str(s["step"]))
    colour = COSTS if value > 0 else GIVES
    look = {"hatch": "////", "facecolor": "white", "edgecolor": colour} if joint else {"color": colour}
    ax.barh(y, after - before, left=before, height=0.56, linewidth=1.0, zorder=2, **look)
    if value == 0:
        ax.plot([before, before], [y - 0.28, y + 0.28], color=style.GREY, linewidth=2, zorder=2)
    low, high = before - s["high"], before - s["low"]
    ax.plot([low, high], [y, y], color=style.INK, linewidth=1.3, zorder=3)
    for end in (low, high):
        ax.plot([end, end], [y - 0.1, y + 0.1], color=style.INK, linewidth=1.3, zorder=3)
    said = f"{100 * value:+.1f}" if round(1000 * value) else "0.0"
    # the number stands where there is no bar: before what goes left, behind what goes right
    if value > 0:
        at, align = min(low, after) - 0.012 * span, "right"
    else:
        at, align = max(high, after, before) + 0.012 * span, "left"
    ax.text(at, y, said, va="center", ha=align, clip_on=False, **style.text_style(fig, 9.5, colour_of(value)))
    return after


def colour_of(value: float) -> str:
    """The colour of a step's number: darker than its bar, so that it can be read."""
    return "#a34c12" if value > 0 else "#1d4f8a" if value < 0 else style.GREY


def _connect(ax: Any, places: Sequence[float], steps: Sequence[Step], first: float) -> None:
    """The running level, from row to row."""
    level = first
    for k in range(len(places) - 1):
        ax.plot([level, level], [places[k], places[k + 1]], color=style.GREY, linewidth=0.9,
                linestyle=(0, (3, 2)), zorder=1)  # fmt: skip
        if k < len(steps):
            level -= float(steps[k]["points"])


def _legend(fig: Any, steps: Sequence[Step]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    joint = any(is_joint(str(s["step"])) for s in steps)
    handles: list[Any] = []
    if any(s["points"] > 0 for s in steps):
        handles.append(Patch(color=COSTS, label="costs accuracy"))
    if any(s["points"] < 0 for s in steps):
        handles.append(Patch(color=GIVES, label="gives accuracy"))
    if joint:
        handles.append(
            Patch(facecolor="white", edgecolor=JOINT, hatch="////", label="several causes together")
        )
    handles.append(
        Line2D([], [], color=style.INK, linewidth=1.3, marker="|", label="95 % interval of a step")
    )
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5,
               labelcolor=style.GREY)  # fmt: skip
