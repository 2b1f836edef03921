"""The doctor's door from outside: tables of outputs, models as functions, and their checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gapless as gl
from gapless import doctor
from gapless.doctor import _tables, preparing, reading, running, stats, table
from gapless.doctor.case import Budget, Case
from gapless.doctor.checks import preprocessing
from gapless.doctor.checks.calibration import expected_error
from gapless.doctor.reading import inner, read_outputs
from gapless.doctor.subject import FunctionSubject, NetSubject
from gapless.errors import CheckpointError, DataError, RecipeError, ShapeError

Write = Callable[..., Path]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def made(
    n: int = 400, k: int = 5, accuracy: float = 0.9, seed: int = 0, height: float = 4.0
) -> doctor.Outputs:
    """Logits of a model that is right with that probability, and sure of what it gets right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    right = rng.random(n) < accuracy
    said = np.where(right, labels, (labels + rng.integers(1, k, n)) % k)
    logits = rng.normal(0, 0.5, (n, k))
    logits[np.arange(n), said] += np.where(right, height, 0.35 * height)
    return doctor.Outputs.of_logits([f"{i:04d}" for i in range(n)], labels, logits, list("abcdefghij")[:k])


def of(outputs: doctor.Outputs, train: doctor.Outputs | None = None, **more: Any) -> Case:
    both = {"val": outputs} | ({} if train is None else {"train": train})
    return Case(budget=Budget(60), outputs=both, **more)


def examined(case: Case, *slugs: str) -> doctor.Diagnosis:
    return running.examine(case, [table.named(s) for s in slugs], verbose=0)


def said(case: Case, slug: str) -> doctor.Result:
    (checked,) = examined(case, slug).checks
    return checked.result


FREE = ("untrained", "class-order", "metric-count", "double-softmax", "labelling-rules", "calibration")
MODEL = ("preprocessing", "input-statistics", "resolution", "determinism")


# -- reading ------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return make


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.csv", "path,target,logit_0,logit_1\nx.png,0,2.5,1\ny.png,1,-1,3e0\n", "logits"),
        ("b.csv", "Image;Label;p_cat;p_dog\nx.png;cat;0.9;0.1\ny.png;dog;0.2;0.8\n", "probabilities"),
        ("c.tsv", "file\ttrue\tprob_1\tprob_0\nx.png\t0\t.1\t.9\ny.png\t1\t.7\t.3\n", "probabilities"),
        ("d.csv", "id,y,dog,cat,time\nx.png,cat,-1,4,7\ny.png,dog,3,1,8\n", "logits"),
        ("e.csv", "id,label,pred\nx.png,cat,cat\ny.png,dog,dog\n", "none"),
        ("f.txt", "# id target prediction\nx.png 0 0\n# a note\ny.png 1 1\n", "none"),
        ("g.txt", "x.png 0 0.9 0.1\ny.png 1 0.2 0.8\n", "probabilities"),
        ("h.txt", "x.png\t0\t5\t0.1\ny.png\t1\t0.2\t7\n", "logits"),
        ("i.csv", '"id",y_true,y_pred\n"x, 1.png",0,0.0\ny.png,1.0,1\n', "none"),
        ("k.csv", 'id, target, pred\nx.png, "cat, red", "cat, red"\ny.png, dog, dog\n', "none"),
        ("l.csv", "id;target;prob_0;prob_1\nx.png;0;0,9;0,1\ny.png;1;0,2;0,8\n", "probabilities"),
        ("m.csv", "  \r\nid;target;pred\r\nx.png;0;0\r\ny.png;1;1\r\n", "none"),
        ("n.csv", ",target,0,1\nx.png,0.0,4,1\ny.png,1.0,2,3\n", "logits"),
        ("o.csv", "id,target,logit_1,logit_2\nx.png,0,4,1\ny.png,1,2,3\n", "logits"),
        ("p.csv", "id,target,logit_1,logit_2\nx.png,1,4,1\ny.png,2,2,3\n", "logits"),
        ("q.csv", "id,target,2,7\nx.png,2,4,1\ny.png,7,2,3\n", "logits"),
        ("r.csv", "id,target,prob_0,prob_1\nx.png,0,.98,.01\ny.png,1,.34,.67\n", "probabilities"),
        ("s.txt", "id,target,pred\nx.png,0,0\ny.png,1,1\n", "none"),
        ("t.txt", "id, target, pred\nx.png, 0, 0\ny.png, 1, 1\n", "none"),
        ("j.csv", "\ufeffid,target,class_0,class_1\r\nx.png,0,.75,.25\r\ny.png,1,.5,.5\r\n", "probabilities"),
    ],
)
def test_tables_are_recognised(name: str, text: str, kind: str, write: Write) -> None:
    (read,) = read_outputs(write(name, text))
    out = read.outputs
    assert (len(out), out.num_classes, out.kind) == (2, 2, kind)
    assert out.ids[1] == "y.png"
    if name == "j.csv":
        assert out.predictions.tolist() == [0, 0]  # equal scores: the lower index
    else:
        assert out.accuracy == 1
    assert "2 samples of 2 classes" in read.report
    assert name in read.report


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "id,target,pred\n", "a header and no row"),
        ("a.csv", "id,target,pred\nx,0,0\ny,1\n", "line 3: 2 cells, expected 3"),
        ("a.csv", "id,pred\nx,0\n", "no column of targets among id, pred"),
        ("a.csv", "target,pred\n0,0\n", "no column of ids"),
        ("a.csv", "id,target,loss\nx,0,0.1\n", "no logits, probabilities or predictions"),
        ("a.csv", "id,target,logit_0,logit_1\nx,0,1,2\ny,1,nan,3\n", "line 3: scores are not finite"),
        ("a.csv", "id,target,logit_0,logit_1\nx,0,1,2\ny,1,?,3\n", "line 3: '\\?' is no number"),
        ("a.csv", "id,target,logit_0,logit_2\nx,0,1,2\n", "some are missing"),
        ("a.csv", "id,target,logit_0,logit_1\nx,2,1,2\n", r"line 2: target 2 is outside 0\.\.1"),
        ("a.csv", "id,target,prob_0,prob_1\nx,0,.5,.5\ny,1,.9,.9\n", "line 3: probabilities must .* sum 1.8"),
        ("a.csv", "id,target,pred\nx,0,0\ny,1,1\nx,1,0\n", "line 4: id 'x' stands in .*line 2 too"),
        (
            "a.csv",
            "id,target,p_cat,p_dog\nx,cat,.5,.5\ny,dgo,.1,.9\n",
            "line 3: target 'dgo' is no class; did you",
        ),
        ("a.csv", "id,target,pred\nx,,0\n", "line 2: no target"),
        ("a.csv", "id,id,target,pred\nx,x,0,0\n", "column 'id' stands there twice"),
        ("a.csv", 'id,target,pred\n"x,0,0\n', "line"),
        ("a.txt", "x.png 0\n", "got 2 cells"),
        ("a.csv", "id,target,pred\nx,900000,0\n", "class index 900000"),
        ("a.csv", "id,target,pred\nx,-1,cat\n", "negative"),
        ("a.csv", "id,target,pred\nx,0,0\ny,1,0.87\n", "line 3: prediction '0.87' is a number and no class"),
        ("a.csv", "id,target,pred\nx,0,0\ny,1,nan\n", "line 3: no prediction: 'nan'"),
        ("a.csv", "id,target,pred\nx,0,0\nNaN,NaN,1\n", "line 3: no target: 'NaN'"),
        ("a.csv", "id,target,pred\nx,0,0\n,1,1\n", "line 3: no id"),
        ("a.csv", "id,target,prob_1\nx,0,0.1\ny,1,0.8\n", "'prob_1' alone does not say"),
    ],
)
def test_tables_are_refused_with_their_line(name: str, text: str, message: str, write: Write) -> None:
    with pytest.raises(DataError, match=message):
        read_outputs(write(name, text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\x00", "is compressed"),
        ("id,target,pred\nx,0,0\n".encode("utf-16"), "is UTF-16; expected CSV or text in UTF-8"),
        (b"PK\3\4", "is an Excel or zip file"),
        ("id,target,pred\né,0,0\n".encode("latin-1"), "line 2: not valid utf-8 .*; save it as UTF-8"),
    ],
)
def test_files_that_are_no_text_are_told_by_what_they_are(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_outputs(tmp_path / "a.csv")


def test_numbers_of_classes_that_count_from_1_are_their_names(write: Write) -> None:
    text = "id,target,logit_1,logit_2,logit_3\nx,1,4,1,0\ny,2,0,3,1\n"  # no sample is of class 3
    (read,) = read_outputs(write("a.csv", text))
    assert read.outputs.classes == ("1", "2", "3")
    assert read.outputs.accuracy == 1
    from_0 = "id,target,pred\nx,1,1\ny,2,0\n"  # one column could be read as names, both together cannot
    (read,) = read_outputs(write("b.csv", from_0), classes=["1", "2", "3"])
    assert read.outputs.labels.tolist() == [1, 2]
    assert read.outputs.predictions.tolist() == [1, 0]


def test_classes_are_a_list_in_order(write: Write) -> None:
    path = write("a.csv", "id,target,pred\nx,0,0\n")
    (read,) = read_outputs(path, classes=(c for c in "ab"))  # type: ignore[arg-type]
    assert read.outputs.classes == ("a", "b")
    for wrong in ({"a", "b"}, {"a": 0, "b": 1}, "ab", 2, []):
        with pytest.raises(DataError, match="list of class names"):
            read_outputs(path, classes=wrong)  # type: ignore[arg-type]


def test_written_digits_decide_what_sums_to_1() -> None:
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(0, 2, (200, 9)))
    for digits in (2, 3, 4):
        assert reading.is_simplex(np.round(p, digits))
    assert not reading.is_simplex(p * 1.004)
    assert not reading.is_simplex(np.round(rng.random((200, 9)), 2))


def test_repeated_ids_are_counted_and_other_columns_named(write: Write) -> None:
    text = "id,target,pred,time\nx,0,0,1\ny,1,1,2\nx,0,0,3\n"
    (read,) = read_outputs(write("a.csv", text))
    assert "1 rows repeat an id; not used: time" in read.report


def test_one_order_of_classes_for_both_tables(write: Write) -> None:
    val = write("val.csv", "id,target,pred\nx,cat,dog\ny,cat,cat\n")
    train = write("train.csv", "id,target,pred\nx,ant,dog\ny,cat,cat\n")
    a, b = read_outputs(val, train)
    assert a.outputs.classes == b.outputs.classes == ("ant", "cat", "dog")
    assert a.outputs.labels.tolist() == [1, 1]
    (c,) = read_outputs(val, classes=["dog", "cat"])
    assert c.outputs.labels.tolist() == [1, 1]
    with pytest.raises(DataError, match="target 'cat' is no class"):
        read_outputs(val, classes=["dog", "fox"])


def test_npz_and_arrays_say_the_same_as_a_table(tmp_path: Path) -> None:
    o = made(50)
    assert o.scores is not None
    arrays = {"id": np.array(o.ids), "target": o.labels, "logits": o.scores.astype(np.float32)}
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    lines = ["id,target," + ",".join(f"logit_{k}" for k in range(5))]
    lines += [
        f"{i},{t},{','.join(map(repr, r))}"
        for i, t, r in zip(o.ids, o.labels, o.scores.tolist(), strict=True)
    ]
    (tmp_path / "c.csv").write_text("\n".join(lines))
    for source in (arrays, tmp_path / "a.npz", tmp_path / "b.npz", str(tmp_path / "c.csv")):
        (read,) = read_outputs(source)
        assert read.outputs.ids == o.ids
        np.testing.assert_array_equal(read.outputs.predictions, o.predictions)
        assert read.outputs.accuracy == o.accuracy
    (same,) = read_outputs(o)
    assert same.outputs is o


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"target": [0, 1], "logits": [[1.0, 2.0]]}, "2 targets and scores of 1 samples"),
        ({"target": [0, 1.5], "prediction": [0, 1]}, "whole numbers or names"),
        ({"target": [], "prediction": []}, "no sample|whole numbers"),
        ({"logits": [[1.0, 2.0]]}, "no column of targets"),
        ({"target": [0, 1], "logits": [[1.0, 2.0], [np.inf, 0]]}, "row 1: scores are not finite"),
        ({"target": [[1, 0], [0, 1]], "prediction": [0, 1]}, r"'target' has shape \(2, 2\), expected \(n,\)"),
        ({"target": [0, 1], "id": ["a"], "prediction": [0, 1]}, "2 targets and 1 of 'id'"),
        ({"target": ["a", "b"], "logits": [["x", "y"], ["x", "y"]]}, "must hold numbers"),
    ],
)
def test_arrays_are_refused(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_outputs(arrays)


def test_arrays_as_keras_gives_them() -> None:
    p = [[0.9, 0.1], [0.2, 0.8]]
    (read,) = read_outputs({"filenames": ["x", "y"], "y_true": [[0], [1]], "predictions": p})
    assert read.outputs.ids == ["x", "y"]
    assert (read.outputs.kind, read.outputs.accuracy) == ("probabilities", 1)


def test_npz_holds_no_objects_and_no_lies(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", id=np.array(["x", None], dtype=object), target=[0, 1], prediction=[0, 1])
    with pytest.raises(DataError, match="Python objects"):
        read_outputs(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\3\4 no zip")
    with pytest.raises(DataError, match="no sound npz"):
        read_outputs(tmp_path / "b.npz")
    with pytest.raises(DataError, match="cannot be read"):
        read_outputs(tmp_path / "c.csv")


def test_too_large_is_said_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("id,target,pred\n" + "x,0,0\n" * 20)
    monkeypatch.setattr(_tables, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="the limit is 100"):
        read_outputs(tmp_path / "a.csv")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gl.Run:
    out = tmp_path_factory.mktemp("runs") / "a"
    return gl.train(gl.Recipe(data="digits", model="resnet8", epochs=2), out=out, verbose=0)


def test_a_runs_own_predictions_are_read(run: gl.Run) -> None:
    (file,) = run.out.glob("predictions_val.csv")
    d = gl.diagnose(outputs=file, logged=0.5, budget=20, verbose=0)
    (read,) = read_outputs(file)
    assert read.outputs.accuracy == run.record.top1
    assert read.outputs.kind == "none"
    assert d.waterfall is not None
    assert "majority" in d.notes[0]


def test_the_verdict_says_whether_it_is_guessing() -> None:
    labels = np.repeat([0, 1], [161, 127])
    guessed = labels.copy()
    guessed[::2] = 1 - labels[::2]
    guessed[:40] = labels[:40]  # 164 of 288
    table_ = {"target": labels, "prediction": guessed}
    guess = gl.diagnose(outputs=table_, verbose=0)
    assert guess.notes[0].startswith(
        "56.9 % of 288 is 56.9 ± 5.7; majority 55.9 %: not distinguishable from guess"
    )
    good = gl.diagnose(outputs={"target": labels, "prediction": labels}, verbose=0)
    assert "better than guessing" in good.notes[0]
    one = gl.diagnose(outputs={"target": [0] * 30, "prediction": [0] * 30}, classes=["a", "b"], verbose=0)
    assert "one class only" in one.notes[0]


def test_arguments_that_do_not_go_together() -> None:
    with pytest.raises(RecipeError, match="images belongs to outputs, not to model"):
        gl.diagnose(model=len, images="x")
    with pytest.raises(RecipeError, match="preprocess belongs to model"):
        gl.diagnose(outputs={}, preprocess=len)
    with pytest.raises(RecipeError, match="needs preprocess"):
        gl.diagnose(model=len)
    with pytest.raises(RecipeError, match=r"fraction from 0 to 1, got '0\.99'"):
        gl.diagnose(outputs={}, logged="0.99")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"logged belongs to .*, not to detector_losses"):
        gl.diagnose(detector_losses="t.csv", logged=0.9)
    with pytest.raises(RecipeError, match="budget: seconds must be > 0, got '20'"):
        gl.diagnose(outputs={}, budget="20")  # type: ignore[arg-type]


def test_a_callers_check_may_return_anything(tmp_path: Path) -> None:
    two = {"target": [0, 1], "prediction": [0, 1]}
    never = stats.Estimate(float("nan"), 0.0, 1.0, 0.0)
    good = stats.Estimate(0.5, 0.4, 0.6, 0.0)
    answers: list[Any] = [None, doctor.Result.clear("ok", never)]
    answers.append(doctor.Result.found("x", good, remedy=None))  # type: ignore[arg-type]
    add = doctor.check("U7", "my-check", "t", measure="m", needs="outputs")
    try:
        for answer in answers:
            add(lambda case, answer=answer: answer)  # type: ignore[misc]
            with pytest.warns(RuntimeWarning, match="check my-check failed"):
                (c,) = gl.diagnose(outputs=two, checks="my-check", verbose=0).checks
            assert c.result.outcome == "undecided"
            assert "a defect" not in c.result.says
        found = doctor.Result.found("x", good, remedy=doctor.Remedy("Do it."), evidence={"at": tmp_path})
        add(lambda case: found)
        d = gl.diagnose(outputs=two, checks=["my-check", "u7"], verbose=0)
        assert [f.id for f in d.findings] == ["U7"]
        saved = json.loads(d.save(tmp_path / "d.json").read_text())
        assert saved["findings"][0]["evidence"] == {"at": str(tmp_path)}
        with pytest.raises(RecipeError, match="U7 'my-check' is there already"):
            doctor.check("U8", "my-check", "t", measure="m", needs="outputs")(lambda case: found)
    finally:
        doctor.forget("U7")
    with pytest.raises(RecipeError, match="C1 'class-order' is there already"):
        doctor.check("C1", "mine", "t", measure="m", needs="outputs")(lambda case: found)


# -- checks of outputs alone --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("accuracy", "k", "height"), [(0.55, 3, 2.0), (0.75, 10, 4.0), (0.97, 2, 4.0)])
def test_free_checks_are_silent_without_a_fault(seed: int, accuracy: float, k: int, height: float) -> None:
    train = made(900, k, min(accuracy + 0.05, 0.99), seed + 100, height)
    d = examined(of(made(300, k, accuracy, seed, height), train, logged=min(accuracy + 0.05, 0.99)), *FREE)
    assert not d.findings, [(f.id, f.says) for f in d.findings]


@pytest.mark.parametrize("seed", range(3))
def test_untrained_is_first_and_its_size_is_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 400)
    flat = doctor.Outputs.of_logits(made().ids, labels, rng.normal(0, 0.3, (400, 5)), list("abcde"))
    d = examined(of(flat, logged=0.93), *FREE)
    assert [f.id for f in d.findings] == ["W1"]
    truth = 0.89 - flat.accuracy  # of the weights that were meant
    assert d.findings[0].low <= truth <= d.findings[0].high
    alone = examined(of(flat), *FREE)
    assert [f.id for f in alone.findings] == ["W1"]
    assert alone.findings[0].low <= truth <= alone.findings[0].high
    assert "never learned" in alone.findings[0].says


def test_untrained_is_told_from_other_ways_to_be_at_chance() -> None:
    right = made(400, 5, 0.95)
    assert right.scores is not None
    permuted = doctor.Outputs.of_logits(
        right.ids, right.labels, right.scores[:, [1, 2, 3, 4, 0]], right.classes
    )
    assert [f.id for f in examined(of(permuted, logged=0.96), *FREE).findings] == ["C1"]
    rng = np.random.default_rng(1)
    wrong_labels = doctor.Outputs.of_logits(
        right.ids, rng.permutation(right.labels), right.scores, right.classes
    )
    r = said(of(wrong_labels, logged=0.96), "untrained")
    assert r.outcome == "undecided"
    assert "sure of what it says" in r.says
    flat = doctor.Outputs.of_logits(right.ids, right.labels, rng.normal(0, 0.3, (400, 5)), right.classes)
    assert said(of(flat, logged=0.21), "untrained").outcome == "clear"  # training did not learn either


@pytest.mark.parametrize("k", [2, 5, 29])
def test_double_softmax_is_found_in_logits_and_in_probabilities(k: int) -> None:
    rng = np.random.default_rng(k)
    labels = rng.integers(0, k, 300)
    z = rng.normal(0, 1, (300, k))
    z[np.arange(300), labels] += 8
    ids = [str(i) for i in range(300)]
    p = softmax(z)
    case = of(doctor.Outputs.of_logits(ids, labels, p, [str(c) for c in range(k)]))
    twice = read_outputs({"id": ids, "target": labels, "probabilities": np.round(softmax(p), 6)})[0].outputs
    for c in (case, of(twice)):
        (f,) = examined(c, *FREE).findings
        assert f.id == "C3"
        truth = float((p.max(1) - softmax(p).max(1)).mean())
        assert f.low - 1e-4 <= truth <= f.high + 1e-4
        assert f.evidence["loss_floor"] == pytest.approx(np.log(1 + (k - 1) / np.e))
    once = read_outputs({"id": ids, "target": labels, "probabilities": p})[0].outputs
    assert not examined(of(once), *FREE).findings


def test_a_double_softmax_is_not_told_from_a_handful_of_samples() -> None:
    p = np.array(
        [[0.35, 0.65], [0.7, 0.3], [0.6, 0.4]]
    )  # unsure of two classes: an inner softmax exists by chance
    outputs = read_outputs({"id": ["a", "b", "c"], "target": [1, 0, 0], "probabilities": p})[0].outputs
    r = said(of(outputs), "double-softmax")
    assert (r.outcome, r.samples_needed) == ("undecided", 20)


def test_the_inner_probabilities_are_recovered() -> None:
    q = softmax(np.random.default_rng(0).normal(0, 3, (50, 7)))
    np.testing.assert_allclose(inner(softmax(q)), q, atol=1e-12)
    assert inner(q) is None


def test_loss_floors_are_those_observed() -> None:
    assert np.log(1 + 1 / np.e) == pytest.approx(0.313, abs=5e-4)
    assert np.log(1 + 28 / np.e) == pytest.approx(2.4259, abs=2e-3)


def test_calibration_is_a_finding_only_from_25_points_on() -> None:
    sure = made(400, 5, 0.6, height=40.0)
    (f,) = examined(of(sure), *FREE).findings
    assert f.id == "C4"
    assert f.low <= 0.4 <= f.high + 0.02
    assert f.evidence["temperature"] > 2
    assert said(of(made(400, 5, 0.85, height=40.0)), "calibration").outcome == "clear"
    fitted = said(of(sure, logged=0.99), "calibration")  # as sure as it was right: over-fitting is the cause
    assert fitted.outcome == "clear"
    assert "of training" in fitted.says


def test_calibration_p_is_uniform_without_a_fault() -> None:
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z = rng.normal(0, 1.5, (200, 4))
        p = softmax(z)
        labels = (p.cumsum(axis=1) > rng.random((200, 1))).argmax(axis=1)
        e = said(
            of(doctor.Outputs.of_logits([str(i) for i in range(200)], labels, z, list("abcd"))), "calibration"
        )
        assert e.estimate is not None
        small += e.estimate.p < 0.05
    assert small <= 8


def test_expected_calibration_error() -> None:
    top = np.array([0.95, 0.95, 0.55, 0.55])
    assert expected_error(top, np.array([True, True, True, False])) == pytest.approx(0.05)


def test_metric_counts_repeats_and_the_largest_score() -> None:
    o = made(200, 5, 0.7)
    assert o.scores is not None
    wrong = np.flatnonzero(~o.right)
    rows = np.concatenate([np.arange(200), np.repeat(wrong[:10], 4)])
    padded = doctor.Outputs.of_logits(
        [o.ids[i] for i in rows], o.labels[rows], o.scores[rows], o.classes, "padded"
    )
    (f,) = examined(of(padded), "metric-count").findings
    assert f.points == pytest.approx(padded.accuracy - o.accuracy)
    assert "40 rows repeat" in f.says
    other = o.predictions.copy()
    other[:20] = (o.labels[:20] + 1) % 5
    said_ = doctor.Outputs(o.ids, o.labels, other, o.scores, "logits", o.classes)
    (f,) = examined(of(said_), "metric-count").findings
    assert f.points == pytest.approx(said_.accuracy - o.accuracy)


def test_metric_count_knows_the_mean_of_batch_means() -> None:
    o = made(67, 5, 0.6, seed=3)
    right = o.right.copy()
    right[-3:] = True
    labels = np.where(right, o.predictions, (o.predictions + 1) % 5)
    o = doctor.Outputs.of_logits(o.ids, labels, o.scores, o.classes)
    means = [right[:32].mean(), right[32:64].mean(), right[64:].mean()]
    logged = float(np.mean(means))
    r = said(of(o, logged=logged), "metric-count")
    assert r.estimate is not None
    assert "batches of 32" in r.says
    assert r.estimate.points == pytest.approx(logged - o.accuracy)
    assert said(of(o, logged=0.99), "metric-count").outcome == "clear"
    assert said(of(o, logged=o.accuracy), "metric-count").outcome == "clear"


@pytest.mark.parametrize("seed", range(3))
def test_labelling_rules_are_found_with_their_share(seed: int) -> None:
    train, val = made(1500, 4, 0.92, seed), made(600, 4, 0.9, seed + 50)
    rng = np.random.default_rng(seed)
    labels = val.labels.copy()
    moved = np.flatnonzero((labels == 1) & (rng.random(600) < 0.4))
    labels[moved] = 0  # what training calls b, validation calls a
    other = doctor.Outputs.of_logits(val.ids, labels, val.scores, val.classes)
    (f,) = examined(of(other, train), *FREE).findings
    assert (f.id, f.evidence["named"], f.evidence["said"]) == ("L3", "a", "b")
    assert f.low <= len(moved) / 600 <= f.high
    both = labels.copy()
    assert not examined(of(val, train), *FREE).findings
    assert (both != val.labels).sum() == len(moved)


def test_weights_that_follow_validation_leave_the_other_rule_to_the_last_ones() -> None:
    """Chosen on validation, they call most of "a" by the name of "b" in training too."""
    rng = np.random.default_rng(0)
    rule = rng.integers(0, 4, 1000)  # training's
    labels = rule.copy()
    labels[600:][(rule[600:] == 0) & (rng.random(400) < 0.6)] = 1
    pixels = rng.integers(0, 256, (1000, 3, 3), dtype=np.uint8)
    pixels[:, 0, 0] = rule  # what these models look at
    data = gl.data.arrays(pixels[:600], labels[:600], val_data=(pixels[600:], labels[600:]))

    def scores(x: np.ndarray, follow: bool) -> np.ndarray:
        shown = x[:, 0, 0, 0].astype(int)
        z = 6.0 * np.eye(4, dtype=np.float32)[np.where(follow & (shown == 0), 1, shown)]
        return z + 0.1 * rng.standard_normal(z.shape).astype(np.float32)

    def subject(name: str, follow: bool) -> FunctionSubject:
        return FunctionSubject(
            lambda x: scores(x, follow),
            lambda image: image.transpose(2, 0, 1).astype(np.float32),
            data.classes,
            name,
        )

    def case(**others: FunctionSubject) -> Case:
        return Case(budget=Budget(60), data=data, subject=subject("best", True), others=others)

    assert said(case(), "labelling-rules").outcome == "clear"
    d = examined(case(last=subject("last", False)), "labelling-rules", "label-shift")
    (f,) = d.findings
    assert (f.id, f.evidence["named"], f.evidence["said"]) == ("L3", "1", "0")
    assert f.evidence["weights"] == "last"
    assert "chosen on validation" in f.says
    assert f.low <= np.mean(labels[600:] != rule[600:]) <= f.high
    assert {c.id: c.caused_by for c in d.checks} == {"L3": None, "S2": "L3"}  # proportions differ by it


def test_a_class_of_which_training_has_a_few_is_not_labelled_otherwise() -> None:
    val = made(600, 4, 0.95, 1)
    scores = val.scores.copy()
    a = np.flatnonzero((val.labels == 0) & val.right)
    rows = a[: len(a) // 2]  # half of a are called b
    scores[rows[:, None], [[0, 1]]] = scores[rows[:, None], [[1, 0]]]
    other = doctor.Outputs.of_logits(val.ids, val.labels, scores, val.classes)
    assert said(of(other, made(60, 4, 1.0)), "labelling-rules").outcome == "clear"
    assert said(of(other, made(200, 4, 1.0)), "labelling-rules").outcome == "found"


def test_over_fitting_shows_in_losses_before_it_does_in_counts() -> None:
    train, val = made(30, 4, 1.0), made(450, 4, 0.88, 1)
    by_heart = doctor.Outputs.of_logits(train.ids, train.labels, 20 * train.scores, train.classes)
    alike = said(of(val, made(30, 4, 1.0)), "over-fitting").estimate
    sure = said(of(val, by_heart), "over-fitting").estimate
    assert alike is not None
    assert sure is not None
    assert sure.p < 0.001 < alike.p
    assert (alike.low, alike.high) == (sure.low, sure.high)  # its size is a matter of counts
    counted = doctor.Outputs(val.ids, val.labels, val.predictions, None, "none", val.classes)
    assert said(of(counted, by_heart), "over-fitting").estimate.p > 0.01  # type: ignore[union-attr]


@pytest.mark.parametrize("slug", FREE)
def test_boundary_outputs(slug: str) -> None:
    one = doctor.Outputs(["a"], np.zeros(1, np.int64), np.zeros(1, np.int64), None, "none", ("x",))
    few = made(5, 5)
    same = doctor.Outputs.of_logits(list("abcd"), np.zeros(4, np.int64), np.zeros((4, 3)), list("xyz"))
    for o in (one, few, same):
        for train in (None, o):
            d = examined(of(o, train, logged=0.9), slug)
            assert not d.findings or slug in ("class-order",)
            assert "a defect" not in d.checks[0].result.says


# -- with images --------------------------------------------------------------------------------


def coloured(seed: int, n: int = 480, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Digits 0..5 drawn large in a tint of their class: (n, side, side, 3) uint8 and labels."""
    from sklearn.datasets import load_digits

    d = load_digits()
    rng = np.random.default_rng(seed)
    at = rng.permutation(np.flatnonzero(d.target < 6))[:n]
    tint = np.array(
        [(1, 0.3, 0.3), (0.3, 0.3, 1), (0.5, 1, 0.3), (1, 0.7, 0.2), (0.2, 0.7, 1), (0.7, 0.7, 0.7)]
    )
    y = d.target[at]
    grey = np.kron(d.images[at] / 16, np.ones((1, side // 8, side // 8)))[..., None]
    image = 40 + 170 * grey * tint[y][:, None, None, :] + rng.normal(0, 22, (n, side, side, 3))
    return np.clip(image, 0, 255).astype(np.uint8), y


NAMES = ("ant", "bee", "cow", "dog", "eel", "fox")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def normalised(image: np.ndarray) -> np.ndarray:
    return ((image / 255 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coloured")
    for split, seed, n in (("train", 0, 500), ("val", 1, 400)):
        images, labels = coloured(seed, n)
        for k, (image, y) in enumerate(zip(images, labels, strict=True)):
            place = root / split / NAMES[y]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{split}{k:03d}.png")
    return root


@pytest.fixture(scope="module")
def linear() -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    images, labels = coloured(2, 700)
    x = np.stack([normalised(i) for i in images]).reshape(len(images), -1)
    fitted = LogisticRegression(C=0.003, max_iter=300).fit(x, labels)

    def f(x: np.ndarray) -> np.ndarray:
        return np.asarray(x.reshape(len(x), -1) @ fitted.coef_.T + fitted.intercept_)

    return f


def read(path: Any) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def g(path: Any) -> np.ndarray:
    return normalised(read(path))


def test_outputs_find_their_images(folder: Path) -> None:
    files = sorted((folder / "val").rglob("*.png"))
    labels = [NAMES.index(f.parent.name) for f in files]
    forms = [str(f.relative_to(folder)) for f in files[:100]] + [str(f) for f in files[100:200]]
    forms += [f.name for f in files[200:300]] + [f.stem for f in files[300:]]
    forms[7] = "val/ant/gone.png"
    train = sorted((folder / "train").rglob("*.png"))
    d = Case(budget=Budget(9))
    from gapless.doctor import opening

    d = opening.open_case(
        outputs={"id": forms, "target": labels, "prediction": labels},
        train_outputs={
            "id": [forms[0], *(f.name for f in train)],
            "target": [labels[0]] * 501,
            "prediction": [0] * 501,
        },
        images=folder,
        classes=NAMES,
        budget=Budget(60),
    )
    assert d.data is not None
    assert {k: len(v) for k, v in d.data.splits.items()} == {"train": 501, "val": 399}
    assert {"images", "splits", "outputs", "train outputs"} <= d.facts
    assert any("1 of 400 ids of val name no file" in n and "val/ant/gone.png" in n for n in d.notes)
    assert {d.data.ids[i] for i in d.data.splits["train"]} == set(d.outputs("train").ids)
    assert d.outputs("train").ids[0] == f"train:{forms[0]}"  # it stands in validation too
    at = d.data.index_of(forms[250])
    np.testing.assert_array_equal(d.data.load(at), read(files[250]))
    with pytest.raises(DataError, match="not one of the 1 ids"):
        gl.diagnose(outputs={"id": ["q"], "target": [0], "prediction": [0]}, images=folder, verbose=0)


def found_images(root: Path, val: list[str], train: list[str]) -> dict[str, str]:
    """Which file each id was taken to name."""
    from gapless.doctor import outside

    def of(ids: list[str]) -> doctor.Outputs:
        zeros = np.zeros(len(ids), np.int64)
        return doctor.Outputs(ids, zeros, zeros, None, "none", ("a",))

    data, _, _ = outside.data_of_images(root, {"val": of(val), "train": of(train)})
    return {data.ids[i]: str(Path(data.path(i)).relative_to(root)) for i in range(len(data))}


def test_ids_of_another_machine_find_their_images(tmp_path: Path) -> None:
    for k, name in enumerate(("val/a/0", "val/b/0", "train/a/0", "train/b/0", "train/b/1")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(tmp_path / f"{name}.png")
    elsewhere = ["/data/x/val/a/0.png", "C:\\x\\val\\b\\0.png", "0.png"]
    assert found_images(tmp_path, elsewhere, ["/data/x/train/b/0.png", "1.png"]) == {
        "/data/x/val/a/0.png": "val/a/0.png",
        "C:\\x\\val\\b\\0.png": "val/b/0.png",
        "/data/x/train/b/0.png": "train/b/0.png",
        "1.png": "train/b/1.png",
    }
    # below validation's folder a training id names no file, though one has its name
    assert found_images(tmp_path / "val" / "a", ["val/a/0.png"], ["train/a/0.png"]) == {
        "val/a/0.png": "0.png"
    }
    assert found_images(tmp_path / "val", ["a/0.png"], ["train/a/0.png"]) == {"a/0.png": "a/0.png"}


def test_samples_that_were_not_scored_are_counted(folder: Path) -> None:
    files = sorted((folder / "val").rglob("*.png"))
    ids = [str(f.relative_to(folder)) for f in files]
    labels = np.array([NAMES.index(f.parent.name) for f in files])
    from gapless.doctor import outside

    data = outside.data_of_samples(None, [(str(f), f.parent.name) for f in files], NAMES)
    few = doctor.Outputs(
        [data.ids[i] for i in range(384)], data.labels[:384], data.labels[:384], None, "none", NAMES
    )
    (f,) = examined(of(few, data=data), "metric-count").findings
    assert f.points == pytest.approx(16 / 400)
    assert "16 of 400 listed samples were not scored" in f.says
    assert len(ids) == len(labels)


# -- with the model -----------------------------------------------------------------------------


def opened(f: Any, pre: Any, folder: Path, **more: Any) -> Case:
    from gapless.doctor import opening

    return opening.open_case(
        model=f, preprocess=pre, train=folder / "train", val=folder / "val", budget=Budget(90), **more
    )


def test_nothing_is_found_in_a_sound_model(folder: Path, linear: Any) -> None:
    for seed in range(2):
        d = examined(opened(linear, g, folder, seed=seed), *FREE, *MODEL)
        assert not d.findings, [(f.id, f.says) for f in d.findings]
        assert [c.result.outcome for c in d.checks if c.slug in MODEL] == ["clear"] * 4


def test_steps_are_identified(folder: Path, linear: Any) -> None:
    def odd(path: Any) -> np.ndarray:
        small = Image.open(path).convert("RGB").resize((10, 10), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(small, np.float32)[..., ::-1].transpose(2, 0, 1) / 127.5 - 1)

    steps = preparing.identify(opened(lambda x: np.zeros((len(x), 6)), odd, folder))
    assert steps is not None
    assert steps.order == (2, 1, 0)
    assert str(steps.geometry) == "bicubic resize to 10×10"
    assert preparing._family(steps) == "pixels from -1 to 1"
    case = opened(lambda x: np.zeros((len(x), 6)), odd, folder)
    assert case.data is not None
    np.testing.assert_allclose(steps(case.data, [5]), [odd(case.data.file(5))], atol=1e-4)
    again = preparing.identify(opened(lambda x: np.zeros((len(x), 6)), lambda p: np.sin(odd(p) * 9), folder))
    assert again is None


@pytest.mark.parametrize(("by_kernel", "kind"), [(0.92, "resize kernel"), (0.70, "crop")])
def test_a_crop_is_not_wanted_where_a_kernel_does_as_well(
    by_kernel: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many things show objects at another size; the simpler cause of one loss stands."""
    share = {"crop": 0.95, "resize kernel": by_kernel, "scale": 0.2}

    def named(kind: str) -> Any:
        return lambda data, indices: kind

    def scored(case: Case, indices: Any, prepare: Any) -> np.ndarray:
        return np.asarray(indices) % 100 < 100 * share[prepare(None, None)]

    monkeypatch.setattr(preparing, "scored", scored)
    changes = [preparing.Change(k, k, "", named(k)) for k in ("crop", "scale", "resize kernel")]
    half = np.arange(400)
    now = half % 100 < 50
    change, right = preparing._best(of(made()), half, changes, now, preparing.Search())
    assert change is not None
    assert right is not None
    assert (change.kind, right.mean()) == (kind, share[kind])


def test_preprocessing_is_tested_on_all_samples_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out half alone has too few samples for 8 points among all the checks."""
    before = np.arange(450) % 100 < 84
    after = before | (np.arange(450) % 100 >= 92)
    monkeypatch.setattr(preprocessing, "scored", lambda case, at, how: before if how is None else after)
    change = preparing.Change("crop", "a", "b", lambda data, indices: np.zeros(0, np.float32))
    tried = {str(k): 0.5 for k in range(20)}
    data = gl.data.arrays(
        np.random.default_rng(0).integers(0, 256, (450, 4, 4), np.uint8), [0, 1] * 225, split={"val": 1.0}
    )
    case = Case(budget=Budget(60), data=data)
    once = preparing.Search([change], change.prepare, 0.8, 0.9, 4e-3, 225, tried)
    measured = preprocessing._measured(case, once)
    e = preprocessing._size(once, measured)
    whole = stats.paired(before, after)
    assert (e.points, e.low, e.high) == (whole.points, whole.low, whole.high)
    assert e.p == pytest.approx(2 * 20 * whole.p)
    twice = preparing.Search([change] * 2, change.prepare, 0.8, 0.9, 4e-3, 225, tried)
    assert preprocessing._size(twice, measured).p == pytest.approx(min(8e-3, 800 * whole.p))


@pytest.mark.parametrize(
    ("image", "fed", "wanted", "only"),
    [
        ((20, 20), ("squash", 13, 0), (20, 13), True),  # the middle of the picture as it was: 42 % of it
        ((20, 20), ("squash", 13, 0), (15, 13), False),  # a usual crop: 75 % of it
        ((20, 40), ("squash", 13, 0), (20, 13), False),  # a wide picture: proportions change too
        ((20, 40), ("crop", 13, 13), (20, 13), True),
        ((20, 20), ("crop", 13, 20), (15, 13), False),  # smaller than what is fed
    ],
)
def test_a_crop_of_half_the_picture_only_makes_things_larger(
    image: tuple[int, int], fed: tuple[str, int, int], wanted: tuple[int, int], only: bool
) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (40, *image), np.uint8)
    case = Case(budget=Budget(60), data=gl.data.arrays(pictures, [0, 1] * 20, split={"val": 1.0}))
    now = preparing.Steps(preparing.Geometry(fed[1], fed[1], fed[0], fed[2]), (0,), (1.0,), (0.0,))
    then = replace(now, geometry=preparing.Geometry(wanted[1], wanted[1], "crop", wanted[0]))
    case.keep("steps", lambda: now)
    change = preparing.Change("crop", str(then.geometry), str(now.geometry), then, then)
    assert preprocessing._only_larger(case, preparing.Search([change], then)) is only
    kernel = preparing.Change("resize kernel", "a", "b", then, then)
    assert not preprocessing._only_larger(case, preparing.Search([kernel], then))


WRONG: dict[str, tuple[Callable[[Any], np.ndarray], str]] = {
    "bgr": (lambda p: normalised(read(p)[..., ::-1]), "channel order: RGB"),
    "no 255": (lambda p: normalised(read(p) * 255.0), "ImageNet's mean and standard deviation"),
    "twice 255": (lambda p: normalised(read(p) / 255.0), "ImageNet's mean and standard deviation"),
    "transposed": (lambda p: g(p).transpose(0, 2, 1), "rows and columns exchanged"),
    "layout": (lambda p: normalised(read(p)).transpose(1, 2, 0).reshape(3, 16, 16), "channels last"),
}


@pytest.mark.parametrize("name", WRONG)
def test_preprocessing_is_first_with_its_size(name: str, folder: Path, linear: Any) -> None:
    wrong, wants = WRONG[name]
    d = examined(opened(linear, wrong, folder, logged=0.97), *FREE, *MODEL)
    assert d.findings, [(c.id, c.result.says) for c in d.checks]
    f = d.findings[0]
    assert f.id == "P1", [(f.id, f.says) for f in d.findings]
    assert wants in f.says
    truth = (
        opened(linear, g, folder).outputs("val").accuracy
        - opened(linear, wrong, folder).outputs("val").accuracy
    )
    assert f.low <= truth <= f.high


def test_orientation_of_exif_is_tried(tmp_path: Path, linear: Any) -> None:
    images, labels = coloured(3, 300)
    for k, (image, y) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / NAMES[y]).mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = Image.fromarray(np.rot90(image, 1).copy())
        stored.save(tmp_path / NAMES[y] / f"{k}.jpg", quality=95, subsampling=0, exif=exif)
    case = Case(budget=Budget(60))
    from gapless.doctor import opening

    case = opening.open_case(model=linear, preprocess=g, val=tmp_path, classes=NAMES, budget=Budget(60))
    d = examined(case, *FREE, *MODEL)
    assert d.findings[0].id == "P1"
    assert "as their EXIF says" in d.findings[0].says


def test_weights_not_loaded_is_told_by_elimination(folder: Path) -> None:
    for seed in range(2):
        w = np.random.default_rng(seed).normal(0, 1, (768, 6))
        case = opened(lambda x, w=w: x.reshape(len(x), -1) @ w, g, folder, logged=0.96)
        d = examined(case, *FREE, *MODEL)
        assert [f.id for f in d.findings][:1] == ["W1"], [(c.id, c.result.says) for c in d.checks]


def test_training_mode_is_found_with_its_cost(folder: Path, linear: Any) -> None:
    rng = np.random.default_rng(0)

    def dropping(x: np.ndarray) -> np.ndarray:
        return linear(x * (rng.random(x.shape) < 0.5) * 2 + rng.normal(0, 6.0, x.shape))

    def by_batch(x: np.ndarray) -> np.ndarray:
        if len(x) == 1:
            raise ValueError("Expected more than 1 value per channel when training")
        return linear(x - x.mean(axis=(0, 2, 3), keepdims=True))

    def centred(x: np.ndarray) -> np.ndarray:
        everything = np.stack([g(p) for p in sorted((folder / "val").rglob("*.png"))])
        return linear(x - everything.mean(axis=(0, 2, 3), keepdims=True))

    for f, sound in ((dropping, linear), (by_batch, centred)):
        d = examined(opened(f, g, folder, logged=0.97), *FREE, *MODEL)
        assert d.findings, [(c.id, c.result.says) for c in d.checks]
        assert d.findings[0].id == "D1", [(f.id, f.says) for f in d.findings]
        assert "training mode" in d.findings[0].says
        truth = (
            opened(sound, g, folder).outputs("val").accuracy - opened(f, g, folder).outputs("val").accuracy
        )
        assert d.findings[0].low - 0.02 <= truth <= d.findings[0].high + 0.02
    assert "a single image is refused" in d.findings[0].says


def test_random_preprocessing_is_named(folder: Path, linear: Any) -> None:
    rng = np.random.default_rng(0)

    def shifted(path: Any) -> np.ndarray:
        return np.roll(g(path), tuple(rng.integers(-5, 6, 2)), axis=(1, 2))

    d = examined(opened(linear, shifted, folder), "determinism")
    assert "preprocessing draws at random" in d.checks[0].result.says


def test_what_was_prepared_is_kept_and_the_same(folder: Path, linear: Any) -> None:
    calls = []

    def counting(path: Any) -> np.ndarray:
        calls.append(path)
        return g(path)

    case = opened(linear, counting, folder)
    assert case.data is not None
    assert case.subject is not None
    calls.clear()
    for few in ([3, 700, 5], [5, 3, 8, 700], [9], [8, 8, 3]):
        got = case.subject.prepared(case.data, few)
        np.testing.assert_array_equal(got, np.stack([g(case.data.file(i)) for i in few]))
    assert len(calls) == 5 - sum(i < 16 for i in (3, 5, 8, 9))  # 16 were prepared to measure the time


def test_input_statistics_of_a_darker_validation(linear: Any) -> None:
    images, labels = coloured(0, 500)
    others, truth = coloured(1, 400)
    dark = np.clip(others * 0.35, 0, 255).astype(np.uint8)

    def case(val: np.ndarray) -> Case:
        names = np.array(NAMES)
        data = gl.data.arrays(images, names[labels], val_data=(val, names[truth]), classes=NAMES)
        return Case(budget=Budget(60), data=data, subject=FunctionSubject(linear, normalised, NAMES))

    (f,) = examined(case(dark), "input-statistics").findings
    back = case(others).outputs("val").accuracy - case(dark).outputs("val").accuracy
    assert f.points <= back + 0.03
    assert f.points > 0.3 * back
    assert not examined(case(others), "input-statistics").findings


def waves(rng: np.random.Generator, n: int, side: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Stripes whose pitch is the class: a network that has learned their size."""
    labels = rng.integers(0, 4, n)
    x = np.arange(side)
    pitch = np.array([4.0, 5.2, 6.8, 8.8])[labels] * scale * rng.uniform(0.95, 1.05, n)
    wave = np.sin(2 * np.pi * (x / pitch[:, None] + rng.random((n, 1))))
    image = 128 + 90 * wave[:, None, :, None] + rng.normal(0, 25, (n, side, side, 1))
    return np.clip(image, 0, 255).astype(np.uint8), labels


def by_pitch(x: np.ndarray) -> np.ndarray:
    line = x.mean(axis=(1, 2))
    n = line.shape[1]
    places = np.arange(n)
    power = [
        np.abs((line - line.mean(axis=1, keepdims=True)) @ np.exp(2j * np.pi * places / p)) / n
        for p in (4.0, 5.2, 6.8, 8.8)
    ]
    return 30 * np.stack(power, axis=1)


def test_resolution_is_found_where_objects_are_small() -> None:
    rng = np.random.default_rng(0)

    def case(scale: float) -> Case:
        images, labels = waves(rng, 400, 48, scale)
        data = gl.data.arrays(images, labels, split={"val": 1.0})
        pre = lambda image: np.asarray(image, np.float32).transpose(2, 0, 1) / 255
        return Case(budget=Budget(60), data=data, subject=FunctionSubject(by_pitch, pre, list("0123")))

    small = case(1 / 1.3)
    (f,) = examined(small, "resolution").findings
    assert f.evidence["factor"] == 1.3
    truth = case(1.0).outputs("val").accuracy - small.outputs("val").accuracy
    assert f.low - 0.05 <= truth <= f.high + 0.05
    assert said(case(1.0), "resolution").outcome == "clear"


def test_enlarging_agrees_with_pillow() -> None:
    from gapless.doctor.checks.resolution import enlarged

    x = np.random.default_rng(0).random((1, 1, 12, 10)).astype(np.float32)
    want = np.asarray(Image.fromarray(x[0, 0], mode="F").resize((15, 18), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(enlarged(x, 1.5)[0, 0], want, atol=1e-5)


def raising(error: Exception, at: int, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, but that its call of that number raises."""
    calls = 0

    def called(given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return function(given)

    return called


def test_a_model_that_raises_once_is_told_as_the_callers(folder: Path, linear: Any) -> None:
    case = opened(linear, g, folder)
    assert isinstance(case.subject, FunctionSubject)
    assert len(case.outputs("train")) > len(case.outputs("val"))  # both are scored before it fails
    case.subject.function = raising(RuntimeError("out of memory"), 1, linear)
    r = said(case, "determinism")
    assert r.outcome == "undecided"
    assert "model: for an input of (" in r.says
    assert "raised RuntimeError: out of memory" in r.says
    assert "a defect" not in r.says


def test_functions_are_answered_where_they_do_not_fit(folder: Path, linear: Any) -> None:
    with pytest.raises(ShapeError, match="expected logits"):
        gl.diagnose(model=lambda x: np.zeros((len(x), 3)), preprocess=g, val=folder / "val", verbose=0)
    with pytest.raises(ShapeError, match=r"expected an array \(C, H, W\)"):
        gl.diagnose(model=linear, preprocess=lambda p: g(p)[0], val=folder / "val", verbose=0)
    with pytest.raises(DataError, match="not finite"):
        gl.diagnose(model=linear, preprocess=lambda p: g(p) * np.inf, val=folder / "val", verbose=0)
    with pytest.raises(DataError, match=r"val\[0\]: expected \(path, class\)"):
        gl.diagnose(model=linear, preprocess=g, val=["x.png"], verbose=0)
    with pytest.raises(ShapeError, match=r"looks like \(H, W, C\)"):
        gl.diagnose(model=linear, preprocess=lambda p: g(p).transpose(1, 2, 0), val=folder / "val", verbose=0)
    with pytest.raises(
        ShapeError, match=r"model: for an input of .*, expected an array of numbers, got dict"
    ):
        gl.diagnose(model=lambda x: {"logits": x}, preprocess=g, val=folder / "val", verbose=0)
    with pytest.raises(DataError, match=r"preprocess: .*\.png: raised OSError: truncated"):
        gl.diagnose(
            model=linear, preprocess=raising(OSError("truncated"), 9, g), val=folder / "val", verbose=0
        )
    with pytest.raises(DataError, match="expected a list of class names"):
        gl.diagnose(model=linear, preprocess=g, val=folder / "val", classes=set(NAMES), verbose=0)
    with pytest.raises(DataError, match="not among them"):
        gl.diagnose(model=linear, preprocess=g, val=folder / "val", classes=NAMES[:5], verbose=0)


def test_several_models_are_kept_by_name(folder: Path, linear: Any) -> None:
    case = opened({"ema": linear, "raw": lambda x: -linear(x)}, g, folder)
    assert case.subject is not None
    assert case.subject.name == "ema"
    assert list(case.others) == ["raw"]
    few = case.sample("val", 40)
    assert case.outputs_of(case.others["raw"], few).accuracy < case.outputs_of(case.subject, few).accuracy


def spoilt(f: Any, share: float) -> Any:
    """The same model, wrong on that share of images: on which depends on the pixels alone."""

    def other(x: np.ndarray) -> np.ndarray:
        y = f(x).copy()
        bad = (np.abs(x).sum(axis=(1, 2, 3)) * 997) % 1 < share
        y[bad] = -y[bad]
        return y

    return other


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("ema", "raw", {"ema-lag"}),
        ("swa", "last 2", {"ema-lag"}),
        ("mine", "theirs", {"which-weights"}),
        ("deployed", "softer", {"augmentation-strength"}),
        ("deployed", "softer_1", {"augmentation-strength"}),
    ],
)
def test_models_by_name_are_compared(
    first: str, second: str, found: set[str], folder: Path, linear: Any
) -> None:
    slugs = ("which-weights", "ema-lag", "augmentation-strength")
    for models, expected in (
        ({first: spoilt(linear, 0.3), second: linear}, found),
        ({first: linear, second: spoilt(linear, 0.3)}, set()),  # the better one is deployed
        ({first: linear, second: linear}, set()),
    ):
        case = opened(models, g, folder)
        d = examined(case, *slugs)
        assert {f.slug for f in d.findings} == expected, [(f.slug, f.says) for f in d.findings]
        for f in d.findings:
            val = case.sample("val", 400)
            better, mine = case.outputs_of(case.others[second], val), case.outputs("val")
            assert f.points == pytest.approx(better.accuracy - mine.accuracy)
            assert f.low <= f.points <= f.high
    one = examined(opened(linear, g, folder), *slugs).checks
    assert [c.result.outcome for c in one] == ["left out"] * 3


def test_softer_trainings_of_several_seeds_have_an_interval_of_their_own(folder: Path, linear: Any) -> None:
    models = {"deployed": spoilt(linear, 0.4), "softer 1": linear, "softer 2": spoilt(linear, 0.1)}
    result = said(opened(models, g, folder), "augmentation-strength")
    (one,) = examined(opened({k: models[k] for k in ("deployed", "softer 1")}, g, folder), "A1").findings
    assert result.estimate is not None
    assert result.estimate.high - result.estimate.low > one.high - one.low
    assert "one training each" in one.says


def test_samples_come_from_many_places(folder: Path, linear: Any, tmp_path: Path) -> None:
    from gapless.doctor import outside

    pairs = [(str(p), p.parent.name) for p in sorted((folder / "val").rglob("*.png"))]
    lines = "".join(f"{p} {c}\n" for p, c in pairs)
    (tmp_path / "val.txt").write_text(lines)
    whole = gl.data.folder(folder)
    sources: list[Any] = [folder / "val", pairs, tmp_path / "val.txt", whole, folder]
    sources.append([(p, NAMES.index(c)) for p, c in pairs])
    for source in sources:
        data = outside.data_of_samples(None, source, NAMES)
        assert len(data.indices("val")) == 400
        assert data.classes == NAMES
    both = outside.data_of_samples(folder, folder, None)
    assert {k: len(v) for k, v in both.splits.items()} == {"train": 500, "val": 400}
    memory = outside.data_of_samples(None, gl.data.digits(), None)
    assert memory.in_memory
    assert memory.classes == tuple("0123456789")


def test_a_slow_model_is_asked_for_fewer_samples(folder: Path, linear: Any) -> None:
    import time

    from gapless.doctor import opening

    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.002 * len(x))
        return linear(x)

    case = opening.open_case(
        model=slow, preprocess=g, train=folder / "train", val=folder / "val", budget=Budget(3)
    )
    assert case.data is not None
    assert len(case.data.splits["val"]) < 400
    assert any("samples are used, chosen at random" in n for n in case.notes)


# -- a run of gapless ---------------------------------------------------------------------------


def test_checks_of_the_model_on_a_run_of_gapless(run: gl.Run) -> None:
    from gapless.doctor import opening

    case = opening.open_run(run, None, budget=Budget(60))
    d = examined(case, "untrained", *MODEL)
    assert not d.findings, [(f.id, f.says) for f in d.findings]
    assert "by their digest" in d.checks[-1].result.says or "digest" in str([c.result.says for c in d.checks])
    net, pipeline = case.subject, None
    assert isinstance(net, NetSubject)
    config = net.pipeline.config()
    pipeline = gl.data.Pipeline([op for op in config if op["name"] != "Normalize"], evaluation=True)
    wrong = Case(budget=Budget(60), data=case.data, subject=NetSubject(net.net, pipeline, net.classes))
    before, after = wrong.outputs("val").accuracy, case.outputs("val").accuracy
    if after - before > 0.05:
        f = examined(wrong, "preprocessing", "untrained").findings[0]
        assert f.id == "P1"
        assert f.low <= after - before <= f.high


# -- compare ------------------------------------------------------------------------------------


def test_compare_is_paired_where_ids_are_shared() -> None:
    a, b = made(400, 5, 0.8, seed=1), made(400, 5, 0.8, seed=1)
    assert b.scores is not None
    better = b.scores.copy()
    wrong = np.flatnonzero(~b.right)[:30]
    better[wrong, b.labels[wrong]] += 99
    order = np.random.default_rng(0).permutation(400)
    c = gl.compare(
        a, doctor.Outputs.of_logits([b.ids[i] for i in order], b.labels[order], better[order], b.classes, "b")
    )
    assert (c.common, c.gained, c.lost, c.test) == (400, 30, 0, "paired")
    assert c.estimate.points == pytest.approx(30 / 400)
    assert c.estimate.p < 1e-6
    assert set(c.changed) == {a.ids[i] for i in wrong}
    assert json.loads(json.dumps(c.to_dict(), allow_nan=False))["gained"] == 30
    assert "+7.50 points" in repr(c)
    assert "<table>" in c._repr_html_()
    assert "no sample differs" in gl.compare(a, a).line


def test_compare_of_different_samples_is_two_proportions() -> None:
    a = made(300, 5, 0.9, seed=1)
    b = doctor.Outputs.of_logits(
        [f"x{i}" for i in range(300)], a.labels, made(300, 5, 0.9, seed=2).scores, a.classes
    )
    c = gl.compare(a, b)
    assert (c.common, c.test) == (0, "two proportions")
    assert c.estimate.p < 1e-6  # scores of other samples
    other = doctor.Outputs.of_logits(["q"], [0], [[1.0, 0.0]], ["p", "q"])
    with pytest.raises(DataError, match="nothing to compare"):
        gl.compare(a, other)


def test_compare_of_runs_records_and_files(run: gl.Run, tmp_path: Path) -> None:
    one, recipe = run, gl.Recipe(data="digits", model="lenet", epochs=1)
    two = gl.train(recipe, out=tmp_path / "b", verbose=0)
    c = gl.compare(run.out, two)
    assert c.names == ("a/best.safetensors", "b/best.safetensors")
    assert "digests.weights" in c.differs
    assert "digests.data" not in c.differs
    (tmp_path / "a.json").write_text(json.dumps(one.record.to_dict()))
    stored = gl.compare(tmp_path / "a.json", two.record)
    assert stored.test == "two proportions"
    assert "digests.weights" in stored.differs
    table_ = gl.compare(run.out / "predictions_val.csv", gl.evaluate(one.best))
    assert table_.gained == table_.lost == 0
    assert table_.common == one.record.n_scored
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not a record"):
        gl.compare(tmp_path / "bad.json", one)
    with pytest.raises(RecipeError, match="expected a record"):
        gl.compare(3, one)
