"""``gapless doctor``, ``check`` and ``compare``: words, exit codes, and what they print."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small
from test_doctor_report import diagnosis

import gapless
from gapless import cli
from gapless.doctor import Checked, Diagnosis, Result


class Asked:
    """A stand-in that keeps what it was called with."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.words, self.options = answer, (), {}

    def __call__(self, *words: Any, **options: Any) -> Any:
        self.words, self.options = words, options
        return self.answer


def nothing() -> Diagnosis:
    clear = Checked("C1", "class-order", "the cause", Result.clear("no"), 0.1, None, "points")
    return Diagnosis(None, [], [clear], None)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> Asked:
    asked = Asked(answer)
    monkeypatch.setattr(gapless, name, asked, raising=False)
    return asked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("doctor") / "run"
    with small.no_pictures():
        gapless.train(gapless.Recipe(data="digits", model="lenet", epochs=1), out=out, verbose=0)
    return out


def said_wrong(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    assert cli.main(list(given)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


# -- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["doctor"], "needs a run, a checkpoint, --outputs FILE"),
        (["doctor", "r", "--outputs", "v.csv"], "RUN and --outputs are different models"),
        (["doctor", "r", "--images", "x"], "--images belongs to --outputs"),
        (["doctor", "r", "--train-outputs", "x"], "--train-outputs belongs to --outputs"),
        (["doctor", "r", "--logged", "99"], "did you mean 0.99?"),
        (["doctor", "r", "--logged", "good"], "must be a fraction like 0.99"),
        (["doctor", "r", "--logged", "nan"], "from 0 to 1"),
        (["doctor", "r", "--budget", "0"], "must be seconds above 0"),
        (["doctor", "r", "--budget", "nan"], "must be seconds above 0"),
        (["doctor", "r", "--buget", "9"], "did you mean --budget?"),
        (["doctor", "r", "d", "e"], "e: one argument too many"),
        (["doctor", "nowhere.safetensors"], "there is no such file"),
        (["doctor", "val.csv"], "a table of outputs is given as --outputs val.csv"),
        (["doctor", "--detector-losses", "t.csv", "--logged", "0.9"], "--logged belongs to a run"),
        (["doctor", "r", "--html", "/nowhere/x.html"], "/nowhere/x.html: there is no folder /nowhere"),
        (["doctor", "r", "--html", "/"], "/ is a folder"),
        (["doctor", "r", "--html", "/dev/null"], "is a device or a pipe"),
        (["check", "digits", "--html", "/nowhere/x.html"], "there is no folder /nowhere"),
        (["doctor", "r", "--check", "clas-order"], "did you mean 'class-order'?"),
        (["doctor", "r", "--learning-rate", "3"], "here it is called optimizer.lr"),
        (["doctr", "r"], "did you mean 'gapless doctor'?"),
        (["diagnose", "r"], "did you mean 'gapless doctor'?"),
        (["diff", "a", "b"], "did you mean 'gapless compare'?"),
        (["check"], "check needs one of"),
        (["check", "digits", "--yolo", "d.yaml"], "check needs one of"),
        (["check", "digits", "--image-size", "9"], "--image-size belongs to --yolo"),
        (["check", "nowhere.yaml"], "cannot read the recipe"),
        (["check", "--yolo", "nowhere.yaml"], "nowhere.yaml"),
        (["compare", "a"], "the following arguments are required: B"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert message in said_wrong(capsys, *given)


def test_check_tells_a_detectors_data_by_its_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("train: images\nnames: {0: cat, 1: dog}\n")
    assert f"give it as --yolo {file}" in said_wrong(capsys, "check", str(file))


def test_a_page_that_cannot_be_written_costs_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    stand_in(monkeypatch, "diagnose", nothing())
    monkeypatch.setattr("gapless._files.write_text_atomic", full)
    page = str(tmp_path / "p.html")
    assert cli.main(["doctor", "r", "--json", "--html", page]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["findings"] == []
    assert said.err == f"WARNING: {page}: not written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "v.csv").write_text("id,target,pred\nx,0,0\ny,1,1\n")
    words = ["compare", str(tmp_path / "v.csv"), str(tmp_path / "v.csv"), *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gapless", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "gapless: [Errno 28] No space left on device\n"


def test_json_of_odd_file_names_is_utf_8(tmp_path: Path) -> None:
    file = os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.csv")
    Path(file).write_text("id,target,pred\nx,0,0\ny,1,1\n")
    done = subprocess.run(
        [sys.executable, "-m", "gapless", "doctor", "--outputs", file, "--check", "C1", "--json"],
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 0
    notes = json.loads(done.stdout.decode("utf-8"))["notes"]
    assert any("b\udcff.csv" in n for n in notes)


def test_errors_are_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "nowhere.safetensors", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit"] == 2


# -- doctor ---------------------------------------------------------------------------------------


def test_doctor_hands_on_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, "diagnose", nothing())
    given = "--outputs v.csv --train-outputs t.csv --logged 0.99 --images root --budget 7"
    checks = "--check class-order --check P3,label-noise --quiet"
    assert cli.main(["doctor", *given.split(), *checks.split()]) == 0
    assert asked.words == (None, None)
    assert asked.options == {
        "outputs": "v.csv",
        "train_outputs": "t.csv",
        "logged": 0.99,
        "images": "root",
        "budget": 7.0,
        "checks": ["class-order", "P3", "label-noise"],
        "verbose": 0,
    }
    assert cli.main(["doctor", "run", "data"]) == 0
    assert asked.words == ("run", "data")
    assert asked.options["checks"] is None
    assert cli.main(["doctor", "--detector-losses", "t.csv"]) == 0
    assert asked.options["detector_losses"] == "t.csv"


def test_findings_are_exit_code_1_as_text_json_and_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = diagnosis()
    stand_in(monkeypatch, "diagnose", found)
    assert cli.main(["doctor", "r"]) == 1
    assert capsys.readouterr().out == repr(found) + "\n"
    assert cli.main(["doctor", "r", "--quiet"]) == 1
    assert capsys.readouterr().out == found.text(brief=True) + "\n"
    page = tmp_path / "p.html"
    assert cli.main(["doctor", "r", "--json", "--html", str(page)]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_dict()))
    assert page.read_text("utf-8") == found.to_html()


def test_a_terminal_without_unicode_is_shown_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "diagnose", diagnosis("猫"))
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["doctor", "r"]) == 1
    out.flush()
    text = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "####" in text
    assert r"\u2588" not in text
    assert r"Relabel \u732b" in text


def test_doctor_of_a_real_run(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "d.html"
    code = cli.main(["doctor", str(run), "--check", "class-order", "--budget", "60", "--html", str(page)])
    said = capsys.readouterr()
    assert code == 0
    assert "clear: C1 class-order." in said.out
    assert "gap: " in said.out
    assert page.stat().st_size > 10_000
    assert cli.main(["doctor", str(run), "--check", "C1", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sum(s["points"] for s in document["waterfall"]) == pytest.approx(document["gap"], abs=1e-12)


# -- check and compare ----------------------------------------------------------------------------


def test_check_takes_data_or_a_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = stand_in(monkeypatch, "check", nothing())
    assert cli.main(["check", "digits", "--budget", "5"]) == 0
    assert asked.words == ("digits", None)
    assert asked.options == {"budget": 5.0, "verbose": 1}
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: digits\nepochs: 3\n")
    assert cli.main(["check", str(recipe), "--quiet"]) == 0
    data, given = asked.words
    assert given.epochs == 3
    assert data == given.data
    asked.answer = diagnosis()
    assert cli.main(["check", "digits", "--json"]) == 1


def test_compare_of_a_real_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(run / "best.safetensors"), str(run / "last.safetensors")]) == 0
    assert "common samples" in capsys.readouterr().out
    assert cli.main(["compare", str(run), str(run), "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert cli.main(["compare", str(run), "nowhere.safetensors"]) == 2
    capsys.readouterr()


def test_compare_prints_what_it_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Comparison:
        def __repr__(self) -> str:
            return "a is better by 1.0 points"

        def to_dict(self) -> dict[str, Any]:
            return {"points": 0.01}

    asked = stand_in(monkeypatch, "compare", Comparison())
    assert cli.main(["compare", "a", "b"]) == 0
    assert asked.words == ("a", "b")
    assert capsys.readouterr().out == "a is better by 1.0 points\n"
    assert cli.main(["compare", "a", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"points": 0.01}
