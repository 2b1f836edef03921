"""A case from planting to verdict, and many of them in two processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from .bed import Bed, Setup, quiet
from .faults import FAULTS, PAIRS, Fault, Pair, named
from .sets import available
from .table import Row, Seen, Told

__all__ = ["CLEAN", "SLICE", "Case", "cases", "measure", "run"]

#: Seconds that a diagnosis may take: so many that a busy machine leaves nothing out.
BUDGET = 900.0


@dataclass(frozen=True)
class Case:
    """A fault (or two, or none) on a set with a seed.

    Attributes
    ----------
    name : str
    faults : tuple of str
        Names in the table of faults; none for a clean run.
    set, seed
    net, recipe, form
        Of clean runs: other than the healthy recipe.
    """

    name: str
    faults: tuple[str, ...]
    set: str
    seed: int
    net: str | None = None
    recipe: tuple[tuple[str, Any], ...] = ()
    form: str = "run"


#: Clean runs: (set, net, epochs, learning rate, form); each is made twice, on different samples. As many
#: epochs as leave nothing to gain by more.
CLEAN: tuple[tuple[str, str, int, float, str], ...] = (
    ("digits", "small", 20, 0.1, "run"),
    ("digits", "lenet", 10, 0.02, "run"),
    ("digits", "small", 16, 0.05, "model"),
    ("patches", "small", 16, 0.1, "run"),
    ("patches", "lenet", 24, 0.02, "run"),
    ("patches", "resnet8", 8, 0.05, "model"),
    ("shapes", "small", 20, 0.1, "run"),
    ("shapes", "lenet", 8, 0.02, "model"),
    ("shapes", "resnet8", 8, 0.05, "run"),
    ("shapes", "plain", 16, 0.05, "outputs"),
)

#: What CI runs: a few of each place, on one set each.
SLICE: tuple[tuple[str, str], ...] = (
    ("labels-wrong-in-train", "shapes"),
    ("exact-duplicates", "digits"),
    ("val-darker", "patches"),
    ("ema-lag", "digits"),
    ("stale-batchnorm", "digits"),
    ("few-images", "digits"),
    ("bgr", "patches"),
    ("no-255", "shapes"),
    ("weights-not-loaded", "digits"),
    ("classes-permuted", "digits"),
    ("softmax-twice", "patches"),
)


def cases(
    only: Sequence[str] | None = None,
    in_sets: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    part: bool = False,
) -> list[Case]:
    """What is asked for, in the order of sets and seeds, so that neighbours share trained models."""
    chosen_sets = list(in_sets or [s for s in available() if s != "fashion"])
    if part:
        out = [Case(f, (f,), s, seeds[0]) for f, s in SLICE if s in chosen_sets]
        return out + _clean(chosen_sets, seeds)[:12:4]
    wanted: list[Fault | Pair] = [*FAULTS.values(), *PAIRS]
    clean = True
    if only is not None:
        clean = "clean" in only
        names = {
            f.name for word in only if word not in ("clean", "pairs") and "+" not in word for f in named(word)
        }
        wanted = [w for w in wanted if w.name in names or w.name in only]
        if "pairs" in only:
            wanted += [p for p in PAIRS if p not in wanted]
    out = []
    for s in chosen_sets:
        for seed in seeds:
            for w in wanted:
                parts = (w.first, w.second) if isinstance(w, Pair) else (w.name,)
                if not any(s in FAULTS[p].not_on for p in parts):
                    out.append(Case(w.name, parts, s, seed))
    return out + (_clean(chosen_sets, seeds) if clean else [])


def _clean(in_sets: Sequence[str], seeds: Sequence[int]) -> list[Case]:
    """Twenty runs; their seeds are none of the planted ones, and others for other seeds."""
    out = []
    for i, (s, net, epochs, lr, form) in enumerate(CLEAN * 2):
        if s in in_sets:
            optimizer = {"name": "SGD", "lr": lr, "momentum": 0.9, "weight_decay": 5e-4}
            recipe = (("epochs", epochs), ("optimizer", optimizer))
            out.append(Case("clean", (), s, 1000 + 100 * min(seeds) + i, net, recipe, form))
    return out


# -- one case -----------------------------------------------------------------------------------


def planted(bed: Bed, case: Case) -> tuple[Setup, list[tuple[Fault, float]]]:
    """The setup of a case, and each fault with its true size in the presence of the others."""
    setup = bed.healthy(case.net, **dict(case.recipe))
    setup = replace(setup, form=case.form)  # type: ignore[arg-type]
    faults = [FAULTS[name] for name in case.faults]
    whole = _with(bed, setup, faults)
    truths = []
    for f in faults:
        before = _with(bed, setup, [g for g in faults if g is not f])
        truths.append((f, f.truth(bed, f.without(before, whole), whole)))
    return whole, truths


def _with(bed: Bed, setup: Setup, faults: Sequence[Fault]) -> Setup:
    for f in faults:
        setup = f.plant(bed, setup)
    return setup


def measure(folder: Path, case: Case) -> Row:
    """Plant, diagnose, compare with the truth."""
    began = time.process_time()
    bed = Bed(folder, case.set, case.seed)
    try:
        setup, truths = planted(bed, case)
        examine = bed.examiner(setup, BUDGET)
        trained = time.process_time()
        with quiet():
            diagnosis = examine()
        return _row(case, truths, diagnosis, trained - began, time.process_time() - trained)
    except Exception as error:
        if os.environ.get("GAPLESS_TRACEBACK") == "1":
            raise
        return Row(
            case.name,
            case.set,
            case.seed,
            error=f"{type(error).__name__}: {error}",
            prepared=time.process_time() - began,
            told=tuple(Told(FAULTS[f].check) for f in case.faults),
        )


def _row(case: Case, truths: list[tuple[Fault, float]], d: Any, prepared: float, seconds: float) -> Row:
    seen = tuple(Seen(f.id, f.points, f.low, f.high) for f in d.findings)
    told = []
    for f, truth in truths:
        place = next((i for i, s in enumerate(seen) if s.id == f.check), None)
        found = None if place is None else seen[place]
        told.append(Told(f.check, truth, None if place is None else place + 1, found))
    fall = d.waterfall
    sums = None
    if fall is not None:
        sums = sum((s.points for s in fall.steps), Fraction(0)) == fall.first - fall.last
        sums = sums and abs(float(fall.gap) - (d.gap or 0.0)) < 1e-12
    broken = tuple(c.id for c in d.checks if "a defect, please report it" in c.result.says)
    clear = {c.id: c.result.outcome for c in d.checks}
    outcome = {t.check: clear.get(t.check, "no such check") for t in told}
    causes = {c.id: c.caused_by for c in d.checks if c.caused_by}
    slow = {c.id: round(c.seconds, 2) for c in d.checks if c.seconds > 0.3}
    says = {c.id: c.result.says for c in d.checks if c.id in outcome or c.result.outcome == "found"}
    return Row(
        case.name,
        case.set,
        case.seed,
        tuple(told),
        seen,
        sums,
        prepared,
        seconds,
        None,
        broken,
        outcome,
        causes,
        slow,
        says,
    )


# -- many ---------------------------------------------------------------------------------------


def run(
    which: Iterable[Case], folder: Path, jobs: int, tell: Callable[[Row], None] | None = None
) -> list[Row]:
    """Every case, in so many processes of one thread each; rows in the order of the cases. `tell` is called
    where the case runs, so it must be a function of a module."""
    which = list(which)
    rows: dict[int, Row] = {}
    if jobs <= 1:
        for i, case in enumerate(which):
            rows[i] = _one(folder, case)
            if tell is not None:
                tell(rows[i])
        return [rows[i] for i in range(len(which))]
    groups: dict[tuple[str, int], list[int]] = {}
    for i, case in enumerate(which):
        groups.setdefault((case.set, case.seed), []).append(i)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_alone) as pool:
        # cases of one set and seed go to one process after the other: the first trains what the next ones use
        waiting = {pool.submit(_group, folder, [which[i] for i in at], tell): at for at in groups.values()}
        for done in as_completed(waiting):
            rows |= zip(waiting[done], done.result(), strict=True)
    return [rows[i] for i in range(len(which))]


def _group(folder: Path, which: list[Case], tell: Callable[[Row], None] | None) -> list[Row]:
    rows = []
    for case in which:
        rows.append(_one(folder, case))
        if tell is not None:
            tell(rows[-1])
    return rows


def _one(folder: Path, case: Case) -> Row:
    return measure(folder / f"{case.set}-{case.seed}", case)


def _alone() -> None:
    """One thread per process, for everything that has threads."""
    import gapless as gl

    gl.set_num_threads(1)
