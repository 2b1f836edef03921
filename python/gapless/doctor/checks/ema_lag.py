"""W3: the average of the weights lags behind them."""

from __future__ import annotations

import math

from ...training import ema
from ..case import Case, first_word
from ..result import Remedy, Result
from ..siblings import outputs_of_sibling
from ..stats import paired
from ..table import check

__all__ = ["ema_lag"]

_AVERAGED, _RAW = ("ema", "swa", "average", "averaged"), ("raw", "last", "online")


@check(
    "W3",
    "ema-lag",
    "the average of the weights (EMA) lags behind",
    measure="validation accuracy of the last step's weights minus that of their average",
    needs=["other weights", "outputs", "model"],
    cost=lambda case: case.passes(len(case.others), "val"),
    explains=[
        *("W1", "W2", "B1", "B2", "B3", "C1", "C4", "P1", "P2", "P3", "L3", "A1", "M1"),
        *("G1", "G3", "G4", "G5"),
    ],
    reference="timm #245, #102; YOLOv5's ModelEMA ramps the decay",
)
def ema_lag(case: Case) -> Result:
    """Raw and averaged weights of the same step on the same validation samples. How much of the average is
    still the weights before the first step follows from decay and ramp alone. Of models trained elsewhere:
    one named "ema", "swa" or "average", and beside it one named "raw", "last" or "online"."""
    saved = case.saved
    if saved is None:
        return _of_models(case)
    recipe = saved.recipe["ema"]
    if saved.weights_kind != "ema" or "raw" not in case.others or not recipe:
        return Result.clear("the run has no average of its weights")
    decay, tau, steps = float(recipe["decay"]), float(recipe["tau"]), int(saved.state["step"])
    share = ema.initial_share(decay, tau, steps)
    assert case.data is not None
    val, raw = case.outputs("val"), outputs_of_sibling(case, "raw", case.data.indices("val"))
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
    change = faster(decay, tau, steps)
    return Result.tested(
        says,
        e,
        evidence=evidence,
        remedy=Remedy(
            f"Let the average follow faster: decay {change['ema.decay']:g} with a ramp of "
            f"{change['ema.tau']:g} steps; until then use the raw weights.",
            change,
        ),
    )


def _of_models(case: Case) -> Result:
    assert case.subject is not None
    raw = [name for word in _RAW for name in case.named(word)]
    if first_word(case.subject.name) not in _AVERAGED or not raw:
        return Result.clear(
            f"the first model is {case.subject.name!r}: for an average and its raw weights name the models "
            "'ema' and 'raw', the one that is deployed first"
        )
    assert case.data is not None
    val, other = case.outputs("val"), outputs_of_sibling(case, raw[0], case.data.indices("val"))
    e = paired(val.right, other.right)
    evidence = {"accuracy_ema": val.accuracy, "accuracy_raw": other.accuracy}
    says = (
        f"on validation {case.subject.name!r} is right on {100 * val.accuracy:.1f} %, {raw[0]!r} on "
        f"{100 * other.accuracy:.1f} %"
    )
    return Result.tested(
        says,
        e,
        evidence=evidence,
        remedy=Remedy(
            "Use the raw weights; for the next run let the average follow faster: a smaller decay, or one "
            "that is ramped from 0 as the run goes on."
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
