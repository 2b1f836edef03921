"""`diagnose`: open a case, run the checks in order of cost within the budget, and settle what was found."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import threadpoolctl

from ..errors import GaplessError, RecipeError
from . import table
from .case import Budget, Case, OverBudgetError
from .diagnosis import Checked, Diagnosis
from .falling import waterfall
from .result import Finding, Remedy, Result
from .stats import holm
from .table import FACTS, Row
from .verdict import verdict

__all__ = ["diagnose", "examine"]

LEVEL = 0.05


def diagnose(
    run_or_checkpoint: Any = None,
    data: Any = None,
    *,
    outputs: Any = None,
    train_outputs: Any = None,
    logged: float | None = None,
    images: Any = None,
    model: Any = None,
    preprocess: Callable[[Any], Any] | None = None,
    train: Any = None,
    val: Any = None,
    classes: Sequence[str] | None = None,
    detector_losses: Any = None,
    budget: float = 120.0,
    checks: Iterable[str] | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> Diagnosis:
    """Measure why training and validation differ.

    Parameters
    ----------
    run_or_checkpoint : path or Run, optional
        A run of gapless: its folder, a checkpoint, or what `gapless.train` returned.
    data : Data, path or name, optional
        Data to examine instead of the checkpoint's own.
    outputs, train_outputs : path, dict or Outputs, optional
        A model trained elsewhere, by its outputs on validation and training samples: CSV, npz or text with
        id or path, target, and logits, probabilities or prediction.
    logged : float, optional
        The accuracy that training showed, a fraction (0.99). For a run: its last running accuracy.
    images : path, optional
        Folder of the images that `outputs` name.
    model : callable or dict of str to callable, optional
        float32 (N, C, H, W) → (N, classes) logits. Several by name, the one that is deployed first: it is
        examined, and held against the others on the same samples (W2). An average of the weights is compared
        with its raw weights where they are named "ema" and "raw" (W3), a model trained with softer
        augmentation where it is named "softer" (A1).
    preprocess : callable, optional
        path → float32 (C, H, W): what `model` is fed.
    train, val : Data, path, or sequence of (path, class), optional
        Samples for `model`.
    classes : sequence of str, optional
        Names by output.
    detector_losses : path, optional
        A detector's losses by image, from any trainer: CSV with columns id, images and pipeline (train or
        val), box, obj, cls, n_pos, n_cells.
    budget : float, default 120
        Seconds. Checks that would not fit are left out, and named.
    checks : iterable of str, optional
        Slugs or ids to run; default all.
    seed : int, default 0
        Of the random choices of samples.
    verbose : int, default 1
        1 shows a progress bar on a terminal.

    Returns
    -------
    Diagnosis
        ``.findings`` by size, ``.checks`` with every outcome, ``.waterfall``.

    Raises
    ------
    RecipeError, DataError, CheckpointError
        Input that cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> import gapless as gl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = gl.train(gl.Recipe(data="digits", model="lenet", epochs=1), out=f"{folder}/r", verbose=0)
    ...     found = gl.diagnose(run, budget=20, verbose=0)
    >>> abs(sum(s["points"] for s in found.to_dict()["waterfall"]) - found.gap) < 1e-12
    True
    """
    from . import opening

    rows = table.chosen(checks)
    if not isinstance(budget, int | float) or not budget > 0:
        raise RecipeError(f"budget: seconds must be > 0, got {budget!r}")
    case = opening.open_case(
        run_or_checkpoint,
        data,
        outputs=outputs,
        train_outputs=train_outputs,
        logged=logged,
        images=images,
        model=model,
        preprocess=preprocess,
        train=train,
        val=val,
        classes=classes,
        detector_losses=detector_losses,
        budget=Budget(budget),
        seed=seed,
    )
    return examine(case, rows, verbose=verbose)


@dataclass
class _Done:
    row: Row
    result: Result
    seconds: float


def examine(case: Case, rows: Sequence[Row], *, verbose: int = 1, with_waterfall: bool = True) -> Diagnosis:
    """Run these checks on a case, and settle them into a `Diagnosis`."""
    progress = _Progress(len(rows) + with_waterfall, verbose)
    fall = None
    with progress:
        progress.at("waterfall")
        if with_waterfall:
            with threadpoolctl.threadpool_limits(limits=1):
                fall = waterfall(case)
            if fall is None:
                case.notes.append("no gap to split: there is no figure of training beside one of validation")
            progress.step()
        done = []
        for row, cost in _by_cost(case, rows):
            progress.at(row.slug)
            began = time.monotonic()
            result = _run(case, row, cost)
            done.append(_Done(row, result, time.monotonic() - began))
            progress.step()
    findings, checked = _settle(done)
    return Diagnosis(
        gap=float(fall.gap) if fall is not None else None,
        findings=findings,
        checks=checked,
        waterfall=fall,
        recipe=case.recipe,
        seconds=case.budget.spent,
        budget=case.budget.seconds,
        notes=[*verdict(case), *case.notes],
    )


def _by_cost(case: Case, rows: Sequence[Row]) -> list[tuple[Row, float]]:
    facts, costs = case.facts, []
    for row in rows:
        ready = set(row.needs) <= facts
        costs.append((row, row.cost(case) if ready else 0.0))
    return sorted(costs, key=lambda pair: pair[1])  # stable: by id among equals


def _run(case: Case, row: Row, cost: float) -> Result:
    missing = [FACTS[f] for f in row.needs if f not in case.facts]
    if missing:
        return Result.left_out(f"needs {' and '.join(missing)}")
    if cost > case.budget.left:
        return Result.left_out(
            f"needs about {math.ceil(cost)} s, {case.budget.left:.0f} s of the budget are left"
        )
    try:
        # One thread for BLAS: its sums depend on the number of threads, and its threads wait by spinning.
        with threadpoolctl.threadpool_limits(limits=1):
            result: Any = row.measured(case)
        return _sound(result)
    except OverBudgetError as e:
        return Result.left_out(str(e))
    except GaplessError as e:
        return Result.undecided(f"could not be measured: {e}")
    except Exception as e:
        if os.environ.get("GAPLESS_TRACEBACK") == "1":
            raise
        text = f"check {row.slug} failed: {type(e).__name__}: {e}; the other checks go on"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        said = f"the check failed ({type(e).__name__}: {e})"
        return Result.undecided(said + (": a defect, please report it" if row.is_own else ""))


def _sound(result: Any) -> Result:
    """What a check returned, where it is what `_settle` and JSON can take; a caller's check may return
    anything."""
    if not isinstance(result, Result):
        raise TypeError(f"it returned {type(result).__name__}, expected a Result")
    e = result.estimate
    if e is not None and not all(map(math.isfinite, e)):
        raise ValueError(f"its estimate is not finite: {e}")
    if result.outcome == "found" and (e is None or result.remedy is None):
        raise TypeError("a finding needs an estimate and a remedy")
    return result


def _settle(done: Sequence[_Done]) -> tuple[list[Finding], list[Checked]]:
    """Hold what was found to its threshold and to the error rate of the whole family; name consequences."""
    tested = [d for d in done if d.result.estimate is not None and d.result.outcome != "left out"]
    values = [d.result.estimate.p for d in tested if d.result.estimate is not None]
    adjusted = dict(zip([d.row.id for d in tested], holm(values), strict=True))
    settled = [_stands(d, adjusted.get(d.row.id)) for d in done]
    found = {d.row.id for d in settled if d.result.outcome == "found"}
    causes = _causes([d for d in settled if d.row.id in found])
    findings = [_finding(d) for d in settled if d.row.id in found and d.row.id not in causes]
    findings.sort(key=lambda f: -abs(f.points))
    checked = [
        Checked(d.row.id, d.row.slug, d.row.title, d.result, d.seconds, causes.get(d.row.id), d.row.measure)
        for d in sorted(settled, key=lambda d: (d.row.id[0], int(d.row.id[1:])))
    ]
    return findings, checked


def _causes(found: Sequence[_Done]) -> dict[str, str]:
    """Which finding follows from which. A check that is itself a consequence explains nothing; of two that
    explain each other the larger one does, or the one whose result says so of the other; of several the
    largest. And what would bring back a few points of validation accuracy is not the cause of what would
    bring back more than twice as many."""
    size = {d.row.id: abs(d.result.estimate.points) if d.result.estimate else 0.0 for d in found}
    sure = {(d.row.id, b) for d in found for b in d.result.explains}
    says = {
        d.row.id: {b for b in {*d.row.explains, *d.result.explains} if (b, d.row.id) not in sure}
        & set(size) - {d.row.id}
        for d in found
    }
    brings_back = {d.row.id for d in found if d.row.brings_back}
    edges = {
        (a, b)
        for a, effects in says.items()
        for b in effects
        if (a not in says[b] or (size[a], b) > (size[b], a))
        and not ({a, b} <= brings_back and 2 * size[a] < size[b])
    }
    roots = set(size) - {b for _, b in edges}
    causes: dict[str, str] = {}
    for a, b in sorted(edges):
        if a in roots and (b not in causes or size[a] > size[causes[b]]):
            causes[b] = a
    return causes


def _stands(d: _Done, adjusted: float | None) -> _Done:
    """Turn a "found" that does not stand into "clear" (too small) or "undecided" (could be chance)."""
    r, e = d.result, d.result.estimate
    if r.outcome != "found":
        return d
    if e is None or r.remedy is None:
        raise RuntimeError(f"check {d.row.slug}: a finding needs an estimate and a remedy")
    if abs(e.points) < d.row.threshold:
        small = f"{r.says} (below the threshold of {100 * d.row.threshold:g} points)"
        return _Done(d.row, replace(r, outcome="clear", says=small), d.seconds)
    if not e.excludes_zero or (adjusted is not None and adjusted >= LEVEL):
        said = f"{r.says} (p {e.p:.2g}; {adjusted or 1.0:.2g} with all checks counted: could be chance)"
        return _Done(d.row, replace(r, outcome="undecided", says=said), d.seconds)
    return d


def _finding(d: _Done) -> Finding:
    e, remedy = d.result.estimate, d.result.remedy
    assert e is not None
    assert isinstance(remedy, Remedy)
    return Finding(
        id=d.row.id,
        slug=d.row.slug,
        points=e.points,
        low=e.low,
        high=e.high,
        measure=d.row.measure,
        says=d.result.says,
        evidence=d.result.evidence,
        remedy=remedy,
        pictures=d.result.pictures,
        seconds=d.seconds,
        reference=d.row.reference,
    )


class _Progress:
    """A tqdm bar on standard error, where that is a terminal."""

    def __init__(self, total: int, verbose: int) -> None:
        self._bar: Any = None
        if verbose:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="check", leave=False, disable=None)

    def at(self, name: str) -> None:
        if self._bar is not None:
            self._bar.set_description(name)

    def step(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()
