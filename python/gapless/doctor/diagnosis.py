"""Diagnosis: what `gapless.diagnose` returns, as an object, as text, as JSON, as a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from .falling import Waterfall
from .result import Finding, Result, plain

if TYPE_CHECKING:
    from ..recipe import Recipe

__all__ = ["Checked", "Diagnosis"]


@dataclass(frozen=True)
class Checked:
    """A check with its outcome.

    Attributes
    ----------
    id, slug, title : str
    result : Result
    seconds : float
    caused_by : str or None
        Id of the finding that this one follows from.
    measure : str
    """

    id: str
    slug: str
    title: str
    result: Result
    seconds: float
    caused_by: str | None
    measure: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        e = self.result.estimate
        return {
            "id": self.id,
            "slug": self.slug,
            "outcome": self.result.outcome,
            "says": self.result.says,
            "points": e.points if e else None,
            "low": e.low if e else None,
            "high": e.high if e else None,
            "p": e.p if e else None,
            "samples_needed": self.result.samples_needed,
            "caused_by": self.caused_by,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Findings by size, every check's outcome, and the waterfall.

    Attributes
    ----------
    gap : float or None
        Training minus validation, a fraction: what the waterfall's steps sum to. None where there is no
        model.
    findings : list of Finding
        Causes over their threshold whose interval excludes 0, the largest first.
    checks : list of Checked
    waterfall : Waterfall or None
    recipe : Recipe or None
        The run's, for `recipe_with`.
    seconds, budget : float
    notes : list of str
    """

    gap: float | None
    findings: list[Finding]
    checks: list[Checked]
    waterfall: Waterfall | None
    recipe: Recipe | None = None
    seconds: float = 0.0
    budget: float = 0.0
    notes: Sequence[str] = field(default_factory=list)

    def finding(self, word: str) -> Finding:
        """The finding with that id or slug."""
        for f in self.findings:
            if word in (f.id, f.slug):
                return f
        have = ", ".join(f"{f.id} {f.slug}" for f in self.findings) or "none"
        raise RecipeError(f"diagnosis: there is no finding {word!r}; there are {have}")

    def recipe_with(self, *words: str) -> Recipe:
        """The run's recipe with the remedies of these findings applied.

        Raises
        ------
        RecipeError
            No such finding, no recipe, or a remedy that is not a change to the recipe.
        """
        if self.recipe is None:
            raise RecipeError("diagnosis: there is no recipe to change: the model was not trained here")
        changed = self.recipe
        for word in words:
            found = self.finding(word)
            if not found.remedy.change:
                raise RecipeError(
                    f"{found.id} {found.slug}: its remedy is not in the recipe: {found.remedy.text}"
                )
            changed = changed.override(found.remedy.change)
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what ``gapless doctor --json`` prints."""
        return {
            "gap": self.gap,
            "findings": [f.to_dict() for f in self.findings],
            "checks": [c.to_dict() for c in self.checks],
            "waterfall": [plain(s.to_dict()) for s in self.waterfall.steps] if self.waterfall else [],
            "notes": [*self.notes, *(self.waterfall.notes if self.waterfall else ())],
            "seconds": round(self.seconds, 3),
            "budget": self.budget,
        }

    # -- as people read it ------------------------------------------------------------------------

    def text(self, *, brief: bool = False) -> str:
        """The whole as text; `brief`: the gap and a line per finding."""
        from ..report.text import transcript

        return transcript(self, brief=brief)

    def to_html(self) -> str:
        """One self-contained page: pictures inside, nothing is loaded from anywhere."""
        from ..report.page import diagnosis_page

        return diagnosis_page(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it by the file's ending: ``.html`` the page, ``.png`` the waterfall, ``.txt``, ``.json``.

        Raises
        ------
        RecipeError
            Another ending, or ``.png`` where there is no gap to draw.
        """
        import json

        from .._files import write_text_atomic

        target = Path(path)
        kind = target.suffix.lower()
        if kind == ".png":
            return self._draw(target)
        makers: dict[str, Callable[[], str]] = {
            ".html": self.to_html,
            ".htm": self.to_html,
            ".txt": lambda: self.text() + "\n",
            ".json": lambda: json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False) + "\n",
        }
        if kind not in makers:
            raise RecipeError(
                f"diagnosis.save: the file's ending must be .html, .png, .txt or .json, got {target.name!r}"
            )
        write_text_atomic(target, makers[kind]())
        return target

    def _draw(self, path: Path) -> Path:
        from ..report import waterfall

        fall = self.waterfall
        if fall is None or not fall.steps:
            raise RecipeError(
                "diagnosis.save: there is no waterfall: no training figure beside one of validation"
            )
        return waterfall(
            [s.to_dict() for s in fall.steps], path, first=float(fall.first), last=float(fall.last)
        )

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from ..report.page import diagnosis_html

        return diagnosis_html(self)
