"""M1: the best of many evaluations looks better than it is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...record import EvalRecord
from ..case import Case
from ..result import Remedy, Result
from ..stats import Estimate, difference
from ..table import check
from ..trial import whole_history

__all__ = ["expected_optimism", "selection_optimism"]

DRAWS = 2000


@check(
    "M1",
    "selection-optimism",
    "the checkpoint was chosen by the number that is reported",
    measure="accuracy on samples that chose nothing minus validation accuracy of the chosen checkpoint",
    needs=["run"],
    cost=lambda case: case.passes(1.0, "test") if _to_score(case) else 0.0,
    reference="Cawley & Talbot 2010, JMLR 11: over-fitting in model selection",
)
def selection_optimism(case: Case) -> Result:
    """The chosen checkpoint's validation accuracy against its test record, or against the test split where
    its data were handed over; else what choosing among so many evaluations gives by chance, drawn with the
    evaluations' own scatter."""
    saved = case.saved
    assert saved is not None
    split, _, metric = saved.recipe["monitor"].rpartition("/")
    records = {name: EvalRecord.from_dict(r) for name, r in saved.records.items()}
    record = records.get("val")
    curve = np.array([r["val/top1"] for r in whole_history(case) if r.get("val/top1") is not None], float)
    if record is None or split != "val":
        return Result.clear(f"the checkpoint was not chosen by validation (monitor {split}/{metric})")
    n, right = record.n_scored, record.correct[1]
    expected = expected_optimism(curve, n, case.seed)
    numbers = {
        "evaluations": len(curve),
        "val_n": n,
        "val_accuracy": right / n,
        "expected_optimism": expected,
        "standard_error": math.sqrt(max(right / n * (1 - right / n), 0.0) / n),
    }
    test = _test(case, records.get("test"))
    if test is None:
        e = Estimate(0.0 - expected / 2, 0.0 - expected, 0.0, 1.0)
        said = f"the best of {len(curve)} evaluations on {n} images is at most {100 * expected:.1f} points"
        return Result.clear(f"{said} too good on average (no test record to measure it)", e, evidence=numbers)
    test_right, test_n = test
    e = difference(test_right, test_n, right, n)
    said = (
        f"test {100 * test_right / test_n:.1f} % against validation {100 * right / n:.1f} % of the best of "
        f"{len(curve)} evaluations (chance alone gives {100 * expected:.1f} points)"
    )
    numbers |= {"test_accuracy": test_right / test_n, "test_n": test_n}
    if e.points > -0.02 or len(curve) < 2:
        return Result.clear(said, e, evidence=numbers)
    if e.high >= 0:
        return Result.undecided(said, e, evidence=numbers, samples_needed=_needed(e, n, test_n))
    return Result.found(
        said,
        e,
        evidence=numbers,
        remedy=Remedy(
            "Report the test figure; choose on more validation images, or less often (eval_every).",
            {"eval_every": max(2, len(curve) // 10)},
        ),
    )


def _to_score(case: Case) -> bool:
    """Whether there are test samples to score: only where somebody handed the data over for that, for a test
    part that is looked at often chooses too."""
    there = case.data is not None and len(case.data.splits.get("test", ())) > 0
    return there and case.given and case.saved is not None and "test" not in case.saved.records


def _test(case: Case, record: EvalRecord | None) -> tuple[int, int] | None:
    """How many of how many samples that chose nothing are right."""
    if record is not None:
        return record.correct[1], record.n_scored
    if not _to_score(case):
        return None
    out = case.outputs("test")
    return int(out.right.sum()), len(out)


def expected_optimism(curve: NDArray[np.float64], n: int, seed: int) -> float:
    """How much too good the best of these evaluations is expected to be, by parametric bootstrap.

    All evaluations are of the same samples, so what they share cancels; what remains is how much
    one differs from the next, and no more than independent samples would (``SE * sqrt(2 ln E)``).

    >>> expected_optimism(np.array([0.5, 0.8]), 100, 0)
    0.0
    >>> 0.01 < expected_optimism(0.9 + 0.02 * (-1.0) ** np.arange(50), 100, 0) < 0.09
    True
    """
    if len(curve) < 5:
        return 0.0
    reach = max(2, len(curve) // 8)
    near = np.array([np.median(curve[max(0, i - reach) : i + reach + 1]) for i in range(len(curve))])
    p = float(near.max())
    steps = np.abs(np.diff(curve))  # the median: the first epochs' rise is no scatter
    scatter = min(1.4826 * float(np.median(steps)) / math.sqrt(2), math.sqrt(max(p * (1 - p), 1 / n) / n))
    rng = np.random.default_rng([seed, 0x5E1])
    noise = rng.normal(0.0, scatter, (DRAWS, len(curve)))
    chosen = np.argmax(near + noise, axis=1)
    return float(np.mean(noise[np.arange(DRAWS), chosen]))


def _needed(e: Estimate, n: int, test_n: int) -> int:
    return math.ceil(((e.high - e.low) / 2 / max(abs(e.points), 1e-9)) ** 2 * min(n, test_n))
