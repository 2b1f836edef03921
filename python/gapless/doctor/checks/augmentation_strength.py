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
from ..stats import Estimate, difference, paired
from ..subject import NetSubject
from ..table import check

__all__ = ["augmentation_strength", "softer"]

_SHARE = 0.25  # of the budget, for both retrainings


@check(
    "A1",
    "augmentation-strength",
    "augmentation is too strong",
    measure="validation accuracy that a softer augmentation reaches, minus this run's",
    needs=["run", "history", "outputs", "train images and model"],
    cost=replay_cost(3),
    explains=["P3", "G3"],
    reference="Touvron et al. 2019, arXiv 1906.06423; a training accuracy on clean images below validation",
)
def augmentation_strength(case: Case) -> Result:
    """First the passes: the last step's weights on recorded training images as they were drawn, standing
    still, and by the evaluation pipeline. Where augmentation hides much, and either training images are not
    learnt or validation is above them, the recipe is trained twice more with the operations softened (one of
    the two with another seed): only that shows what softer would give. That it is too weak cannot be told
    without a retraining per strength, and is not tried."""
    replay = replay_of(case)
    if replay is None:
        return Result.left_out("no whole epoch can be replayed")
    if not replay.draws:
        return Result.clear(
            "the training pipeline draws nothing; whether augmentation would help needs a retraining"
        )
    weights = replay.saved.weights("raw")
    assert weights is not None
    drawn, still, clean = (
        replay.passed("raw", weights, Mode(False, "running", view)).right  # type: ignore[arg-type]
        for view in ("augmented", "still", "evaluation")
    )
    hides, val = paired(drawn, still), case.outputs("val")
    below = difference(int(val.right.sum()), len(val), int(clean.sum()), len(clean))
    evidence: dict[str, Any] = {
        "accuracy_augmented": float(drawn.mean()),
        "accuracy_still": float(still.mean()),
        "accuracy_clean": float(clean.mean()),
        "accuracy_val": val.accuracy,
    }
    says = (
        f"training images as drawn {100 * drawn.mean():.1f} %, standing still {100 * still.mean():.1f} %, by the "
        f"evaluation pipeline {100 * clean.mean():.1f} %; validation {100 * val.accuracy:.1f} %"
    )
    under = below.points > 0 and below.p < 0.05
    if hides.points < 0.02 or hides.p >= 0.05 or (clean.mean() > 0.9 and not under):
        return Result.clear(
            f"{says}: not too strong; whether it is too weak needs a retraining", evidence=evidence
        )
    change = softer(replay)
    took = 2 * seconds_of_training(case)
    if not change or took > min(_SHARE * case.budget.seconds, case.budget.left / 2):
        why = f"two retrainings of {took / 2:.0f} s would" if change else "no operation here can be softened"
        return Result.undecided(f"{says}: it may be too strong; to decide, {why}", evidence=evidence)
    return _by_retraining(case, val, change, says, evidence)


def _by_retraining(
    case: Case, val: Outputs, change: dict[str, Any], says: str, evidence: dict[str, Any]
) -> Result:
    assert case.recipe is not None
    assert case.data is not None
    assert isinstance(case.subject, NetSubject)
    order, found = case.data.indices("val"), []
    for seed in (case.recipe.seed, case.recipe.seed + 1):
        weights = retrained(case, {**change, "seed": seed}, limit=2 * seconds_of_training(case) + 2)
        found.append(case.outputs_of(case.subject.with_weights(dict(weights), "softer"), order, "val"))
    e = _both(val, found)
    evidence["accuracy_softer"] = [o.accuracy for o in found]
    evidence["change"] = change
    says += f"; trained with softer augmentation: {' and '.join(f'{100 * o.accuracy:.1f}' for o in found)} %"
    if e.points < 0.02 or e.p >= 0.05:
        return Result.clear(says, e, evidence=evidence)
    text = ", ".join(f"{k.removeprefix('train.')} {v}" for k, v in change.items())
    return Result.found(
        says, e, evidence=evidence, remedy=Remedy(f"Soften the augmentation: {text}.", change)
    )


def _both(val: Outputs, found: list[Outputs]) -> Estimate:
    """Over the retrainings: the mean, an interval around all of theirs and of what retraining scatters by,
    the larger p-value."""
    parts = [paired(val.right, o.right) for o in found]
    points = float(np.mean([e.points for e in parts]))
    spread = abs(found[0].accuracy - found[1].accuracy) / math.sqrt(2)
    low = min(min(e.low for e in parts), points - 1.96 * spread)
    high = max(max(e.high for e in parts), points + 1.96 * spread)
    return Estimate(points, low, high, max(e.p for e in parts))


def softer(replay: Replay) -> dict[str, Any]:
    """The change to the recipe that halves each random operation; empty where none can be softened."""
    change: dict[str, Any] = {}
    for at, op in enumerate(replay.pipeline.ops):
        c = op.config()
        if op.name == "RandomResizedCrop":
            low, high = c["scale"]
            if low < high:
                change[f"train.{at}.scale"] = [round((low + high) / 2, 4), high]
        elif op.name == "RandomCrop" and c["padding"] is not None:
            pad = c["padding"] if isinstance(c["padding"], (list, tuple)) else [c["padding"]]
            half = [p // 2 for p in pad]
            change[f"train.{at}.padding"] = half[0] if len(half) == 1 else half
        elif op.name == "RandomHorizontalFlip" and len(_drawing(replay)) == 1:
            change[f"train.{at}.p"] = 0.0
    return change


def _drawing(replay: Replay) -> list[str]:
    return [op.name for op in replay.pipeline.ops if op.random]
