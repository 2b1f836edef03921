"""One look for all pictures: colours that colour-blind people tell apart, thin lines, and files written
whole."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapless.report import fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PALE",
    "RED",
    "SEQUENCE",
    "figure",
    "plain_axes",
    "png",
    "save",
]

# Paul Tol's "bright" and "muted" sets
BLUE, ORANGE, GREEN, RED, PURPLE = "#2f6db3", "#e07b39", "#2a9d6f", "#c8344a", "#8a5ab0"
INK, GREY, PALE = "#22262b", "#6f7782", "#e6e9ed"
SEQUENCE = (BLUE, ORANGE, GREEN, PURPLE, RED)
DPI = 120


def figure(width: float, height: float, texts: Iterable[str] = (), *, placed: bool = False) -> Figure:
    """Return an empty figure of that size in inches, with fonts that can draw `texts`.

    `placed`: the caller says where axes go; by default a layout engine finds room for all texts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(
        figsize=(width, height), dpi=DPI, facecolor="white", layout=None if placed else "constrained"
    )
    FigureCanvasAgg(fig)
    engine: Any = fig.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.07, h_pad=0.07)
    fig._gapless_families = fonts.families(texts)  # type: ignore[attr-defined]
    return fig


def text_style(fig: Figure, size: float, color: str = INK, weight: str = "normal") -> dict[str, Any]:
    """Return keywords for a text of that size in the figure's fonts; ``$`` in a name is not a formula."""
    families = fig._gapless_families  # type: ignore[attr-defined]
    return {
        "fontsize": size,
        "color": color,
        "fontweight": weight,
        "fontfamily": families,
        "parse_math": False,
    }


def plain_axes(ax: Any) -> None:
    """Quiet axes: no box, a faint grid behind."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#b9c0c8")
    ax.tick_params(colors=GREY, labelsize=9, length=3)
    ax.grid(True, color=PALE, linewidth=0.8)
    ax.set_axisbelow(True)


def png(fig: Figure) -> bytes:
    """The figure as the bytes of a PNG."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # said once, by fonts.families
        fig.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def save(fig: Figure, path: str | os.PathLike[str]) -> Path:
    """Write the figure as PNG, whole or not at all, and return the path."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Glyph .* missing from font"
            )  # said once, by fonts.families
            fig.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
