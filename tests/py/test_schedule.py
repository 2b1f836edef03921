"""Schedules: warm-up, units by name, errors, and storing."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless import schedule
from gapless.errors import RecipeError

ONE_OF_EACH = [
    schedule.Constant(warmup_steps=3, warmup_start=0.01),
    schedule.Step(4, 0.5),
    schedule.Step(step_size_epochs=1.5, warmup_epochs=1),
    schedule.MultiStep([3, 9]),
    schedule.MultiStep(milestones_epochs=[0.5, 2], gamma=0.3),
    schedule.Exponential(0.9, by_epoch=True),
    schedule.Polynomial(0.9, final=1e-3, total_epochs=2),
    schedule.Linear(end_factor=0.01, total_iters=7),
    schedule.Cosine(1e-4, warmup_epochs=0.5, inside=True),
    schedule.OneCycle(pct_start=0.4),
    schedule.ReduceOnPlateau(0.5, 3, mode="min"),
    schedule.Lambda([1.0, 0.5, 0.25] * 40),
]


def test_doctests():
    result = doctest.testmod(schedule, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert result.attempted > 10
    assert result.failed == 0


@pytest.mark.parametrize("one", ONE_OF_EACH, ids=repr)
def test_config_gives_the_same_schedule_back(one):
    again = schedule.from_config({"name": one.name, **one.config()})
    assert again == one
    assert again.config() == one.config()
    assert eval(repr(one), {k: getattr(schedule, k) for k in schedule.names()}) == one
    assert again.series(5, 60, 0.1) == one.series(5, 60, 0.1)


def test_every_schedule_is_covered_above():
    assert {one.name for one in ONE_OF_EACH} == set(schedule.names())


@given(
    per_epoch=st.integers(1, 40),
    epochs=st.integers(1, 30),
    warm=st.floats(0, 5),
    start=st.floats(0, 0.1),
    base=st.floats(1e-4, 10),
)
def test_warmup_rises_to_the_base_rate_and_never_starts_at_zero(per_epoch, epochs, warm, start, base):
    cosine = schedule.Cosine(warmup_epochs=warm, warmup_start=start)
    total, length = per_epoch * epochs, cosine.warmup_length(per_epoch)
    if length > total:
        with pytest.raises(RecipeError, match="the whole run has"):
            cosine.check(per_epoch, total)
        return
    cosine.check(per_epoch, total)
    values = cosine.series(per_epoch, total, base)
    assert values[0] > 0
    assert all(v >= 0 for v in values)
    if length:
        assert values[length - 1] == pytest.approx(base)
    if length < total:
        assert values[length] == pytest.approx(base)


def test_warmup_steps_and_epochs_mean_the_same():
    by_steps = schedule.Cosine(warmup_steps=10).series(5, 50, 0.1)
    assert by_steps == schedule.Cosine(warmup_epochs=2).series(5, 50, 0.1)


def test_timm_s_warmup_starts_where_timm_starts():
    assert schedule.Cosine(warmup_epochs=1, inside=True).value(0, 5, 50, 0.1) == 1e-5
    assert schedule.Cosine(warmup_epochs=1).value(0, 5, 50, 0.1) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedule.Step(), "needs step_size or step_size_epochs"),
        (lambda: schedule.Step(3, step_size_epochs=2), "twice"),
        (lambda: schedule.Step(0), "at least 1"),
        (lambda: schedule.Step("3"), "whole number"),
        (lambda: schedule.MultiStep([5, 3]), "must rise"),
        (lambda: schedule.MultiStep("35"), "list of numbers"),
        (lambda: schedule.Cosine(warmup_epochs=1, warmup_steps=1), "twice"),
        (lambda: schedule.Cosine(warmup_epochs=-1), r"\[0, inf\)"),
        (lambda: schedule.Cosine(float("nan")), "final must be in"),
        (lambda: schedule.Cosine(inside=1), "true or false"),
        (lambda: schedule.Cosine(warmup_steps=3, by_epoch=True), "counts in epochs"),
        (lambda: schedule.Exponential(0), r"\(0, inf\)"),
        (lambda: schedule.OneCycle(warmup_epochs=1), "of its own"),
        (lambda: schedule.ReduceOnPlateau(1.0), "below 1"),
        (lambda: schedule.ReduceOnPlateau(mode="up"), "must be one of auto, min, max"),
        (lambda: schedule.Lambda([]), "at least one"),
        (lambda: schedule.Lambda("abc"), "function of the step or a list"),
        (lambda: schedule.Cosine().value(50, 5, 50, 0.1), "outside the run"),
        (lambda: schedule.Lambda([1.0, 0.5]).check(1, 3), "has 2 values, the run needs 3"),
        (lambda: schedule.Lambda(lambda t: 1.0).config(), "tabulate"),
        (lambda: schedule.from_config({"gamma": 1}), "needs a name"),
        (lambda: schedule.from_config({"name": "cosine"}), "did you mean 'Cosine'"),
        (lambda: schedule.from_config({"name": "Cosine", "warmup_epoch": 3}), "did you mean 'warmup_epochs'"),
        (lambda: schedule.from_config({"name": "OneCycle", "warmup_epochs": 3}), "of its own"),
    ],
)
def test_bad_parameters_say_what_to_do(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_plateau_state_travels():
    plateau = schedule.ReduceOnPlateau(0.5, 0)
    direction = schedule.metric_mode("val/loss")
    assert [plateau.observe(v, direction) for v in (1.0, 0.9, 0.95, 0.9)] == [False, False, True, True]
    other = schedule.ReduceOnPlateau(0.5, 0)
    assert other.value(9, 1, 10, 0.1) == 0.1
    other.load_state(plateau.state())
    assert other.value(9, 1, 10, 0.1) == pytest.approx(0.025)
    assert other == plateau, "state is not part of what the recipe says"
    with pytest.raises(RecipeError, match="state must hold"):
        other.load_state({"best": 1.0})


def test_plateau_follows_the_metric_s_own_direction():
    falling, rising = schedule.ReduceOnPlateau(0.5, 0), schedule.ReduceOnPlateau(0.5, 0)
    accuracies = (0.5, 0.7, 0.9, 0.97)
    assert not any(rising.observe(v, schedule.metric_mode("val/top1")) for v in accuracies)
    assert [falling.observe(v, schedule.metric_mode("val/loss")) for v in accuracies] == [
        False,
        True,
        True,
        True,
    ]


def test_a_function_is_stored_as_its_values():
    function = schedule.Lambda(lambda t: 1 / (t + 1), warmup_steps=4)
    table = function.tabulate(5, 20)
    assert len(table.values) == 16
    assert table.series(5, 20, 0.2) == function.series(5, 20, 0.2)
    assert schedule.from_config({"name": "Lambda", **table.config()}) == table
