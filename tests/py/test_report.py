"""Pictures: written whole, for any script and any shape of a run, without touching the user's own plots."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from gapless import report
from gapless.report import fonts, html

ANY_SCRIPT = [
    "玫瑰",
    "向日葵",
    "розы",
    "ひまわり",
    "$x_1$ & <b>",
    "a_very_long_class_name_that_goes_on_and_on",
]


def row(epoch, **more):
    return {
        "epoch": epoch,
        "lr": 0.1 / epoch,
        "train/running/top1": 0.5,
        "train/running/loss": 1.0,
        "train/clean/top1": 0.6,
        "train/clean/loss": 0.9,
        "val/top1": 0.55,
        "val/loss": 1.1,
        "val/low": 0.5,
        "val/high": 0.6,
        "val/majority": 0.2,
        **more,
    }


def size_and_variety(path):
    """The picture's size, and how many grey levels it has: an empty one has very few."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))
    return image.size, len(np.unique(pixels))


@pytest.fixture(autouse=True)
def fonts_may_be_missing():
    """Continuous integration may have Latin fonts only; what is then said is tested below."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fonts.MissingGlyphs)
        yield


@pytest.mark.parametrize("module", ["fonts", "html", "confusion", "predictions"])
def test_doctests(module):
    result = doctest.testmod(importlib.import_module(f"gapless.report.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "history",
    [
        [],
        [row(1)],
        [row(e) for e in range(1, 41)],
        [row(1), row(2, **{"val/top1": None, "val/low": None, "val/high": None, "val/loss": None}), row(3)],
        [{"epoch": 1, "lr": 0.0, "train/running/top1": 0.0, "train/running/loss": float("nan")}],
        [row(1, **{"val/loss": 1e6}), row(2, **{"val/loss": 1e-6, "lr": 1e-9})],
        [{**row(e), "val/top1": "", "train/clean/top1": ""} for e in (1, 2)],
    ],
    ids=["none", "one", "many", "gaps", "bare", "wide", "as_csv_reads_it"],
)
def test_curves_are_drawn_for_any_history(tmp_path, history):
    path = report.curves(history, tmp_path / "curves.png", title="花 · resnet8")
    size, levels = size_and_variety(path)
    assert size[0] > 1000
    assert levels > 20
    assert os.listdir(tmp_path) == ["curves.png"], "nothing temporary is left"


def test_curves_mark_the_best_by_the_monitored_number():
    curves = importlib.import_module("gapless.report.curves")
    history = [row(1, **{"val/top1": 0.5, "val/loss": 0.3}), row(2, **{"val/top1": 0.7, "val/loss": 0.4})]
    assert curves._best(history, "val/top1") == (2.0, 0.7)
    assert curves._best(history, "val/loss") == (1.0, 0.3)
    assert curves._best([], "val/top1") is None


def test_confusion_counts_truth_by_rows(tmp_path):
    matrix = report.matrix_of([0, 0, 1, 2], [0, 2, 1, 2], 3)
    assert matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    confusion = importlib.import_module("gapless.report.confusion")
    assert confusion.most_confused(matrix, 5) == [(0, 2, 1)]
    path = report.confusion(matrix, tmp_path / "c.png", classes=["a", "b", "c"])
    assert size_and_variety(path)[1] > 20
    with pytest.raises(ValueError, match=r"must be \(2, 2\)"):
        report.confusion(matrix, tmp_path / "c.png", classes=["a", "b"])


@pytest.mark.parametrize("n", [1, 2, 6, 40, 120])
def test_confusion_and_labels_at_any_number_of_classes(tmp_path, n):
    classes = (ANY_SCRIPT * 20)[:n]
    rng = np.random.default_rng(n)
    truth = rng.integers(0, n, 300)
    said = np.where(rng.random(300) < 0.7, truth, rng.integers(0, n, 300))
    matrix = report.matrix_of(truth, said, n)
    assert size_and_variety(report.confusion(matrix, tmp_path / "c.png", classes=classes))[1] > 20
    counts = {"train": np.bincount(truth, minlength=n), "val": np.zeros(n, int)}
    assert size_and_variety(report.labels(counts, tmp_path / "l.png", classes=classes, title="花"))[1] > 20


def test_labels_refuses_counts_of_another_length(tmp_path):
    with pytest.raises(ValueError, match="one number for each of 2 classes"):
        report.labels({"train": [1, 2, 3]}, tmp_path / "l.png", classes=["a", "b"])


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (5, 33, 20, 3), (40, 8, 8, 1)])
def test_batch_shows_the_pixels(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(shape[0]) % len(ANY_SCRIPT)
    path = report.batch(images, labels, tmp_path / "b.png", classes=ANY_SCRIPT)
    assert size_and_variety(path)[1] > 100
    soft = np.eye(len(ANY_SCRIPT))[labels] * 0.7 + 0.3 / len(ANY_SCRIPT)
    assert size_and_variety(report.batch(images, soft, path, classes=ANY_SCRIPT))[1] > 100


def test_predictions_ask_only_for_the_worst_pictures(tmp_path):
    asked = []

    def load(i):
        asked.append(i)
        return np.full((8, 8, 3), 10 * i, np.uint8)

    report.predictions(
        load,
        [0, 1, 2, 0],
        [1, 1, 0, 2],
        [0.6, 0.99, 0.8, 0.7],
        tmp_path / "p.png",
        classes=ANY_SCRIPT,
        most=2,
        ids=["a/1.jpg", "a/2.jpg", "花/3.jpg", "4"],
        title="validation",
    )
    assert asked == [2, 3], "the most confident errors first; the right answer, however confident, never"
    asked.clear()
    report.predictions(load, [0, 1], [0, 1], [0.9, 0.6], tmp_path / "p.png", classes=ANY_SCRIPT)
    assert asked == [1, 0], "without errors: the least confident first"
    report.predictions(load, [], [], [], tmp_path / "empty.png", classes=ANY_SCRIPT)
    assert size_and_variety(tmp_path / "empty.png")[1] > 5


def test_chinese_names_use_an_installed_font_or_say_what_to_install():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        chosen = fonts.families(["向日葵", "cat"])
    if len(chosen) > 1:
        assert not said
    else:
        assert "fonts-noto-cjk" in str(said[0].message)


def test_characters_without_a_font_are_named_once_and_drawn_all_the_same(tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = report.confusion([[1, 0], [0, 1]], tmp_path / "c.png", classes=["\U0001e900", "b"])
    if said:
        assert [w.category for w in said] == [fonts.MissingGlyphs]
    assert size_and_variety(path)[1] > 20


@pytest.mark.parametrize(
    ("name", "width", "want"),
    [
        ("short", 10, "short"),
        ("a_rather_long_class_name", 12, "a_rath…_name"),
        ("向日葵向日葵", 7, "向日…葵"),
        ("line\nbreak", 20, "line break"),
        ("", 5, "·"),
    ],
)
def test_names_are_shortened_in_the_middle(name, width, want):
    assert fonts.shorten(name, width) == want


def test_html_escapes_everything():
    page = html.table(("<script>", "n"), [("<img onerror=x>", 3)], title="<b>") + html.fields(
        [("<i>", "a&b")]
    )
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;img onerror=x&gt;" in page
    assert "a&amp;b" in page


def test_no_global_plot_state_and_no_display(tmp_path):
    code = (
        "import sys, gapless.report as r\n"
        "assert 'matplotlib' not in sys.modules\n"
        "r.confusion([[1, 0], [0, 1]], sys.argv[1], classes=['a', 'b'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    path = str(tmp_path / "c.png")
    subprocess.run([sys.executable, "-c", code, path], env=environment, check=True, timeout=120)
