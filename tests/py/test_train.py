"""Training: what it writes, what it says, what it counts, and what stops it."""

from __future__ import annotations

import csv
import json
import math
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

import gapless as gl
from gapless import checkpoint
from gapless.errors import NonFiniteError, RecipeError
from gapless.training import ema, outputs
from gapless.training.console import Console


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gl.Run:
    """One run with everything: pictures, EMA, a test split."""
    given = small.recipe(
        data={"digits": True, "split": [0.7, 0.2, 0.1]}, epochs=3, ema={"decay": 0.9, "tau": 10}, test=True
    )
    return gl.train(given, out=tmp_path_factory.mktemp("train") / "run", verbose=0)


def test_the_files_of_a_run(run: gl.Run) -> None:
    want = {f"{n}.safetensors" for n in ("best", "last")} | {
        "recipe.yaml",
        "split.json",
        "results.csv",
        "events.jsonl",
    }
    want |= {f"{n}.png" for n in ("curves", "confusion", "labels", "train_batch0", "train_pred", "val_pred")}
    want |= {"predictions_train.csv", "predictions_val.csv", "train_samples.npz"}
    assert {p.name for p in run.out.iterdir()} == want
    assert (run.out.parent / "latest").resolve() == run.out


def test_records_and_history_say_the_same(run: gl.Run) -> None:
    assert run.record is not None
    assert run.record.weights_kind == "ema"
    assert set(run.records) == {"val", "train/clean", "test"}
    best = checkpoint.read(run.best or "").state["best"]
    row = run.history[best["epoch"] - 1]
    assert row["val/top1"] == run.record.top1 == best["value"]
    assert row["val/loss"] == run.record.loss
    assert row["val/correct"] == run.record.correct[1]
    assert [r["epoch"] for r in run.history] == [1, 2, 3]
    assert max(r["val/top1"] for r in run.history) == run.record.top1
    for name in ("val", "train/clean", "test"):
        assert gl.evaluate(run, split=name).reproduced == "exact"


def test_running_numbers_come_from_the_samples_table(run: gl.Run) -> None:
    with np.load(run.out / "train_samples.npz") as table:
        loss, right, ids = table["loss"], table["right"], table["ids"]
    assert loss.shape == right.shape == (3, len(ids))
    assert set(np.unique(right)) <= {0, 1}
    for k, row in enumerate(run.history):
        assert row["train/running/n"] == len(ids)
        assert row["train/running/correct"] == int(right[k].sum())
        assert row["train/running/loss"] == math.fsum(loss[k].tolist()) / len(ids)


def test_tables(run: gl.Run) -> None:
    with open(run.out / "results.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [float(r["val/top1"]) for r in rows] == [r["val/top1"] for r in run.history]
    with open(run.out / "predictions_val.csv", newline="") as f:
        said = list(csv.DictReader(f))
    assert run.record is not None
    assert len(said) == run.record.n_scored
    assert sum(int(r["right"]) for r in said) == run.record.correct[1]
    assert all((r["label"] == r["prediction"]) == bool(int(r["right"])) for r in said)
    events = [json.loads(line) for line in (run.out / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events if e["event"] != "warning"] == [
        "start",
        "epoch",
        "epoch",
        "epoch",
        "end",
    ]


def test_the_checkpoint_holds_everything(run: gl.Run) -> None:
    c = checkpoint.read(run.best or "")
    assert set(c.documents) == set(checkpoint.DOCUMENTS)
    names = set(c.weights() or {})
    assert names == set(c.weights("raw") or {}) == set(c.weights("ema") or {})
    assert c.weights_kind == "ema"
    assert any((c.weights() or {})[n].tobytes() != (c.weights("raw") or {})[n].tobytes() for n in names)
    assert set(c.slots()) == {"momentum_buffer"}
    assert c.manifest == json.loads((run.out / "split.json").read_text())
    assert gl.Recipe.from_yaml(run.out / "recipe.yaml").to_dict() == c.recipe
    assert c.tensors["gapless/train_samples/loss"].shape[1] == len(
        gl.data.open(c.recipe["data"], c.manifest).splits["train"]
    )


def test_json_form(run: gl.Run) -> None:
    data = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert run.record is not None
    assert data["top1"] == run.record.top1
    assert data["best"] == str(run.best)
    assert Path(data["out"]).is_absolute()
    assert data["epochs"] == 3
    assert data["images_per_second"] > 0
    assert data["records"]["test"]["n_scored"] == gl.evaluate(run, split="test").n_scored


def test_reprs(run: gl.Run) -> None:
    assert "3 epochs" in repr(run)
    assert "data:image/png" in run._repr_html_()
    again = gl.Run.open(run.out)
    assert again.to_dict() == {
        **run.to_dict(),
        "seconds": again.seconds,
        "images_per_second": again.images_per_second,
    }


def test_json_mode_keeps_standard_output_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small.no_pictures():
        run = gl.train(small.recipe(epochs=1), out=tmp_path / "r", json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["top1"] == run.history[0]["val/top1"]
    assert "train/running" in err


def test_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small.no_pictures():
        run = gl.train(small.recipe(epochs=2, eval_every=2), out=tmp_path / "r")
    text = capsys.readouterr().out
    assert "10 classes, train 1438 + val 359 images" in text
    assert f"model: {run.load().net.parameters_count()[1]:,} parameters, all of them trained" in text
    assert "23 steps per epoch, 46 in all" in text
    first, second = (line for line in text.splitlines() if line.startswith("epoch "))
    assert "train/running" in first
    assert "val" not in first
    assert f"val {run.history[1]['val/top1']:.4f} [" in second
    assert "majority 0.103" in second


def test_train_is_deterministic_and_threads_do_not_matter(tmp_path: Path) -> None:
    seen = set()
    for threads in (1, 2, 3):
        with small.no_pictures():
            run = gl.train(small.recipe(epochs=1), out=tmp_path / "r", threads=threads, verbose=0)
        seen.add(small.digest(run.last))
    assert len(seen) == 1


def test_folders_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert outputs.new_folder(tmp_path / "a").name == "a"  # empty: used
    (tmp_path / "a" / "x").touch()
    for name in ("a-2", "a-3"):
        made = outputs.new_folder(tmp_path / "a")
        (made / "x").touch()
        assert made.name == name
        assert (tmp_path / "latest").resolve() == made
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "latest").mkdir()  # somebody's own: left alone
    outputs.new_folder(tmp_path / "b" / "r")
    assert not (tmp_path / "b" / "latest").is_symlink()


def test_a_failing_picture_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def draw(report: Any) -> None:
        raise ValueError("no font")

    outputs.Folder(tmp_path, Console(0)).picture("x.png", draw)
    assert "x.png could not be written: ValueError: no font; the run goes on" in capsys.readouterr().err


# -- choosing -------------------------------------------------------------------------------------


def test_best_by_loss_is_the_smallest(tmp_path: Path) -> None:
    run = small.train(tmp_path / "r", epochs=3, monitor="val/loss", optimizer={"name": "SGD", "lr": 0.3})
    assert run.record is not None
    assert run.record.loss == min(row["val/loss"] for row in run.history)


def test_early_stopping_counts_evaluations(tmp_path: Path) -> None:
    frozen = {"name": "SGD", "lr": 0.0}
    run = small.train(
        tmp_path / "r", epochs=9, early_stopping=2, optimizer=frozen, monitor="train/clean/top1"
    )
    # Weights do not move, BatchNorm's statistics do: the number may still improve once or twice.
    stale = [row["best"] for row in run.history]
    assert len(stale) < 9
    assert stale[-2:] == [False, False]


def test_eval_every(tmp_path: Path) -> None:
    run = small.train(tmp_path / "r", epochs=3, eval_every=2, clean_samples=0)
    assert ["val/top1" in row for row in run.history] == [False, True, True]  # the last epoch always
    assert "train/clean/top1" not in run.history[-1]
    assert set(run.records) == {"val"}


def test_the_test_split_is_not_read_unless_asked(tmp_path: Path) -> None:
    run = small.train(tmp_path / "r", data={"digits": True, "split": [0.7, 0.2, 0.1]}, epochs=1)
    assert "test" not in run.records
    with pytest.raises(RecipeError, match="no test split"):
        small.train(tmp_path / "r", test=True)


def test_snapshots(tmp_path: Path) -> None:
    run = small.train(tmp_path / "r", epochs=2, keep_snapshots=True)
    assert {p.name for p in run.out.glob("epoch_*")} == {"epoch_0001.safetensors", "epoch_0002.safetensors"}
    first = checkpoint.read(run.out / "epoch_0001.safetensors")
    assert first.state["epoch"] == 1
    assert gl.evaluate(run.out / "epoch_0001.safetensors").reproduced == "exact"


def test_norm_and_bias_may_be_spared_from_decay(tmp_path: Path) -> None:
    heavy = {"name": "SGD", "lr": 0.1, "weight_decay": 1.0}
    one = small.train(tmp_path / "a", epochs=1, optimizer=heavy)
    two = small.train(tmp_path / "b", epochs=1, optimizer=heavy, decay_norm_and_bias=False)
    gamma = [np.abs((checkpoint.read(r.last or "").weights() or {})["bn1.weight"]).mean() for r in (one, two)]
    kernel = [
        np.abs((checkpoint.read(r.last or "").weights() or {})["conv1.weight"]).mean() for r in (one, two)
    ]
    assert gamma[0] < 0.5 < gamma[1]
    assert max(kernel) < 0.1


def test_frozen_layers_stay(tmp_path: Path) -> None:
    net = small.Tiny().net((1, 8, 8), 3)
    before = net.state_dict()
    run = small.train(tmp_path / "r", model=net, epochs=1, freeze=["conv1", "bn1"])
    after = checkpoint.read(run.last or "").weights() or {}
    for name, value in before.items():
        assert (value.tobytes() == after[name].tobytes()) == name.startswith(("conv1", "bn1")), name
    assert net.state_dict()["fc.weight"].tobytes() == before["fc.weight"].tobytes(), (
        "the caller's net stays as it is"
    )


def test_recomputed_layers_give_the_same_run(tmp_path: Path) -> None:
    plain = small.train(tmp_path / "a")
    run = small.train(tmp_path / "b", recompute=["conv1", "bn1", "relu", "conv2"])
    assert small.digest(run.last) == small.digest(plain.last)
    assert checkpoint.read(run.last or "").recipe["recompute"] == ["conv1", "bn1", "relu", "conv2"]
    with pytest.raises(RecipeError, match="recompute: no layer is called 'conf1'; did you mean 'conv1'"):
        small.train(tmp_path / "c", recompute=["conf1"])


def test_the_schedule_is_used(tmp_path: Path) -> None:
    rates: list[float] = []

    class Rates:
        def on_step(self, info: dict[str, Any]) -> None:
            rates.append(info["lr"])

    given = gl.schedule.Cosine(warmup_epochs=1)
    small.train(tmp_path / "r", [Rates()], schedule=given, optimizer={"name": "SGD", "lr": 0.2})
    assert rates == [given.value(t, 23, 46, 0.2) for t in range(46)]


# -- the average ----------------------------------------------------------------------------------


def test_the_ramp() -> None:
    for t in (1, 10, 2000, 10**6):
        assert ema.decay_at(0.9999, 2000, t) == pytest.approx(0.9999 * (1 - math.exp(-t / 2000)), rel=1e-12)
    assert ema.decay_at(0.5, 0, 1) == 0.5


def test_the_average_is_what_its_formula_says(tmp_path: Path) -> None:
    raw: list[dict[str, np.ndarray]] = []

    class Keep:
        def on_step(self, info: dict[str, Any]) -> None:
            raw.append(info["net"].state_dict())

    run = small.train(tmp_path / "r", [Keep()], epochs=1, ema={"decay": 0.8, "tau": 5}, seed=4)
    first = small.Tiny().net((1, 8, 8), 4).state_dict()
    mean = {k: v.astype(np.float64) for k, v in first.items()}
    for t, now in enumerate(raw, 1):
        d = ema.decay_at(0.8, 5, t)
        mean = {k: d * mean[k] + (1 - d) * now[k] for k in mean}
    stored = checkpoint.read(run.last or "").weights("ema") or {}
    for name, value in mean.items():
        np.testing.assert_allclose(stored[name], value, rtol=2e-5, atol=1e-6)


# -- what stops a run -----------------------------------------------------------------------------


def test_non_finite_numbers_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError) as e:
        small.train(tmp_path / "r", optimizer={"name": "SGD", "lr": 1e30}, schedule={"name": "Constant"})
    text = str(e.value)
    assert "training stopped at step" in text
    assert "samples of the batch: '" in text
    assert "epoch 0" not in text
    assert "of sample '" in text or "of this step's gradient tensors)" in text
    assert "last.safetensors" in text
    weights = checkpoint.read(tmp_path / "r" / "last.safetensors").weights() or {}
    assert all(np.isfinite(v).all() for v in weights.values())


@pytest.mark.parametrize("event", ["on_step", "on_epoch", "on_eval", "on_end"])
def test_what_a_callback_raises_stops_the_run(tmp_path: Path, event: str) -> None:
    class Bad:
        pass

    def fail(self: Any, value: Any) -> None:
        raise ZeroDivisionError("mine")

    setattr(Bad, event, fail)
    with pytest.raises(ZeroDivisionError, match="mine") as e:
        small.train(tmp_path / "r", [Bad()])
    assert event in e.value.__notes__[0]
    assert "last.safetensors" in e.value.__notes__[0]
    saved = checkpoint.read(tmp_path / "r" / "last.safetensors")
    assert saved.state["step"] == {"on_step": 0, "on_epoch": 23, "on_eval": 23, "on_end": 46}[event]


class Disk:
    """A disk that is full from one step to another."""

    def __init__(self, full: int, free: int) -> None:
        self.full, self.free = full, free
        self.limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_step(self, info: dict[str, Any]) -> None:
        if info["step"] == self.full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self.limit[1]))
        if info["step"] == self.free:
            self.restore()

    def restore(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limit)


def test_a_full_disk_at_the_end_of_an_epoch_stops_the_run(tmp_path: Path) -> None:
    disk = Disk(30, 10**9)
    try:
        with pytest.raises(gl.errors.CheckpointError, match=r"it needs .* bytes") as e:
            small.train(tmp_path / "r", [disk])
    finally:
        disk.restore()
    assert isinstance(e.value, OSError)
    assert checkpoint.read(tmp_path / "r" / "last.safetensors").state["step"] == 23
    assert not list((tmp_path / "r").glob(".*"))
    assert small.digest(small.train(resume=tmp_path / "r").last) == small.digest(
        small.train(tmp_path / "w").last
    )


def test_a_full_disk_in_mid_epoch_is_outlived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = Disk(5, 10)
    try:
        run = small.train(tmp_path / "r", [disk], save_every_seconds=1e-9)
    finally:
        disk.restore()
    assert "the next snapshot is tried in due time" in capsys.readouterr().err
    assert gl.evaluate(run).reproduced == "exact"
    assert small.digest(run.last) == small.digest(small.train(tmp_path / "w").last)


def test_callbacks_get_what_they_need(tmp_path: Path) -> None:
    seen: dict[str, list[Any]] = {}

    class All:
        def on_step(self, info: dict[str, Any]) -> None:
            seen.setdefault("step", []).append((info["epoch"], info["step"], len(info["ids"])))

        def on_epoch(self, row: dict[str, Any]) -> None:
            seen.setdefault("epoch", []).append(row["epoch"])

        def on_eval(self, record: gl.EvalRecord) -> None:
            seen.setdefault("eval", []).append(record.split)

        def on_end(self, run: gl.Run) -> None:
            seen.setdefault("end", []).append(run)

    run = small.train(tmp_path / "r", [All()])
    assert seen["step"][0] == (1, 1, 64)
    assert seen["step"][-1] == (2, 46, 1438 - 22 * 64)
    assert seen["epoch"] == [1, 2]
    assert seen["eval"] == ["val", "train/clean"] * 2
    assert seen["end"] == [run]
    with pytest.raises(RecipeError, match="none of the methods on_step"):
        small.train(tmp_path / "r", [object()])


def test_each_sample_is_seen_once_an_epoch_in_another_order(tmp_path: Path) -> None:
    orders: dict[int, list[str]] = {}

    class Ids:
        def on_step(self, info: dict[str, Any]) -> None:
            orders.setdefault(info["epoch"], []).extend(info["ids"])

    run = small.train(tmp_path / "r", [Ids()])
    data = gl.data.digits()
    train = sorted(data.ids[i] for i in data.splits["train"])
    assert sorted(orders[1]) == sorted(orders[2]) == train
    assert orders[1] != orders[2]
    again: dict[int, list[str]] = dict(orders)
    orders.clear()
    small.train(tmp_path / "r", [Ids()])
    assert orders == again
    assert run.epochs == 2


def test_input_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needed unless resume"):
        gl.train()
    with pytest.raises(RecipeError, match="either resume or out"):
        gl.train(resume=tmp_path, out=tmp_path)
    with pytest.raises(RecipeError, match="epochs"):
        gl.train({"data": "digits", "epoch": 1}, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
