"""W3: the average of the weights lags behind them."""

from __future__ import annotations

import math

from ...training import ema
from ..case import Case
from ..result import Remedy, Result
from ..stats import paired
from ..table import check

__all__ = ["ema_lag"]


@check(
    "W3",
    "ema-lag",
    "the average of the weights (EMA) lags behind",
    measure="validation accuracy of the last step's weights minus that of their average",
    needs=["run", "outputs", "model"],
    cost=lambda case: case.passes(len(case.others), "val"),
    explains=[
        *("W1", "W2", "B1", "B2", "B3", "C1", "C4", "P1", "P2", "P3", "L3", "A1", "M1"),
        *("G1", "G3", "G4", "G5"),
    ],
    reference="timm #245, #102; YOLOv5's ModelEMA ramps the decay",
)
def ema_lag(case: Case) -> Result:
    """Raw and averaged weights of the same step on the same validation samples. How much of the average is
    still the weights before the first step follows from decay and ramp alone."""
    saved = case.saved
    assert saved is not None
    recipe = saved.recipe["ema"]
    if saved.weights_kind != "ema" or "raw" not in case.others or not recipe:
        return Result.clear("the run has no average of its weights")
    decay, tau, steps = float(recipe["decay"]), float(recipe["tau"]), int(saved.state["step"])
    share = ema.initial_share(decay, tau, steps)
    val, data = case.outputs("val"), case.data
    assert data is not None
    raw = case.keep(
        ("val of", "raw"), lambda: case.outputs_of(case.others["raw"], data.indices("val"), "raw")
    )
    e = paired(val.right, raw.right)
    evidence = {
        "initial_share": share,
        "decay": decay,
        "tau": tau,
        "steps": steps,
        "accuracy_ema": val.accuracy,
        "accuracy_raw": raw.accuracy,
    }
    says = (
        f"after {steps} steps {100 * share:.1f} % of the average is still the initial weights; on validation "
        f"it is right on {100 * val.accuracy:.1f} %, the last step's weights on {100 * raw.accuracy:.1f} %"
    )
    if e.points < 0.02 or e.p >= 0.05:
        return Result.clear(says, e, evidence=evidence)
    change = faster(decay, tau, steps)
    return Result.found(
        says,
        e,
        evidence=evidence,
        remedy=Remedy(
            f"Let the average follow faster: decay {change['ema.decay']:g} with a ramp of "
            f"{change['ema.tau']:g} steps; until then use the raw weights.",
            change,
        ),
    )


def faster(decay: float, tau: float, steps: int) -> dict[str, float]:
    """Decay and ramp whose average covers the last twentieth of so many steps, and holds nothing of the first
    weights.

    >>> change = faster(0.999, 0.0, 264)
    >>> change, ema.initial_share(change["ema.decay"], change["ema.tau"], 264) < 0.001
    ({'ema.decay': 0.92, 'ema.tau': 13}, True)
    """
    wanted = 1 - 20 / max(steps, 40)
    ramp = max(1.0, math.floor(steps / 20))
    return {
        "ema.decay": min(decay, round(wanted, 4) if wanted > 0.99 else math.floor(wanted * 100) / 100),
        "ema.tau": min(tau, ramp) if tau > 0 else ramp,
    }
