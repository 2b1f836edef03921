"""A folder of pictures, from the first run to fine-tuning, by the command line as a stranger would use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import small
from picture_set import picture_set
from PIL import Image

import gapless as gl
from gapless import checkpoint, cli
from gapless.errors import CheckpointError

pytestmark = pytest.mark.slow

FIRST = ("stripes", "dots", "clouds")
OTHERS = {"棋盘": "checks", "圆环": "rings"}
FROZEN = ("conv1", "bn1", "layer1")


def command(*words: Any, where: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A gapless command in a process of its own, in a folder and with a hash seed of its own."""
    package = str(Path(gl.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": package, "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "gapless", *map(str, words)],
        cwd=where, env=env, capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_set(tmp_path_factory.mktemp("pictures") / "first", FIRST, 48)


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`resnet18` at 96 px, trained by the command line; the run's folder."""
    out = tmp_path_factory.mktemp("runs") / "first"
    words = ["train", str(pictures), "--model", "resnet18", "--image-size", "96", "--epochs", "3"]
    words += ["--batch-size", "8", "--lr", "0.01", "--out", str(out), "--quiet"]
    words += ["-o", "train=[RandomResizedCrop: {size: 96, scale: [0.4, 1.0]}]"]
    with small.no_pictures():
        assert cli.main(words) == 0
    return out


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_set(
        tmp_path_factory.mktemp("pictures") / "others", list(OTHERS.values()), 12, names=list(OTHERS)
    )


def test_it_learns(trained: Path) -> None:
    record = gl.evaluate(trained)
    assert record.n_scored == record.n_listed == 30
    assert record.reproduced == "exact"
    assert record.interval[0] > record.majority + 0.2, record
    run = gl.Run.open(trained)
    assert run.history[0]["train/running/loss"] > run.history[-1]["train/running/loss"]
    assert set(run.records) == {"val", "train/clean"}


def test_orientation_alpha_and_grey_are_counted(trained: Path) -> None:
    notes = [json.loads(line) for line in (trained / "events.jsonl").read_text().splitlines()]
    said = " ".join(n.get("text", "") for n in notes)
    assert "18 image(s) with an alpha channel" in said
    assert "54 image(s) turned upright" in said


def test_a_fresh_process_elsewhere_gets_exactly_the_number(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "best.safetensors", tmp_path / "moved.safetensors")
    first = command("eval", "moved.safetensors", "--json", "--threads", 1, "--batch-size", 5, where=tmp_path)
    second = command("eval", "moved.safetensors", "--json", where=tmp_path)
    assert first.stdout == second.stdout
    said = json.loads(first.stdout)
    assert said["reproduced"] == "exact"
    assert said["correct"] == gl.Run.open(trained).record.to_dict()["correct"]


def test_predict_by_path_bytes_and_array(trained: Path, pictures: Path, tmp_path: Path) -> None:
    """One of each kind, all right side up: the same pixels give the same probabilities, however they
    come."""
    files = [f for name in FIRST for f in sorted((pictures / name).iterdir())[:8]]
    assert {f.suffix for f in files} == {".jpg", ".png", ".webp"}
    model = gl.load(trained)
    by_path = model.predict(files)
    by_bytes = model.predict([f.read_bytes() for f in files])
    arrays = [np.asarray(gl.data.decode.read(f)) for f in files]
    by_array = model.predict(arrays)
    assert np.array_equal(by_path.probabilities, by_bytes.probabilities)
    assert np.array_equal(by_path.probabilities, by_array.probabilities)
    assert np.array_equal(model.predict(files[1], batch_size=1).logits[0], by_path.logits[1])
    assert by_path.ids == [str(f) for f in files]
    right = sum(label == f.parent.name for label, f in zip(by_path.labels, files, strict=True))
    assert right >= 18
    said = json.loads(command("predict", trained, *files, "--json", where=tmp_path).stdout)
    assert [row["class"] for row in said] == by_path.labels


def test_a_picture_stored_on_its_side_is_predicted_upright(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    upright = rng.integers(0, 256, (130, 170, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upright).save(tmp_path / "a.png")
    Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    found = gl.load(trained).predict([tmp_path / "a.png", tmp_path / "b.png"])
    assert np.array_equal(found.logits[0], found.logits[1])


# -- fine-tuning ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(trained: Path, others: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """From the first run's weights to other classes, its first layers frozen; folder, and what was said."""
    out = tmp_path_factory.mktemp("runs") / "tuned"
    done = command(
        "train", others, "--model", "resnet18", "--image-size", 96, "--epochs", 2, "--batch-size", 8,
        "--pretrained", trained / "best.safetensors", "--freeze", ",".join(FROZEN), "--out", out,
        where=out.parent,
    )  # fmt: skip
    return out, done.stdout + done.stderr


def test_what_was_taken_is_listed(tuned: tuple[Path, str]) -> None:
    said = tuned[1]
    assert "100 matched" in said
    assert "0 missing, 0 unexpected, 2 reshaped (fc.weight, fc.bias)" in said
    total = sum(a.size for k, a in _weights(tuned[0]).items() if "running" not in k)
    frozen = sum(a.size for k, a in _weights(tuned[0]).items() if _is_frozen(k) and "running" not in k)
    assert f"{total:,} parameters, {total - frozen:,} of them trained" in said


def test_frozen_weights_are_the_first_runs_to_the_bit(tuned: tuple[Path, str], trained: Path) -> None:
    before, after = _weights(trained), _weights(tuned[0])
    frozen = [name for name in after if _is_frozen(name)]
    assert len(frozen) == 25  # conv1; bn1 and four of layer1's with 4 tensors each; four convolutions
    for name in frozen:
        assert before[name].tobytes() == after[name].tobytes(), name
    for name in after:
        if not _is_frozen(name) and not name.startswith("fc."):
            assert not np.array_equal(before[name], after[name]), name
    assert after["fc.weight"].shape == (2, 512)


def test_the_tuned_file_evaluates_and_predicts_alone(tuned: tuple[Path, str], others: Path) -> None:
    done = command("eval", tuned[0] / "best.safetensors", "--json", where=others.parent)
    assert json.loads(done.stdout)["reproduced"] == "exact"
    assert set(gl.load(tuned[0]).classes) == set(OTHERS)
    assert {"confusion.png", "val_pred.png", "curves.png"} <= {p.name for p in tuned[0].iterdir()}
    assert "Glyph" not in tuned[1]


def test_case_09_frozen_batchnorm_uses_evaluation_statistics(others: Path, trained: Path) -> None:
    """Keras#9965, #9522: a frozen BatchNorm used the batch in training and the running mean in inference.

    With everything frozen but the head, a training step's loss of each sample is the evaluation's, to the
    bit.
    """
    data = gl.data.folder(others, split=(0.5, 0.5))
    recipe = gl.Recipe(
        data=data, model="resnet18", image_size=96, train=[gl.augment.Resize(110), gl.augment.CenterCrop(96)],
        epochs=1, batch_size=8, pretrained=trained / "best.safetensors", clean_samples=12,
        freeze=["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"],
        optimizer={"name": "SGD", "lr": 0.0},
    )  # fmt: skip
    with small.no_pictures():
        run = gl.train(recipe, out=trained.parent / "case09", verbose=0)
    before, after = _weights(trained), _weights(run.out)
    assert all(before[k].tobytes() == after[k].tobytes() for k in after if not k.startswith("fc."))
    clean = gl.evaluate(run, split="train/clean").samples
    assert clean is not None
    with np.load(run.out / "train_samples.npz") as table:
        fed = dict(zip(table["ids"].tolist(), table["loss"][0].tolist(), strict=True))
    assert [fed[name] for name in clean.ids] == clean.loss.tolist()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "resnet50", "num_classes": 2}, ["shape|missing|unexpected"]),
        ({"name": "lenet", "num_classes": 2}, ["missing|unexpected"]),
    ],
)
def test_another_models_file_is_refused(
    trained: Path, others: Path, tmp_path: Path, model: dict[str, Any], words: list[str]
) -> None:
    recipe = gl.Recipe(
        data=gl.data.folder(others), model=model, image_size=96, epochs=1,
        pretrained=trained / "best.safetensors",
    )  # fmt: skip
    for word in words:
        with pytest.raises(CheckpointError, match=word):
            gl.train(recipe, out=tmp_path / "r", verbose=0)
    assert not list(tmp_path.glob("r/*.safetensors"))


@pytest.mark.parametrize("kind", ["not there", "text", "pickle", "cut"])
def test_a_file_that_holds_no_weights_is_refused(
    trained: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    file = tmp_path / ("w.pth" if kind == "pickle" else "w.safetensors")
    if kind == "text":
        file.write_text("these are not weights")
    elif kind == "pickle":
        file.write_bytes(b"\x80\x02}q\x00.")
    elif kind == "cut":
        file.write_bytes((trained / "best.safetensors").read_bytes()[:-100])
    words = ["train", str(others), "--model", "resnet18", "--image-size", "96", "--pretrained", str(file)]
    assert cli.main([*words, "--out", str(tmp_path / "r")]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert len(error.strip().splitlines()) == 1


def test_weights_of_other_tools(trained: Path, others: Path, tmp_path: Path) -> None:
    """As torchvision's are saved: with counters of batches, perhaps in half precision; or with a wrapper's
    prefix, the other stem, or values that are not finite."""
    file, net = (
        tmp_path / "w.safetensors",
        gl.models.resnet18(num_classes=2, image_size=96).net((3, 96, 96), 1),
    )
    weights = _weights(trained)

    def tried(state: dict[str, Any], to: Any = net) -> str:
        safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, file)
        return str(gl.nn.load_pretrained(to, file))

    counted = {**weights, "bn1.num_batches_tracked": np.array(7, np.int64)}
    said = "100 matched, 0 missing, 0 unexpected, 2 reshaped (fc.weight, fc.bias)"
    assert tried(counted) == said
    assert tried({k: v.astype(np.float16) for k, v in weights.items()}) == said
    before = net.digest()
    with pytest.raises(CheckpointError, match=r"unexpected: module\.bn1\.bias"):
        tried({f"module.{k}": v for k, v in weights.items()})
    with pytest.raises(CheckpointError, match=r"conv1\.weight has values that are not finite"):
        tried({**weights, "conv1.weight": np.full_like(weights["conv1.weight"], np.nan)})
    small_stem = gl.models.resnet18(num_classes=2, image_size=32).net((3, 32, 32), 1)
    with pytest.raises(CheckpointError, match=r"imagenet stem: model\.stem=imagenet"):
        tried(weights, small_stem)
    assert net.digest() == before


def _weights(run: Path) -> dict[str, Any]:
    return checkpoint.read(run / "best.safetensors").weights() or {}


def _is_frozen(name: str) -> bool:
    return name.startswith(tuple(f"{layer}." for layer in FROZEN))
