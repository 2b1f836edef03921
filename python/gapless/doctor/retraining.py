"""Training a run again with something changed: the counterfactual where no pass over recorded batches can be
one.

Nothing is written: there are no evaluations in between, no checkpoints and no pictures. With nothing changed
the weights come out bit for bit as the run's last ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NonFiniteError, RecipeError
from .subject import NetSubject, permuted
from .trial import Trial

if TYPE_CHECKING:
    from ..data import Data
    from .case import Case
    from .replay import Weights

__all__ = ["folds_within", "out_of_fold", "retrained", "seconds_of_training"]

_FOLDS = (5, 3)
_SHARE = 1 / 3  # of the budget
_STREAM = 0xF01D


def seconds_of_training(case: Case) -> float:
    """What the run's own steps took, as it noted them; for as many steps as the checkpoint has."""
    return 0.0 if case.saved is None else float(case.saved.state["training_seconds"])


def retrained(
    case: Case,
    changes: Mapping[str, Any] | None = None,
    *,
    data: Data | None = None,
    until: int | None = None,
    limit: float | None = None,
) -> Weights:
    """The weights that the changed recipe ends with, of the kind that the run deploys (raw or EMA).

    Parameters
    ----------
    case : Case
        With a run; its budget is asked at every step.
    changes : mapping, optional
        As `Recipe.override` takes them.
    data : Data, optional
        Other splits of the same samples.
    until : int, optional
        Steps after which to stop; default all.
    limit : float, optional
        Seconds that it may take, besides the budget.

    Raises
    ------
    RecipeError
        A schedule that follows evaluations, or a file of first weights that is gone.
    NonFiniteError, OverBudgetError
    """
    saved = case.saved
    assert saved is not None
    trial = Trial(case, changes, data=data)
    if trial.recipe["schedule"]["name"] == "ReduceOnPlateau":
        raise RecipeError("schedule: ReduceOnPlateau follows evaluations, which a retraining does not make")
    file = trial.recipe["pretrained"]
    if file and not Path(file).exists():
        raise RecipeError(f"pretrained: {file} is gone: the run cannot be trained again")
    trial.train(until, math.inf if limit is None else limit)
    if not trial.finite:
        raise NonFiniteError("training again: a loss or gradient is not finite")
    return trial.net.state_dict(trial.kind)


def folds_within(case: Case) -> int:
    """How many folds fit into a third of the budget; 0 where not even the fewest do."""
    took = seconds_of_training(case)
    for k in _FOLDS:
        if took > 0 and k * took <= min(_SHARE * case.budget.seconds, case.budget.left / 2):
            return k
    return 0


def out_of_fold(case: Case, ids: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Predictions for training samples by models that were trained without them.

    The samples are cut at random into `k` folds; for each, the recipe is trained on the others, with epochs
    scaled so that as many updates are made as the checkpoint has.

    Returns
    -------
    (n,) int64
        In the order of `ids`.
    """
    data, saved = case.data, case.saved
    assert data is not None
    assert saved is not None
    assert isinstance(case.subject, NetSubject)
    train = data.indices("train")
    fold = np.empty(len(train), np.int64)
    fold[permuted(len(train), case.seed, _STREAM)] = np.arange(len(train)) % k
    limit = 2 * seconds_of_training(case) + 2
    epochs = max(1, round(saved.recipe["epochs"] * k / (k - 1)))
    said = np.full(len(data), -1, np.int64)
    for number in range(k):
        out = train[fold == number]
        weights = retrained(
            case,
            {"epochs": epochs, "monitor": "val/top1"},
            data=_with_held_out(data, out),
            until=saved.state["step"],
            limit=limit,
        )
        mine = np.intersect1d(out, ids)
        if len(mine):
            subject = case.subject.with_weights(dict(weights), "fold")
            said[mine] = case.outputs_of(subject, mine).predictions
    return said[ids]


def _with_held_out(data: Data, out: NDArray[np.int64]) -> Data:
    """The same samples, with these as val and the others of train as train."""
    manifest = data.manifest()
    parts = ["test" if p == "val" else p for p in manifest["samples"]["split"]]
    for i in out.tolist():
        parts[i] = "val"
    manifest["samples"] = {**manifest["samples"], "split": parts}
    return data.with_manifest(manifest)
