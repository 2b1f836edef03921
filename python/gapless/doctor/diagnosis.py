"""Diagnosis: what `gapless.diagnose` returns, as an object, as text, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
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
