"""Early signs: named once, with the step; silent on healthy runs; no bit of training changes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from small import SGD

import gapless as gl
from gapless import checkpoint, doctor, nn
from gapless.doctor import table
from gapless.doctor.at_start import findings_at_start, free_rows
from gapless.doctor.case import Budget, Case
from gapless.recipe import resolve
from gapless.training import early


@pytest.fixture(autouse=True)
def undrawn() -> Iterator[None]:
    """Runs that a test makes by itself."""
    with small.no_pictures():
        yield


def trained(folder: Path, **recipe: Any) -> gl.Run:
    return small.trained(folder, **{"epochs": 4, **recipe})


def events(folder: Path, what: str = "sign") -> list[dict[str, Any]]:
    lines = (folder / "run" / "events.jsonl").read_text("utf-8").splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == what]


def signs(folder: Path) -> list[str]:
    found = [str(e["sign"]) for e in events(folder)]
    assert len(found) == len(set(found)), "named once"
    assert set(found) <= set(early.SIGNS)
    return found


def arrays(x: np.ndarray, y: np.ndarray) -> Any:
    return gl.data.arrays(x, y, classes=[str(k) for k in range(int(y.max()) + 1)])


# -- silence, and no trace ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "recipe",
    [
        {"model": "lenet"},
        {"model": "lenet", "optimizer": {**SGD, "lr": 0.1}, "epochs": 8},
        {"model": "resnet8", "optimizer": {**SGD, "lr": 0.1}},
        {"model": "resnet8", "optimizer": {"name": "AdamW", "lr": 2e-3}, "ema": 0.9},
        {"model": {"name": "lenet", "norm": True}, "loss": {"label_smoothing": 0.1}},
    ],
)
def test_healthy_runs_show_no_sign(tmp_path: Path, recipe: dict[str, Any], seed: int) -> None:
    trained(tmp_path, seed=seed, **recipe)
    assert signs(tmp_path) == []


@pytest.mark.parametrize("lr", [0.05, 0.3])
def test_watching_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lr: float) -> None:
    watched = trained(tmp_path / "a", optimizer={**SGD, "lr": lr}, ema=0.99)
    for name in ("before", "after", "epoch"):
        monkeypatch.setattr(early.Watch, name, lambda *a: None)
    alone = trained(tmp_path / "b", optimizer={**SGD, "lr": lr}, ema=0.99)
    a, b = (checkpoint.read(r.last).tensors for r in (watched, alone))
    assert set(a) == set(b)
    for name, value in a.items():
        if name.split("/")[0] != "gapless" or "train_samples" in name:
            assert np.array_equal(value, b[name], equal_nan=True), name


# -- signs --------------------------------------------------------------------------------------


def test_large_and_small_rates(tmp_path: Path) -> None:
    trained(tmp_path / "a", optimizer={**SGD, "lr": 1.0}, epochs=3)
    found = signs(tmp_path / "a")
    assert "large-updates" in found
    assert "guessing" in found or "constant-output" in found
    first = events(tmp_path / "a")[0]
    assert 0 < first["step"] <= 90
    trained(tmp_path / "b", optimizer={**SGD, "lr": 1e-5}, epochs=6)
    assert {"small-updates", "guessing"} <= set(signs(tmp_path / "b"))


def dead_net() -> Any:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    made = net.net((1, 8, 8), 0)
    made.load_state_dict({**made.state_dict(), "3.bias": np.full(32, -10, np.float32)})
    return made


def test_a_dead_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, model=dead_net(), epochs=5)
    assert "dead-layer" in signs(tmp_path)
    (event,) = [e for e in events(tmp_path) if e["sign"] == "dead-layer"]
    assert "1.weight" in event["text"]
    assert event["step"] == 150
    assert f"WARNING: step {event['step']}: dead-layer: no gradient reaches" in capsys.readouterr().err


def test_frozen_layers_are_not_dead(tmp_path: Path) -> None:
    trained(tmp_path, freeze=["conv1", "conv2"], epochs=6)
    assert "dead-layer" not in signs(tmp_path)


def test_a_second_softmax_holds_the_loss(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10), nn.Sigmoid())
    trained(
        tmp_path, model=net.net((1, 8, 8), 0), epochs=40, optimizer={"name": "AdamW", "lr": 0.01}, train=[]
    )
    assert "softmax-floor" in signs(tmp_path)
    assert early.softmax_floor(2) == pytest.approx(0.3133, abs=1e-4)  # as reported in UL #20014
    assert early.softmax_floor(29) == pytest.approx(2.4249, abs=1e-3)  # UL #13653


def test_labels_that_do_not_belong_to_their_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = arrays(rng.integers(0, 256, (1200, 8, 8), dtype=np.uint8), rng.integers(0, 4, 1200))
    trained(tmp_path, data=data, epochs=4)
    assert "guessing" in signs(tmp_path)


def test_a_rate_that_stays_large(tmp_path: Path) -> None:
    trained(tmp_path, model="lenet", optimizer={**SGD, "lr": 0.25}, schedule={"name": "Constant"}, epochs=14)
    assert "plateau" in signs(tmp_path)


def test_validation_above_training(tmp_path: Path) -> None:
    digits = gl.data.digits()
    x, y = np.stack([digits.load(i) for i in range(len(digits))]), np.array(digits.labels)
    rng = np.random.default_rng(0)
    train, val = digits.splits["train"], digits.splits["val"]
    labels = y[train].copy()
    wrong = rng.permutation(len(train))[: len(train) // 3]
    labels[wrong] = (labels[wrong] + 1 + rng.integers(0, 9, len(wrong))) % 10
    data = gl.data.arrays(x[train], labels, val_data=(x[val], y[val]), classes=list("0123456789"))
    trained(tmp_path, data=data)
    assert "validation-above-training" in signs(tmp_path)


def test_signs_are_not_said_again_after_resuming(tmp_path: Path) -> None:
    class Stop:
        def on_epoch(self, row: dict[str, Any]) -> None:
            if row["epoch"] == 4:
                raise KeyboardInterrupt

    recipe = gl.Recipe(data="digits", model="lenet", epochs=6, optimizer={**SGD, "lr": 1.0})
    with pytest.raises(KeyboardInterrupt):
        gl.train(recipe, out=tmp_path / "run", verbose=0, checks=False, callbacks=[Stop()])
    before = signs(tmp_path)
    assert before
    gl.train(resume=tmp_path / "run", verbose=0)
    assert set(before) <= set(signs(tmp_path))


# -- free checks at the start -------------------------------------------------------------------


@pytest.fixture
def planted() -> Any:
    def found(case: Any) -> doctor.Result:
        e = doctor.Estimate(0.1, 0.05, 0.15, 0.0)
        return doctor.Result.found("12 images are odd", e, remedy=doctor.Remedy("Look at them."))

    def bad(case: Any) -> doctor.Result:
        raise RuntimeError("never here")

    row: dict[str, Any] = {"measure": "m"}
    table.check("Z1", "odd-images", "t", needs=["images", "splits"], **row)(found)
    table.check("Z2", "costly", "t", needs=["images"], cost=0.5, **row)(bad)
    table.check("Z3", "of-a-run", "t", needs=["run"], **row)(bad)
    yield
    for ident in ("Z1", "Z2", "Z3"):
        table.forget(ident)


@pytest.mark.usefixtures("planted")
def test_free_checks_run_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = gl.Recipe(data="digits", model="lenet", epochs=1)
    gl.train(recipe, out=tmp_path / "run", verbose=0)
    assert "WARNING: Z1 odd-images: 12 images are odd; more: gapless doctor " in capsys.readouterr().err
    assert [e["check"] for e in events(tmp_path, "finding")] == ["Z1"]
    gl.train(recipe, out=tmp_path / "off" / "run", verbose=0, checks=False)
    assert events(tmp_path / "off", "finding") == []


def test_a_failing_check_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(*args: Any) -> Any:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("gapless.doctor.at_start.findings_at_start", bad)
    run = gl.train(gl.Recipe(data="digits", model="lenet", epochs=1), out=tmp_path / "run", verbose=0)
    assert run.epochs == 1


def test_free_checks_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    data = arrays(rng.integers(0, 256, (60_000, 8, 8), dtype=np.uint8), rng.integers(0, 10, 60_000))
    plain = resolve(gl.Recipe(data=data, model="lenet"), data).recipe.to_dict()
    case = Case(budget=Budget(9), data=data, recipe=gl.Recipe.from_dict(plain))
    assert all(r.cost(case) == 0 for r in free_rows(case))
    began = time.process_time()
    findings_at_start(data, plain)
    assert time.process_time() - began < 1.5  # a second is the aim; imports are in it
