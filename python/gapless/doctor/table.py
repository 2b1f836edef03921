"""The table of checks: one file per check, and the row that its decorator makes.

A check is a function of a `Case` that returns a `Result`. Its row says what it needs, what it costs and what
its points are points of; `diagnose` does the rest. A file in `gapless/doctor/checks/` is found by itself, and
a user's own function joins the table by the same decorator.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import _peers
from ..errors import RecipeError

if TYPE_CHECKING:
    from .case import Case
    from .result import Result

__all__ = ["FACTS", "Row", "check", "named", "rows"]

#: What a check may need, and how it is called when it is missing.
FACTS = {
    "outputs": "predictions for validation samples",
    "scores": "logits or probabilities of validation samples (not only the predicted class)",
    "train outputs": "predictions for training samples",
    "logged": "the accuracy that training logged",
    "images": "the images",
    "splits": "images of both training and validation",
    "model": "the model",
    "train images and model": "the model and training images",
    "run": "a run or checkpoint of gapless",
    "history": "the table of training samples that a run of gapless keeps",
    "other weights": "a run of gapless, or several models by name",
    "draws": "the table of training samples that a run of gapless keeps, or a model named 'softer'",
    "recipe": "a recipe",
    "yolo labels": "a detector's labels in YOLO's form",
    "detector losses": "a detector's losses image by image",
}


@dataclass(frozen=True)
class Row:
    """A check's row.

    Attributes
    ----------
    id, slug : str
        As in ``P3`` and ``resolution``; the slug is what people type.
    title : str
        The cause in a few words.
    measure : str
        What the points are points of, such as "validation accuracy recovered at the better size"; begins with
        "validation accuracy" where they are that.
    needs : tuple of str
        Keys of `FACTS`.
    cost : callable
        Case → expected seconds; 0 for what is free.
    threshold : float
        Points below which a finding is no finding.
    explains : tuple of str
        Ids of checks whose findings are mere consequences when this one is found.
    reference : str
    run : callable
        Case → Result.
    """

    id: str
    slug: str
    title: str
    measure: str
    needs: tuple[str, ...]
    cost: Callable[[Case], float]
    threshold: float
    explains: tuple[str, ...]
    reference: str
    run: Callable[[Case], Result]

    @property
    def brings_back(self) -> bool:
        """Whether its points are validation accuracy, by what its measure begins with: such points of two
        checks can be compared."""
        return self.measure.startswith("validation accuracy")

    @property
    def is_own(self) -> bool:
        """Whether it is one of the package, not of a caller."""
        return self.run.__module__.startswith(_PACKAGE)

    def measured(self, case: Case) -> Result:
        """The check's result, made once for a case: the waterfall may ask before the check's own turn."""
        made: Result = case.keep(("result", self.id), lambda: self.run(case))
        return made


_ROWS: dict[str, Row] = {}
_LOADED = False
_PACKAGE = f"{__package__}.checks."


def check(
    id: str,
    slug: str,
    title: str,
    *,
    measure: str,
    needs: Sequence[str],
    cost: float | Callable[[Case], float] = 0.0,
    threshold: float = 0.02,
    explains: Sequence[str] = (),
    reference: str = "",
) -> Callable[[Callable[[Case], Result]], Callable[[Case], Result]]:
    """Add a function to the table of checks.

    Parameters
    ----------
    id, slug, title : str
        ``"U1"``, ``"my-check"``, the cause in a few words.
    measure : str
        What its points are points of; begins with "validation accuracy" where they are that.
    needs : sequence of str
        What must be there: keys of `gapless.doctor.FACTS`.
    cost : float or callable
        Expected seconds, or a function of the case that tells them; the cheap ones run first.
    threshold : float
        Points (a fraction) below which it says nothing.
    explains : sequence of str
        Ids of findings that follow from this one.
    reference : str

    Examples
    --------
    >>> from gapless import doctor
    >>> @doctor.check("U1", "few-samples", "too few validation samples", measure="half the interval's width",
    ...               needs=["outputs"])
    ... def few_samples(case):
    ...     n = len(case.outputs("val"))
    ...     return doctor.Result.clear(f"{n} samples")
    >>> doctor.named("few-samples").id
    'U1'
    >>> doctor.forget("U1")
    """
    if not re.fullmatch(r"[A-Z][0-9]+", id):
        raise RecipeError(f"check: id must be a letter and a number, like 'U1', got {id!r}")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise RecipeError(f"check: slug must be words of small letters joined by '-', got {slug!r}")
    needs = [needs] if isinstance(needs, str) else needs
    for fact in needs:
        if fact not in FACTS:
            raise RecipeError(f"check {slug}: needs {fact!r}; there are {', '.join(map(repr, FACTS))}")

    def add(run: Callable[[Case], Result]) -> Callable[[Case], Result]:
        for row in _ROWS.values() if run.__module__.startswith(_PACKAGE) else rows():
            same = row.id == id and row.run.__module__ == run.__module__  # written again, in a notebook
            if (row.id == id or row.slug == slug) and not same:
                raise RecipeError(f"check {id} {slug!r}: {row.id} {row.slug!r} is there already")
        of = cost if callable(cost) else lambda _case: float(cost)
        _ROWS[id] = Row(
            id, slug, title, measure, tuple(needs), of, threshold, tuple(explains), reference, run
        )
        return run

    return add


def forget(id: str) -> None:
    """Take a check out of the table."""
    _ROWS.pop(id, None)


def rows() -> list[Row]:
    """Every check, by id; the package's own are loaded at the first call."""
    global _LOADED
    if not _LOADED:
        from . import checks

        for module in pkgutil.iter_modules(checks.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{checks.__name__}.{module.name}")
        _LOADED = True
    return [_ROWS[k] for k in sorted(_ROWS, key=lambda k: (k[0], int(k[1:])))]


def named(word: str) -> Row:
    """The check with that slug or id; an error that names the nearest one."""
    for row in rows():
        if word.lower() in (row.slug, row.id.lower()):
            return row
    near = _peers.nearest(word, [r.slug for r in rows()])
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(r.slug for r in rows())}"
    raise RecipeError(f"check {word!r}: unknown; {hint}")


def chosen(words: Iterable[str] | None) -> list[Row]:
    """The rows that these slugs or ids name, each once; all for None."""
    if words is None:
        return rows()
    return list(dict.fromkeys(named(w) for w in ([words] if isinstance(words, str) else words)))
