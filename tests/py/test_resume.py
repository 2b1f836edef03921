"""However a run was stopped, going on gives the weights, to the bit, of a run that was never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

import gapless as gl
from gapless import checkpoint
from gapless.errors import CheckpointError, DataError, RecipeError

EPOCHS = 3
FULL: dict[str, Any] = {"epochs": EPOCHS, "ema": {"decay": 0.95, "tau": 20}, "clip_norm": 5.0}


class StopAt:
    """Raises at a step: as a crash would, but at a known place."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, info: dict[str, Any]) -> None:
        if info["step"] == self.step:
            raise RuntimeError("stop")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> gl.Run:
    return small.train(tmp_path_factory.mktemp("whole") / "r", **FULL)


def stopped(out: Path, step: int, **change: Any) -> Path:
    with pytest.raises(RuntimeError, match="stop"):
        small.train(out, [StopAt(step)], **{**FULL, **change})
    return out


@pytest.mark.parametrize("step", [1, 22, 23, 24, 50, 69])
def test_a_snapshot_at_every_step_resumes_to_the_bit(tmp_path: Path, whole: gl.Run, step: int) -> None:
    # A snapshot after each step: the crash at `step` then lies one step behind it, mostly in mid-epoch.
    out = stopped(tmp_path / "r", step, save_every_seconds=1e-9)
    at = checkpoint.read(out / "last.safetensors").state
    assert at["step"] == (step - 1 if step != 24 else 23)
    run = small.train(resume=out)
    ours, theirs = checkpoint.read(run.last or ""), checkpoint.read(whole.last or "")
    assert set(ours.tensors) == set(theirs.tensors)
    for name, value in theirs.tensors.items():
        assert ours.tensors[name].tobytes() == value.tobytes(), name
    assert small.digest(run.last) == small.digest(whole.last)
    assert small.digest(run.best) == small.digest(whole.best)
    assert [r["val/loss"] for r in run.history] == [r["val/loss"] for r in whole.history]
    assert gl.evaluate(run).reproduced == "exact"


def test_resuming_many_times_and_with_other_thread_counts(tmp_path: Path, whole: gl.Run) -> None:
    out = stopped(tmp_path / "r", 5, save_every_seconds=1e-9)
    for k, step in enumerate((11, 23, 40, 41)):
        with small.no_pictures(), pytest.raises(RuntimeError, match="stop"):
            gl.train(resume=out, callbacks=[StopAt(step)], threads=k % 3 + 1, verbose=0)
    run = small.train(resume=out)
    assert small.digest(run.last) == small.digest(whole.last)
    assert run.epochs == EPOCHS


def test_rows_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    out = stopped(tmp_path / "r", 60)
    (out / "results.csv").write_text((out / "results.csv").read_text() + "99,9999\n")
    run = small.train(resume=out)
    lines = (out / "results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert [row["epoch"] for row in run.history] == [1, 2, 3]


def test_a_finished_run_is_returned_as_it_is(whole: gl.Run) -> None:
    before = (whole.out / "last.safetensors").read_bytes()
    run = small.train(resume=whole.out)
    assert run.record == whole.record
    assert run.history == whole.history
    assert (whole.out / "last.safetensors").read_bytes() == before


def test_a_folder_without_checkpoint_starts_from_its_recipe(tmp_path: Path) -> None:
    given = {"model": {"graph": small.Tiny().net((1, 8, 8), 0).document}, "epochs": 1}
    one = small.train(tmp_path / "r", **given)
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("recipe.yaml", "split.json"):
        (folder / name).write_bytes((one.out / name).read_bytes())
    two = small.train(resume=folder)
    assert small.digest(two.last) == small.digest(one.last)
    assert two.out == folder


def test_what_cannot_be_resumed_says_why(tmp_path: Path, whole: gl.Run) -> None:
    with pytest.raises(CheckpointError, match="not a run's folder"):
        gl.train(resume=tmp_path, verbose=0)
    out = stopped(tmp_path / "r", 40)
    data = bytearray((out / "last.safetensors").read_bytes())
    good = bytes(data)
    data[len(data) // 2] ^= 1
    (out / "last.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        gl.train(resume=out, verbose=0)
    (out / "last.safetensors").write_bytes(good)
    with pytest.raises(RecipeError, match="epochs: the run has 3, the recipe given 5"):
        gl.train(small.recipe(epochs=5), resume=out, verbose=0)
    (out / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors is gone"):
        gl.train(resume=out, verbose=0)


def test_a_checkpoint_without_part_of_its_state_is_refused(tmp_path: Path) -> None:
    out = stopped(tmp_path / "r", 40)
    saved = checkpoint.read(out / "last.safetensors")
    for missing in ("optim/momentum_buffer/fc.weight", "raw/fc.weight", "gapless/train_samples/loss"):
        tensors = {k: v for k, v in saved.tensors.items() if k != missing}
        checkpoint.write(out / "last.safetensors", tensors, saved.documents)
        with pytest.raises(CheckpointError, match=missing.rsplit("/", 1)[-1]):
            gl.train(resume=out, verbose=0)
    without = {k: v for k, v in saved.tensors.items() if not k.startswith("optim/")}
    checkpoint.write(out / "last.safetensors", without, saved.documents)
    with pytest.raises(CheckpointError, match="momentum_buffer"):
        gl.train(resume=out, verbose=0)


def test_live_data_are_given_again_and_must_be_the_same(tmp_path: Path) -> None:
    digits = gl.data.digits()
    x = np.stack([digits.load(i) for i in range(400)])
    data = gl.data.arrays(x, digits.labels[:400])
    one = small.train(tmp_path / "a", data=data, epochs=2)
    with pytest.raises(RuntimeError, match="stop"):
        small.train(tmp_path / "b", [StopAt(7)], data=data, epochs=2)
    with pytest.raises(DataError, match="hand it over"):
        gl.train(resume=tmp_path / "b", verbose=0)
    other = gl.data.arrays(255 - x, digits.labels[:400])
    with pytest.raises(DataError, match="other pixels"):
        gl.train(small.recipe(data=other, epochs=2), resume=tmp_path / "b", verbose=0)
    with small.no_pictures():
        two = gl.train(
            small.recipe(data=gl.data.arrays(x, digits.labels[:400]), epochs=2),
            resume=tmp_path / "b",
            verbose=0,
        )
    assert small.digest(two.last) == small.digest(one.last)
    with pytest.raises(DataError, match="hand it over"):
        gl.evaluate(two)
    assert gl.evaluate(two, data).reproduced == "exact"


def test_reduce_on_plateau_keeps_its_state(tmp_path: Path) -> None:
    given = {"schedule": {"name": "ReduceOnPlateau", "patience": 0, "threshold": 0.5}, "epochs": 4}
    one = small.train(tmp_path / "a", **given)
    with pytest.raises(RuntimeError, match="stop"):
        small.train(tmp_path / "b", [StopAt(60)], save_every_seconds=1e-9, **given)
    two = small.train(resume=tmp_path / "b")
    rates = [row["lr"] for row in one.history]
    assert rates[-1] < rates[0]
    assert rates == [row["lr"] for row in two.history]
    assert small.digest(one.last) == small.digest(two.last)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import small, gapless as gl
from pathlib import Path
out = Path(sys.argv[2])
with small.no_pictures():
    if out.exists() and any(out.iterdir()):
        gl.train(resume=out, threads=int(sys.argv[3]), verbose=0)
    else:
        model = {"graph": small.Tiny().net((1, 8, 8), 0).document}
        gl.train(small.recipe(epochs=6, save_every_seconds=1e-3, model=model), out=out,
        threads=int(sys.argv[3]), verbose=0)
print("end")
"""


def child(out: Path, threads: int) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(gl.__file__).parents[1])}
    args = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(out), str(threads)]
    return subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_and_resume(tmp_path: Path, kills: int, seed: int) -> tuple[int, set[str]]:
    """Kills at random moments until `kills` were made; final digests of the killed and of the whole run."""
    plain = child(tmp_path / "whole", 2)
    assert plain.wait() == 0, (plain.stderr or sys.stderr).read()
    digests = {small.digest(tmp_path / "whole" / "last.safetensors")}
    random, made, number = np.random.default_rng(seed), 0, 0
    while made < kills:
        number += 1
        out = tmp_path / f"killed{number}"
        while True:
            process = child(out, made % 3 + 1)
            try:
                process.wait(float(random.uniform(0.2, 1.6)) if made < kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                made += 1
                for file in out.glob("*.safetensors"):
                    checkpoint.read(file)  # no damaged file, ever
                continue
            assert process.returncode == 0, (process.stderr or sys.stderr).read()
            break
        digests.add(small.digest(out / "last.safetensors"))
        assert not list(out.glob(".*.tmp"))
    return made, digests


def test_kill_at_random_moments_and_resume(tmp_path: Path) -> None:
    made, digests = kill_and_resume(tmp_path, 5, seed=1)
    assert made >= 5
    assert len(digests) == 1


if __name__ == "__main__":  # the whole figure: python tests/py/test_resume.py 50
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        made, digests = kill_and_resume(Path(folder), int(sys.argv[1]), seed=0)
        print(
            json.dumps({"kills": made, "different_ends": len(digests), "seconds": round(time.time() - began)})
        )
