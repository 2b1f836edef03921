"""Every schedule beside torch.optim.lr_scheduler, and warm-up beside timm's, Keras' and Paddle's formulas."""

from __future__ import annotations

import math
import random
import warnings

import pytest

from gapless import schedule

torch = pytest.importorskip("torch")
L = torch.optim.lr_scheduler

EPOCHS, PER_EPOCH = 7, 11
TOTAL = EPOCHS * PER_EPOCH
BASE = 0.3


def torch_values(make, n=TOTAL):
    """The learning rates of n steps, with scheduler.step() after each."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = make(optimizer)
        values = []
        for _ in range(n):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            peer.step()
    return values


CASES = {
    "constant": (schedule.Constant(), lambda o: L.ConstantLR(o, factor=1.0)),
    "step": (schedule.Step(9, 0.3), lambda o: L.StepLR(o, 9, 0.3)),
    "step_epochs": (schedule.Step(step_size_epochs=2), lambda o: L.StepLR(o, 2 * PER_EPOCH)),
    "multi_step": (
        schedule.MultiStep([3, 20, 20, 50], 0.5),
        lambda o: L.MultiStepLR(o, [3, 20, 20, 50], 0.5),
    ),
    "multi_step_epochs": (
        schedule.MultiStep(milestones_epochs=[2, 5]),
        lambda o: L.MultiStepLR(o, [2 * PER_EPOCH, 5 * PER_EPOCH]),
    ),
    "exponential": (schedule.Exponential(0.97), lambda o: L.ExponentialLR(o, 0.97)),
    "polynomial": (schedule.Polynomial(1.7), lambda o: L.PolynomialLR(o, TOTAL, 1.7)),
    "polynomial_short": (schedule.Polynomial(2.0, total_iters=30), lambda o: L.PolynomialLR(o, 30, 2.0)),
    "linear": (schedule.Linear(1.0, 0.01), lambda o: L.LinearLR(o, 1.0, 0.01, TOTAL)),
    "linear_torch": (schedule.Linear(1 / 3, 1.0, total_iters=5), lambda o: L.LinearLR(o)),
    "cosine": (schedule.Cosine(), lambda o: L.CosineAnnealingLR(o, TOTAL)),
    "cosine_final": (schedule.Cosine(0.02), lambda o: L.CosineAnnealingLR(o, TOTAL, 0.02)),
    "one_cycle": (schedule.OneCycle(), lambda o: L.OneCycleLR(o, BASE, TOTAL, cycle_momentum=False)),
    "one_cycle_linear": (
        schedule.OneCycle(0.25, 10.0, 1e3, "linear"),
        lambda o: L.OneCycleLR(
            o,
            BASE,
            TOTAL,
            pct_start=0.25,
            anneal_strategy="linear",
            div_factor=10.0,
            final_div_factor=1e3,
            cycle_momentum=False,
        ),
    ),
    "lambda": (schedule.Lambda(lambda t: 1 / (1 + t)), lambda o: L.LambdaLR(o, lambda t: 1 / (1 + t))),
}


@pytest.mark.parametrize("case", CASES)
def test_every_value_is_torch_s_within_1e9(case):
    ours, make = CASES[case]
    want = torch_values(make)
    assert ours.series(PER_EPOCH, TOTAL, BASE) == pytest.approx(want, abs=1e-9, rel=0)
    stored = schedule.from_config({"name": ours.name, **_stored(ours).config()})
    assert stored.series(PER_EPOCH, TOTAL, BASE) == pytest.approx(want, abs=1e-9, rel=0)


def _stored(ours):
    return ours.tabulate(PER_EPOCH, TOTAL) if isinstance(ours, schedule.Lambda) else ours


@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (schedule.Cosine(by_epoch=True), lambda o: L.CosineAnnealingLR(o, EPOCHS)),
        (schedule.Exponential(0.9, by_epoch=True), lambda o: L.ExponentialLR(o, 0.9)),
        (schedule.Polynomial(0.9, by_epoch=True), lambda o: L.PolynomialLR(o, EPOCHS, 0.9)),
        (schedule.Linear(by_epoch=True), lambda o: L.LinearLR(o, 1.0, 0.0, EPOCHS)),
        (
            schedule.Lambda(lambda e: 0.7**e, by_epoch=True),
            lambda o: L.LambdaLR(o, lambda e: 0.7**e),
        ),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_by_epoch_is_torch_stepped_after_each_epoch(ours, make):
    per_epoch = torch_values(make, EPOCHS)
    want = [per_epoch[t // PER_EPOCH] for t in range(TOTAL)]
    assert _stored(ours).series(PER_EPOCH, TOTAL, BASE) == pytest.approx(want, abs=1e-9, rel=0)


@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_follows_torch(mode, threshold_mode, cooldown):
    rng = random.Random(f"{mode}{threshold_mode}{cooldown}")
    arguments = {
        "factor": 0.5,
        "patience": 2,
        "threshold": 1e-2,
        "threshold_mode": threshold_mode,
        "cooldown": cooldown,
        "min_lr": 0.01,
        "eps": 1e-3,
    }
    ours = schedule.ReduceOnPlateau(mode=mode, **arguments)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    peer = L.ReduceLROnPlateau(optimizer, mode, **arguments)
    metrics = [0.5 + 0.4 * rng.random() for _ in range(60)]
    metrics[10] = math.nan
    for evaluation, metric in enumerate(metrics):
        peer.step(metric)
        ours.observe(metric)
        fresh = schedule.ReduceOnPlateau(mode=mode, **arguments)
        fresh.load_state(ours.state())
        want = optimizer.param_groups[0]["lr"]
        assert fresh.value(evaluation, 1, 60, BASE) == pytest.approx(want, abs=1e-9, rel=0)
    assert want < BASE / 4, "the case must reduce more than once"


def timm_cosine(t, total, warmup, start, base):
    """timm/scheduler/cosine_lr.py with warmup_prefix=False and one cycle."""
    if t < warmup:
        return start + t * (base - start) / warmup
    return 0.5 * base * (1 + math.cos(math.pi * t / total))


def test_inside_warmup_is_timm_s():
    ours = schedule.Cosine(warmup_epochs=2, inside=True, by_epoch=True)
    values = [ours.value(epoch * 5, 5, 50, 0.1) for epoch in range(10)]
    assert values == pytest.approx([timm_cosine(e, 10, 2, 1e-5, 0.1) for e in range(10)], abs=1e-9, rel=0)
    assert [round(v, 5) for v in values[:4]] == [1e-05, 0.05001, 0.09045, 0.07939]  # what timm prints
    by_update = schedule.Cosine(warmup_epochs=2, inside=True, warmup_start=1e-6)
    want = [timm_cosine(t, 50, 10, 1e-6, 0.1) for t in range(50)]
    assert by_update.series(5, 50, 0.1) == pytest.approx(want, abs=1e-9, rel=0)


def keras_cosine(step, warmup, decay, base):
    """keras CosineDecay(0, decay, warmup_target=base, warmup_steps=warmup): Paddle's LinearWarmup over a
    cosine too."""
    if step < warmup:
        return base * step / warmup
    return 0.5 * base * (1 + math.cos(math.pi * (step - warmup) / decay))


def test_outside_warmup_is_keras_and_paddle_s_shifted_by_one_step():
    ours = schedule.Cosine(warmup_epochs=2).series(5, 50, 0.1)
    peers = [keras_cosine(t, 10, 40, 0.1) for t in range(50)]
    assert ours[:10] == pytest.approx(peers[1:11], abs=1e-9, rel=0)  # the first update is not 0
    assert ours[10:] == pytest.approx(peers[10:], abs=1e-9, rel=0)


def test_constant_then_linear_warmup_agrees_with_torch_s_sequential():
    ours = schedule.Constant(warmup_steps=8, warmup_start=0.03)
    peer = torch_values(lambda o: L.LinearLR(o, 0.1, 1.0, 8), 20)
    assert ours.series(10, 20, BASE)[:7] == pytest.approx(peer[1:8], abs=1e-9, rel=0)
