"""`gapless.check`: the data, before anything is trained on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from . import table
from .case import Budget, Case
from .diagnosis import Diagnosis
from .running import examine

if TYPE_CHECKING:
    from ..data import Data
    from ..recipe import Recipe

__all__ = ["check"]


def check(data: Any, recipe: Any = None, *, budget: float = 60.0, verbose: int = 1) -> Diagnosis:
    """Examine data before training: splits, duplicates, groups, shortcuts, shifts, labels.

    Parameters
    ----------
    data : Data, path, name or Recipe
        What to examine; a recipe (or the path of one) stands for its own data.
    recipe : Recipe or path, optional
        What will be trained, for the checks that need it.
    budget : float, default 60
        Seconds. Checks that would not fit are left out, and named.
    verbose : int, default 1
        1 shows a progress bar on a terminal.

    Returns
    -------
    Diagnosis
        As of `gapless.diagnose`, without a gap and without a waterfall.

    Raises
    ------
    RecipeError, DataError
        Input that cannot be used.

    Examples
    --------
    >>> import gapless as gl
    >>> found = gl.check("digits", verbose=0)
    >>> found.gap is None, found.findings
    (True, [])
    """
    if not budget > 0:
        raise RecipeError(f"budget: seconds must be > 0, got {budget!r}")
    case = open_data(data, recipe, Budget(budget))
    ready = [row for row in table.rows() if set(row.needs) <= case.facts]
    return examine(case, ready, verbose=verbose, with_waterfall=False)


def open_data(data: Any, recipe: Any, budget: Budget) -> Case:
    """The case of data and perhaps a recipe."""
    from .. import data as sources
    from ..recipe import Recipe

    said = _recipe_of(data)
    if said is not None:
        if recipe is not None:
            raise RecipeError("check: data is a recipe already; give one recipe")
        recipe, data = said, None
    elif recipe is not None and not isinstance(recipe, Recipe):
        recipe = Recipe.from_yaml(os.fspath(recipe))
    if data is None:
        assert isinstance(recipe, Recipe)
        data = recipe.live.get("data", recipe.data)
    source: Data = data if isinstance(data, sources.Data) else sources.open(data)
    return Case(budget=budget, data=source, recipe=recipe)


def _recipe_of(data: Any) -> Recipe | None:
    """The recipe that `data` is or names; None where it is data."""
    from ..recipe import Recipe

    if isinstance(data, Recipe):
        return data
    if isinstance(data, str | os.PathLike) and not isinstance(data, Mapping):
        path = Path(os.fspath(data))
        if path.suffix.lower() in (".yaml", ".yml"):
            return Recipe.from_yaml(path)
    return None
