"""Complaints about other tools, each of them a test here: the number is the row in the list of failure cases.

Rows on data, recipes and pipelines stand beside the modules that they are about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

import gapless as gl
from gapless import checkpoint, metrics
from gapless.errors import CheckpointError
from gapless.evaluation import Scorer
from gapless.training import ema


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gl.Run:
    return small.train(tmp_path_factory.mktemp("cases") / "r", epochs=3, ema={"decay": 0.9, "tau": 5})


def scorer_of(path: Path | None) -> Scorer:
    saved = checkpoint.read(path or "")
    return Scorer.of_checkpoint(saved, gl.data.open(saved.recipe["data"], saved.manifest))


def test_case_03_resume_lists_every_part_restored_or_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PaddleDetection#8563: another file ending made resume skip optimizer and EMA."""

    class Stop:
        def on_step(self, info: dict[str, Any]) -> None:
            if info["step"] == 30:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        small.train(tmp_path / "r", [Stop()], ema={"decay": 0.9, "tau": 5})
    with small.no_pictures():
        gl.train(resume=tmp_path / "r")
    said = capsys.readouterr().out
    for part in ("raw weights: ", "ema weights: ", "optimizer state momentum_buffer: "):
        assert part in said
    with pytest.raises(RuntimeError, match="stop"):
        small.train(tmp_path / "plain", [Stop()])
    with small.no_pictures():
        gl.train(resume=tmp_path / "plain")
    assert "ema weights: none stored" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["prefix", "shape", "nothing in common", "one missing"])
def test_case_04_weights_load_strictly(run: gl.Run, change: str) -> None:
    """PaddleClas#1438, pytorch/examples#1029: non-strict loading dropped keys in silence, even all of
    them."""
    weights = dict(checkpoint.read(run.best or "").weights() or {})
    if change == "prefix":
        weights = {f"module.{k}": v for k, v in weights.items()}
    elif change == "shape":
        weights["fc.weight"] = weights["fc.weight"][:5]
    elif change == "nothing in common":
        weights = {"a": np.zeros(3, np.float32)}
    else:
        del weights["bn1.running_mean"]
    scorer = scorer_of(run.best)
    before = scorer.net.digest()
    with pytest.raises(CheckpointError, match=r"module\.|fc\.weight|missing|known"):
        scorer.load(weights, "raw")
    assert scorer.net.digest() == before


def test_case_05_pretrained_weights_really_change_the_net(run: gl.Run, tmp_path: Path) -> None:
    """ultralytics PR 24378: a refactoring trained from scratch instead of from the pretrained weights."""
    again = small.train(
        tmp_path / "r", epochs=1, pretrained=str(run.best), optimizer={"name": "SGD", "lr": 0.0}
    )
    fine = checkpoint.read(again.last or "").weights() or {}
    base = checkpoint.read(run.best or "").weights() or {}
    assert fine["conv1.weight"].tobytes() == base["conv1.weight"].tobytes()
    same = small.Tiny().net((1, 8, 8), seed=0)
    same.load_state_dict(base)
    with pytest.raises(CheckpointError, match="did not change a single weight"):
        small.train(tmp_path / "s", model=same, epochs=1, pretrained=str(run.best))


def test_case_06_clean_and_running_are_two_numbers(tmp_path: Path) -> None:
    """Keras#6977: the number of fit is of moving weights, in training mode; BatchNorm's statistics lag on
    tiny data."""
    digits = gl.data.digits()
    x = np.stack([digits.load(i) for i in range(80)])
    data = gl.data.arrays(x, digits.labels[:80], split=(0.8, 0.2))
    run = small.train(tmp_path / "r", data=data, epochs=2, batch_size=32)
    row = run.history[0]
    # Both are of the same samples of the same epoch; after 2 steps the statistics are far from the batches'
    # own.
    assert row["train/running/n"] == 64
    assert row["train/clean/top1"] != row["train/running/top1"]
    clean = gl.evaluate(run, data, "train/clean")
    assert clean.reproduced == "exact"
    assert clean.top1 == run.records["train/clean"].top1


def test_case_08_evaluation_cannot_change_state(run: gl.Run) -> None:
    """microsoft/robustdg#30: the "test" inside training ran without eval(), and BatchNorm learned from test
    data."""
    scorer = scorer_of(run.best)
    planes = {p: scorer.net.store.flat(p).tobytes() for p in scorer.net.store.planes()}
    version, file = scorer.net.store.version, (run.best or Path()).read_bytes()
    scorer.score(np.arange(200), "val")
    assert {p: scorer.net.store.flat(p).tobytes() for p in scorer.net.store.planes()} == planes
    assert scorer.net.store.version == version
    gl.evaluate(run)
    assert (run.best or Path()).read_bytes() == file


def test_case_08_training_does_not_depend_on_evaluation(tmp_path: Path) -> None:
    often = small.train(tmp_path / "a", epochs=3, eval_every=1)
    once = small.train(tmp_path / "b", epochs=3, eval_every=3, clean_samples=0)
    a, b = checkpoint.read(often.last or ""), checkpoint.read(once.last or "")
    assert all(a.tensors[k].tobytes() == v.tobytes() for k, v in b.tensors.items())


def test_case_10_the_file_alone_gives_the_number_elsewhere(run: gl.Run, tmp_path: Path) -> None:
    """Keras#13165, #6634: label map and preprocessing were rebuilt differently in each session."""
    copy = tmp_path / "somewhere.safetensors"
    copy.write_bytes((run.best or Path()).read_bytes())
    code = "import sys, json, gapless; r = gapless.evaluate(sys.argv[1]); "
    code += "print(json.dumps([r.reproduced, r.loss, r.top1]))"
    path = str(Path(gl.__file__).parents[1])
    for seed in ("0", "12345"):
        env = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, copy.name], cwd=tmp_path, env=env, capture_output=True, check=True
        )
        assert run.record is not None
        assert json.loads(done.stdout) == ["exact", run.record.loss, run.record.top1]


def test_case_11_metrics_are_stored_by_meaning_and_version(run: gl.Run) -> None:
    """TF#42459: "accuracy" was resolved anew at loading, and became another metric."""
    stored = checkpoint.read(run.best or "").records["val"]
    assert stored["metrics"] == metrics.METRICS
    with pytest.raises(CheckpointError, match="metrics"):
        gl.EvalRecord.from_dict({**stored, "metrics": {**stored["metrics"], "top1": 2}})


def test_case_16_predictions_and_labels_are_joined_by_id(run: gl.Run) -> None:
    """Keras#11427, #3477: the generator shuffled, and predictions were compared with unshuffled labels."""
    scorer = scorer_of(run.best)
    listed = np.random.default_rng(0).permutation(359)
    s = scorer.score(listed, "val").samples
    assert s is not None
    truth = {name: int(label) for name, label in zip(scorer.data.ids, scorer.data.labels, strict=True)}
    assert [truth[name] for name in s.ids] == s.labels.tolist()
    images = [scorer.data.load(scorer.data.index_of(name)) for name in reversed(s.ids)]
    assert gl.load(run).predict(images).logits[::-1].tobytes() == s.logits.tobytes()


def test_case_18_classes_of_other_data_are_mapped_by_name(run: gl.Run) -> None:
    """timm#957, ultralytics#13936: the index was built per split from the folders that happened to be
    there."""
    digits = gl.data.digits()
    at = np.flatnonzero(np.isin(digits.labels, [3, 7]))
    x, y = np.stack([digits.load(int(i)) for i in at]), digits.labels[at]
    two = gl.data.arrays(x, (y == 7).astype(np.int64), classes=["3", "7"])
    record = gl.evaluate(run, two)
    predicted = np.array(gl.load(run).predict(list(x)).labels)
    assert record.correct[1] == int((predicted == y.astype(str)).sum())
    assert len(record.classes) == 10
    assert record.per_class[0] == (0, 0)


def test_case_19_the_order_of_classes_is_stored(tmp_path: Path) -> None:
    """torchvision#714, timm#222: string and natural order of numbered folders."""
    digits = gl.data.digits()
    x, y = np.stack([digits.load(i) for i in range(400)]), digits.labels[:400]
    natural = [str(k) for k in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)]
    by_text = sorted(natural)
    run = small.train(tmp_path / "r", data=gl.data.arrays(x, y, classes=natural), epochs=1)
    place = {name: k for k, name in enumerate(by_text)}
    other = gl.data.arrays(x, np.array([place[natural[k]] for k in y]), classes=by_text)
    assert checkpoint.read(run.best or "").manifest["classes"] == natural
    again = gl.evaluate(run, other)
    assert again.reproduced == "exact"
    assert again.classes == tuple(natural)


def test_case_21_the_test_split_chooses_nothing(tmp_path: Path) -> None:
    """YOLOv5#11775, ultralytics#1677: training a classifier used the test folder for selection."""
    with pytest.raises(gl.errors.RecipeError, match="test split is read once"):
        small.recipe(monitor="test/top1")
    three = {"digits": True, "split": [0.7, 0.2, 0.1]}
    asked = small.train(tmp_path / "a", data=three, test=True)
    silent = small.train(tmp_path / "b", data=three)
    assert set(asked.records) - set(silent.records) == {"test"}
    assert not any(key.startswith("test") for row in asked.history for key in row)
    assert asked.record == silent.record


def test_case_17_final_weights_are_the_best_or_by_name_the_last(tmp_path: Path) -> None:
    """Keras#12511: restore_best_weights worked only when training was stopped early."""
    run = small.train(
        tmp_path / "r", epochs=4, optimizer={"name": "SGD", "lr": 0.5}, schedule={"name": "Constant"}
    )
    value = [row["val/top1"] for row in run.history]
    assert gl.evaluate(run.best).top1 == max(value)
    assert gl.evaluate(run.last).top1 == value[-1]
    assert gl.evaluate(run).digests["weights"] == gl.load(run).net.digest()
    early = small.train(
        tmp_path / "e", epochs=9, early_stopping=1, optimizer={"name": "SGD", "lr": 3.0}, schedule="Constant"
    )
    assert gl.evaluate(early.best).top1 == max(row["val/top1"] for row in early.history)


def test_case_27_the_same_scale_in_training_evaluation_and_prediction(run: gl.Run) -> None:
    """Keras#8411: a missing or a second division by 255 between training and use."""
    c = checkpoint.read(run.best or "")
    assert c.recipe["train"][-1]["name"] == c.recipe["eval"][-1]["name"] == "Normalize"
    assert c.recipe["train"][-1]["mean"] == c.recipe["eval"][-1]["mean"]
    data = gl.data.open(c.recipe["data"], c.manifest)
    pixels = data.load(0)
    by_hand = (pixels.astype(np.float64) / 255 - 0.5) / 0.25
    net = gl.load(run).net
    expected = net(by_hand.transpose(2, 0, 1)[None].astype(np.float32))
    np.testing.assert_allclose(gl.load(run).predict([pixels]).logits, expected, atol=1e-4)
    with pytest.raises(gl.errors.DataError, match="uint8"):
        gl.load(run).predict([pixels / 255])


def test_case_29_the_average_is_named_and_its_lag_is_told(run: gl.Run, tmp_path: Path, capsys: Any) -> None:
    """timm#245, EVA#133: EMA too slow, so that its accuracy was chance, or not the weights that were
    evaluated."""
    record = gl.evaluate(run)
    assert record.weights_kind == "ema"
    c = checkpoint.read(run.best or "")
    scorer = scorer_of(run.best)
    assert record.digests["weights"] == scorer.net.digest()
    scorer.load(c.weights("raw") or {}, "raw")
    assert scorer.net.digest() != record.digests["weights"]
    assert ema.initial_share(0.9999, 0, 46) > 0.99
    capsys.readouterr()
    small.train(tmp_path / "slow", epochs=1, ema={"decay": 0.9999, "tau": 0})
    assert "% of the average is still the initial weights" in capsys.readouterr().err


@pytest.mark.parametrize("k", [7, 23, 31])
def test_case_30_resume_equals_never_stopped(tmp_path: Path, k: int) -> None:
    """YOLOv5#292, #141: resume reset learning rate and EMA counter."""

    class Stop:
        def on_step(self, info: dict[str, Any]) -> None:
            if info["step"] == k:
                raise RuntimeError("stop")

    given: dict[str, Any] = {
        "ema": {"decay": 0.99, "tau": 30},
        "optimizer": {"name": "Adam", "lr": 0.01},
        "schedule": gl.schedule.Cosine(warmup_epochs=1),
        "save_every_seconds": 1e-9,
    }
    whole = small.train(tmp_path / "whole", **given)
    with pytest.raises(RuntimeError, match="stop"):
        small.train(tmp_path / "cut", [Stop()], **given)
    assert small.digest(small.train(resume=tmp_path / "cut").last) == small.digest(whole.last)


def test_case_31_raw_and_average_are_both_kept_in_full_precision(run: gl.Run) -> None:
    """ultralytics#9426, YOLOX#1318: the checkpoint kept only the average, and resuming started from it."""
    c = checkpoint.read(run.last or "")
    raw, mean = c.weights("raw") or {}, c.weights("ema") or {}
    assert set(raw) == set(mean)
    assert {a.dtype for a in (*raw.values(), *mean.values())} == {np.dtype(np.float32)}
    assert any(raw[k].tobytes() != mean[k].tobytes() for k in raw)


def orders_of(out: Path, resume: bool = False, stop: int | None = None) -> list[list[str]]:
    seen: list[list[str]] = []

    class Ids:
        def on_step(self, info: dict[str, Any]) -> None:
            seen.append(info["ids"])
            if info["step"] == stop:
                raise RuntimeError("stop")

    if stop is None:
        small.train(resume=out, callbacks=[Ids()]) if resume else small.train(
            out, [Ids()], save_every_seconds=1e-9
        )
    else:
        with pytest.raises(RuntimeError, match="stop"):
            small.train(out, [Ids()], save_every_seconds=1e-9)
    return seen


def test_case_32_resuming_goes_on_in_the_epochs_order(tmp_path: Path) -> None:
    """Lightning#17543, accelerate#2016: the sampler was not restored; epoch 0's order came again."""
    whole = orders_of(tmp_path / "a")
    before = orders_of(tmp_path / "b", stop=30)
    after = orders_of(tmp_path / "b", resume=True)
    assert before == whole[:30]
    assert after == whole[29:]  # the checkpoint is that before the step that was lost
    assert whole[0] != whole[23]


def test_case_33_augmentation_differs_by_sample_and_epoch() -> None:
    """PT#5059, CenterNet#233: NumPy's seed was the same in all workers, and every epoch augmented alike."""
    pipeline = gl.data.Pipeline([{"name": "RandomCrop", "size": 8, "padding": 4}])
    image = gl.data.digits().load(3)
    same = [image] * 64
    ids = np.arange(64)
    one, two = pipeline.run(same, ids, epoch=0, seed=0), pipeline.run(same, ids, epoch=1, seed=0)
    assert len({a.tobytes() for a in one}) > 32
    assert sum(a.tobytes() != b.tobytes() for a, b in zip(one, two, strict=True)) > 48
    assert pipeline.run(same, ids, epoch=1, seed=0).tobytes() == two.tobytes()
    assert pipeline.run(same[:5], ids[7:12], epoch=1, seed=0).tobytes() == two[7:12].tobytes()


@pytest.mark.parametrize("batch", [1, 7, 50, 359, 360])
def test_case_35_every_listed_sample_is_scored(run: gl.Run, batch: int) -> None:
    """PaddleClas#3075: the last batch of an evaluation was skipped on Windows."""
    record = gl.evaluate(run, batch_size=batch)
    assert record.n_scored == record.n_listed == 359
    assert sum(n for n, _ in record.per_class) == 359


def test_case_35_a_loader_that_loses_samples_is_noticed(run: gl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from gapless.data import loader

    real = loader._Work._batch

    def short(self: Any, a: int, b: int) -> Any:
        return real(self, a, b - 1 if b == 359 else b)

    monkeypatch.setattr(loader._Work, "_batch", short)
    with pytest.raises(RuntimeError, match="359 samples are listed, 358 were scored"):
        gl.evaluate(run)


def test_case_36_two_evaluations_are_identical(run: gl.Run) -> None:
    """PaddleClas#2168: two evaluations of one checkpoint gave .914 and .926."""
    one, two = gl.evaluate(run), gl.evaluate(run)
    assert json.dumps(one.to_dict()) == json.dumps(two.to_dict())
    assert one.samples is not None
    assert two.samples is not None
    assert one.samples.logits.tobytes() == two.samples.logits.tobytes()


def test_case_36_unreadable_files_are_counted_in_the_record(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    digits = gl.data.digits()
    for i in range(300):
        folder = tmp_path / "data" / digits.classes[digits.labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(digits.load(i)[:, :, 0]).save(folder / f"{i}.png")
    (tmp_path / "data" / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = gl.data.folder(tmp_path / "data", channels=1)
    split = data.unreadable[0].split
    run = small.train(tmp_path / "r", data=data, epochs=1)
    record = gl.evaluate(run, split=split)
    assert record.n_unreadable == 1
    assert gl.evaluate(run).n_unreadable == (1 if split == "val" else 0)
    assert record.n_scored == record.n_listed


def test_case_37_rates_come_from_counts_not_from_batches(run: gl.Run) -> None:
    """Lightning#2924, torchmetrics#597: a mean of per-batch metrics, where the last batch is short."""
    s = gl.evaluate(run).samples
    assert s is not None
    right = s.predictions == s.labels
    losses, rates = set(), set()
    for batch in (7, 64, 100):
        record = gl.evaluate(run, batch_size=batch)
        losses.add(record.loss)
        rates.add(record.top1)
        assert record.top1 == int(right.sum()) / len(right)
        parts = [right[i : i + batch].mean() for i in range(0, len(right), batch)]
        assert len(right) % batch
        assert record.correct[1] == int(
            sum(p * min(batch, len(right) - i * batch) for i, p in enumerate(parts)) + 0.5
        )
    assert len(losses) == len(rates) == 1
