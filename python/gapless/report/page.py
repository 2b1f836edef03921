"""A diagnosis as HTML: one page that holds everything, or a piece of a notebook."""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gapless.report import text as words
from gapless.report.waterfall import waterfall_png

if TYPE_CHECKING:
    from gapless.doctor import Diagnosis, Finding, Picture

__all__ = ["diagnosis_html", "diagnosis_page", "finding_html"]

MOST_PICTURES = 24
MOST_IDS = 50
SMALL = 64  # pixels of a side below which a picture is shown enlarged


def diagnosis_page(d: Diagnosis) -> str:
    """One self-contained page: pictures inside, nothing loaded, everything escaped."""
    return str(_template().render(page=_view(d)))


def diagnosis_html(d: Diagnosis) -> str:
    """The same as a piece of a notebook."""
    return str(_macros().whole(_view(d)))


def finding_html(f: Finding) -> str:
    """One finding as a piece of a notebook."""
    macros = _macros()
    return f'<div class="gapless-doctor">{macros.style()}{macros.finding(_finding(f, ()))}</div>'


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).with_name("templates")
    # strict: a missing value is a mistake of ours, and is not to be an empty place in somebody's report
    env = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return env.get_template("diagnosis.html")


def _macros() -> Any:
    return _template().make_module({"page": None})


def _view(d: Diagnosis) -> dict[str, Any]:
    """What the template shows, as text."""
    import gapless

    fall = d.waterfall
    undecided = [c for c in d.checks if c.result.outcome == "undecided"]
    n = len(d.findings)
    return {
        "title": "What was found" if fall is None else "Why training and validation differ",
        "gap": words.gap_line(d),
        "picture": _picture_of(d),
        "steps": _steps(d),
        "count": "nothing found" if n == 0 else f"{n} finding{'' if n == 1 else 's'}, by size",
        "findings": [_finding(f, words.effects_of(d, f.id)) for f in d.findings],
        "undecided": [{"id": c.id, "slug": c.slug, "says": words.undecided_words(c)} for c in undecided],
        "checks": [_check(c) for c in d.checks],
        "notes": [words.clean(n) for n in (*d.notes, *(fall.notes if fall is not None else ()))],
        "time": f"{len(d.checks)} checks in {d.seconds:.1f} s of {d.budget:g} s",
        "version": gapless.__version__,
    }


def _picture_of(d: Diagnosis) -> str:
    fall = d.waterfall
    if fall is None or not fall.steps:
        return ""
    steps = [s.to_dict() for s in fall.steps]
    return base64.b64encode(waterfall_png(steps, first=float(fall.first), last=float(fall.last))).decode()


def _steps(d: Diagnosis) -> list[dict[str, str]]:
    rows, level = [], d.waterfall.first if d.waterfall is not None else 0
    for s in d.waterfall.steps if d.waterfall is not None else ():
        level -= s.points
        rows.append(
            {
                "name": words.clean(s.name),
                "points": words.points(s.points),
                "interval": words.interval(s.low, s.high),
                "level": f"{float(level):.4f}",
                "says": words.clean(s.says),
            }
        )
    return rows


def _check(c: Any) -> dict[str, str]:
    e = c.result.estimate
    said = words.clean(c.result.says)
    return {
        "id": c.id,
        "slug": c.slug,
        "title": words.clean(c.title),
        "outcome": c.result.outcome if c.caused_by is None else f"follows from {c.caused_by}",
        "points": words.points(e.points) if e is not None else "",
        "interval": words.interval(e.low, e.high) if e is not None else "",
        "seconds": f"{c.seconds:.1f}",
        "says": said,
    }


def _finding(f: Finding, effects: Any) -> dict[str, Any]:
    return {
        "id": f.id,
        "slug": f.slug,
        "costs": f.points > 0,
        "points": words.points(f.points),
        "interval": words.interval(f.low, f.high),
        "measure": words.clean(f.measure),
        "says": words.clean(f.says),
        "remedy": words.clean(f.remedy.text),
        "change": words.change_words(f.remedy.change) if f.remedy.change else "",
        "evidence": words.evidence_of(f.evidence, MOST_IDS),
        "pictures": [_thumbnail(p) for p in f.pictures[:MOST_PICTURES]],
        "effects": ", ".join(effects),
        "reference": words.clean(f.reference),
        "seconds": f"{f.seconds:.1f}",
    }


def _thumbnail(p: Picture) -> dict[str, Any]:
    """A picture as PNG; what is tiny is shown larger, square by square."""
    from PIL import Image

    pixels = np.asarray(p.image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
    h, w = pixels.shape[:2]
    times = max(1, SMALL // max(h, w)) if max(h, w) < SMALL else 1
    return {
        "data": base64.b64encode(out.getvalue()).decode(),
        "width": min(160, w * times),
        "caption": words.clean(p.caption),
    }
