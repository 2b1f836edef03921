"""The free checks that `gapless.train` runs by itself: what costs nothing and needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .case import Budget, Case
from .running import examine
from .table import Row, rows

if TYPE_CHECKING:
    from ..data import Data
    from .result import Finding

__all__ = ["SECONDS", "findings_at_start", "free_rows"]

SECONDS = 1.0
_KNOWN = {"images", "splits", "recipe"}  # facts that there are before training


def free_rows(case: Case) -> list[Row]:
    """Checks that cost nothing and need data and a recipe only."""
    return [r for r in rows() if set(r.needs) <= _KNOWN & case.facts and r.cost(case) == 0]


def findings_at_start(data: Data, recipe: Mapping[str, Any], seconds: float = SECONDS) -> list[Finding]:
    """What the free checks find in data and recipe, the largest first.

    Parameters
    ----------
    data : Data
    recipe : mapping
        Plain data, fully resolved.
    seconds : float
        Checks that are not begun by then are left out.
    """
    from ..recipe import Recipe

    case = Case(budget=Budget(seconds), data=data, recipe=Recipe.from_dict(recipe), seed=recipe["seed"])
    return examine(case, free_rows(case), verbose=0, with_waterfall=False).findings
