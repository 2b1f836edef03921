"""A diagnosis as text: what one would quote from a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gapless.report.fonts import width

if TYPE_CHECKING:
    from gapless.doctor import Checked, Diagnosis, Finding, Waterfall

__all__ = ["clean", "evidence_of", "in_ascii", "interval", "points", "transcript"]

WIDTH = 110
BAR = 24  # columns of the widest bar
NAME = 44  # columns of a step's name
MOST_VALUES = 6  # of a list or table in the evidence
_ASCII: dict[str, str | int | None] = {
    "█": "#",
    "▌": "#",
    "▐": "#",
    "│": "|",
    "→": "->",
    "·": "-",
    "…": "...",
    "×": "x",
    "−": "-",
    "≥": ">=",
}


def clean(text: object) -> str:
    """On one line, with nothing that moves a cursor, hides or turns text round: names are anybody's words.

    Examples
    --------
    >>> clean("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    words = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in words)


def in_ascii(text: str) -> str:
    """For terminals without Unicode: what is drawn becomes signs, other characters stay what they are.

    Examples
    --------
    >>> in_ascii("█▌ a → b")
    '## a -> b'
    """
    return text.translate(str.maketrans(_ASCII))


def points(value: Any) -> str:
    """A fraction as signed points.

    Examples
    --------
    >>> points(0.1234), points(-0.5), points(0)
    ('+12.3', '-50.0', '0.0')
    """
    said = f"{100 * float(value):+.1f}"
    return "0.0" if said in ("+0.0", "-0.0") else said


def interval(low: Any, high: Any) -> str:
    """An interval in points.

    Examples
    --------
    >>> interval(-0.01, 0.2)
    '[-1.0, +20.0]'
    """
    return f"[{points(low)}, {points(high)}]"


def evidence_of(evidence: Mapping[str, Any], most: int = MOST_VALUES) -> list[tuple[str, str]]:
    """Name and value of what can be said on a line each; of lists and tables the first `most`."""
    from gapless.doctor.result import plain

    return [(clean(k), _value(v, most)) for k, v in plain(evidence).items() if v not in (None, [], {}, "")]


def _value(value: Any, most: int) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        shown = [f"{clean(k)} → {_value(v, most)}" for k, v in list(value.items())[:most]]
        return ", ".join(shown) + _rest(len(value), most)
    if isinstance(value, list):
        inner = [
            (f"({_value(v, most)})" if isinstance(v, list | dict) else _value(v, most)) for v in value[:most]
        ]
        return ", ".join(inner) + _rest(len(value), most)
    return clean(value)


def _rest(n: int, shown: int) -> str:
    return f", … ({n} in all)" if n > shown else ""


# ---- the whole ----


def transcript(d: Diagnosis, *, brief: bool = False) -> str:
    """The whole as text.

    Parameters
    ----------
    d : Diagnosis
    brief : bool
        The gap and a line per finding only.
    """
    lines = [gap_line(d)] if d.waterfall is not None else []
    if not brief and d.waterfall is not None and d.waterfall.steps:
        lines += ["", *_fall(d.waterfall)]
    if brief:
        lines += [_head(f) for f in d.findings] or ["nothing found"]
        return "\n".join(lines)
    lines += ["", *_findings(d)] if lines else _findings(d)
    undecided = [c for c in d.checks if c.result.outcome == "undecided"]
    if undecided:
        lines += ["", "undecided:"]
        for c in undecided:
            lines += _wrapped(f"{c.id} {c.slug}: {undecided_words(c)}", "  ", "    ")
    lines += ["", *_quiet(d)]
    notes = [*d.notes, *(d.waterfall.notes if d.waterfall is not None else ())]
    for note in notes:
        lines += _wrapped(f"note: {clean(note)}", "", "  ")
    lines.append(f"{_counted(len(d.checks), 'check')} in {d.seconds:.1f} s of {d.budget:g} s")
    return "\n".join(lines)


def gap_line(d: Diagnosis) -> str:
    """What there is to explain, and how much of it stands in steps of its own."""
    fall = d.waterfall
    if fall is None:
        return ""
    said = (
        f"gap: {points(fall.gap)} points, training {float(fall.first):.4f}, validation {float(fall.last):.4f}"
    )
    joint = [s for s in fall.steps if is_joint(s.name)]
    if joint and len(joint) < len(fall.steps):
        rest = sum(s.points for s in joint)
        said += f"; explained {points(fall.gap - rest)}, not separable {points(rest)}"
    return said


def is_joint(name: str) -> bool:
    """Whether a step is several causes together: such are named so."""
    return "not separable" in name or "together" in name


def is_absent(points: Any, low: float, high: float) -> bool:
    """Whether there was nothing to measure: a step that is 0 by what the run is, without an interval."""
    return bool(points == low == high == 0)


def undecided_words(c: Checked) -> str:
    """What an undecided check says, with the number of samples that would decide."""
    said, n = clean(c.result.says), c.result.samples_needed
    if n is None or str(n) in said.replace(",", "").replace(" ", ""):
        return said
    return f"{said}; about {n:,} samples would decide"


def _fall(fall: Waterfall) -> Iterator[str]:
    steps = [s for s in fall.steps if not is_absent(s.points, s.low, s.high)]
    most = max([abs(float(s.points)) for s in steps] + [1e-9])
    below = max([-float(s.points) for s in steps] + [0.0])
    above = max([float(s.points) for s in steps] + [0.0])
    left, right = round(BAR * below / (below + above or 1)), round(BAR * above / (below + above or 1))
    unit = min([n / v for n, v in ((left, below), (right, above)) if v > 0 and n > 0] or [BAR / most])
    name = min(NAME, max([len(s.name) for s in steps] + [len("validation, stand-alone")]))
    yield f"{'':<{name}}  accuracy  points  95 % interval"
    yield f"{'training':<{name}}  {float(fall.first):8.4f}"
    level = fall.first
    for s in steps:
        level -= s.points
        first, *rest = textwrap.wrap(clean(s.name), name) or [""]
        numbers = f"{float(level):8.4f}  {points(s.points):>6}  {interval(s.low, s.high):<16}"
        yield f"{first:<{name}}  {numbers} {_bar(float(s.points), unit, left)}".rstrip()
        yield from (f"  {line}" for line in rest)
    yield f"{'validation, stand-alone':<{name}}  {float(fall.last):8.4f}  {points(fall.gap):>6}  sum, exact"
    absent = [clean(s.name) + (f" ({clean(s.says)})" if s.says else "") for s in fall.steps if s not in steps]
    if absent:
        yield from _wrapped(f"0: {'; '.join(absent)}", "", "   ")


def _bar(value: float, unit: float, left: int) -> str:
    """A bar from the axis: to the right what the step costs, to the left what it gives."""
    halves = round(2 * abs(value) * unit)
    whole, half = divmod(halves, 2)
    if value < 0:
        bar = ("▐" if half else "") + "█" * whole
        return f"{bar:>{left}}│"
    return " " * left + "│" + "█" * whole + ("▌" if half else "")


def _findings(d: Diagnosis) -> Iterator[str]:
    if not d.findings:
        yield "nothing found"
        return
    yield f"{_counted(len(d.findings), 'finding')}, by size:"
    for k, f in enumerate(d.findings, 1):
        yield from _wrapped(f"{k}. {_head(f)}", "  ", "     ")
        inside = "     "
        yield from _wrapped(clean(f.says), inside, inside)
        yield from _wrapped(f"remedy: {clean(f.remedy.text)}", inside, inside + "  ")
        if f.remedy.change:
            yield from _wrapped(f"recipe: {change_words(f.remedy.change)}", inside, inside + "  ")
        told = " · ".join(f"{name} {value}" for name, value in evidence_of(f.evidence))
        if told:
            yield from _wrapped(f"evidence: {told}", inside, inside + "  ")
        effects = effects_of(d, f.id)
        if effects:
            yield from _wrapped(f"follow from it: {', '.join(effects)}", inside, inside + "  ")


def effects_of(d: Diagnosis, id: str) -> list[str]:
    """Checks that found what is only a consequence of that finding."""
    return [f"{c.id} {c.slug}" for c in d.checks if c.caused_by == id]


def change_words(change: Mapping[str, Any]) -> str:
    """A remedy's change as one would type it."""
    from gapless import _yaml
    from gapless.doctor.result import plain

    return " ".join(f"-o {clean(k)}={_yaml.dump(plain(v)).strip()}" for k, v in change.items())


def _head(f: Finding) -> str:
    return f"{f.id} {f.slug}  {points(f.points)} points {interval(f.low, f.high)}: {clean(f.measure)}"


def _quiet(d: Diagnosis) -> Iterator[str]:
    """The checks that have nothing to say, on a line: those that are clear, and those left out."""
    clear = [f"{c.id} {c.slug}" for c in d.checks if c.result.outcome == "clear"]
    said = f"clear: {', '.join(clear) or 'none'}."
    wanting: list[str] = []
    facts: dict[str, None] = {}
    others: list[str] = []
    for c in d.checks:
        if c.result.outcome == "left out":
            missing = _missing(c.result.says)
            facts.update(dict.fromkeys(missing))
            wanting += [c.id] if missing else []
            others += [] if missing else [f"{c.id} ({clean(c.result.says)})"]
    if wanting:
        said += f" Left out: {' '.join(wanting)}, for want of {'; '.join(facts)}."
    if others:
        said += f" {'Also l' if wanting else 'L'}eft out: {', '.join(others)}."
    yield from _wrapped(said, "", "  ")


def _missing(says: str) -> list[str]:
    """The facts that a check was left out for; none where it had another reason."""
    from gapless.doctor import FACTS

    words = list(FACTS.values())
    if not says.startswith("needs "):
        return []
    rest, found = says.removeprefix("needs "), []
    while rest:
        # facts have "and" in them, so the longest that fits is meant
        first = max((w for w in words if rest == w or rest.startswith(f"{w} and ")), key=len, default=None)
        if first is None:
            return []
        found.append(first)
        rest = rest.removeprefix(first).removeprefix(" and ")
    return found


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    if width(text) != len(text):  # wide characters: fewer of them on a line
        return textwrap.wrap(text, WIDTH // 2, initial_indent=first, subsequent_indent=rest)
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first]
