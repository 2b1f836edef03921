"""W2: the weights under examination are not the ones that should be."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...evaluation import list_digest
from ...record import EvalRecord
from ..case import Case
from ..outputs import Outputs
from ..result import Remedy, Result
from ..siblings import outputs_of_sibling, siblings
from ..stats import Estimate, paired
from ..table import check

__all__ = ["which_weights"]

MOST = 2000  # training images that alternatives are asked about


@check(
    "W2",
    "which-weights",
    "other weights of the same run are better, or are those of the record",
    measure="validation accuracy of the better weights minus that of these",
    needs=["other weights", "outputs", "model"],
    cost=lambda case: case.passes(1 + len(case.others), "val") + case.passes(1, "train", most=MOST),
    explains=[
        *("W1", "M1", "C4", "P1", "P2", "P3", "C1", "L3", "B1", "B2", "B3", "A1"),
        *("G1", "G2", "G3", "G4", "G5"),
    ],
    reference="timm #102: EMA or raw, best or last; scored is not always what was logged",
)
def which_weights(case: Case) -> Result:
    """Scores raw and averaged, best and last weights on the same validation samples, and holds the digest of
    these weights to the one in their record. Which alternative is best is chosen on one half of the samples
    and measured on the other, and the other way round. What was chosen by validation before is tested on
    training images too. Of models trained elsewhere: the first against those named beside it, but for one
    named "softer" (A1)."""
    recorded = _record(case)
    if recorded is not None:
        return recorded
    val, others = case.outputs("val"), _others(case)
    if not others:
        return Result.clear("there are no other weights beside these")
    chosen = max(others, key=lambda k: others[k].accuracy)
    e = _honest(case, val, others)
    evidence = {"accuracy": {_own_name(case): val.accuracy} | {k: o.accuracy for k, o in others.items()}}
    listed = ", ".join(f"{k} {100 * v:.1f} %" for k, v in evidence["accuracy"].items())
    return Result.tested(
        f"on validation: {listed}",
        e,
        evidence=evidence,
        remedy=Remedy(
            f"Deploy the weights {chosen!r} instead; name weights by their digest when you score them."
        ),
    )


def _own_name(case: Case) -> str:
    if case.saved is None:
        assert case.subject is not None
        return case.subject.name
    path = case.saved.path
    return f"{path.stem if path is not None else 'these'} ({case.saved.weights_kind})"


def _record(case: Case) -> Result | None:
    """A finding where the record in the file is about other weights than those in it."""
    saved = case.saved
    if saved is None or "val" not in saved.records or case.data is None:
        return None
    record, scorer = EvalRecord.from_dict(saved.records["val"]), case.scorer()
    was, now = record.digests["weights"], scorer.net.digest()
    order = np.sort(case.data.indices("val"))
    if was == now or record.digests["data"] != list_digest(scorer.data, order):
        return None
    val = case.outputs("val")
    points = record.correct[1] / record.n_scored - val.accuracy
    e = Estimate(points, points, points, 0.0)
    says = (
        f"the record is of weights {was[:12]}…, those in the file are {now[:12]}…: recorded "
        f"{record.correct[1]} of {record.n_scored}, now {int(np.count_nonzero(val.right))}"
    )
    evidence = {"recorded": was, "now": now}
    if abs(points) < 0.02:
        return Result.clear(says, e, evidence=evidence)
    remedy = Remedy(
        "Take the checkpoint from the run again: its weights were replaced after they were scored."
    )
    return Result.found(says, e, evidence=evidence, remedy=remedy)


def _others(case: Case) -> dict[str, Outputs]:
    """Validation outputs of the run's other weights."""
    assert case.data is not None
    val = case.data.indices("val")
    softer = case.named("softer")
    return {name: outputs_of_sibling(case, name, val) for name in siblings(case) if name not in softer}


def _honest(case: Case, val: Outputs, others: dict[str, Outputs]) -> Estimate:
    """What choosing the best alternative brings, without what choosing it on these samples brings."""
    names = [_own_name(case), *others]
    right = np.stack([val.right, *(o.right for o in others.values())])
    side = _halves(val)
    after = np.empty(len(val), bool)
    for here in (True, False):
        pick = int(np.argmax(right[:, side == here].mean(axis=1)))
        after[side != here] = right[pick][side != here]
    e = paired(val.right, after)
    looks = _looks(case) if any(n.startswith("best") for n in names[1:]) else 1
    if looks == 1:
        return e
    # "best" was chosen by this very number among so many evaluations
    n, d = len(val), float(np.mean(val.right != after))
    luck = math.sqrt(d / n) * math.sqrt(2 * math.log(looks))
    low, p = min(e.low - luck, e.points), min(1.0, e.p * looks)
    seen = None
    if p >= 1e-3 or low <= 0:
        seen = _on_training(case, max(others, key=lambda k: others[k].accuracy))
    if seen is not None and seen.low > 0:
        # nothing was chosen by training images: a difference that shows there too is not luck. They say that
        # it is there, validation how large it is: its own interval must leave 0 out
        low = max(low, min(e.low, seen.low))
        p = min(1.0, 2 * min(p, seen.p if e.low > 0 else max(e.p, seen.p)))
    return Estimate(e.points, low, e.high, p)


def _on_training(case: Case, other: str) -> Estimate | None:
    """The other weights minus these on training images, a sample of them if they are many; None without."""
    if case.data is None or "train outputs" not in case.facts:
        return None
    picked = case.sample("train", MOST, stream=21)
    mine, theirs = case.outputs("train"), outputs_of_sibling(case, other, picked)
    at = {ident: i for i, ident in enumerate(mine.ids)}
    if not len(picked) or not set(theirs.ids) <= set(at):
        return None
    return paired(mine.right[[at[i] for i in theirs.ids]], theirs.right)


def _looks(case: Case) -> int:
    return 1 if case.saved is None else max(1, sum("best" in row for row in case.saved.history))


def _halves(out: Outputs) -> NDArray[np.bool_]:
    side = np.zeros(len(out), bool)
    side[np.argsort(np.array(out.ids, dtype=object), kind="stable")[::2]] = True
    return side
