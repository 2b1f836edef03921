"""W4: parameters that do not train, because they are frozen or because no gradient reaches them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..case import Case
from ..result import Remedy, Result
from ..stats import share
from ..table import check
from ..trial import Trial, first_weights, retrained, seconds_of_retraining

__all__ = ["frozen_parameters"]

LEAST = 0.01  # share of parameters below which it is not worth a training
MOST_BEFORE = 0.9  # share of parameters that do not train, beyond which it is said before training


@dataclass(frozen=True)
class _Still:
    """What does not train: names and numbers of parameters; whether the run began with other weights than
    the recipe tells of."""

    total: int
    frozen: list[str]
    dead: list[str]
    numbers: int
    strange_start: bool = False

    @property
    def share(self) -> float:
        return self.numbers / max(self.total, 1)


@check(
    "W4",
    "frozen-parameters",
    "a part of the network does not train",
    measure="validation accuracy lost to parameters that do not train (before training: their share)",
    needs=["recipe", "images"],
    cost=lambda case: 0.05 + (seconds_of_retraining(case) if _known_to_be_frozen(case) else 0.0),
    explains=["G3", "G4", "G5", "W1", "C4", "A1", "W3"],
    reference="frozen BatchNorm and backbones: Q2 of the mission; dead ReLUs: Maas et al. 2013",
)
def frozen_parameters(case: Case) -> Result:
    """Asks which parameters were never updated, and which no gradient reaches in a few batches. They are
    trained with the rest in a copy of the run, and validation tells what that gives; where a part is dead,
    the copy begins from the layers' own kind of first weights."""
    still = _at_the_end(case) if case.saved is not None else _at_the_beginning(case)
    numbers: dict[str, Any] = {
        "parameters": still.total,
        "share_that_does_not_train": still.share,
        "frozen": still.frozen[:50],
        "no_gradient": still.dead[:50],
    }
    moving = still.total - still.numbers
    said = f"{moving:,} of {still.total:,} parameters ({100 * (1 - still.share):.1f} %) train"
    if still.share < LEAST:
        return Result.clear(said, evidence=numbers)
    if case.saved is None:
        return _before_training(case, still, said, numbers)
    weights = (case.saved.weights("raw") or case.saved.scored()) if still.strange_start else None
    plain = bool(still.dead) and not still.strange_start
    made = retrained(case, {"freeze": []}, weights=weights, plain_start=plain)
    e = made.estimate
    numbers |= {"val_accuracy": made.before.accuracy, "val_accuracy_when_all_train": made.after.accuracy}
    said += f"; {made.said} with all of them, validation is {100 * made.after.accuracy:.1f} % instead of "
    said += f"{100 * made.before.accuracy:.1f} %"
    if e.low <= 0:
        return Result.clear(said, e, evidence=numbers)
    return Result.found(said, e, evidence=numbers, remedy=_remedy(still))


def _remedy(still: _Still) -> Remedy:
    if still.dead:
        layers = sorted({n.rpartition(".")[0] for n in still.dead})[:5]
        return Remedy(
            f"No gradient reaches {', '.join(layers)}: give these layers other first weights (a bias of 0 "
            "before ReLU), or a smaller learning rate."
        )
    return Remedy("Let all layers train.", {"freeze": []})


def _before_training(case: Case, still: _Still, said: str, numbers: dict[str, Any]) -> Result:
    e = share(still.numbers, still.total, 0.0)
    if still.share < MOST_BEFORE or (case.recipe is not None and case.recipe.pretrained and not still.dead):
        return Result.clear(said, evidence=numbers)
    return Result.found(said, e, evidence=numbers, remedy=_remedy(still))


def _known_to_be_frozen(case: Case) -> bool:
    return case.saved is not None and bool(case.recipe is not None and case.recipe.freeze)


def _at_the_end(case: Case) -> _Still:
    """Frozen or dead, by the run's own weights at its end."""
    saved = case.saved
    assert saved is not None
    last, first = saved.weights("raw") or saved.scored(), first_weights(case)
    trial = Trial(case, weights=last)  # knows what the recipe freezes
    params = [e for e in trial.net.entries() if e["kind"] == "param"]
    updates = saved.state["updates"] if saved.state["step"] > 0 else {}
    frozen = [e["name"] for e in params if not e["trainable"] or updates.get(e["name"], 1) == 0]
    alive = _alive(trial)
    dead = [e["name"] for e in params if e["name"] not in {*frozen, *alive}] if alive else []
    numbers = sum(e["count"] for e in params if e["name"] in {*frozen, *dead})
    strange = any(not np.array_equal(first[n], last[n]) for n in frozen)
    return _Still(sum(e["count"] for e in params), frozen, dead, numbers, strange)


def _at_the_beginning(case: Case) -> _Still:
    """Frozen by the recipe, or without a gradient in the first batches."""
    trial = Trial(case)
    alive = _alive(trial)
    params = [e for e in trial.net.entries() if e["kind"] == "param"]
    frozen = [e["name"] for e in params if not e["trainable"]]
    dead = [e["name"] for e in params if e["trainable"] and e["name"] not in alive] if alive else []
    numbers = sum(e["count"] for e in params if e["name"] in {*frozen, *dead})
    return _Still(sum(e["count"] for e in params), frozen, dead, numbers)


def _alive(trial: Trial) -> set[str]:
    """Parameters that a gradient reaches in one of the first batches."""
    alive: set[str] = set()
    for batch in islice(trial.feed(), 3):
        trial.update(batch, 0.0)
        if trial.finite:
            alive |= {n for n, g in trial.plan.gradients().items() if np.any(g)}
    return alive
