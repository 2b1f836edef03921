"""The doctor's checks of training: each finds its planted cause with its true size, and is silent without."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from small import SGD

import gapless as gl
from gapless import checkpoint, doctor, nn
from gapless.doctor import opening, running, table
from gapless.doctor.case import Budget, Case
from gapless.doctor.checks.learning_curve import predicted_gain
from gapless.doctor.checks.memorised_noise import late_learned
from gapless.doctor.checks.over_fitting import remedies
from gapless.doctor.checks.selection_optimism import expected_optimism
from gapless.doctor.lr_range import range_of
from gapless.doctor.trial import Trial, first_weights, whole_history
from gapless.metrics import wilson

ADAM = {"name": "AdamW", "lr": 0.002}
TRAINING = ("W4", "G1", "G2", "G3", "G4", "G5", "R1", "M1")
BEFORE = ("W4", "G3", "G4", "R1")


# -- data ---------------------------------------------------------------------------------------


@functools.cache
def digit_pixels() -> tuple[np.ndarray, np.ndarray]:
    data = gl.data.digits()
    return np.stack([data.load(i) for i in range(len(data))]), np.array(data.labels)


def stripes(n: int, seed: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Colour images of stripes in four directions, with noise: easy to learn, not linear."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    y, x = np.mgrid[:size, :size] / size
    angle = labels * math.pi / 4
    phase = rng.random(n) * 2 * math.pi
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    wave = np.sin(2 * math.pi * 3 * along + phase[:, None, None])
    pixels = (
        128 + 60 * wave[..., None] * rng.uniform(0.5, 1, (n, 1, 1, 3)) + rng.normal(0, 25, (n, size, size, 3))
    )
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def digits_data(n: int | None = None, noise: float = 0.0, seed: int = 0) -> tuple[Any, np.ndarray]:
    """Digits with a fixed validation part, `n` training images, and a share of wrong training labels."""
    x, y = digit_pixels()
    split = gl.data.digits().splits
    train, val = split["train"], split["val"]
    rng = np.random.default_rng(seed)
    if n is not None:
        train = rng.permutation(train)[:n]
    labels = y[train].copy()
    flipped = rng.permutation(len(train))[: round(noise * len(train))]
    labels[flipped] = (labels[flipped] + rng.integers(1, 10, len(flipped))) % 10
    data = gl.data.arrays(x[train], labels, val_data=(x[val], y[val]), classes=list("0123456789"))
    return data, flipped


def striped(n: int = 600, seed: int = 0) -> Any:
    x, y = stripes(n + 400, seed)
    return gl.data.arrays(x[:n], y[:n], val_data=(x[n:], y[n:]), classes=list("abcd"))


@pytest.fixture(autouse=True)
def undrawn() -> Iterator[None]:
    """Runs that a test makes by itself."""
    with small.no_pictures():
        yield


# -- running ------------------------------------------------------------------------------------


def trained(folder: Path, **recipe: Any) -> gl.Run:
    return small.trained(folder, **{"epochs": 5, **recipe})


def opened(run: Any, data: Any = None, budget: float = 60.0, *, last: bool = False) -> Case:
    return opening.open_case(run.last if last else run, data, budget=Budget(budget))


def before_training(budget: float = 30.0, **recipe: Any) -> Case:
    values = {"data": "digits", "model": "lenet", **recipe}
    return Case(budget=Budget(budget), data=gl.data.digits(), recipe=gl.Recipe(**values))


def examined(case: Case, *checks: str) -> doctor.Diagnosis:
    return running.examine(case, [table.named(c) for c in checks], verbose=0, with_waterfall=False)


def result(d: doctor.Diagnosis, ident: str) -> doctor.Result:
    return next(c.result for c in d.checks if c.id == ident)


def accuracy(folder: Path, **recipe: Any) -> float:
    """What a run has on validation: the counterfactual."""
    record = trained(folder, **recipe).record
    return float(record.top1)


# -- trials -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"model": "resnet8", "ema": 0.9, "clip_norm": 1.0, "decay_norm_and_bias": False},
        {"optimizer": ADAM, "freeze": ["conv1"], "drop_last": True, "schedule": {"name": "Constant"}},
    ],
)
def test_a_trial_of_the_whole_recipe_is_the_run_to_the_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    run = trained(tmp_path, epochs=2, **more)
    trial = Trial(opened(run)).train()
    saved = checkpoint.read(run.last)
    for kind in ("raw", "ema") if "ema" in more else ("raw",):
        stored = saved.weights(kind)
        assert stored is not None
        for name, value in trial.net.state_dict(kind).items():
            assert np.array_equal(value, stored[name]), (kind, name)


def test_a_trial_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    run = trained(tmp_path, epochs=1)
    files = {p: p.read_bytes() for p in run.out.rglob("*") if p.is_file()}
    case = opened(run)
    before = case.subject.net.digest()  # type: ignore[union-attr]
    Trial(case, {"optimizer.lr": 0.5}).train(5)
    examined(case, *TRAINING)
    assert case.subject.net.digest() == before  # type: ignore[union-attr]
    assert {p: p.read_bytes() for p in run.out.rglob("*") if p.is_file()} == files


def test_a_trial_that_goes_beyond_all_numbers_ends_and_says_so() -> None:
    trial = Trial(before_training(optimizer={**SGD, "lr": 1e4}, epochs=2)).train()
    assert not trial.finite
    assert trial.outputs().accuracy < 0.3


def test_best_checkpoints_know_the_whole_history(tmp_path: Path) -> None:
    run = trained(tmp_path, optimizer={**SGD, "lr": 0.2}, schedule={"name": "Constant"}, epochs=6)
    case = opened(run)
    assert len(whole_history(case)) == 6 >= len(case.saved.history)  # type: ignore[union-attr]


# -- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["digits lenet", "digits resnet8", "stripes resnet8"])
def test_healthy_runs_have_no_finding(tmp_path: Path, kind: str, seed: int) -> None:
    which, model = kind.split()
    data = striped(seed=seed) if which == "stripes" else None
    recipe = {"data": "digits" if data is None else data, "model": model, "seed": seed, "epochs": 8}
    case = opened(trained(tmp_path, **recipe), data)
    d = examined(case, *TRAINING)
    assert [(f.id, f.says) for f in d.findings] == []
    assert {c.result.outcome for c in d.checks} <= {"clear", "undecided"}
    assert result(d, "R1").outcome == result(d, "W4").outcome == "clear"


@pytest.mark.parametrize("model", ["lenet", "resnet8"])
@pytest.mark.parametrize("seed", [0, 1])
def test_default_recipes_have_no_finding_before_training(model: str, seed: int) -> None:
    d = examined(before_training(model=model, seed=seed), *BEFORE)
    assert [(f.id, f.says) for f in d.findings] == []


# -- W4 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "freeze"),
    [("lenet", ["conv1", "conv2", "fc1"]), ("resnet8", ["conv1", "bn1", "layer1", "layer2", "layer3"])],
)
def test_all_but_the_head_frozen_is_found_with_its_size(
    tmp_path: Path, model: str, freeze: list[str]
) -> None:
    run = trained(tmp_path / "a", model=model, freeze=freeze)
    truth = accuracy(tmp_path / "b", model=model) - run.record.top1
    d = examined(opened(run), *TRAINING)
    f = d.findings[0]
    assert f.id == "W4"
    assert f.low <= truth <= f.high
    assert d.recipe_with("W4").freeze == []
    before = examined(before_training(model=model, freeze=freeze), *BEFORE)
    assert [f.id for f in before.findings] == ["W4"]


def dead_net(seed: int = 0) -> Any:
    """Its second layer is never on."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    made = net.net((1, 8, 8), seed)
    made.load_state_dict({**made.state_dict(), "3.bias": np.full(32, -10, np.float32)})
    return made


def test_a_dead_layer_is_found_before_and_after_training(tmp_path: Path) -> None:
    before = examined(before_training(model=dead_net()), *BEFORE)
    assert before.findings[0].id == "W4"
    assert "1.weight" in before.findings[0].evidence["no_gradient"]
    run = trained(tmp_path, model=dead_net())
    d = examined(opened(run), *TRAINING)
    assert [f.id for f in d.findings] == ["W4"]
    assert d.findings[0].low > 0.5
    assert {c.id for c in d.checks if c.caused_by == "W4"} >= {"G3"}


# -- G1, G5 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_64_images_learned_by_heart(tmp_path: Path, seed: int) -> None:
    data, _ = digits_data(64, seed=seed)
    run = trained(tmp_path / "a", data=data, epochs=60, train=[], optimizer=ADAM, seed=seed)
    case = opened(run, data)
    truth = case.outputs("train").accuracy - case.outputs("val").accuracy
    d = examined(case, *TRAINING)
    f = d.findings[0]
    assert f.id == "G1"
    assert f.low <= truth <= f.high
    assert d.recipe_with("G1").train is not None  # it had no augmentation
    more = result(d, "G5")
    assert more.estimate is not None
    twice, _ = digits_data(128, seed=seed)
    doubled = accuracy(tmp_path / "b", data=twice, epochs=30, train=[], optimizer=ADAM, seed=seed)
    assert more.estimate.low <= doubled - run.record.top1 <= more.estimate.high


def test_remedies_leave_out_what_the_recipe_has() -> None:
    crop = {"name": "RandomCrop", "size": 8, "padding": 1}
    loss = {"name": "CrossEntropy", "label_smoothing": 0.1}
    rich = {"train": [crop], "image_size": 8, "optimizer": SGD, "loss": loss, "early_stopping": 5}
    assert all(not change for _, change in remedies(rich))
    poor = {"train": [], "image_size": 8, "optimizer": {"name": "SGD", "weight_decay": 0.0}, "loss": {}}
    changes = [change for _, change in remedies(poor)]
    assert list(changes[0]) == ["train"]
    assert {"optimizer.weight_decay": 5e-4} in changes
    assert all(text for text, _ in remedies({}))


def test_validation_images_that_are_training_images_tell_nothing_of_over_fitting(tmp_path: Path) -> None:
    x, y = digit_pixels()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    train, new = order[:64], order[64:264]
    val = np.concatenate([new, train[:40]])
    data = gl.data.arrays(x[train], y[train], val_data=(x[val], y[val]), classes=list("0123456789"))
    case = opened(trained(tmp_path, data=data, epochs=40, optimizer=ADAM), data)
    r = result(examined(case, "G1"), "G1")
    assert r.estimate is not None
    train, new, all_ = (
        r.evidence[k] for k in ("train_accuracy", "val_accuracy_of_new_images", "val_accuracy")
    )
    assert (r.evidence["val_n"], r.evidence["val_images_that_are_training_images"]) == (240, 40)
    assert new < all_ < train
    assert r.estimate.points == pytest.approx(train - all_)  # what shows
    assert r.estimate.low < train - all_ < r.estimate.high
    assert r.estimate.high - r.estimate.low < wide(train, new)  # but the copies are no sample


def wide(train: float, new: float) -> float:
    """Length of the interval that 200 new images alone would give."""
    low, high = wilson(round(200 * new), 200)
    return high - low


def test_predicted_gain_covers_the_truth() -> None:
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b, c = 2.0, rng.uniform(0.2, 0.7), rng.uniform(0, 0.05)
        errors = [min(a * n**-b + c, 0.9) for n in (50, 100, 200, 400)]
        ease = rng.random(600)
        right = np.array([ease > e + rng.normal(0, 0.01) for e in errors[:3]])
        e = predicted_gain(right, seed)
        held += e.low <= errors[2] - errors[3] <= e.high
    assert held >= 37


# -- G2 -----------------------------------------------------------------------------------------


def test_memorised_noise_is_found_with_its_size(tmp_path: Path) -> None:
    data, flipped = digits_data(800, noise=0.3)
    recipe = {"epochs": 60, "train": [], "optimizer": ADAM}
    run = trained(tmp_path / "a", data=data, **recipe)
    case = opened(run, data, last=True)
    index, late = late_learned(case)
    wrong = np.isin(index, data.splits["train"][flipped])
    assert np.mean(late[wrong]) > 0.8
    assert np.mean(late[~wrong]) < 0.1
    d = examined(case, *TRAINING)
    f = d.findings[0]
    assert f.id == "G2"
    x, y = digit_pixels()
    clean, _ = digits_data(800)
    kept = np.delete(np.arange(800), flipped)
    tx = np.stack([clean.load(int(i)) for i in clean.splits["train"][kept]])
    val = gl.data.digits().splits["val"]
    without = gl.data.arrays(tx, clean.labels[clean.splits["train"][kept]], val_data=(x[val], y[val]))
    truth = accuracy(tmp_path / "b", data=without, **recipe) - case.outputs("val").accuracy
    assert f.low <= truth <= f.high
    assert {c.id for c in d.checks if c.caused_by == "G2"} >= {"G1"}


# -- G3, G4 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["lenet", pytest.param("resnet8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("factor", [100.0, 1e-3])
def test_a_wrong_learning_rate_is_found_with_its_size(tmp_path: Path, model: str, factor: float) -> None:
    good = accuracy(tmp_path / "b", model=model)
    plain = {k: v for k, v in SGD.items() if k != "lr"}
    lr = SGD["lr"] * factor if model == "resnet8" or factor < 1 else 1.0  # lenet: finite still
    run = trained(tmp_path / "a", model=model, optimizer={**plain, "lr": lr})
    d = examined(opened(run), *TRAINING)
    f = d.findings[0]
    assert f.id == "G4"
    assert f.low <= good - run.record.top1 <= f.high
    assert 0.01 <= d.recipe_with("G4").optimizer["lr"] <= 0.2  # type: ignore[index]
    before = examined(before_training(model=model, optimizer={**plain, "lr": lr}, epochs=5), *BEFORE)
    assert [f.id for f in before.findings] == ["G4"]


@pytest.mark.parametrize("optimizer", [{"name": "SGD", "lr": 0.1}, SGD, ADAM])
def test_the_suggested_rate_is_near_the_best_one(optimizer: dict[str, Any]) -> None:
    case = before_training(epochs=4, optimizer=optimizer)
    suggested = range_of(case).suggested
    reached = {
        f: Trial(case, {"optimizer.lr": suggested * f}).train().outputs().accuracy for f in (0.1, 1, 10)
    }
    assert reached[1] >= max(reached.values()) - 0.03


def test_too_few_epochs_are_found(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", epochs=1, optimizer={"name": "SGD", "lr": 0.1})
    (f,) = examined(opened(run), "G3").findings
    long = accuracy(tmp_path / "b", epochs=12, optimizer={"name": "SGD", "lr": 0.1})
    assert f.low <= long - run.record.top1 <= f.high


def test_a_net_that_cannot_learn_one_batch_is_found_before_training() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    made = net.net((1, 8, 8), 0)
    case = before_training(model=made, freeze=["1.weight"])
    (f,) = examined(case, "G3").findings
    assert f.points > 0.3
    assert f.evidence["first_loss"] == pytest.approx(f.evidence["log_classes"], rel=0.3)


BLANKING = {
    "far mean": [{"name": "Normalize", "mean": [1000.0], "std": [1.0]}],
    "large std": [{"name": "Normalize", "mean": [0.1], "std": [1000.0]}],
    "padded away": [{"name": "Pad", "padding": 200}, {"name": "Resize", "size": 8}],
}


@pytest.mark.parametrize("kind", BLANKING)
def test_images_that_the_network_does_not_use_are_found(tmp_path: Path, kind: str) -> None:
    run = trained(tmp_path / "a", train=BLANKING[kind], eval=BLANKING[kind])
    d = examined(opened(run), *TRAINING)
    (f,) = d.findings
    assert f.id == "G3"
    assert "does not use them" in f.says
    assert f.evidence["val_accuracy_with_blank_input"] == pytest.approx(f.evidence["val_accuracy"], abs=0.02)
    assert ("pipeline" if kind == "padded away" else "mean") in f.remedy.text
    assert f.low <= accuracy(tmp_path / "b") - run.record.top1 <= f.high


def test_first_weights_of_zero_that_stay_are_said_to_leave_images_unused(tmp_path: Path) -> None:
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).net((1, 8, 8), 0)
    made.load_state_dict({**made.state_dict(), "1.weight": np.zeros((32, 64), np.float32)})
    d = examined(opened(trained(tmp_path, model=made, freeze=["1.weight"])), *TRAINING)
    assert [f.id for f in d.findings] == ["W4"]
    assert "does not use them" in result(d, "G3").says


def test_one_class_nearly_always_is_not_said_to_have_been_learned(tmp_path: Path) -> None:
    x, y = stripes(1000, 0)
    keep = (y > 0) | (np.arange(1000) % 6 == 0)
    labels = (y[keep] == 0).astype(int)  # one in twenty
    data = gl.data.arrays(
        x[keep][:450], labels[:450], val_data=(x[keep][450:], labels[450:]), classes=["a", "b"]
    )
    made = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 2)).net((3, 16, 16), 0)
    made.load_state_dict({**made.state_dict(), "1.weight": np.zeros((8, 768), np.float32)})
    run = trained(tmp_path, data=data, model=made, freeze=["1.weight"])
    r = result(examined(opened(run, data), "G3"), "G3")
    assert run.record.top1 > 0.9
    assert "does not use them" in r.says


@pytest.mark.parametrize("seed", [0, 1])
def test_a_poor_network_that_looks_at_its_images_is_not_said_to_ignore_them(
    tmp_path: Path, seed: int
) -> None:
    run = trained(tmp_path, epochs=1, optimizer={"name": "SGD", "lr": 0.1}, seed=seed)
    r = result(examined(opened(run), "G3"), "G3")
    assert run.record.top1 < 0.9
    assert "does not use" not in r.says


# -- R1, M1 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"ema": 0.99}, {"optimizer": ADAM}])
def test_resuming_is_exact(more: dict[str, Any]) -> None:
    r = result(examined(before_training(**more), "R1"), "R1")
    assert r.outcome == "clear"
    assert r.evidence["numbers_that_differ"] == 0
    assert r.evidence["numbers_compared"] > 100_000


def test_a_lost_optimizer_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from gapless.doctor.checks import resume

    def forgetful(net: Any, saved: Any, optimizer: str) -> list[str]:
        net.load_state_dict(saved.weights("raw"))
        return []

    monkeypatch.setattr(resume, "restore_net", forgetful)
    (f,) = examined(before_training(optimizer=SGD), "R1").findings
    assert f.id == "R1"
    assert f.points > 0.2


def test_expected_optimism_is_that_of_a_simulation() -> None:
    rng = np.random.default_rng(0)
    n, evaluations, p, said, true = 100, 60, 0.8, [], []
    for _ in range(100):
        curve = rng.binomial(n, p, evaluations) / n
        said.append(expected_optimism(curve, n, 0))
        true.append(curve.max() - p)
    assert np.mean(said) == pytest.approx(np.mean(true), rel=0.25)


def test_selection_is_told_from_the_test_record(tmp_path: Path) -> None:
    data = {"digits": True, "split": [0.3, 0.1, 0.6]}
    run = trained(tmp_path, data=data, test=True, epochs=10)
    case = opened(run)
    r = result(examined(case, "M1"), "M1")
    assert r.outcome in ("clear", "undecided")
    assert r.evidence["evaluations"] == 10
    assert r.estimate is not None
    assert r.estimate.low <= 0 <= r.estimate.high


def test_selection_is_told_from_a_test_split_where_data_are_handed_over(tmp_path: Path) -> None:
    data = {"digits": True, "split": [0.3, 0.1, 0.6]}
    run = trained(tmp_path, data=data, epochs=10)
    assert "no test record" in result(examined(opened(run), "M1"), "M1").says
    case = opened(run, data)
    r = result(examined(case, "M1"), "M1")
    assert r.evidence["test_n"] == len(case.outputs("test"))
    assert r.evidence["test_accuracy"] == case.outputs("test").accuracy
    assert r.outcome in ("clear", "undecided")
    assert r.estimate is not None
    assert r.estimate.points == pytest.approx(r.evidence["test_accuracy"] - r.evidence["val_accuracy"])


# -- boundaries and costs -----------------------------------------------------------------------


def test_a_first_checkpoint_is_no_finding_of_frozen_parameters(tmp_path: Path) -> None:
    run = trained(tmp_path, epochs=1, data={"digits": True, "split": [0.05, 0.95]}, batch_size=64)
    d = examined(opened(run), *TRAINING)
    assert result(d, "W4").outcome == "clear"
    assert not [c for c in d.checks if "failed" in c.result.says]


def test_what_does_not_fit_the_budget_says_so(tmp_path: Path) -> None:
    run = trained(tmp_path, freeze=["conv1", "conv2", "fc1"])
    case = opened(run, budget=0.5)
    case.outputs("val"), case.outputs("train")
    case.budget.seconds = case.budget.spent + 1e-3
    d = examined(case, *TRAINING)
    assert not d.findings
    assert "left out" in {c.result.outcome for c in d.checks}


def test_results_do_not_depend_on_the_clock(tmp_path: Path) -> None:
    run = trained(tmp_path, optimizer={**SGD, "lr": 1e-4})
    a, b = (examined(opened(run), *TRAINING) for _ in range(2))
    assert [c.result.estimate for c in a.checks] == [c.result.estimate for c in b.checks]
    assert [c.result.says for c in a.checks] == [c.result.says for c in b.checks]


def test_first_weights_are_those_of_the_seed(tmp_path: Path) -> None:
    case = opened(trained(tmp_path, epochs=1, seed=3))
    net = nn.Net(case.saved.graph, seed=3)  # type: ignore[union-attr]
    assert all(np.array_equal(v, net.state_dict()[k]) for k, v in first_weights(case).items())
