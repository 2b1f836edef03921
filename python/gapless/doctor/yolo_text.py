"""What was read of YOLO's data, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..report.text import WIDTH, clean
from .yolo_labels import KINDS

if TYPE_CHECKING:
    from .yolo_labels import YoloLabels

__all__ = ["summary"]

MOST_CLASSES = 20
MOST_EXAMPLES = 3


def summary(labels: YoloLabels, *, brief: bool = False) -> str:
    """Errors by kind with examples, and the splits side by side."""
    lines = [] if brief else [clean(labels.path), *_table(labels), ""]
    lines += list(_errors(labels, brief))
    lines += [] if brief else [f"note: {clean(n)}" for n in labels.notes]
    return "\n".join(lines)


def _errors(labels: YoloLabels, brief: bool) -> Iterator[str]:
    if not labels.problems:
        yield "label files: no errors"
        return
    total = sum(p.count for p in labels.problems)
    yield f"{total:,} error{'' if total == 1 else 's'} in files:"
    for p in labels.problems:
        yield f"  {p.count:>7,}  {p.split:<5}  {p.kind}: {KINDS[p.kind]}"
        for example in [] if brief else p.examples[:MOST_EXAMPLES]:
            yield f"{'':18}{clean(example)[: WIDTH - 18]}"


def _table(labels: YoloLabels) -> Iterator[str]:
    splits = labels.to_dict()["splits"]
    yield f"{'':<28}" + "".join(f"{clean(name):>14}" for name in splits)

    def row(name: str, values: list[Any]) -> str:
        return f"{name:<28}" + "".join(f"{v:>14}" for v in values)

    every = list(splits.values())
    yield row("images", [f"{s['images']:,}" for s in every])
    yield row("  without objects", [f"{s['backgrounds']:,}" for s in every])
    yield row("objects", [f"{s['objects']:,}" for s in every])
    yield row("  per image, mean (most)", [_per_image(s["objects_per_image"]) for s in every])
    if any(s["polygons"] for s in every):
        yield row("  from polygons", [f"{s['polygons']:,}" for s in every])
    size = labels.image_size
    yield row(f"box side at {size}, 5 to 95 %", [_span(s["box_side"], ".0f") for s in every])
    yield row("box width ÷ height", [_span(s["box_aspect"], ".2f") for s in every])
    yield row("small, medium, large", [_shares(s["box_sizes"]) for s in every])
    yield row("best possible recall", [_recall(s["best_possible_recall"]) for s in every])
    names = sorted(labels.names, key=lambda n: -max(s["classes"][n] for s in every))
    for name in names[:MOST_CLASSES]:
        yield row(f"  {clean(name)[:25]}", [f"{s['classes'][name]:,}" for s in every])
    if len(names) > MOST_CLASSES:
        yield f"  … and {len(names) - MOST_CLASSES} rarer classes"


def _per_image(v: dict[str, Any]) -> str:
    return f"{v['mean']:.2f} ({v['most']})"


def _span(v: dict[str, float], form: str) -> str:
    return f"{v['5 %']:{form}}–{v['95 %']:{form}}" if v else "-"


def _shares(v: dict[str, int]) -> str:
    total = sum(v.values())
    return " ".join(f"{100 * n / total:.0f}%" for n in v.values()) if total else "-"


def _recall(v: float | None) -> str:
    return "-" if v is None else f"{v:.4f}"
