"""What people do who have read nothing: wrong folders, moved files, full disks; and what they are told."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from data_fixtures import image_folder

import gapless as gl
from gapless import checkpoint, cli, nn
from gapless.commands.words import one_line
from gapless.errors import CheckpointError, DataError, RecipeError, ShapeError

TWO = {"cat": 30, "dog": 30}


def gapless(*words: Any, code: int = 0) -> None:
    with small.no_pictures():
        assert cli.main([str(w) for w in words]) == code


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its pictures, both carried to another folder since."""
    before, after = tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("after")
    image_folder(before / "pets", TWO)
    gapless("train", before / "pets", "--epochs", "1", "--out", before / "run", "--quiet")
    shutil.move(before / "pets", after / "pets")
    shutil.move(before / "run", after / "run")
    return after


# -- wrong folders --------------------------------------------------------------------------------


def test_a_single_class_is_refused_and_the_folder_below_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One folder too high: every picture would be of class "images", and every answer right."""
    image_folder(tmp_path / "set" / "images", {"cat": 8, "dog": 8})
    gapless("train", tmp_path / "set", "--out", tmp_path / "r", code=2)
    said = capsys.readouterr().err
    assert "1 class ('images')" in said
    assert "images/cat, images/dog" in said
    assert not (tmp_path / "r").exists()
    with pytest.raises(RecipeError, match="every answer would be right"):
        gl.train(gl.Recipe(data=gl.data.arrays(np.zeros((9, 8, 8), np.uint8), [0] * 9)), out=tmp_path / "r")


def test_pictures_below_a_class_folder_are_told(tmp_path: Path) -> None:
    image_folder(tmp_path / "d", {"pets/cat": 8, "pets/dog": 8, "cars": 8})
    data = gl.data.folder(tmp_path / "d")
    assert data.classes == ("cars", "pets")
    told = [note for note in data.notes if "16 pictures lie below a class's folder" in note]
    assert "pets/cat, pets/dog" in told[0]
    image_folder(tmp_path / "flat", TWO)
    assert gl.data.folder(tmp_path / "flat").notes == []


def test_a_text_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("data: digits\n" * 20)
    gapless("eval", tmp_path / "recipe.yaml", code=2)
    assert "begins like a text, with 'data: di'" in capsys.readouterr().err


@pytest.mark.parametrize("size", [2048, 1 << 20, 1 << 31])
def test_a_checkpoint_that_claims_a_huge_input_is_refused_at_once(tmp_path: Path, size: int) -> None:
    """Before memory is asked for: a plan for such an input takes seconds, or all the memory there is."""
    run = small.train(tmp_path / "r", epochs=1)
    saved = checkpoint.read(run.last or "")
    saved.documents["graph"]["input"] = [1, size, size]
    saved.documents["recipe"]["epochs"], saved.documents["state"]["finished"] = 2, False
    file = tmp_path / "r" / "last.safetensors"
    checkpoint.write(file, saved.tensors, saved.documents)
    picture = gl.data.digits().load(0)
    uses: tuple[Callable[[], Any], ...] = (
        lambda: gl.load(file).predict([picture]),
        lambda: gl.evaluate(file),
        lambda: gl.train(resume=file),
    )
    for use in uses:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        refused = rf"{size}, {size}|input sizes|larger than any memory"
        with pytest.raises((ShapeError, CheckpointError), match=refused):
            use()
        assert time.process_time() - began < 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"


def test_an_empty_class_is_told_once_and_trained_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(tmp_path / "d", {"cat": 30, "dog": 4})
    (tmp_path / "d" / "empty").mkdir()
    gapless("train", tmp_path / "d", "--epochs", "1", "--out", tmp_path / "r")
    out, err = capsys.readouterr()
    assert err.count("1 of 3 classes have no samples at all: 'empty'") == 1
    assert out.count("1 of 3 classes have no samples at all: 'empty'") == 1
    assert "fewer than 5 images of dog (3)" in err
    events = [json.loads(line) for line in (tmp_path / "r" / "events.jsonl").read_text().splitlines()]
    assert any(e["event"] == "note" and "'empty'" in e["text"] for e in events)


def test_a_file_where_a_folder_should_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    gapless("train", "digits", "--epochs", "1", "--out", tmp_path / "file" / "run", code=2)
    assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err


def test_names_after_freeze_are_joined_by_commas(capsys: pytest.CaptureFixture[str]) -> None:
    gapless("train", "digits", "--freeze", "conv1", "bn1", code=2)
    assert "--freeze NAME,NAME" in capsys.readouterr().err


def test_freezing_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="leaves nothing to train"):
        small.train(tmp_path / "r", freeze=["conv1", "bn1", "conv2", "bn2", "fc"])


def test_a_last_batch_of_one_is_refused_before_training_where_batchnorm_sees_one_value(
    tmp_path: Path,
) -> None:
    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1)
            self.bn, self.flat, self.fc = nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.fc(self.flat(self.bn(self.pool(self.conv(x)))))

    pixels = np.random.default_rng(0).integers(0, 256, (13, 8, 8), dtype=np.uint8)
    data = gl.data.arrays(pixels, np.arange(13) % 2, split=(9 / 13, 4 / 13))
    for batch, words in [(4, r"the last batch of each epoch has 1 sample \(9 = 2 × 4 \+ 1\)"), (1, "in bn")]:
        with pytest.raises(ShapeError, match=words):
            small.train(tmp_path / "r", data=data, model=Net(), batch_size=batch)
    assert not list(tmp_path.glob("r/*.safetensors"))
    assert small.train(tmp_path / "r", data=data, model=Net(), batch_size=4, drop_last=True).epochs == 2


def test_too_little_memory_says_what_needs_less(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line(MemoryError()).startswith("not enough memory; a smaller batch_size")
    assert "1 bytes; a smaller" in one_line(MemoryError("memory: could not allocate 1 bytes"))


# -- moved, changed and shared data ---------------------------------------------------------------


def test_moved_data_are_asked_for_and_recognised(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gapless("eval", moved / "run", code=2)
    assert "gapless eval CHECKPOINT DATA" in capsys.readouterr().err
    gapless("eval", moved / "run", moved / "pets")
    assert "exactly the recorded number" in capsys.readouterr().out
    with pytest.raises(DataError, match="the very samples that it began with"):
        _unfinished(moved, moved / "copy")


def _unfinished(moved: Path, copy: Path) -> gl.Run:
    """Resume a copy of the run that is not finished."""
    copy.mkdir()
    for name in ("last", "best"):
        saved = checkpoint.read(moved / "run" / f"{name}.safetensors")
        state = {**saved.state, "finished": False}
        checkpoint.write(copy / f"{name}.safetensors", saved.tensors, {**saved.documents, "state": state})
    return gl.train(resume=copy, verbose=0)


def test_a_file_changed_since_is_named_and_nothing_is_compared(
    moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(moved / "pets", tmp_path / "pets")
    shutil.copy(tmp_path / "pets/cat/cat_0000.png", tmp_path / "pets/dog/dog_0001.png")
    with pytest.warns(gl.data.DataWarning) as told:
        record = gl.evaluate(moved / "run", tmp_path / "pets")
    assert record.reproduced is None
    said = " ".join(str(w.message) for w in told)
    assert "1 changed" in said
    assert f"of these {record.n_scored} samples are images that the model was trained on" in said
    (tmp_path / "pets/dog/dog_0002.png").unlink()
    with pytest.raises(DataError, match="missing") as refused:
        gl.data.open(
            {"folder": str(tmp_path / "pets")}, checkpoint.read(moved / "run/best.safetensors").manifest
        )
    assert "dog_0002.png" in str(refused.value)


def test_unknown_classes_of_other_data_are_named(moved: Path, tmp_path: Path) -> None:
    image_folder(tmp_path / "d", {"cat": 5, "cow": 5}, first=900)
    with pytest.raises(DataError, match=r"1 class.* not known to the model: 'cow'.*; the model's 2 classes"):
        gl.evaluate(moved / "run", tmp_path / "d")


# -- disks ----------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_with_path_and_bytes(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: the first checkpoint does not fit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    env = {**os.environ, "PYTHONPATH": str(Path(gl.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "gapless", "train", "digits", "--epochs", "1", "--out", str(tmp_path / "r")],
        env=env, preexec_fn=limit, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"cannot save checkpoint {tmp_path / 'r' / 'last.safetensors'}" in done.stderr
    assert "bytes" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [p for p in (tmp_path / "r").iterdir() if "safetensors" in p.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ro").mkdir(mode=0o555)
    gapless("train", "digits", "--epochs", "1", "--out", tmp_path / "ro" / "r", code=2)
    assert "Permission denied" in capsys.readouterr().err
