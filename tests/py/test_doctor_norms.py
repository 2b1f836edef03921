"""Checks on a run's weights, BatchNorm, dropout and augmentation: each finds its planted cause with its true
size inside the interval, and is silent without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import small
from test_doctor_waterfall import CROP, PLAIN, Dropped, case_of, digits

import gapless as gl
from gapless import checkpoint, doctor, nn
from gapless.doctor import norms, retraining, running, table
from gapless.doctor.case import Budget, Case
from gapless.doctor.checks import augmentation_strength, which_weights
from gapless.doctor.checks import stale_batchnorm as stale_check
from gapless.doctor.checks.ema_lag import faster
from gapless.doctor.replay import Mode, replay_of
from gapless.doctor.statistics import Layer
from gapless.doctor.stats import Estimate, paired
from gapless.training import ema

MINE = [
    "which-weights",
    "ema-lag",
    "stale-batchnorm",
    "small-batch-batchnorm",
    "dropout-variance",
    "augmentation-strength",
]
SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9}


class Normed(nn.Module):
    """Two convolutions with BatchNorm of a given momentum, dropout before the second where wanted."""

    def __init__(self, momentum: float = 0.1, p: float = 0.0, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16, momentum=momentum)
        self.drop = nn.Dropout(p) if p else nn.Identity()
        self.conv2 = nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16, momentum=momentum)
        self.relu, self.flat = nn.ReLU(), nn.Flatten()
        self.fc = nn.Linear(256, classes)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(self.drop(x))))
        return self.fc(self.flat(x))


class Pooled(nn.Module):
    """BatchNorm on pooled features: one value per image and channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.relu, self.pool, self.flat = nn.ReLU(), nn.AvgPool2d(8), nn.Flatten()
        self.bn = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        return self.fc(self.flat(self.bn(self.pool(self.relu(self.conv1(x))))))


def examined(case: Case, *slugs: str) -> doctor.Diagnosis:
    rows = [table.named(s) for s in slugs or MINE]
    return running.examine(case, rows, verbose=0, with_waterfall=False)


def result(d: doctor.Diagnosis, id: str) -> doctor.Result:
    return next(c.result for c in d.checks if c.id == id)


def trained(out: Path, data: Any, **more: Any) -> gl.Run:
    return small.train(
        out, data=data, **{"epochs": 8, "batch_size": 32, "optimizer": SGD, "clean_samples": 0, **more}
    )


def accuracy(path: Path | None, data: Any) -> float:
    record = gl.evaluate(path, data, "val")
    return record.correct[1] / record.n_scored


# -- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_silent_on_a_sound_run(seed: int, tmp_path: Path) -> None:
    data, _ = digits(500, seed=seed)
    more = [
        {"train": CROP, "model": Dropped(0.3)},
        {"train": PLAIN, "model": Normed()},
        {"train": CROP, "model": Normed(), "ema": {"decay": 0.9, "tau": 10.0}},
        {
            "train": CROP,
            "model": Dropped(0.0, norm=False),
            "batch_size": 4,
            "optimizer": {**SGD, "lr": 0.005},
        },
    ][seed]
    run = trained(tmp_path / "r", data, seed=seed, **more)
    for path in (run.best, run.last):
        d = examined(case_of(path, data, 30.0))
        assert {c.result.outcome for c in d.checks} == {"clear"}, [c.to_dict() for c in d.checks]


def test_without_a_run_they_are_left_out() -> None:
    from test_doctor import case_of as outputs_alone

    d = examined(outputs_alone())
    assert {c.result.outcome for c in d.checks} == {"left out"}


def test_one_class_and_tiny_splits(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 8, 8), np.uint8)
    with pytest.warns(gl.data.DataWarning, match="val lacks 1 of 2 classes"):
        data = gl.data.arrays(images[:6], [0, 1] * 3, val_data=(images[6:], [0, 0, 0]))
    run = trained(tmp_path / "r", data, model=Normed(p=0.3, classes=2), batch_size=4, epochs=2, train=CROP)
    d = examined(case_of(run.last, data))
    assert {c.result.outcome for c in d.checks} <= {"clear", "undecided"}


# -- W2, W3 -------------------------------------------------------------------------------------


def test_an_average_that_lags_is_found(tmp_path: Path) -> None:
    data, _ = digits(500)
    run = trained(tmp_path / "r", data, model=Normed(), ema={"decay": 0.999, "tau": 0.0})
    case = case_of(run.last, data)
    d = examined(case)
    assert [f.id for f in d.findings][:1] == ["W3"]
    f = d.finding("W3")
    raw = checkpoint.read(run.last or "").weights("raw")
    again = trained(tmp_path / "b", data, model=Normed())
    assert raw is not None
    truth = accuracy(again.last, data) - accuracy(run.last, data)  # the same training without an average
    assert f.low <= truth <= f.high
    assert f.evidence["initial_share"] == pytest.approx(0.999 ** (8 * 16), rel=1e-6)
    better = d.recipe_with("W3")
    assert better.ema is not None
    assert better.ema["decay"] == f.remedy.change["ema.decay"]


@pytest.mark.parametrize(
    ("decay", "tau", "steps"), [(0.999, 0.0, 264), (0.9999, 2000.0, 500), (0.9999, 2000.0, 30)]
)
def test_a_faster_average_forgets_the_first_weights(decay: float, tau: float, steps: int) -> None:
    change = faster(decay, tau, steps)
    assert 0 < change["ema.decay"] <= decay
    assert ema.initial_share(change["ema.decay"], change["ema.tau"], steps) < 1e-3


def test_weights_that_are_not_those_of_the_record_are_found(tmp_path: Path) -> None:
    data, _ = digits(500)
    run = trained(tmp_path / "r", data, model=Normed())
    saved = checkpoint.read(run.best or "")
    head = saved.tensors["fc.weight"]
    tensors = {**saved.tensors, "fc.weight": head[::-1].copy()}
    path = tmp_path / "other.safetensors"
    checkpoint.write(path, tensors, saved.documents)
    case = case_of(path, data)
    d = running.examine(case, [table.named("which-weights")], verbose=0)
    (f,) = d.findings
    truth = accuracy(run.best, data) - case.outputs("val").accuracy
    assert f.points == pytest.approx(truth)
    assert any("record in the file" in n for n in d.to_dict()["notes"])


def test_last_weights_that_are_worse_than_the_best_are_found(tmp_path: Path) -> None:
    data, _ = digits(500)
    run = trained(tmp_path / "r", data, model=Normed(), epochs=3)
    saved = checkpoint.read(run.last or "")
    # the last checkpoint of a run that went on: other weights under another step
    noise = np.random.default_rng(0)
    tensors = dict(saved.tensors)
    tensors["fc.weight"] = (tensors["fc.weight"] + noise.normal(0, 0.25, tensors["fc.weight"].shape)).astype(
        np.float32
    )
    documents = {**saved.documents, "records": {}, "state": {**saved.state, "step": saved.state["step"] + 1}}
    checkpoint.write(run.last or "", tensors, documents)
    case = case_of(run.last, data)
    f = examined(case, "which-weights").finding("W2")
    truth = accuracy(run.best, data) - case.outputs("val").accuracy
    assert f.low <= truth <= f.high
    assert "best" in f.remedy.text


def test_training_images_tell_luck_in_the_choice_from_better_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of twenty evaluations is some points better by luck alone: 6 of 450 samples prove nothing."""
    labels = np.arange(450) % 5
    before, after = np.arange(450) % 100 < 86, np.arange(450) % 100 < 92
    before[:9] = True
    after[:9] = False

    def said(right: np.ndarray, name: str) -> doctor.Outputs:
        told = np.where(right, labels, (labels + 1) % 5)
        ids = [f"{i:03d}" for i in range(450)]
        return doctor.Outputs(ids, labels, told, None, "none", tuple("abcde"), name)

    val, others = said(before, ""), {"best (raw)": said(after, "best (raw)")}
    monkeypatch.setattr(which_weights, "_looks", lambda case: 20)
    monkeypatch.setattr(which_weights, "_own_name", lambda case: "last (raw)")
    case = Case(budget=Budget(60))

    def honest(on_training: Estimate | None) -> Estimate:
        monkeypatch.setattr(which_weights, "_on_training", lambda case, other: on_training)
        return which_weights._honest(case, val, others)

    raw = paired(before, after)
    alone = honest(None)
    assert (alone.points, alone.high) == (raw.points, raw.high)
    assert alone.low < 0 < raw.low
    assert alone.p == pytest.approx(20 * raw.p)
    there = honest(Estimate(0.04, 0.025, 0.055, 1e-7))
    assert there.points == raw.points
    assert there.low == min(raw.low, 0.025)
    assert there.p == pytest.approx(2e-7)  # validation's own interval leaves 0 out
    raw_p = honest(Estimate(0.04, 0.025, 0.055, 0.04)).p
    assert raw_p == pytest.approx(0.08)  # but chance where training images leave it open
    assert honest(Estimate(0.0, -0.01, 0.01, 0.9)) == alone


# -- BatchNorm ----------------------------------------------------------------------------------


def test_stale_statistics_are_found_with_their_size(tmp_path: Path) -> None:
    """Momentum does not touch training: the same run with the usual momentum has the same weights, but
    for rounding, and true statistics."""
    data, _ = digits(500)
    stale = trained(tmp_path / "a", data, model=Normed(momentum=0.004))
    sound = trained(tmp_path / "b", data, model=Normed())
    weights = [checkpoint.read(r.last or "").scored() for r in (stale, sound)]
    assert np.allclose(weights[0]["fc.weight"], weights[1]["fc.weight"], atol=1e-3)
    d = examined(case_of(stale.last, data))
    assert [f.id for f in d.findings] == ["B1"]
    f = d.finding("stale-batchnorm")
    truth = accuracy(sound.last, data) - accuracy(stale.last, data)
    assert truth > 0.02
    assert f.low <= truth <= f.high
    assert "running variance" in f.says


@pytest.mark.parametrize(
    ("shift", "times", "stale"), [(0.02, 1.0, False), (0.3, 1.0, True), (0.0, 1.6, True), (0.2, 0.8, False)]
)
def test_statistics_are_stale_by_themselves_where_they_are_far_from_the_data(
    shift: float, times: float, stale: bool
) -> None:
    """A real difference in accuracy of two or three points is within chance on some hundred samples: that
    the statistics are off is not."""
    rng = np.random.default_rng(0)
    layer = Layer("bn", 16, 8)
    for _ in range(30):
        x = rng.standard_normal((32 * 16, 8))
        layer.add(32, x.mean(axis=0), x.var(axis=0, ddof=1))
    weights = {"bn.running_mean": layer.mean + shift, "bn.running_var": layer.variance * times}
    case = SimpleNamespace(saved=SimpleNamespace(scored=lambda: weights))
    worst = stale_check._worst(cast(Any, case), cast(Any, SimpleNamespace(layers={"bn": layer})))
    assert worst is not None
    assert worst.stale is stale
    assert (worst.p < 1e-6) is (shift > 0.1 or times != 1.0)
    assert f"{shift:.2f} standard deviations off, its running variance {times:.2f} times" in worst.says


def test_small_batches_are_found_with_their_size(tmp_path: Path) -> None:
    data, _ = digits(300)
    run = trained(tmp_path / "r", data, model=Pooled(), batch_size=4, epochs=6, optimizer={**SGD, "lr": 0.01})
    case = case_of(run.last, data)
    d = examined(case)
    assert [f.id for f in d.findings] == ["B2"]
    f = d.finding("B2")
    assert d.recipe_with("B2").batch_size == 32
    replay = replay_of(case)
    assert replay is not None
    saved, others = replay.saved, []
    running_mode = replay.passed("raw", saved.scored(), Mode(False, "running", "still")).right.mean()
    for epoch in range(6, 14):  # other draws of which images share a batch
        again = doctor.replay.Replay(saved, data, case.budget)
        again.epoch = epoch
        again.ids = np.concatenate(again._batches(data.indices("train")))
        again.labels = data.labels[again.ids]
        others.append(again.passed("raw", saved.scored(), Mode(False, "batch", "still")).right.mean())
    assert f.low <= float(np.mean(others) - running_mode) <= f.high


def test_a_short_last_batch_is_looked_at(tmp_path: Path) -> None:
    data, _ = digits(322)
    run = trained(tmp_path / "r", data, model=Normed())
    case = case_of(run.last, data)
    assert norms.last_batch(case) == 2
    r = result(examined(case), "B2")
    assert "ends with one of 2" in r.says
    assert r.outcome in ("clear", "found")
    if r.outcome == "found":
        assert r.remedy is not None
        assert r.remedy.change == {"drop_last": True}


def test_dropout_before_batchnorm_is_found_with_its_size(tmp_path: Path) -> None:
    data, _ = digits(500, seed=5)
    run = trained(tmp_path / "r", data, model=Normed(p=0.85), epochs=6, seed=5)
    case = case_of(run.last, data)
    d = examined(case)
    assert [f.id for f in d.findings] == ["A1", "B3"]  # softer crops help such a dropout too, and by more
    r = result(d, "B3")
    assert r.evidence["variance_ratio"]["bn1"] == 1.0  # before the dropout nothing differs
    assert r.evidence["variance_ratio"]["bn2"] < 0.8
    assert r.estimate is not None
    # the truth over other batches and draws
    replay = replay_of(case)
    assert replay is not None
    found = []
    for epoch in range(6, 12):
        again = doctor.replay.Replay(replay.saved, data, case.budget)
        again.epoch = epoch
        again.ids = np.concatenate(again._batches(data.indices("train")))
        again.labels = data.labels[again.ids]
        right = []
        for dropout in (True, False):
            g = again.passed("raw", replay.saved.scored(), Mode(dropout, "batch")).gathered
            assert g is not None
            subject = case.subject.with_weights(g.into(replay.saved.scored()), "x")  # type: ignore[union-attr]
            right.append(case.outputs_of(subject, data.indices("val")).accuracy)
        found.append(right[1] - right[0])
    assert r.estimate.low <= float(np.mean(found)) <= r.estimate.high


# -- A1 -----------------------------------------------------------------------------------------


def test_augmentation_that_is_too_strong_is_found_with_its_size(tmp_path: Path) -> None:
    data, _ = digits(500)
    hard = [{"name": "RandomCrop", "size": 8, "padding": 5}]
    recipe = {"model": Dropped(0.0), "train": hard, "optimizer": {**SGD, "lr": 0.01}}
    run = trained(tmp_path / "r", data, **recipe)
    case = case_of(run.last, data)
    d = examined(case)
    f = d.finding("A1")
    assert f.remedy.change == {"train.0.padding": 2}
    softer = d.recipe_with("A1").train
    assert softer is not None
    assert softer[0]["padding"] == 2
    dear = case_of(run.last, data)
    assert dear.saved is not None
    dear.saved.documents["state"] = {**dear.saved.state, "training_seconds": 100.0}
    r = result(examined(dear, "augmentation-strength"), "A1")
    assert r.outcome == "undecided"
    assert "3 retrainings of 100 s" in r.says
    truth = []
    for seed in (11, 12, 13):
        weights = retraining.retrained(case, {"train.0.padding": 2, "seed": seed})
        subject = case.subject.with_weights(dict(weights), "x")  # type: ignore[union-attr]
        truth.append(case.outputs_of(subject, data.indices("val")).accuracy)
    assert f.low <= float(np.mean(truth)) - case.outputs("val").accuracy <= f.high


def test_softer_halves_what_draws(tmp_path: Path) -> None:
    data, _ = digits(100)
    ops = [{"name": "RandomResizedCrop", "size": 8, "scale": [0.08, 1.0]}, {"name": "RandomHorizontalFlip"}]
    run = trained(tmp_path / "r", data, epochs=1, train=ops)
    replay = replay_of(case_of(run.last, data))
    assert replay is not None
    assert augmentation_strength.softer(replay) == {"train.0.scale": [0.54, 1.0]}
