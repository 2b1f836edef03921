"""Detectors without one of ours: YOLO's label files (Y2, Y3), and a table of losses by image (Y1)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gapless as gl
from gapless import cli
from gapless.doctor import detector_losses, table, yolo
from gapless.doctor.case import Budget, Case
from gapless.doctor.checks import anchors_and_boxes, object_shift, objectness_scale
from gapless.doctor.stats import Z95
from gapless.errors import DataError, RecipeError

NAMES = ["cat", "dog", "bird"]


class Set:
    """A data set on disk, drawn: `images` and `labels` as trainers lay them out."""

    def __init__(self, root: Path, names: Any = None) -> None:
        self.root, self.names = root, NAMES if names is None else names
        self.file = root / "data.yaml"

    def add(self, split: str, name: str, label: str | bytes | None, size: tuple[int, int] = (64, 48)) -> None:
        image = self.root / "images" / split / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, 90).save(image)
        text = self.root / "labels" / split / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        if label is not None:
            text.write_bytes(label.encode() if isinstance(label, str) else label)

    def fill(self, split: str, n: int, rng: np.random.Generator, **how: Any) -> None:
        for k in range(n):
            self.add(split, f"{k:03d}", lines(rng, **how))

    def describe(self, **more: Any) -> Path:
        keys = {
            "path": str(self.root),
            "train": "images/train",
            "val": "images/val",
            "names": self.names,
            **more,
        }
        self.file.write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in keys.items() if v is not None))
        return self.file

    def read(self, **more: Any) -> yolo.YoloLabels:
        return yolo.read(self.describe(**more))


def lines(
    rng: np.random.Generator, most: int = 4, shares: Any = None, low: float = 0.05, high: float = 0.4
) -> str:
    """Label lines of one image: boxes inside it."""
    out = []
    for _ in range(int(rng.integers(1, most + 1))):
        w, h = rng.uniform(low, high, 2)
        cx, cy = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        out.append(f"{rng.choice(3, p=shares)} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}")
    return "\n".join(out) + "\n"


@pytest.fixture
def made(tmp_path: Path) -> Set:
    found = Set(tmp_path / "set")
    rng = np.random.default_rng(0)
    found.fill("train", 20, rng)
    found.fill("val", 10, rng)
    return found


def problems(labels: yolo.YoloLabels) -> dict[tuple[str, str], int]:
    return {(p.kind, p.split): p.count for p in labels.problems}


def outcome(labels: yolo.YoloLabels, id: str, seed: int = 0) -> Any:
    found = yolo.check(labels, seed=seed)
    return next(c for c in found.checks if c.id == id)


# -- reading --------------------------------------------------------------------------------------


def test_a_sound_set_is_read_without_errors(made: Set) -> None:
    labels = made.read()
    assert labels.problems == []
    assert labels.names == tuple(NAMES)
    written = [(made.root / "labels" / s).glob("*.txt") for s in ("train", "val")]
    for split, files in zip(labels.splits.values(), written, strict=True):
        rows = np.array(
            [list(map(float, r.split())) for f in sorted(files) for r in f.read_text().splitlines()]
        )
        assert split.lines == len(rows) == len(split.boxes)
        np.testing.assert_array_equal(split.boxes, rows[:, 1:])
        np.testing.assert_array_equal(split.classes, rows[:, 0])
        np.testing.assert_allclose(split.pixels(640), rows[:, 3:] * (640, 480))
    assert labels.splits["train"].ids[0] == "images/train/000.png"


LINES = {
    "columns": ["0 0.5 0.5 0.1", "0 0.5 0.5 0.1 0.1 0.9", "0", "0 .1 .1 .2 .2 .3 .3 .4"],
    "not a number": ["cat 0.5 0.5 0.1 0.1", "0 0,5 0.5 0.1 0.1", "0 0.5 0.5 0.1 0x1"],
    "not finite": ["0 nan 0.5 0.1 0.1", "0 0.5 inf 0.1 0.1", "nan 0.5 0.5 0.1 0.1", "0 0.5 1e999 .1 .1"],
    "class id": ["3 0.5 0.5 0.1 0.1", "-1 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "1e30 0.5 0.5 0.1 0.1"],
    "value outside 0..1": [
        "0 32 24 10 10",
        "0 -0.1 0.5 0.1 0.1",
        "0 0.5 0.5 1.2 0.1",
        "0 .1 .1 .2 .2 .3 1.3",
    ],
    "outside the image": ["0 0.95 0.5 0.4 0.1", "0 0.5 0.05 0.1 0.4"],
    "zero area": ["0 0.5 0.5 0 0.1", "0 0.5 0.5 0.1 -0.1", "0 .1 .1 .2 .1 .3 .1"],
    "duplicate": ["0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1", "1 0.2 0.2 0.1 0.1\n\n1 0.20 0.2 0.1 0.1"],
}


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, texts in LINES.items() for t in texts])
def test_each_error_of_a_line_is_counted_under_its_name(made: Set, kind: str, text: str) -> None:
    made.add("train", "bad", f"1 0.3 0.3 0.2 0.2\n{text}\n")
    labels = made.read()
    assert problems(labels) == {(kind, "train"): 1}
    (p,) = labels.problems
    assert p.examples[0].startswith("labels/train/bad.txt:")
    kept = labels.splits["train"].lines - len(labels.splits["train"].boxes)
    assert kept == (0 if kind == "outside the image" else 1)


def test_edges_within_a_pixel_are_rounding_and_no_error(made: Set) -> None:
    made.add("train", "edge", "0 0.5 0.5 1 1\n1 0.0999 0.5 0.2 0.1\n")
    assert made.read().problems == []


def test_polygons_become_their_boxes(made: Set) -> None:
    made.add("train", "zz", "2 0.1 0.2 0.5 0.2 0.5 0.8 0.3 0.9\n")
    split = made.read().splits["train"]
    np.testing.assert_allclose(split.boxes[-1], [0.3, 0.55, 0.4, 0.7])
    assert split.polygons == 1


def test_images_without_objects_are_backgrounds_not_errors(made: Set) -> None:
    made.add("train", "none", None)
    made.add("train", "empty", "")
    made.add("train", "blank", "\n \n")
    labels = made.read()
    assert labels.problems == []
    assert labels.splits["train"].backgrounds == 3


def test_files_that_do_not_fit_are_named(made: Set, tmp_path: Path) -> None:
    (made.root / "labels/train/nobody.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (made.root / "labels/train/classes.txt").write_text("cat\n")
    made.add("train", "bytes", b"\xff\xfe0 0.5")
    made.add("train", "folder", None)
    (made.root / "labels/train/folder.txt").mkdir()
    made.add("train", "broken", "0 0.5 0.5 0.1 0.1\n")
    (made.root / "images/train/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    (made.root / "images/train/zero.jpg").write_bytes(b"")
    os.mkfifo(made.root / "images/train/pipe.png")
    os.mkfifo(made.root / "labels/train/pipe.txt")
    got = problems(made.read())
    assert got == {
        ("label without image", "train"): 1,
        ("unreadable label", "train"): 3,
        ("unreadable image", "train"): 3,
    }


def test_an_image_in_two_splits_is_named(made: Set) -> None:
    labels = made.read(val=["images/val", "images/train"])
    assert problems(labels) == {("image in two splits", "val"): 20}


def test_exif_turned_images_count_upright(made: Set) -> None:
    made.add("train", "turned", None)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 20)).save(made.root / "images/train/turned.jpg", exif=exif)
    os.remove(made.root / "images/train/turned.png")
    split = made.read().splits["train"]
    assert split.sizes[split.ids.index("images/train/turned.jpg")].tolist() == [20, 80]


def test_lists_of_images_and_labels_beside_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("L", (10, 10)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "train.txt").write_text("./a.png\n\nb.png\ngone.png\na.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnc: 1\n")
    labels = yolo.read(tmp_path / "data.yaml")
    assert labels.splits["train"].ids == ["a.png", "b.png"]
    assert problems(labels) == {("missing image", "train"): 1}
    assert any("no val" in n for n in labels.notes)


def test_names_as_a_dict_and_paths_from_the_file_s_folder(made: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    made.file.write_text("train: images/train\nval: images/val\nnames:\n  1: dog\n  0: cat\n  2: bird\n")
    monkeypatch.chdir("/")
    assert yolo.read(made.file).names == tuple(NAMES)
    made.file.write_text("path: ..\ntrain: set/images/train\nnames: [cat, dog, bird]\n")
    assert len(yolo.read(made.file).splits["train"].ids) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys"),
        ("- a\n", "expected keys"),
        ("train: images/train\n", "names must list the classes"),
        ("train: images/train\nnames: []\n", "names must list the classes"),
        ("train: images/train\nnames: [a, a]\n", "'a' twice"),
        ("train: images/train\nnames: {0: a, 2: b}\n", "without gaps"),
        ("train: images/train\nnames: {zero: a}\n", "without gaps"),
        ("train: images/train\nnames: [a]\nnc: 2\n", "nc is 2, and there are 1 names"),
        ("train: images/train\nnames: [[a]]\n", "must be words"),
        ("train: images/train\nnc: 1000000000\n", "nc must be the number of classes"),
        ("val: images/val\nnames: [a]\n", "train is missing; there are val, names"),
        ("train: 3\nnames: [a]\n", "train must be a folder"),
        ("train: nowhere\nnames: [a]\n", "looked for"),
        ("train: images/train\nval: nowhere\nnames: [a]\n", "val: there is no"),
        ("train: labels\nnames: [a]\n", "no images"),
        ("path: [a]\ntrain: images\nnames: [a]\n", "path must be a folder"),
        ('train: "a\\0b"\nnames: [a]\n', "train must be a folder"),
        ("train: !!python/object:os.system x\n", "tags"),
        ("train: &a [*a]\n", "anchors"),
        ("train: [\n", "line"),
    ],
)
def test_a_data_yaml_that_cannot_be_used_is_refused(made: Set, text: str, message: str) -> None:
    made.file.write_text(text)
    with pytest.raises(DataError, match=message):
        yolo.read(made.file)


def test_huge_files_are_not_read(made: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    made.describe()
    monkeypatch.setattr(yolo, "_MOST_BYTES", 300)
    made.add("train", "big", "0 0.5 0.5 0.1 0.1\n" * 100)
    assert ("unreadable label", "train") in problems(yolo.read(made.file))
    made.file.write_text(made.file.read_text() + "#" * 400)
    with pytest.raises(DataError, match=r"too many for a data\.yaml"):
        yolo.read(made.file)


# -- Y2 -------------------------------------------------------------------------------------------


def test_anchor_ratio_is_the_trainers_rule() -> None:
    rng = np.random.default_rng(0)
    wh = rng.uniform(1, 640, (500, 2))
    k = np.array(yolo.ANCHORS, float)
    r = wh[:, None] / k[None]
    best = np.minimum(r, 1 / r).min(2).max(1)
    np.testing.assert_allclose(yolo.anchor_ratio(wh), 1 / best)
    assert yolo.best_possible_recall(wh) == np.mean(best > 1 / 4.0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.3])
def test_boxes_without_an_anchor_are_counted(tmp_path: Path, share: float) -> None:
    made, rng = Set(tmp_path), np.random.default_rng(1)
    n = 200
    for k in range(n):  # long thin boxes: 600 × 3 pixels at 640
        thin = "0 0.5 0.5 0.95 0.006\n" if k < share * n else "0 0.5 0.5 0.1 0.1\n"
        made.add("train", f"{k:03d}", thin)
    made.fill("val", 5, rng)
    labels = made.read()
    c = outcome(labels, "Y2")
    assert c.result.estimate.points == pytest.approx(share)
    assert c.result.evidence["best_possible_recall"] == pytest.approx(1 - share)
    assert c.result.outcome == ("found" if share >= 0.02 else "clear")
    if share >= 0.02:
        assert c.result.evidence["recall_with_them"] >= 0.98
        assert "images/train/000.png" in c.result.evidence["without_anchor_ids"]
        assert "anchors fitted" in c.result.remedy.text


def test_wrong_lines_are_a_finding_with_their_share(made: Set) -> None:
    for k in range(10):
        made.add("train", f"bad{k}", "9 0.5 0.5 0.1 0.1\n")
    labels = made.read()
    c = outcome(labels, "Y2")
    assert c.result.outcome == "found"
    assert c.result.estimate.points == pytest.approx(10 / labels.splits["train"].lines)
    assert "10 class id" in c.result.says


def test_fitted_anchors_of_few_boxes() -> None:
    assert anchors_and_boxes.fitted(np.array([[10.0, 20.0]])) == [[10, 20]]


# -- Y3 -------------------------------------------------------------------------------------------


def counts(rng: np.random.Generator, n: int, shares: Any) -> np.ndarray:
    """Boxes of one image are mostly of one kind."""
    kinds = rng.choice(len(shares), n, p=shares)
    out = np.zeros((n, len(shares)))
    out[np.arange(n), kinds] = rng.integers(1, 9, n)
    return out


def test_object_shift_is_silent_where_images_were_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_shift, "DRAWS", 199)
    false = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = counts(rng, 120, [0.6, 0.3, 0.1]), counts(rng, 60, [0.6, 0.3, 0.1])
        e, _ = object_shift.compare(a, b, NAMES, rng)
        false += e.p < 0.05
    assert false <= 5


def test_object_shift_holds_the_true_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_shift, "DRAWS", 199)
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = counts(rng, 300, [0.6, 0.3, 0.1]), counts(rng, 150, [0.3, 0.5, 0.2])
        e, moved = object_shift.compare(a, b, NAMES, rng)
        held += e.low <= 0.3 <= e.high
        assert e.p < 0.05
    assert held >= 36
    assert "cat" in moved[0]


def test_object_shift_of_files(tmp_path: Path) -> None:
    made, rng = Set(tmp_path), np.random.default_rng(2)
    made.fill("train", 60, rng, shares=[0.8, 0.1, 0.1])
    made.fill("val", 40, rng, shares=[0.1, 0.1, 0.8])
    c = outcome(made.read(), "Y3")
    assert c.result.outcome == "found"
    assert c.result.estimate.low <= 0.7 <= c.result.estimate.high
    assert "classes" in c.result.says
    small = Set(tmp_path / "sizes")
    small.fill("train", 60, rng, low=0.05, high=0.1)
    small.fill("val", 40, rng, low=0.3, high=0.6)
    assert outcome(small.read(), "Y3").result.says.startswith("sizes")


def test_without_val_or_objects_there_is_nothing_to_compare(tmp_path: Path) -> None:
    made = Set(tmp_path)
    made.add("train", "a", "0 0.5 0.5 0.1 0.1\n")
    assert outcome(made.read(val=None), "Y3").result.outcome == "left out"
    made.add("val", "b", None)
    assert outcome(made.read(), "Y3").result.outcome == "left out"
    none = Set(tmp_path / "none")
    none.add("train", "a", None)
    assert outcome(none.read(val=None), "Y2").result.outcome == "left out"


# -- Y1 -------------------------------------------------------------------------------------------

HEAD = ",".join(detector_losses.COLUMNS)


def losses(
    rng: np.random.Generator, pipeline: float = 1.0, images: float = 1.0, density: float = 1.0, n: int = 150
) -> str:
    """A table whose objectness loss is larger by these factors; `density` of positive cells."""
    rows = [HEAD]
    for side, factor in (("train", 1.0), ("val", images)):
        for k in range(n):
            own = rng.lognormal(0, 0.4)
            for pipe, times in (("train", 1.0), ("val", pipeline)):
                n_cells = 25200 if pipe == "train" else 20160
                share = 0.002 * own * (density if pipe == "val" else 1.0)
                obj = 0.01 * factor * times * own * rng.lognormal(0, 0.1)
                rows.append(
                    f"{side}{k},{side},{pipe},{rng.uniform(0.03, 0.05):.5f},{obj:.6f},0.01,"
                    f"{max(1, round(share * n_cells))},{n_cells}"
                )
    return "\n".join(rows) + "\n"


def diagnosed(text: str, seed: int = 0) -> Any:
    case = Case(budget=Budget(60), losses=detector_losses.parse(text), seed=seed)
    return objectness_scale.objectness_scale(case)


@pytest.mark.parametrize(("pipeline", "images"), [(2.0, 1.0), (2.0, 1.3), (0.6, 1.0)])
def test_objectness_scale_holds_the_true_factor(pipeline: float, images: float) -> None:
    held = 0
    for seed in range(8):
        r = diagnosed(losses(np.random.default_rng(seed), pipeline, images))
        assert r.outcome == "found"
        assert r.estimate is not None
        held += r.estimate.low <= pipeline - 1 <= r.estimate.high
        f = r.evidence["factors"]["obj"]
        assert f["pipeline"]["times"] * f["images"]["times"] == pytest.approx(f["whole"]["times"])
        assert (f["images"]["low"] <= images <= f["images"]["high"]) or seed
    assert held >= 7


def test_a_difference_of_the_images_is_not_the_pipelines() -> None:
    false = 0
    for seed in range(20):
        r = diagnosed(losses(np.random.default_rng(seed), 1.0, 2.0))
        assert r.outcome == "clear"
        false += r.estimate is not None and r.estimate.p < 0.05
    assert false <= 3


def test_case_40_loss_goes_with_the_share_of_positive_cells_and_per_positive_it_does_not() -> None:
    r = diagnosed(losses(np.random.default_rng(0), pipeline=2.0, density=2.0))
    f = r.evidence["factors"]
    assert f["positive_share"]["pipeline"]["times"] == pytest.approx(2.0, rel=0.02)
    assert f["obj_per_positive"]["pipeline"]["times"] == pytest.approx(1.0, rel=0.05)
    product = f["positive_share"]["whole"]["times"] * f["obj_per_positive"]["whole"]["times"]
    assert product == pytest.approx(f["obj"]["whole"]["times"])
    assert "scaled by positive fraction" in r.says
    assert "is the share of positive cells" in r.says


def test_two_cells_alone_cannot_tell_pipeline_from_images() -> None:
    rows = losses(np.random.default_rng(0), 2.0).splitlines()
    two = [r for r in rows if "train,train" in r or "val,val" in r]
    r = diagnosed("\n".join([HEAD, *two]))
    assert r.outcome == "undecided"
    assert "cannot be told apart" in r.says
    assert "per positive" in r.says
    one = [r for r in rows if "train,train" in r]
    assert diagnosed("\n".join([HEAD, *one])).outcome == "left out"


def test_odd_tables_have_answers() -> None:
    zero = "\n".join(
        f"{i}{s},{s},{p},0,0,0,0,100" for i in range(3) for s in ("train", "val") for p in ("train", "val")
    )
    assert diagnosed(f"{HEAD}\n{zero}").outcome == "undecided"
    single = "\n".join(f"{s},{s},{p},1,1,1,1,100" for s in ("train", "val") for p in ("train", "val"))
    assert diagnosed(f"{HEAD}\n{single}").outcome == "clear"
    no_box = "id,images,pipeline,obj,n_pos,n_cells\n" + "\n".join(
        f"{s}{i},{s},{p},{0.01 * (1 + i)},3,100"
        for i in range(5)
        for s in ("train", "val")
        for p in ("train", "val")
    )
    assert "box loss" not in diagnosed(no_box).says


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'id'"),
        ("a,b\n1,2\n", "no column 'id'"),
        (HEAD.replace("obj", "objectness"), "no column 'obj'"),
        (HEAD, "no rows"),
        (HEAD + ",obj\n", "'obj' is there twice"),
        (HEAD + "\na,train,val,1,1,1,1\n", "7 columns, the header has 8"),
        (HEAD + "\na,tran,val,1,1,1,1,10\n", "line 2: images must be train or val, got 'tran'"),
        (HEAD + "\na,train,val,1,x,1,1,10\n", "obj is no number: 'x'"),
        (HEAD + "\na,train,val,1,nan,1,1,10\n", "obj must be finite"),
        (HEAD + "\na,train,val,1,-1,1,1,10\n", "obj must be finite and >= 0"),
        (HEAD + "\na,train,val,1,1,1,1,0\n", "n_cells must be >= 1"),
        (HEAD + "\na,train,val,1,1,1,11,10\n", "n_pos 11 is more than n_cells 10"),
        ("a\0b", "zero bytes"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        detector_losses.parse(text)


def test_diagnose_takes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.csv"
    file.write_text(losses(np.random.default_rng(0), 2.0))
    found = gl.diagnose(detector_losses=file, checks=["objectness-scale"], verbose=0)
    (f,) = found.findings
    assert f.id == "Y1"
    assert f.low <= 1.0 <= f.high
    with pytest.raises(RecipeError, match="detector_losses and a run are different"):
        gl.diagnose("run", detector_losses=file)
    with pytest.raises(DataError, match="there is no such file"):
        gl.diagnose(detector_losses=tmp_path / "none.csv")
    assert cli.main(["doctor", "--detector-losses", str(file), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [f["id"] for f in document["findings"]] == ["Y1"]
    assert document["gap"] is None
    assert "no gap to split" in document["notes"][0]


def test_intervals_are_normal_enough() -> None:
    f = detector_losses.factors(detector_losses.parse(losses(np.random.default_rng(3))))["obj"]["pipeline"]
    assert np.log(f.high / f.low) == pytest.approx(2 * Z95 * f.error, rel=0.15)


# -- the command ----------------------------------------------------------------------------------


def test_check_yolo(made: Set, capsys: pytest.CaptureFixture[str]) -> None:
    made.describe()
    assert cli.main(["check", "--yolo", str(made.file)]) == 0
    said = capsys.readouterr().out
    assert "label files: no errors" in said
    assert "nothing found" in said
    made.add("train", "bad\x1b[2J", "9 0.5 0.5 0.1 0.1\n")
    assert cli.main(["check", "--yolo", str(made.file)]) == 1
    said = capsys.readouterr().out
    assert "class id: not among the names" in said
    assert "class 9, there are 0..2" in said
    assert "\x1b" not in said
    assert cli.main(["check", "--yolo", str(made.file), "--json", "--image-size", "320"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["yolo"]["image_size"] == 320
    assert document["yolo"]["problems"][0]["count"] == 1
    assert document["yolo"]["splits"]["train"]["images"] == 21
    assert {c["id"] for c in document["checks"]} == {"Y2", "Y3"}
    assert cli.main(["check", "--yolo", str(made.file), "--quiet"]) == 1
    assert len(capsys.readouterr().out.splitlines()) <= 5
    assert cli.main(["check", "--yolo", str(made.file), "--image-size", "0"]) == 2
    capsys.readouterr()


def test_a_set_without_one_label_file_is_an_error(made: Set) -> None:
    for split in ("train", "val"):
        (made.root / "labels" / split).rename(made.root / f"{split}-labels")
    (p, q) = made.read().problems
    assert (p.kind, p.split, p.count, q.split) == ("no label files", "train", 1, "val")
    assert "labels/train/000.txt" in p.examples[0]
    made.add("val", "empty", "")
    assert [x.split for x in made.read().problems] == ["train"]  # an empty file says that there is no object


def test_paths_are_read_as_trainers_do(made: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = made.read(path=None, train="../images/train", val="../images/val")  # as Roboflow exports them
    assert len(beside.splits["train"].ids) == len(made.read().splits["train"].ids) > 0
    lists = made.root / "lists"
    lists.mkdir()
    monkeypatch.chdir(made.root.parent)
    for prefix in (
        "../images/train",
        "images/train",
        f"{made.root.name}/images/train",
        f"{made.root}/images/train",
    ):
        (lists / "a.txt").write_text(f"{prefix}/000.png\n{prefix}/001.png\n")
        read = made.read(train="lists/a.txt")
        assert read.splits["train"].ids == ["images/train/000.png", "images/train/001.png"], prefix
        assert {p.kind for p in read.problems} == {"label without image"}, prefix
    (note,) = made.read(val=None, valid="images/val").notes
    assert "'valid' is not read" in note
    with pytest.raises(DataError, match=r"give the data\.yaml in it"):
        yolo.read(made.root)


def test_the_checks_are_in_the_table() -> None:
    assert {table.named(w).id for w in ("objectness-scale", "anchors-and-boxes", "object-shift")} == {
        "Y1",
        "Y2",
        "Y3",
    }
