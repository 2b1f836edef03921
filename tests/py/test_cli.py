"""The command line: what it prints, and the codes that scripts go by."""

from __future__ import annotations

import doctest
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small import no_pictures

import gapless
from gapless import cli
from gapless.errors import EvaluationMismatch

# a process of its own finds the same package, from any folder
PATH = os.path.dirname(os.path.dirname(os.path.abspath(gapless.__file__)))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATH + os.pathsep + os.environ.get("PYTHONPATH", "")}

SHORT = ["--epochs", "1", "-o", "train=[]", "-o", "data.split=[0.2, 0.2, 0.6]", "-o", "clean_samples=20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch, made by the command itself."""
    out = tmp_path_factory.mktemp("cli") / "run"
    code = cli.main(["train", "digits", "--out", str(out), "--model", "resnet8", "--quiet", *SHORT])
    assert code == 0
    return out


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of the size that digits have, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, level in (("b.png", 200), ("a.png", 10)):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run_json(capsys, *words):
    """The exit code and the one JSON document on standard output."""
    code = cli.main([*words, "--json"])
    out = capsys.readouterr().out
    document, end = json.JSONDecoder().raw_decode(out)
    assert out[end:].strip() == "", "one document and nothing else"
    return code, document


def failure(capsys, *words, code=2):
    """The one line on standard error of a command that fails."""
    assert cli.main(list(words)) == code
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if not line.startswith("WARNING")]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("gapless: ")
    assert "Traceback" not in said.err
    return lines[0]


def test_doctests(capsys):
    result = doctest.testmod(cli)
    assert result.attempted > 0
    assert result.failed == 0
    capsys.readouterr()


# ---- bad input ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "digits"], "did you mean 'gapless train'"),
        (["evaluate", "x"], "did you mean 'gapless eval'"),
        (["digits"], "did you mean 'gapless train digits'"),
        (["xyzzy"], "there are train, eval, predict, info, doctor, check, compare, bench"),
        (["train"], "needs a recipe or data"),
        (["train", "digits", "--epoch", "3"], "did you mean --epochs"),
        (["train", "digits", "--learning-rate", "3"], "here it is called optimizer.lr"),
        (["train", "digits", "--num_workers=4"], "here it is not needed"),
        (["train", "digits", "--device", "gpu"], "runs on the CPU"),
        (["train", "digits", "optimizer.lr=3"], "write -o optimizer.lr=3"),
        (["train", "digits", "more"], "one argument too many"),
        (["train", "digits", "-o", "lr"], "must be KEY=VALUE"),
        (["train", "digits", "-o", "=3"], "must be KEY=VALUE"),
        (["train", "digits", "-o", "epohcs=3"], "did you mean 'epochs'"),
        (["train", "digits", "-o", "optimizer.lr=__import__('os')"], "must be a number"),
        (["train", "digits", "--lr", "0.1", "-o", "optimizer.lr=0.2"], "given twice"),
        (["train", "digits", "-o", "epochs=1", "-o", "epochs=2"], "given twice"),
        (["train", "digits", "--epochs", "three"], "epochs: must be a whole number"),
        (["train", "digits", "--threads", "0"], "at least 1"),
        (["train", "digits", "--model", "resnet81"], "resnet8"),
        (["train", "nowhere/"], "there is no"),
        (["train", "digts"], "did you mean 'digits'"),
        (["train", "nowhere.yaml"], "nowhere.yaml: cannot read"),
        (["train", "best.safetensors"], "is a checkpoint"),
        (["train", "--resume", "nowhere"], "there is no such run"),
        (["train", "digits", "--resume", "nowhere"], "stands alone"),
        (["train", "--resume", "nowhere", "--lr", "3"], "leave out optimizer.lr"),
        (["eval"], "CHECKPOINT"),
        (["eval", "nowhere.safetensors"], "there is no such file"),
        (["predict", "nowhere.safetensors", "a.png"], "there is no such file"),
        (["info", "nowhere.safetensors"], "there is no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, words, message):
    assert message in failure(capsys, *words)


def test_case_01_a_misspelt_override_trains_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    said = failure(capsys, "train", "digits", "--out", str(out), "-o", "pretrained_model=w.safetensors")
    assert "here it is called pretrained" in said
    assert not out.exists()


def test_case_01_evaluating_without_weights_is_an_error(tmp_path, capsys):
    import safetensors.numpy

    bare = tmp_path / "bare.safetensors"
    safetensors.numpy.save_file({"fc.weight": np.zeros((2, 2), np.float32)}, bare)
    failure(capsys, "eval", str(bare))
    failure(capsys, "predict", str(bare), "a.png")
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    failure(capsys, "eval", str(empty))


def test_case_02_each_command_takes_weights_in_one_way_only(capsys):
    for option in ("--weights", "--checkpoint", "--checkpoints", "--pretrained_model"):
        for command in ("eval", "predict", "info"):
            failure(capsys, command, option, "x.safetensors")


def test_errors_are_a_document_too_when_json_is_asked_for(capsys):
    code, document = run_json(capsys, "info", "nowhere.safetensors")
    assert code == 2
    assert document["error"]["type"] == "CheckpointError"
    assert "nowhere.safetensors" in document["error"]["message"]


def test_a_traceback_only_when_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("GAPLESS_TRACEBACK", "1")
    with pytest.raises(gapless.CheckpointError):
        cli.main(["info", "nowhere.safetensors"])
    capsys.readouterr()


def test_a_defect_has_a_code_of_its_own(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("broken\nin two lines")

    monkeypatch.setattr(gapless, "evaluate", broken, raising=False)
    assert "GAPLESS_TRACEBACK=1" in failure(capsys, "eval", "x", code=3)


def test_help_and_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == gapless.__version__
    assert cli.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "exit codes" in said.err
    for command in ("train", "eval", "predict", "info", "doctor", "check", "compare", "bench"):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
        assert "--json" in capsys.readouterr().out


# ---- the commands ----


def test_train_writes_a_run_and_eval_reproduces_it(run, capsys):
    for name in (
        "best.safetensors",
        "last.safetensors",
        "recipe.yaml",
        "results.csv",
        "curves.png",
        "val_pred.png",
    ):
        assert (run / name).stat().st_size > 0, name
    assert cli.main(["eval", str(run)]) == 0
    assert "reproduced: exactly" in capsys.readouterr().out
    code, record = run_json(
        capsys, "eval", str(run / "best.safetensors"), "--batch-size", "7", "--threads", "1"
    )
    assert code == 0
    assert record["reproduced"] == "exact"
    assert record["split"] == "val"
    assert 0 <= record["top1"] <= 1


def test_eval_of_other_samples_is_compared_with_nothing(run, capsys):
    code, record = run_json(capsys, "eval", str(run), "--split", "test")
    assert code == 0
    assert record["reproduced"] is None
    assert record["n_scored"] == record["n_listed"] > 0
    assert cli.main(["eval", str(run), "--split", "tset"]) == 2
    capsys.readouterr()


def test_eval_that_differs_is_exit_code_1_and_still_prints_its_record(run, capsys, monkeypatch):
    record = gapless.evaluate(run)

    def differs(*_, **__):
        raise EvaluationMismatch("recorded 0.9, now 0.5", record._with(reproduced=None), {"correct": (9, 5)})

    monkeypatch.setattr(gapless, "evaluate", differs)
    code, document = run_json(capsys, "eval", str(run))
    assert code == 1
    assert document["top1"] == record.top1
    assert document["reproduced"] is None
    assert "recorded 0.9" in document["message"]
    assert cli.main(["eval", str(run)]) == 1
    assert "recorded 0.9" in capsys.readouterr().err


def test_train_prints_one_document(tmp_path, capfd):
    out = tmp_path / "a folder"
    words = ["train", "digits", "--out", str(out), "--lr", "0.02", "--seed", "3", *SHORT]
    with no_pictures():
        assert cli.main([*words, "--json"]) == 0
    said = capfd.readouterr()
    document = json.loads(said.out)
    assert document["out"] == str(out)
    assert os.path.isabs(document["best"])
    assert document["epochs"] == 1
    assert document["seconds"] > 0
    assert document["images_per_second"] > 0
    assert "train/running" in said.err


def test_train_from_a_recipe_file_with_overrides(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {digits: true, split: [0.2, 0.2, 0.6]}\nepochs: 9\nclean_samples: 0\n")
    out = tmp_path / "run"
    words = [
        "train",
        str(recipe),
        "--out",
        str(out),
        "--epochs",
        "1",
        "--batch-size",
        "64",
        "--image-size",
        "8x8",
    ]
    with no_pictures():
        code = cli.main([*words, "-o", "optimizer.momentum=0.5", "--freeze", "conv1,bn1", "--quiet"])
    assert code == 0
    stored = gapless.Recipe.from_yaml(out / "recipe.yaml")
    assert (stored.epochs, stored.batch_size, stored.image_size) == (1, 64, 8)
    assert stored.optimizer["momentum"] == 0.5
    assert stored.freeze == ["conv1", "bn1"]
    assert capsys.readouterr().out.startswith(str(out.resolve() / "best.safetensors"))


def test_a_finished_run_and_a_run_s_folder_as_data(run, capsys):
    assert "--resume" in failure(capsys, "train", str(run))
    assert cli.main(["train", "--resume", str(run), "--quiet"]) == 0
    capsys.readouterr()


def test_predict_by_file_and_folder(run, pictures, capsys):
    assert cli.main(["predict", str(run), str(pictures)]) == 0
    said = capsys.readouterr()
    assert [os.path.basename(line.split(":")[0]) for line in said.out.splitlines()] == ["a.png", "b.png"]
    assert "1 other files left out" in said.err
    code, rows = run_json(capsys, "predict", str(run), str(pictures / "b.png"), str(pictures / "a.png"))
    assert code == 0
    assert [os.path.basename(row["id"]) for row in rows] == ["b.png", "a.png"]
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in rows)
    assert cli.main(["predict", str(run), str(pictures / "a.png"), "--top", "3"]) == 0
    assert capsys.readouterr().out.count("(") == 3


def test_predict_refuses_what_it_cannot_read(run, pictures, tmp_path, capsys):
    assert "there is no such file" in failure(capsys, "predict", str(run), "nowhere.png")
    (tmp_path / "none").mkdir()
    assert "no pictures" in failure(capsys, "predict", str(run), str(tmp_path / "none"))
    assert "notes.txt" in failure(capsys, "predict", str(run), str(pictures / "notes.txt"))
    assert "--top" in failure(capsys, "predict", str(run), str(pictures / "a.png"), "--top", "11")


def test_info_says_what_the_file_holds(run, capsys):
    assert cli.main(["info", str(run)]) == 0
    said = capsys.readouterr().out
    assert "optimizer (momentum_buffer)" in said
    assert "not: ema" in said
    code, facts = run_json(capsys, "info", str(run / "last.safetensors"))
    assert code == 0
    assert facts["classes"] == [str(i) for i in range(10)]
    assert facts["parts"] == {"raw": True, "ema": False, "optimizer": ["momentum_buffer"]}
    assert facts["records"]["val"]["n_scored"] == facts["splits"]["val"]
    assert gapless.Recipe.from_dict(facts["recipe"]).epochs == 1


def test_a_copied_checkpoint_alone_is_enough(run, tmp_path, pictures):
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run / "best.safetensors", alone)
    command = [sys.executable, "-m", "gapless", "eval", alone.name, "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reproduced"] == "exact"


def test_ctrl_c_saves_and_ends_with_130(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "gapless", "train", "digits", "--out", str(out), "--epochs", "500"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 90
        results = out / "results.csv"
        while not (results.exists() or (out / "best.safetensors").exists()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (out / "last.safetensors").exists()
    assert cli.main(["eval", str(out), "--quiet"]) == 0


def test_a_reader_that_goes_away_is_no_error(run):
    command = f"{sys.executable} -m gapless info {run} | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_starting_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom gapless import cli\n"
        "heavy = {'matplotlib', 'sklearn', 'PIL', 'msgspec', 'ruamel', 'tqdm', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=ENVIRONMENT)
