"""A diagnosis shows itself: text, notebook, one closed page, the waterfall's picture."""

from __future__ import annotations

import base64
import io
import json
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import readme_table
from PIL import Image

from gapless import doctor, report
from gapless.doctor import Checked, Diagnosis, Estimate, Finding, Picture, Remedy, Result, Step, Waterfall
from gapless.errors import RecipeError
from gapless.report import text as words

HOSTILE = "<script>alert(1)</script>\"'&{{7*191}}\x1b[2J\u202e"
STEPS = {
    "worked example": [
        ("moving weights and sampling", -4),
        ("dropout off", -161),
        ("augmentation off", -94),
        ("generalisation and shift: not separable", 41),
        ("weights chosen: EMA instead of last", 519),
    ],
    "one": [("all causes together: not separable with validation outputs alone", 424)],
    "tiny": [("a", 1), ("b", 0)],
    "negative": [("generalisation", -50)],
    "twelve": [
        (f"step {k} that has a name of some length, as they may", (-1) ** k * 10 * k) for k in range(12)
    ],
}


def fall(name: str = "worked example", first: int = 600, notes: tuple[str, ...] = ()) -> Waterfall:
    steps = [Step(n, Fraction(p, 1000), p / 1000 - 0.02, p / 1000 + 0.02) for n, p in STEPS[name]]
    return Waterfall(
        Fraction(first, 1000), Fraction(first, 1000) - sum(s.points for s in steps), steps, notes
    )


def finding(word: str = "plain", pictures: int = 3) -> Finding:
    pixels = np.random.default_rng(0).integers(0, 256, (pictures, 8, 8, 3), dtype=np.uint8)
    return Finding(
        "L1",
        "label-noise",
        0.062,
        0.04,
        0.081,
        "share of training labels that are wrong",
        f"36 of 360 labels look wrong, most in {word}",
        {"suspects": [f"{word}/{i}" for i in range(30)], "pairs": {word: 3}, "rate": 0.1, "none": []},
        Remedy(f"Relabel {word}.", {"loss.label_smoothing": 0.1}),
        [Picture(image, f"{word}?") for image in pixels],
        1.25,
        "Northcutt et al. 2021",
    )


def checked(id: str, slug: str, result: Result, caused_by: str | None = None) -> Checked:
    return Checked(id, slug, f"the cause {slug}", result, 0.1, caused_by, "points")


def diagnosis(word: str = "plain", name: str = "worked example") -> Diagnosis:
    wrong = Result.found("there", Estimate(0.062, 0.04, 0.081, 0.0), remedy=Remedy("do"))
    unsure = Result.undecided(f"recall of {word} differs", samples_needed=2300)
    checks = [
        checked("C1", "class-order", Result.clear("no")),
        checked("G2", "memorised-noise", wrong, "L1"),
        checked("L1", "label-noise", wrong),
        checked("L3", "labelling-rules", unsure),
        checked("P1", "preprocessing", Result.left_out("needs the model")),
        checked("P2", "input-statistics", Result.left_out("needs the model and a recipe")),
        checked("P3", "resolution", Result.left_out("needs about 90 s, 3 s of the budget are left")),
    ]
    f = fall(name, notes=("dropout and BatchNorm interact by 1.1 points",))
    return Diagnosis(float(f.gap), [finding(word)], checks, f, None, 12.3, 120.0, [f"5 images of {word}"])


# -- text ---------------------------------------------------------------------------------------


def test_the_transcript_has_gap_waterfall_findings_undecided_and_the_rest_in_order() -> None:
    text = repr(diagnosis())
    order = [
        "gap: +30.1 points, training 0.6000, validation 0.2990; explained +26.0, not separable +4.1",
        "dropout off",
        "-16.1  [-18.1, -14.1]",
        "validation, stand-alone",
        "1 finding, by size:",
        "L1 label-noise  +6.2 points [+4.0, +8.1]: share of training labels that are wrong",
        "remedy: Relabel plain.",
        "recipe: -o loss.label_smoothing=0.1",
        "suspects plain/0",
        "(30 in all)",
        "follow from it: G2 memorised-noise",
        "L3 labelling-rules: recall of plain differs; about 2,300 samples would decide",
        "clear: C1 class-order. Left out: P1 P2, for want of the model; a recipe. "
        "Also left out: P3 (needs about 90 s, 3 s of the budget are left).",
        "note: 5 images of plain",
        "7 checks in 12.3 s of 120 s",
    ]
    flat = " ".join(text.split())
    at = [flat.find(" ".join(piece.split())) for piece in order]
    assert all(a >= 0 for a in at), order[at.index(-1)]
    assert at == sorted(at)
    assert max(len(line) for line in text.splitlines()) <= words.WIDTH


@pytest.mark.parametrize("name", STEPS)
def test_levels_and_bars_of_the_text_follow_the_steps(name: str) -> None:
    f = fall(name)
    d = Diagnosis(float(f.gap), [], [], f)
    rows = [line for line in d.text().splitlines() if re.search(r"\[[-+0]", line)]
    level = f.first
    for line, s in zip(rows, f.steps, strict=True):
        level -= s.points
        numbers = re.search(r"(\d\.\d{4})\s+([-+]?\d+\.\d)\s+\[", line)
        assert numbers is not None
        assert float(numbers[1]) == pytest.approx(float(level), abs=5e-5)
        assert float(numbers[2]) == pytest.approx(100 * float(s.points), abs=0.051)
        left, _, right = line.rpartition("│")
        assert ("█" in left or "▐" in left) <= (s.points < 0)
        assert ("█" in right or "▌" in right) <= (s.points > 0)
    longest = max(line.count("█") for line in rows)
    assert 4 < longest <= words.BAR


def test_without_a_gap_there_is_no_waterfall() -> None:
    d = Diagnosis(None, [], [checked("C1", "class-order", Result.clear("no"))], None)
    assert d.text().startswith("nothing found")
    assert d.text(brief=True) == "nothing found"
    assert "<img" not in d.to_html()
    with pytest.raises(RecipeError, match="no waterfall"):
        d.save("x.png")


def test_brief_is_the_gap_and_a_line_per_finding() -> None:
    assert len(diagnosis().text(brief=True).splitlines()) == 2


def test_names_move_no_cursor_and_turn_no_text_round() -> None:
    text = repr(diagnosis(HOSTILE))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"\x1b[2J" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_ascii_terminals_get_signs() -> None:
    plain = words.in_ascii(repr(diagnosis()))
    assert plain.isascii()
    assert "#####" in plain


def test_what_is_wanting_is_told_by_facts() -> None:
    facts = list(doctor.FACTS.values())
    for a in facts:
        for b in facts:
            if a != b:
                assert words._missing(f"needs {a} and {b}") == [a, b]
    assert words._missing("needs about 90 s, 3 s of the budget are left") == []
    assert words._missing("the budget of 3 s is used up") == []


def test_the_readmes_table_is_the_doctors() -> None:
    have = readme_table.in_readme()
    assert have == readme_table.lines(), "python tests/py/readme_table.py writes it"


# -- html ---------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Tags, the addresses that are loaded, and whether tags close."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "srcset", "data")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("word", ["plain", HOSTILE, "猫/ёж", "$x_1$"])
def test_the_page_is_closed_in_itself_and_escapes_every_name(word: str) -> None:
    page = Reader(diagnosis(word).to_html())
    assert "script" not in page.tags
    assert not page.handlers
    assert len(page.addresses) == 1 + 3  # the waterfall and three thumbnails
    assert all(a.startswith("data:image/png;base64,") for a in page.addresses)
    said = "".join(page.text)
    assert words.clean(word) in said
    assert "1337" not in said  # {{7*191}} is text
    assert f"{words.clean(word)}/29" in said  # the page has room for all ids
    for piece in ("+30.1 points", "L3 labelling-rules", "needs the model", "Northcutt", "12.3 s of 120 s"):
        assert piece in said
    for address in page.addresses:
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
            image.load()


def test_no_address_of_the_network_stands_in_the_page() -> None:
    page = diagnosis().to_html()
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_a_notebook_gets_pieces_of_a_page() -> None:
    whole = Reader(diagnosis(HOSTILE)._repr_html_())
    assert not {"html", "head", "body", "script"} & set(whole.tags)
    one = Reader(finding(HOSTILE)._repr_html_())
    assert one.tags[0] == "div"
    assert one.tags.count("img") == 3
    assert "script" not in one.tags


def test_grey_and_large_pictures_are_shown() -> None:
    f = finding(pictures=0)
    pictures = [
        Picture(np.zeros((8, 8), np.uint8), "grey"),
        Picture(np.zeros((8, 8, 1), np.uint8), "one channel"),
        Picture(np.zeros((400, 300, 3), np.uint8), "large"),
    ] * 20
    found = doctor.Finding(**{**{k: getattr(f, k) for k in f.__dataclass_fields__}, "pictures": pictures})
    page = Reader(report.finding_html(found))
    assert page.tags.count("img") == 24


# -- files --------------------------------------------------------------------------------------


def test_save_goes_by_the_ending(tmp_path: Path) -> None:
    d = diagnosis()
    assert d.save(tmp_path / "a.html").read_text("utf-8") == d.to_html()
    assert d.save(tmp_path / "a.txt").read_text("utf-8") == d.text() + "\n"
    assert json.loads(d.save(tmp_path / "a.json").read_text("utf-8"))["gap"] == d.gap
    with Image.open(d.save(tmp_path / "a.png")) as image:
        assert image.format == "PNG"
    with pytest.raises(RecipeError, match=r"must be \.html, \.png, \.txt or \.json, got 'a\.pdf'"):
        d.save(tmp_path / "a.pdf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json", "a.png", "a.txt"]


# -- the picture --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STEPS)
def test_the_bars_of_the_picture_are_the_steps(name: str) -> None:
    from matplotlib.patches import Rectangle

    from gapless.report.waterfall import COSTS, GIVES, draw

    f = fall(name)
    fig = draw([s.to_dict() for s in f.steps], float(f.first), float(f.last))
    (ax,) = fig.axes
    bars = [p for p in ax.patches if isinstance(p, Rectangle)]
    level = float(f.first)
    for bar, s in zip(bars, f.steps, strict=True):
        value = float(s.points)
        assert bar.get_x() == pytest.approx(level)
        assert bar.get_x() + bar.get_width() == pytest.approx(level - value)
        assert bool(bar.get_hatch()) == ("not separable" in s.name)
        if not bar.get_hatch():
            from matplotlib.colors import to_hex

            assert to_hex(bar.get_facecolor()) == (COSTS if value > 0 else GIVES)
        level -= value
    low, high = ax.get_xlim()
    assert low < min(float(f.first), float(f.last))
    assert high > max(float(f.first), float(f.last))


@pytest.mark.parametrize("name", STEPS)
def test_nothing_in_the_picture_lies_outside_or_on_something_else(name: str) -> None:
    from gapless.report.waterfall import draw

    f = fall(name)
    fig = draw([s.to_dict() for s in f.steps], float(f.first), float(f.last))
    fig.canvas.draw()
    whole = fig.bbox
    (ax,) = fig.axes
    texts = [t for t in (*ax.get_yticklabels(), *ax.texts) if t.get_text()]
    boxes = [t.get_window_extent() for t in texts]
    for box, text in zip(boxes, texts, strict=True):
        assert box.x0 >= whole.x0 - 1, text.get_text()
        assert box.x1 <= whole.x1 + 1, text.get_text()
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert not a.overlaps(b)
    (legend,) = fig.legends
    assert legend.get_window_extent().y0 >= 0
    assert not legend.get_window_extent().overlaps(ax.get_window_extent())


@pytest.mark.filterwarnings("ignore::gapless.report.fonts.MissingGlyphs")
def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    steps = [{"step": HOSTILE * 4 + "玫瑰 $x_1$", "points": 0.1, "low": 0.0, "high": 0.2}]
    assert report.waterfall(steps, tmp_path / "w.png", first=0.9, last=0.8).stat().st_size > 5000
    assert report.waterfall_png(steps, first=0.9, last=0.8)[:4] == b"\x89PNG"
