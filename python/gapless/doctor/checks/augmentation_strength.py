"""A1: augmentation that is too strong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..case import Case
from ..norms import replay_cost
from ..outputs import Outputs
from ..replay import Mode, Replay, replay_of
from ..result import Remedy, Result
from ..retraining import retrained, seconds_of_training
from ..siblings import outputs_of_sibling
from ..stats import Estimate, difference, paired
from ..subject import NetSubject
from ..table import check

__all__ = ["augmentation_strength", "softer"]

#: A run that is not trained to its end learns faster with less augmentation: a few points are no fault.
_LEAST = 0.05
_LEARNT = 0.9  # of training images, by the evaluation pipeline
_MODES = (Mode(False, "running"), Mode(False, "running", "still"), Mode(False, "running", "evaluation"))
_RETRAININGS = 3
_SHARE = 0.25  # of the budget, for all of them


@check(
    "A1",
    "augmentation-strength",
    "augmentation is too strong",
    measure="validation accuracy that a softer augmentation reaches, minus this run's",
    needs=["draws", "outputs", "train images and model"],
    cost=lambda case: replay_cost(*_MODES)(case) if case.saved is not None else _cost_of_models(case),
    threshold=_LEAST,
    explains=["P3", "G3", "G4", "G5"],
    reference="Touvron et al. 2019, arXiv 1906.06423; a training accuracy on clean images below validation",
)
def augmentation_strength(case: Case) -> Result:
    """First the passes: the last step's weights on recorded training images as they were drawn, standing
    still, and by the evaluation pipeline. Where training images are not learnt, or validation is above them,
    the recipe is trained three times more with the operations softened, with different seeds: only that shows
    what softer would give. That it is too weak cannot be told without a retraining per strength, and is not
    tried. Of a model trained elsewhere: its accuracy on clean training images, and the model that was trained
    with softer augmentation and is named "softer" ("softer 2" and so on, of other seeds)."""
    if case.saved is None:
        return _of_models(case)
    replay = replay_of(case)
    if replay is None:
        return Result.left_out("no whole epoch can be replayed")
    if not replay.draws:
        return Result.clear(
            "the training pipeline draws nothing; whether augmentation would help needs a retraining"
        )
    weights = replay.saved.weights("raw")
    assert weights is not None
    drawn, still, clean = (replay.passed("raw", weights, mode).right for mode in _MODES)
    val = case.outputs("val")
    below = difference(int(val.right.sum()), len(val), int(clean.sum()), len(clean))
    evidence: dict[str, Any] = {
        "accuracy_augmented": float(drawn.mean()),
        "accuracy_still": float(still.mean()),
        "accuracy_clean": float(clean.mean()),
        "accuracy_val": val.accuracy,
    }
    says = (
        f"training images as drawn {100 * drawn.mean():.1f} %, standing still {100 * still.mean():.1f} %, by "
        f"the evaluation pipeline {100 * clean.mean():.1f} %; validation {100 * val.accuracy:.1f} %"
    )
    under = below.points > 0 and below.p < 0.05
    if clean.mean() > _LEARNT and not under:
        return Result.clear(
            f"{says}: not too strong; whether it is too weak needs a retraining", evidence=evidence
        )
    change = softer(replay)
    took = _RETRAININGS * seconds_of_training(case)
    if not change or took > min(_SHARE * case.budget.seconds, case.budget.left / 2):
        why = (
            f"{_RETRAININGS} retrainings of {took / _RETRAININGS:.0f} s would"
            if change
            else "no operation here can be softened"
        )
        return Result.undecided(f"{says}: it may be too strong; to decide, {why}", evidence=evidence)
    return _by_retraining(case, val, change, says, evidence)


def _by_retraining(
    case: Case, val: Outputs, change: dict[str, Any], says: str, evidence: dict[str, Any]
) -> Result:
    assert case.recipe is not None
    assert case.data is not None
    assert isinstance(case.subject, NetSubject)
    order, found = case.data.indices("val"), []
    for seed in range(case.recipe.seed, case.recipe.seed + _RETRAININGS):
        weights = retrained(case, {**change, "seed": seed}, limit=2 * seconds_of_training(case) + 2)
        found.append(case.outputs_of(case.subject.with_weights(dict(weights), "softer"), order, "val"))
    e = _all(val, found)
    evidence["accuracy_softer"] = [o.accuracy for o in found]
    evidence["change"] = change
    says += f"; trained with softer augmentation: {' and '.join(f'{100 * o.accuracy:.1f}' for o in found)} %"
    if e.points < _LEAST or e.p >= 0.05:
        return Result.clear(says, e, evidence=evidence)
    rise = _rise(case)
    if rise > e.points / 2:  # whatever makes the first steps easier helps a run that has only begun
        return Result.undecided(
            f"{says}. But accuracy was still rising when training ended ({100 * rise:+.0f} points): train "
            "longer first",
            e,
            evidence=evidence,
        )
    if rise > 0.02:
        says += (
            f". Accuracy was still rising when training ended ({100 * rise:+.0f} points): longer may help too"
        )
    text = ", ".join(f"{k.removeprefix('train.')} {v}" for k, v in change.items())
    return Result.found(
        says, e, evidence=evidence, remedy=Remedy(f"Soften the augmentation: {text}.", change)
    )


def _cost_of_models(case: Case) -> float:
    return case.passes(len(case.named("softer"))) + case.passes(1, "train")


def _of_models(case: Case) -> Result:
    assert case.data is not None
    val, train, order = case.outputs("val"), case.outputs("train"), case.data.indices("val")
    found = [outputs_of_sibling(case, name, order) for name in case.named("softer")]
    e = paired(val.right, found[0].right) if len(found) == 1 else _all(val, found)
    evidence: dict[str, Any] = {
        "accuracy_clean": train.accuracy,
        "accuracy_val": val.accuracy,
        "accuracy_softer": [o.accuracy for o in found],
    }
    says = (
        f"training images by the evaluation preprocessing {100 * train.accuracy:.1f} %, validation "
        f"{100 * val.accuracy:.1f} %; trained with softer augmentation: "
        f"{' and '.join(f'{100 * o.accuracy:.1f}' for o in found)} %"
    )
    if e.points < _LEAST or e.p >= 0.05:
        return Result.clear(says, e, evidence=evidence)
    if len(found) == 1:
        says += " (one training each: what another seed would change is not in the interval)"
    return Result.found(says, e, evidence=evidence, remedy=Remedy("Train with the softer augmentation."))


def _all(val: Outputs, found: list[Outputs]) -> Estimate:
    """Over the retrainings: the mean; an interval that holds the error of validation and that of so few
    retrainings (Student's t); the largest p-value."""
    from scipy.stats import t

    parts = [paired(val.right, o.right) for o in found]
    points, n = float(np.mean([e.points for e in parts])), len(parts)
    spread = float(np.std([e.points for e in parts], ddof=1))
    half = math.hypot(
        float(np.mean([e.high - e.low for e in parts])) / 2,
        float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n),
    )
    return Estimate(points, points - half, points + half, max(e.p for e in parts))


def _rise(case: Case) -> float:
    """What the logged accuracy gained over the last fifth of the epochs; all of it where there was one."""
    assert case.saved is not None
    logged = [r["train/running/top1"] for r in case.saved.history if r.get("train/running/top1") is not None]
    if len(logged) < 2:
        return float(sum(logged))
    return float(logged[-1] - logged[-1 - max(1, len(logged) // 5)])


def softer(replay: Replay) -> dict[str, Any]:
    """The change to the recipe that halves each random operation; empty where none can be softened."""
    change: dict[str, Any] = {}
    for at, op in enumerate(replay.pipeline.ops):
        c = op.config()
        if op.name == "RandomResizedCrop":
            low, _ = c["scale"]
            if low < 1.0:  # half of what is cut away, of the whole picture: also where `high` is small
                change[f"train.{at}.scale"] = [round((low + 1.0) / 2, 4), 1.0]
        elif op.name == "RandomCrop" and c["padding"] is not None:
            pad = c["padding"] if isinstance(c["padding"], (list, tuple)) else [c["padding"]]
            half = [p // 2 for p in pad]
            change[f"train.{at}.padding"] = half[0] if len(half) == 1 else half
        elif op.name == "RandomHorizontalFlip" and len(_drawing(replay)) == 1:
            change[f"train.{at}.p"] = 0.0
    return change


def _drawing(replay: Replay) -> list[str]:
    return [op.name for op in replay.pipeline.ops if op.random]
