"""tests/planted: planters do what they say, truths are counterfactuals, the table counts, exit status."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from planted import bench, data_faults, elsewhere, sets, truth
from planted.__main__ import listing, main
from planted.bed import Bed, Setup
from planted.faults import FAULTS, PAIRS, named
from planted.table import BOUNDS, Row, Seen, Told, Totals, line, text

import gapless as gl
from gapless import checkpoint, doctor
from gapless.doctor import table as checks


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    """Digits of a seed that nothing is reported of, with a model of a few epochs."""
    return Bed(tmp_path_factory.mktemp("bed"), "digits", 77)


@pytest.fixture(scope="module")
def trained(bed: Bed) -> Setup:
    return bed.healthy(epochs=4)


def planted(bed: Bed, setup: Setup, name: str) -> Setup:
    return FAULTS[name].plant(bed, setup)


# -- sets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sets.SETS)
def test_a_set_is_a_function_of_its_seed_with_disjoint_parts(name: str) -> None:
    a, again, other = sets.draw(name, 5), sets.draw(name, 5), sets.draw(name, 6)
    for part, same in ((a.train, again.train), (a.val, again.val), (a.spare, again.spare)):
        assert np.array_equal(part.images, same.images)
        assert part.names == same.names
    assert not np.array_equal(a.val.images, other.val.images)
    names = [*a.train.names, *a.val.names, *a.spare.names]
    assert len(set(names)) == len(names)
    assert len(a.train) + len(a.val) <= 1500
    for part in (a.train, a.val):
        counts = np.bincount(part.labels, minlength=len(a.classes))
        assert counts.min() >= 0.8 * counts.mean()
    pixels = {image.tobytes() for image in a.train.images}
    assert not any(image.tobytes() in pixels for image in a.val.images)


def test_written_files_are_read_back_to_the_pixel(tmp_path: Path) -> None:
    x = sets.draw("patches", 3, train=40)
    data = gl.data.list_file(sets.write(tmp_path / "d", {"train": x.train, "val": x.val}, x.classes))
    assert data.classes == x.classes
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 40, "val": len(x.val)}
    for i in range(0, 40, 7):
        at = data.index_of(f"{x.train.names[i]}.png")
        assert np.array_equal(data.load(at), x.train.images[i])
        assert data.labels[at] == x.train.labels[i]


# -- planters -----------------------------------------------------------------------------------


def test_there_are_enough_faults_and_each_is_whole() -> None:
    kinds = {f.name for f in FAULTS.values()}
    assert len(kinds) >= 30
    assert len(PAIRS) >= 10
    ids = {r.id for r in checks.rows()}
    for f in FAULTS.values():
        assert f.plant.__doc__, f.name
        assert set(f.not_on) <= {*sets.SETS, *sets.OPTIONAL}
        assert f.check in ids, f"{f.name}: there is no check {f.check}"
    for pair in PAIRS:
        assert FAULTS[pair.first].check != FAULTS[pair.second].check
    assert all(f.check in listing() for f in FAULTS.values())


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5])
def test_flipped_labels_are_exactly_that_share(bed: Bed, share: float) -> None:
    part = bed.images.train
    noisy, at = data_faults.flipped(part, 10, share, np.random.default_rng(1))
    changed = np.flatnonzero(noisy.labels != part.labels)
    assert np.array_equal(changed, at)
    assert len(changed) == round(share * len(part))
    assert noisy.labels.min() >= 0
    assert noisy.labels.max() < 10


def test_label_faults_have_the_size_that_they_state(bed: Bed) -> None:
    base = bed.healthy()
    for name, split in (("labels-wrong-in-train", "train"), ("labels-wrong-in-val", "val")):
        setup = planted(bed, base, name)
        part = getattr(base.images, split)
        assert truth.changed_labels(split)(bed, base, setup) == pytest.approx(
            round(0.15 * len(part)) / len(part)
        )
    setup = planted(bed, base, "two-annotators")
    changed = setup.images.val.labels != base.images.val.labels
    assert len(set(base.images.val.labels[changed])) == len(set(setup.images.val.labels[changed])) == 1


def test_shifted_labels_are_one_line_off_in_the_list(bed: Bed) -> None:
    setup = planted(bed, bed.healthy(), "labels-shifted")
    order = np.argsort(np.array(setup.images.val.names))
    was, now = bed.images.val.labels[order], setup.images.val.labels[order]
    assert np.array_equal(now, np.roll(was, 1))


def test_duplicates_are_copies_and_near_ones_are_not(bed: Bed) -> None:
    train = {image.tobytes() for image in bed.images.train.images}
    n = len(bed.images.val)
    for name, exact in (("exact-duplicates", True), ("near-duplicates", False)):
        val = planted(bed, bed.healthy(), name).images.val
        assert len(val) == n + n // 2
        copies = [image.tobytes() in train for image in val.images[n:]]
        assert all(copies) if exact else sum(copies) < 0.1 * len(copies)
        assert len(set(val.names)) == len(val)


@pytest.mark.parametrize(
    "name", ["exact-duplicates-trained", "near-duplicates-trained", "frames-of-a-clip-trained"]
)
def test_two_thirds_of_validation_leak_and_the_rest_is_new(bed: Bed, name: str) -> None:
    images = planted(bed, bed.healthy(), name).images
    train, val, n = images.train, images.val, data_faults.FRESH
    assert len(train) == data_faults.KNOWN
    assert len(val) == n + data_faults.TIMES * len(train)
    assert len(set(val.names)) == len(val)
    known = {image.tobytes() for image in train.images}
    copies = [image.tobytes() in known for image in val.images]
    assert not any(copies[:n])
    assert all(copies[n:]) if name.startswith("exact") else sum(copies[n:]) < 0.1 * len(val)
    clips = {name.split("_")[0] for name in train.names}
    if name.startswith("frames"):
        assert [v.split("_")[0] in clips for v in val.names] == [False] * n + [True] * (len(val) - n)
    for k in range(data_faults.TIMES):
        part = slice(n + k * len(train), n + (k + 1) * len(train))
        assert np.array_equal(val.labels[part], train.labels)
        distance = np.abs(val.images[part].astype(float) - train.images).mean(axis=(1, 2, 3))
        assert distance.mean() < 16


def test_splits_are_what_they_are_said_to_be(bed: Bed) -> None:
    base = bed.healthy()
    assert 9 not in planted(bed, base, "ordered-split").images.train.labels
    counts = np.bincount(planted(bed, base, "other-shares").images.train.labels)
    assert list(counts[1::2]) == [6] * 5
    assert np.array_equal(counts[::2], np.bincount(bed.images.train.labels)[::2])
    clip = planted(bed, base, "frames-of-a-clip").images
    groups = [{n.split("_")[0] for n in part.names} for part in (clip.train, clip.val)]
    assert groups[1] < groups[0]
    assert len(groups[1]) == len(clip.val)
    few = planted(bed, base, "few-images").images.train
    assert np.array_equal(np.bincount(few.labels), [3] * 10)


def test_odd_files_are_odd_and_show_the_same(bed: Bed) -> None:
    setup = planted(bed, bed.healthy(), "odd-files")
    root, train = bed.listed(setup).parent, setup.images.train
    kinds = [Image.open(root / f"{name}.png") for name in train.names]
    odd = [i for i, p in enumerate(kinds) if p.mode != "L" or p.getexif().get(0x0112, 1) != 1]
    assert odd == list(range(round(data_faults.ODD * len(train))))
    data = gl.data.list_file(root / "list.csv")
    at = data.index_of(f"{train.names[1]}.png")  # lies on its side
    assert np.array_equal(data.load(at), train.images[1])


# -- models and truths --------------------------------------------------------------------------


def test_the_numpy_net_is_the_trained_net(bed: Bed, trained: Setup) -> None:
    weights = checkpoint.read(bed.run(trained).best).scored()
    x = bed.prepared(trained, bed.images.val.take(np.arange(40)))
    assert np.allclose(elsewhere.evaluation_mode(weights)(x), bed.model(trained)(x), atol=1e-4)
    loose = elsewhere.trained_mode(weights, seed=1)
    assert not np.array_equal(loose(x), loose(x))  # dropout draws anew


def test_a_run_is_trained_once_and_fed_as_it_was_trained(bed: Bed, trained: Setup) -> None:
    run = bed.run(trained)
    before = run.best.stat().st_mtime_ns
    assert bed.accuracy(trained) == run.record.top1
    assert bed.run(trained).best.stat().st_mtime_ns == before


def test_truths_are_counterfactual(bed: Bed, trained: Setup) -> None:
    shifted = planted(bed, trained, "classes-shifted")
    assert truth.lost(bed, trained, shifted) == bed.accuracy(trained) - bed.accuracy(shifted) > 0.5
    double = planted(bed, trained, "exact-duplicates")
    assert FAULTS["exact-duplicates"].truth(bed, trained, double) == pytest.approx(-1 / 3)
    assert truth.lost(bed, trained, trained) == 0
    flat = FAULTS["softmax-twice"]
    assert flat.truth(bed, trained, flat.plant(bed, trained)) > 0.2


def test_a_pair_has_both_faults_and_the_truth_of_each(bed: Bed) -> None:
    case = bench.Case(
        "both", ("classes-permuted", "labels-wrong-in-val"), "digits", 77, None, (("epochs", 4),)
    )
    setup, truths = bench.planted(bed, case)
    assert setup.form == "outputs"
    assert [f.check for f, _ in truths] == ["C1", "L1"]
    assert truths[1][1] == pytest.approx(round(0.15 * 450) / 450)
    noisy = bed.healthy(epochs=4)
    noisy = replace(noisy, images=setup.images)
    assert truths[0][1] == bed.accuracy(noisy, setup.images.val) - bed.accuracy(setup)


# -- the table ----------------------------------------------------------------------------------


def row(check: str = "C1", rank: int | None = 1, truth: float = 0.1, **more: object) -> Row:
    found = None if rank is None else Seen(check, 0.1, 0.05, 0.15)
    seen = () if rank is None else (*(Seen("X1", 0.9, 0.8, 1.0),) * (rank - 1), found)
    return Row("f", "digits", 0, (Told(check, truth, rank, found),), seen, **{"sums": True, **more})  # type: ignore[arg-type]


def test_totals_count() -> None:
    rows = [
        row(),
        row(rank=2),
        row(rank=None),
        row(truth=0.3),
        Row("clean", "digits", 1),
        Row("clean", "d", 2, seen=(Seen("A1", 1, 1, 1),)),
    ]
    t = Totals.of(rows)
    assert (t.planted, t.first, t.among_three) == (4, 2, 3)
    assert (t.found, t.covered) == (3, 2)
    assert (t.clean, t.false_alarms) == (2, 1)
    assert (t.falls, t.sums, t.broken) == (4, 4, 0)
    assert t.small == 0
    for r in rows:
        assert r.name in line(r)


def test_what_is_too_small_to_be_a_finding_is_counted_apart() -> None:
    t = Totals.of([row(), row(rank=None, truth=-0.014), row(rank=None, truth=0.02)])
    assert (t.planted, t.small, t.first) == (2, 1, 1)
    assert "of under 2 points, so none:    1" in text([row(rank=None, truth=0.01)])
    wrong = row(truth=0.01)  # found all the same, and its interval does not hold the truth
    assert (Totals.of([wrong]).found, Totals.of([wrong]).covered) == (1, 0)


def test_every_bound_can_be_missed() -> None:
    good = [row() for _ in range(20)] + [Row("clean", "d", k) for k in range(20)]
    assert not Totals.of(good).missed()
    assert "all bounds hold" in text(good)
    alarm = Row("clean", "d", 0, seen=(Seen("A1", 1, 1, 1),))
    bad = {
        "first finding": [row(rank=2)] * 2,
        "first three": [row(rank=4)],
        "inside the interval": [row(truth=0.5)] * 3,
        "sums to the gap": [row(sums=False)],
        "false alarms": [alarm, alarm],
        "an error": [row(error="oh")],
        "check that failed": [row(broken=("C1",))],
    }
    for words, rows in bad.items():
        missed = Totals.of(good + rows).missed()
        assert any(words in m for m in missed), words
    assert Totals.of([*good, alarm]).missed() == []
    assert BOUNDS["among_three"] == 1.0


def test_cases_leave_out_what_does_not_exist_and_clean_seeds_are_their_own() -> None:
    every = bench.cases()
    assert not [c for c in every if c.set == "digits" and "bgr" in c.faults]
    clean = [c for c in every if not c.faults]
    assert len(clean) == 20
    assert len({(c.set, c.seed) for c in clean}) == 20
    assert not {c.seed for c in clean} & {0, 1, 2}
    assert not {c.seed for c in clean} & {c.seed for c in bench.cases(["clean"], seeds=[10])}
    assert {c.seed for c in bench.cases(["L1"], seeds=[12])} == {12}
    assert {f.check for f in named("C1")} == {"C1"}
    with pytest.raises(SystemExit, match="no fault 'nonsense'"):
        named("nonsense")


# -- end to end ---------------------------------------------------------------------------------


def test_class_order_is_told_first_with_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--only", "classes-shifted", "--set", "digits", "--seeds", "77", "--jobs", "1"]
    out = tmp_path / "rows.json"
    assert main([*words, "--keep", str(tmp_path / "kept"), "--json", str(out)]) == 0
    (told,) = json.loads(out.read_text())["rows"]
    assert told["planted"][0]["rank"] == 1
    assert told["planted"][0]["covered"]
    assert told["waterfall_sums"]
    assert "planted cause first:           1 of 1" in capsys.readouterr().out


def test_exit_status_is_1_when_a_check_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.rows()
    silent = replace(checks.named("C1"), run=lambda case: doctor.Result.clear("nothing"))
    monkeypatch.setitem(checks._ROWS, "C1", silent)
    words = ["--only", "classes-shifted", "--set", "digits", "--seeds", "77", "--jobs", "1"]
    assert main([*words, "--keep", str(tmp_path)]) == 1


def test_a_case_that_fails_is_a_row_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(bed: Bed, setup: Setup) -> Setup:
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(FAULTS, "bgr", replace(FAULTS["bgr"], plant=fails))
    told = bench.measure(tmp_path, bench.Case("bgr", ("bgr",), "digits", 77))
    assert told.error == "ZeroDivisionError: oh"
    assert Totals.of([told]).missed()
