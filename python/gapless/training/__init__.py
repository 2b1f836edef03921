"""Training: `train` and the `Run` that it returns."""

from __future__ import annotations

import json as json_text
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..evaluation import threads_set
from . import begin
from .console import Console
from .interrupt import Interrupt
from .loop import Trainer
from .run import Run

if TYPE_CHECKING:
    from ..recipe import Recipe

__all__ = ["Run", "train"]

EVENTS = ("on_step", "on_epoch", "on_eval", "on_end")


def train(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    resume: Any = None,
    callbacks: Iterable[Any] = (),
    threads: int | None = None,
    verbose: int = 1,
    json: bool = False,
    checks: bool = True,
) -> Run:
    """Train by a recipe, or go on with a run.

    Parameters
    ----------
    recipe : Recipe, dict or path of a YAML file
        Not with `resume`, which has its own; only for data that live in your program (arrays, callables)
        give the same recipe again.
    out : path, optional
        The run's folder, ``runs/run`` by default. One that exists gets a number: ``runs/run-2``; the link
        ``latest`` beside it points to the newest.
    resume : path or Run, optional
        A run's folder, or a checkpoint in it: training goes on where the last checkpoint was saved, and ends
        with the weights, to the bit, of a run that was never stopped.
    callbacks : iterable of objects
        With any of the methods ``on_step(info: dict)``, ``on_epoch(row: dict)``, ``on_eval(record:
        EvalRecord)``, ``on_end(run: Run)``. What they raise ends the run; the last checkpoint stands.
    threads : int, optional
        For speed only: no number depends on it.
    verbose : int, default 1
        0: warnings only.
    json : bool, default False
        Print the run's JSON document on standard output, and everything else on standard error.
    checks : bool, default True
        Before a new run, let the doctor's free checks look at data and recipe (under a second), and warn in
        a line each.

    Returns
    -------
    Run

    Raises
    ------
    NonFiniteError
        A loss, gradient or statistic is not finite; names layer, step and samples. The last good checkpoint
        stands.
    RecipeError, DataError, CheckpointError
        Input that cannot be used; nothing was trained.

    Examples
    --------
    >>> import tempfile
    >>> import gapless as gl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recipe = gl.Recipe(data="digits", model="lenet", epochs=2)
    ...     run = gl.train(recipe, out=f"{folder}/digits", verbose=0)
    ...     record = gl.evaluate(run.best)
    ...     said = gl.load(run.best).predict([gl.data.digits().load(0)]).labels
    >>> record.reproduced, record.loss == run.record.loss, record.n_scored, len(said)
    ('exact', True, 359, 1)
    """
    console = Console(verbose, json)
    callbacks = tuple(callbacks)
    for c in callbacks:
        if not any(callable(getattr(c, e, None)) for e in EVENTS):
            raise RecipeError(f"callbacks: {c!r} has none of the methods {', '.join(EVENTS)}")
    made: Trainer | Run
    with threads_set(threads), Interrupt() as interrupt:
        if resume is not None:
            if out is not None:
                raise RecipeError("out: a resumed run stays in its folder; give either resume or out")
            made = begin.resume(_path_of(resume), recipe, console, threads)
        else:
            if recipe is None:
                raise RecipeError(
                    "recipe: needed unless resume is given; the shortest is gl.Recipe(data='digits')"
                )
            made = begin.start(begin.recipe_of(recipe), out, console, threads)
        run = made if isinstance(made, Run) else made.run(callbacks, interrupt, checks)
    if json:
        print(json_text.dumps(run.to_dict(), ensure_ascii=False, allow_nan=False), flush=True)
    return run


def _path_of(resume: Any) -> Path:
    return Path(resume.out if isinstance(resume, Run) else resume)
