"""The doctor's frame: statistics, the table of checks, how findings are settled, the waterfall's sum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

import gapless as gl
from gapless import doctor
from gapless.doctor import running, stats, table
from gapless.doctor.case import Budget, Case, OverBudgetError
from gapless.errors import DataError, RecipeError


def outputs(n: int = 400, k: int = 5, accuracy: float = 0.9, seed: int = 0) -> doctor.Outputs:
    """Logits of a model that is right with that probability."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    said = np.where(rng.random(n) < accuracy, labels, (labels + rng.integers(1, k, n)) % k)
    logits = rng.normal(0, 0.3, (n, k))
    logits[np.arange(n), said] += 4
    return doctor.Outputs.of_logits([f"{i:04d}" for i in range(n)], labels, logits, list("abcdefghij")[:k])


def permuted(o: doctor.Outputs, order: list[int]) -> doctor.Outputs:
    """The same model whose outputs are in another order."""
    assert o.scores is not None
    return doctor.Outputs.of_logits(o.ids, o.labels, o.scores[:, order], o.classes)


def examined(case: Case, *slugs: str) -> doctor.Diagnosis:
    return running.examine(case, [table.named(s) for s in slugs], verbose=0)


def result_of(d: doctor.Diagnosis, slug: str) -> doctor.Result:
    return next(c.result for c in d.checks if c.slug == slug)


# -- statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (7, 2), (30, 12), (600, 480), (900, 300)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    n = gained + lost
    want = 1.0 if n == 0 else scipy_stats.binomtest(gained, n, 0.5).pvalue
    assert stats.mcnemar(gained, lost) == pytest.approx(want, rel=0.03 if n > 1000 else 1e-12, abs=1e-30)


def test_paired_interval_covers_the_truth() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        before = rng.random(200) < 0.7
        after = np.where(rng.random(200) < 0.1, ~before, before)  # 0.1 of all change: truth 0.03 - 0.07
        e = stats.paired(before, after)
        held += e.low <= -0.04 <= e.high
        assert e.low <= e.points <= e.high
    assert 0.92 <= held / 400 <= 0.99


def test_difference_interval_covers_the_truth_and_p_is_calibrated() -> None:
    rng, held, small = np.random.default_rng(1), 0, 0
    for _ in range(400):
        e = stats.difference(int(rng.binomial(150, 0.85)), 150, int(rng.binomial(300, 0.85)), 300)
        held += e.low <= 0 <= e.high
        small += e.p < 0.05
    assert 0.92 <= held / 400 <= 0.99
    assert small / 400 < 0.08


def test_holm_keeps_the_families_error_rate() -> None:
    rng = np.random.default_rng(2)
    false = np.mean([min(stats.holm(rng.random(20).tolist())) < 0.05 for _ in range(1000)])
    assert 0.03 < false < 0.07


def test_samples_for_paired_is_enough() -> None:
    n = stats.samples_for_paired(0.02, 0.1)
    gained, lost = round(0.06 * n), round(0.04 * n)
    after = np.zeros(n, bool)
    after[:gained] = True
    before = np.zeros(n, bool)
    before[gained : gained + lost] = True
    e = stats.paired(before, after)
    assert e.low > -0.001


def test_auc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    y, s = rng.random(300) < 0.3, rng.integers(0, 20, 300).astype(float)
    assert stats.auc(s, y) == pytest.approx(roc_auc_score(y, s))


# -- table --------------------------------------------------------------------------------------


@pytest.fixture
def extra() -> Iterator[None]:
    yield
    for k in range(1, 10):
        table.forget(f"Z{k}")


def plant(k: int, result: doctor.Result, **row: object) -> None:
    options = {"measure": "points", "needs": ["outputs"], **row}
    table.check(f"Z{k}", f"planted-{k}", "a planted check", **options)(lambda case: result)  # type: ignore[arg-type]


def estimate(points: float, p: float = 0.0) -> doctor.Estimate:
    return doctor.Estimate(points, points - 0.01, points + 0.01, p)


def found(points: float, p: float = 0.0) -> doctor.Result:
    return doctor.Result.found("there", estimate(points, p), remedy=doctor.Remedy("do"))


def case_of(o: doctor.Outputs | None = None, **more: object) -> Case:
    return Case(budget=Budget(60), outputs={"val": o or outputs()}, **more)  # type: ignore[arg-type]


def test_every_check_has_a_whole_row_and_its_own_file() -> None:
    rows = table.rows()
    assert len({r.slug for r in rows}) == len(rows)
    assert len({r.run.__module__ for r in rows}) == len(rows)
    for r in rows:
        assert r.title, r.id
        assert r.measure, r.id
        assert r.run.__doc__, r.id
        assert r.run.__module__ == f"gapless.doctor.checks.{r.slug.replace('-', '_')}"
        assert set(r.explains) <= {x.id for x in rows}, r.id


def test_unknown_checks_and_facts_are_named() -> None:
    with pytest.raises(RecipeError, match="did you mean 'class-order'"):
        table.named("clas-order")
    with pytest.raises(RecipeError, match="needs 'pixels'"):
        table.check("Z9", "nine", "t", measure="m", needs=["pixels"])
    with pytest.raises(RecipeError, match="is there already"):
        table.check("C1", "class-order", "t", measure="m", needs=[])(outputs)  # type: ignore[arg-type]


@pytest.mark.usefixtures("extra")
def test_findings_are_sorted_thresholded_and_family_controlled() -> None:
    plant(1, found(0.05))
    plant(2, found(-0.30))
    plant(3, found(0.019))
    plant(4, found(0.10, p=0.04))
    plant(5, doctor.Result.clear("no", estimate(0.0, 0.9)))
    d = examined(case_of(), *(f"planted-{k}" for k in range(1, 6)))
    assert [f.id for f in d.findings] == ["Z2", "Z1"]
    assert result_of(d, "planted-3").outcome == "clear"
    assert result_of(d, "planted-4").outcome == "undecided"  # 0.04 alone, 0.12 among five
    assert "could be chance" in result_of(d, "planted-4").says


@pytest.mark.usefixtures("extra")
def test_consequences_are_not_findings() -> None:
    plant(1, found(0.05), explains=["Z2"])
    plant(2, found(0.50), explains=["Z3"])
    plant(3, found(0.07))
    d = examined(case_of(), "planted-1", "planted-2", "planted-3")
    assert [f.id for f in d.findings] == ["Z3", "Z1"]
    assert {c.id: c.caused_by for c in d.checks} == {"Z1": None, "Z2": "Z1", "Z3": None}


@pytest.mark.usefixtures("extra")
def test_a_result_may_say_by_its_numbers_what_follows_from_it() -> None:
    small = replace(found(0.05), explains=frozenset({"Z2"}))
    plant(1, small, explains=["Z3"])
    plant(2, found(0.50), explains=["Z1", "Z3"])
    plant(3, found(0.07))
    d = examined(case_of(), "planted-1", "planted-2", "planted-3")
    assert {c.id: c.caused_by for c in d.checks} == {"Z1": None, "Z2": "Z1", "Z3": "Z1"}


@pytest.mark.usefixtures("extra")
def test_a_small_cause_does_not_hide_a_large_one() -> None:
    plant(1, found(0.05), explains=["Z2", "Z3"], measure="validation accuracy recovered by a")
    plant(2, found(0.38), measure="validation accuracy gained by b")
    plant(3, found(0.38), measure="share of images")  # of another kind: nothing to compare
    d = examined(case_of(), "planted-1", "planted-2", "planted-3")
    assert [f.id for f in d.findings] == ["Z2", "Z1"]
    assert {c.id: c.caused_by for c in d.checks} == {"Z1": None, "Z2": None, "Z3": "Z1"}


@pytest.mark.usefixtures("extra")
def test_what_cannot_run_is_left_out_with_its_reason() -> None:
    plant(1, found(0.1), needs=["run"])
    plant(2, found(0.1), cost=1000.0)
    d = examined(case_of(), "planted-1", "planted-2")
    assert "a run or checkpoint of gapless" in result_of(d, "planted-1").says
    assert "needs about 1000 s" in result_of(d, "planted-2").says
    assert not d.findings


@pytest.mark.usefixtures("extra")
def test_a_check_that_fails_does_not_end_the_diagnosis() -> None:
    def bad(case: Case) -> doctor.Result:
        raise ZeroDivisionError("oh")

    def late(case: Case) -> doctor.Result:
        raise OverBudgetError("the budget is used up")

    table.check("Z1", "planted-1", "t", measure="m", needs=[])(bad)
    table.check("Z2", "planted-2", "t", measure="m", needs=[])(late)
    plant(3, found(0.1))
    with pytest.warns(RuntimeWarning, match="planted-1 failed: ZeroDivisionError"):
        d = examined(case_of(), "planted-1", "planted-2", "planted-3")
    assert [c.result.outcome for c in d.checks] == ["undecided", "left out", "found"]


@pytest.mark.usefixtures("extra")
def test_a_consequence_of_several_is_one_of_a_root() -> None:
    plant(1, found(0.05))
    plant(2, found(0.50), explains=["Z1"])
    plant(3, found(0.40), explains=["Z2", "Z1"])
    d = examined(case_of(), "planted-1", "planted-2", "planted-3")
    assert [f.id for f in d.findings] == ["Z3"]
    assert {c.id: c.caused_by for c in d.checks} == {"Z1": "Z3", "Z2": "Z3", "Z3": None}


@pytest.mark.usefixtures("extra")
def test_of_two_that_explain_each_other_the_larger_stays() -> None:
    plant(1, found(0.05), explains=["Z2"])
    plant(2, found(0.50), explains=["Z1"])
    d = examined(case_of(), "planted-1", "planted-2")
    assert [f.id for f in d.findings] == ["Z2"]


# -- inputs -------------------------------------------------------------------------------------


def test_wrong_arguments_are_answered() -> None:
    with pytest.raises(RecipeError, match="give a run or checkpoint"):
        gl.diagnose()
    with pytest.raises(RecipeError, match=r"did you mean 0\.99"):
        gl.diagnose("x", logged=99)
    with pytest.raises(RecipeError, match="budget"):
        gl.diagnose("x", budget=0)


def test_outputs_refuse_what_does_not_fit() -> None:
    o = outputs(10, 3)
    with pytest.raises(DataError, match=r"outside 0\.\.1"):
        doctor.Outputs(o.ids, o.labels, o.predictions, None, "none", ("a", "b"))
    assert o.scores is not None
    bad = o.scores.copy()
    bad[3, 0] = np.nan
    with pytest.raises(DataError, match="not finite, the first is '0003'"):
        doctor.Outputs(o.ids, o.labels, o.predictions, bad, "logits", o.classes)
    with pytest.raises(DataError, match="no sample"):
        doctor.Outputs.of_logits([], [], np.zeros((0, 2)), ["a", "b"])


# -- C1 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "name"),
    [([4, 0, 1, 2, 3], "off by"), ([1, 0, 2, 4, 3], "4 of 5 classes"), ([0, 2, 1, 3, 4], "2 of 5 classes")],
)
def test_class_order_finds_permutations_and_their_size(order: list[int], name: str) -> None:
    right = outputs()
    wrong = permuted(right, order)
    d = examined(case_of(wrong), "class-order")
    (f,) = d.findings
    truth = right.accuracy - wrong.accuracy
    assert f.id == "C1"
    assert name in f.says
    assert f.low <= truth <= f.high


@pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.95])
def test_class_order_is_silent_without_a_permutation(accuracy: float) -> None:
    for seed in range(5):
        d = examined(case_of(outputs(200, 10, accuracy, seed)), "class-order")
        assert result_of(d, "class-order").outcome == "clear"


def test_class_order_knows_text_order() -> None:
    n, k = 600, 12
    names = [str(i) for i in range(1, k + 1)]
    rng = np.random.default_rng(1)
    labels = rng.integers(0, k, n)
    logits = rng.normal(0, 0.3, (n, k))
    logits[np.arange(n), labels] += 4
    by_text = np.argsort(np.array(names), kind="stable")
    o = doctor.Outputs.of_logits([f"{i:04d}" for i in range(n)], labels, logits[:, by_text], names)
    (f,) = examined(case_of(o), "class-order").findings
    assert "text order" in f.says


# -- waterfall ----------------------------------------------------------------------------------


def test_waterfall_of_outputs_sums_exactly() -> None:
    val, train = outputs(300, accuracy=0.6), outputs(700, accuracy=0.97, seed=5)
    for more, steps in (({}, 1), ({"train": train}, 2)):
        case = Case(budget=Budget(9), logged=0.99, outputs={"val": val, **more})  # type: ignore[dict-item]
        fall = doctor.falling.waterfall(case)
        assert fall is not None
        assert len(fall.steps) == steps
        assert sum((s.points for s in fall.steps), Fraction(0)) == fall.gap
        assert float(fall.gap) == pytest.approx(0.99 - val.accuracy)


def test_run_is_diagnosed(tmp_path: Path) -> None:
    run = gl.train(gl.Recipe(data="digits", model="lenet", epochs=2), out=tmp_path / "r", verbose=0)
    d = gl.diagnose(run, budget=30, verbose=0)
    plain = json.loads(json.dumps(d.to_dict(), allow_nan=False))
    assert {"gap", "findings", "checks", "waterfall"} <= set(plain)
    assert plain["gap"] == pytest.approx(sum(s["points"] for s in plain["waterfall"]))
    assert {c["outcome"] for c in plain["checks"]} <= {"found", "clear", "undecided", "left out"}
