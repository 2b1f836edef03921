"""The doctor's data checks: each finds its planted cause with its size, and is silent on clean data."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

import gapless as gl
from gapless import doctor
from gapless.data import Data
from gapless.doctor import classifier, duplicates, features, noise, running, table
from gapless.doctor.case import Budget, Case
from gapless.doctor.checks import label_noise
from gapless.doctor.checks.group_leakage import stem
from gapless.doctor.stats import Estimate
from gapless.errors import RecipeError

DATA_CHECKS = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "L1", "L2")


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gl.data.DataWarning)
        yield


def pixels() -> tuple[np.ndarray, np.ndarray]:
    d = gl.data.digits()
    return np.stack([d.load(i) for i in range(len(d))]), d.labels.copy()


X, Y = pixels()


def halves(seed: int = 0, n: int = 1400) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(X))
    return order[:n], order[n:]


def data_of(x: Any, y: Any, vx: Any, vy: Any) -> Data:
    return gl.data.arrays(x, y, val_data=(vx, vy), classes=list("0123456789"))


def clean(seed: int = 0) -> Data:
    a, b = halves(seed)
    return data_of(X[a], Y[a], X[b], Y[b])


def run(data: Data, *ids: str, outputs: dict[str, doctor.Outputs] | None = None) -> doctor.Diagnosis:
    case = Case(budget=Budget(120), data=data, outputs=outputs)
    return running.examine(case, [table.named(i) for i in ids], verbose=0, with_waterfall=False)


def only(data: Data, check: str, **more: Any) -> doctor.Result:
    return run(data, check, **more).checks[0].result


def said(data: Data, wrong: np.ndarray, split: str = "val") -> doctor.Outputs:
    """Outputs that are right but for the samples of this mask."""
    at = data.indices(split)
    labels = data.labels[at]
    predicted = np.where(wrong, (labels + 1) % data.num_classes, labels)
    return doctor.Outputs([data.ids[i] for i in at], labels, predicted, None, "none", data.classes)


# -- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_clean_digits_are_clean(seed: int) -> None:
    d = run(clean(seed), *DATA_CHECKS)
    assert d.findings == []
    assert {c.result.outcome for c in d.checks} == {"clear"}


def test_check_is_public_and_takes_names_and_recipes(tmp_path: Path) -> None:
    d = gl.check("digits", verbose=0)
    assert d.gap is None
    assert d.waterfall is None
    assert d.findings == []
    assert {"S1", "L2"} <= {c.id for c in d.checks}
    recipe = gl.Recipe(data="digits", model="lenet", epochs=1)
    recipe.save(tmp_path / "r.yaml")
    for given in (recipe, tmp_path / "r.yaml"):
        assert gl.check(given, verbose=0, budget=1e-3).gap is None
    with pytest.raises(RecipeError, match="recipe already"):
        gl.check(recipe, recipe)
    with pytest.raises(RecipeError, match="budget"):
        gl.check("digits", budget=0)


@pytest.mark.parametrize("n", [2, 6, 30])
def test_tiny_splits_are_answered(n: int) -> None:
    data = data_of(X[:n], Y[:n], X[n : 2 * n], Y[n : 2 * n])
    assert {
        c.result.outcome for c in run(data, "S2", "S3", "S4", "S5", "S6", "S7", "S8", "L1", "L2").checks
    } <= {
        "clear",
        "undecided",
        "found",
    }


def test_one_class_and_one_split_are_answered() -> None:
    one = gl.data.arrays(X[:300], np.zeros(300, int), classes=["a"])
    for c in run(one, *DATA_CHECKS).checks:
        assert c.result.outcome in ("clear", "undecided"), (c.id, c.result.says)
    single = gl.data.arrays(X[:300], Y[:300], split=(1.0,))
    outcomes = {c.id: c.result.outcome for c in run(single, *DATA_CHECKS).checks}
    assert outcomes["S4"] == "left out"
    assert outcomes["L1"] in ("clear", "undecided")


# -- splits -------------------------------------------------------------------------------------


def test_ordered_split_is_found_with_its_cost() -> None:
    order = np.argsort(Y, kind="stable")
    x, y = X[order], Y[order]
    cut = int(0.85 * len(y))
    data = data_of(x[:cut], y[:cut], x[cut:], y[cut:])
    d = run(data, *DATA_CHECKS[:3])
    assert [f.id for f in d.findings] == ["S1"]
    unseen = np.isin(data.labels[data.indices("val")], np.setdiff1d(y[cut:], y[:cut]))
    assert d.finding("S1").points == pytest.approx(unseen.mean())
    assert "sorted by class" in d.finding("S1").says
    assert not unseen.all()
    (f,) = run(data, "S1", outputs={"val": said(data, unseen)}).findings
    assert f.low <= unseen.mean() <= f.high


def test_class_missing_by_chance_is_no_finding() -> None:
    y = Y % 9
    y[:3] = 9
    a = np.arange(1400)
    data = data_of(X[a], y[a], X[1400:], y[1400:])
    assert only(data, "S1").outcome == "clear"
    a, b = halves()
    b = b[Y[b] != 4]
    r = only(data_of(X[a], Y[a], X[b], Y[b]), "S1")
    assert r.outcome == "found"
    assert r.evidence["missing_in_val"] == ["4"]


@pytest.mark.parametrize("seed", range(3))
def test_label_shift_in_accuracy(seed: int) -> None:
    a, b = halves(seed)
    rng = np.random.default_rng(seed)
    keep = b[(Y[b] < 5) | (rng.random(len(b)) < 0.25)]
    data = data_of(X[a], Y[a], X[keep], Y[keep])
    # a model that is weak on the classes that validation has most of
    recall = np.where(np.arange(10) < 5, 0.6, 0.95)
    out = said(data, rng.random(len(keep)) > recall[Y[keep]])
    d = run(data, "S2", "S3", outputs={"val": out})
    assert [f.id for f in d.findings] == ["S2"]
    shares = np.bincount(Y[a], minlength=10) / len(a)
    now = np.bincount(Y[keep], minlength=10) / len(keep)
    assert d.findings[0].low <= float((recall * (shares - now)).sum()) <= d.findings[0].high
    plain = run(data, "S2").findings[0]
    assert plain.low <= np.abs(shares - now).sum() / 2 <= plain.high


def test_image_shift_is_found_and_label_shift_is_none() -> None:
    a, b = halves()
    dark = (X[b] * 0.5).astype(np.uint8)
    r = only(data_of(X[a], Y[a], dark, Y[b]), "S3")
    assert r.outcome == "found"
    assert r.estimate is not None
    assert r.estimate.points > 0.8
    assert r.evidence["measures"]["brightness"]["p"] < 1e-4
    keep = b[(Y[b] < 5) | (np.arange(len(b)) % 4 == 0)]
    assert only(data_of(X[a], Y[a], X[keep], Y[keep]), "S3").outcome == "clear"


def test_image_shift_costs_what_a_run_loses(tmp_path: Path) -> None:
    recipe = gl.Recipe(data="digits", model="lenet", epochs=6)
    trained = gl.train(recipe, out=tmp_path / "r", verbose=0)
    d = gl.data.digits()
    val, train = d.indices("val"), d.indices("train")
    x = np.stack([d.load(int(i)) for i in range(len(d))])
    faded = np.clip(x[val] * 0.35 + 110, 0, 255).astype(np.uint8)
    data = data_of(x[train], d.labels[train], faded, d.labels[val])
    plain = gl.evaluate(trained, data_of(x[train], d.labels[train], x[val], d.labels[val]), "val").top1
    lost = plain - gl.evaluate(trained, data, "val").top1
    got = gl.diagnose(trained, data, checks=["S3"], budget=60, verbose=0)
    assert lost > 0.1
    (f,) = got.findings
    assert f.low <= lost <= f.high


# -- copies -------------------------------------------------------------------------------------


def test_exact_duplicates_are_all_found_and_taken_out_of_the_score() -> None:
    a, b = halves()
    copied = a[:120]
    data = data_of(X[a], Y[a], np.concatenate([X[b], X[copied]]), np.concatenate([Y[b], Y[copied]]))
    wrong = np.zeros(len(b) + 120, bool)
    wrong[: len(b)][np.random.default_rng(0).random(len(b)) < 0.3] = True
    d = run(data, "S4", "S5", outputs={"val": said(data, wrong)})
    assert [f.id for f in d.findings] == ["S4"]
    f = d.findings[0]
    assert f.evidence["count"] == 120
    assert f.points == pytest.approx((1 - wrong[: len(b)].mean()) - (1 - wrong.mean()))
    assert f.low <= f.points <= f.high < 0
    plain = run(data, "S4").findings[0]
    assert plain.points == pytest.approx(-120 / len(wrong))


def changed(image: np.ndarray) -> dict[str, np.ndarray]:
    picture = PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    w, h = picture.size
    out = {"mirrored": image[:, ::-1]}
    for quality in (50, 68, 90):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        out[f"jpeg {quality}"] = np.asarray(PIL.Image.open(file))
    for scale in (0.75, 1.25, 1.5):
        for kernel in (PIL.Image.Resampling.BILINEAR, PIL.Image.Resampling.BICUBIC):
            size = (round(w * scale), round(h * scale))
            out[f"resized {scale} {kernel}"] = np.asarray(picture.resize(size, kernel))
    return {k: v if v.ndim == 3 else v[..., None] for k, v in out.items()}


def smooth(n: int, seed: int, side: int = 32) -> np.ndarray:
    """Coloured pictures with the spectrum of natural ones."""
    rng = np.random.default_rng(seed)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))[None, :, :, None]
    z = np.fft.fft2(rng.normal(size=(n, side, side, 3)), axes=(1, 2)) / (f + 0.02) ** 2
    z = np.real(np.fft.ifft2(z, axes=(1, 2)))
    z = z.mean(axis=3, keepdims=True) + 0.5 * z
    low, high = z.min(axis=(1, 2, 3), keepdims=True), z.max(axis=(1, 2, 3), keepdims=True)
    return (255 * (z - low) / (high - low)).astype(np.uint8)


def fashion(n: int) -> np.ndarray:
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Fashion-MNIST is not installed")
    d = gl.data.idx("fashion-mnist")
    return np.stack([d.load(i) for i in range(n)])


@pytest.mark.parametrize(
    "images", [lambda: X, lambda: smooth(900, 1), lambda: fashion(3000)], ids=["digits", "colour", "fashion"]
)
def test_near_duplicates_are_found_and_different_pictures_are_not(images: Callable[[], np.ndarray]) -> None:
    x = images()
    n = len(x) * 4 // 5
    planted = [(kind, i, v) for i in range(0, n, max(1, n // 60)) for kind, v in changed(x[i]).items()]
    vx = [np.ascontiguousarray(v) for _, _, v in planted] + list(x[n:])
    data = gl.data.arrays(
        list(x[:n]), np.arange(n) % 2, classes=["a", "b"], val_data=(vx, np.arange(len(vx)) % 2)
    )
    case = Case(budget=Budget(120), data=data)
    of = {p.second - n: p.first for p in duplicates.across(case)}
    equal = set(data.digests[:n])
    kinds: dict[str, list[bool]] = {}
    for j, (kind, i, _) in enumerate(planted):
        kinds.setdefault(kind, []).append(of.get(j) == i or data.digests[n + j] in equal)
    assert min(np.mean(v) for v in kinds.values()) >= 0.95, {k: np.mean(v) for k, v in kinds.items()}
    assert sum(j >= len(planted) for j in of) <= 0.005 * (len(x) - n)


def again(image: np.ndarray, k: int) -> np.ndarray:
    """The picture as it was, mirrored, or as a JPEG."""
    kinds = changed(image)
    return [image, kinds["mirrored"], kinds["jpeg 90"]][k % 3]


@pytest.mark.parametrize("seed", range(2))
def test_copies_within_training_that_contradict_each_other_are_wrong_labels(seed: int) -> None:
    a, b = halves(seed)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(a), 180, replace=False)
    x = np.concatenate([X[a], np.stack([again(X[a[i]], k) for k, i in enumerate(rows)])])
    labels = Y[a[rows]].copy()
    labels[:90] = (labels[:90] + 1) % 10  # of the exact and of the near ones
    data = data_of(x, np.concatenate([Y[a], labels]), X[b], Y[b])
    of = {c.id: c.result for c in run(data, "S4", "S5").checks}
    assert of["S4"].evidence["repeated_within_train"] == pytest.approx(60, abs=1)  # some look equal mirrored
    assert of["S4"].estimate is not None
    assert of["S4"].estimate.points == pytest.approx(30 / len(x), abs=1 / len(x))
    assert of["S5"].evidence["repeated_within_train"] == pytest.approx(120, abs=5)
    wrong = {data.ids[len(a) + k] for k in range(90)}
    for f in of.values():
        assert f.outcome == "found"
        pairs = f.evidence["contradicting_within_train"]
        assert "another label" in f.says
        assert all(its != other for _, _, its, other in pairs)
        assert np.mean([bool({one, two} & wrong) for one, two, _, _ in pairs]) >= 0.95


def test_copies_within_training_of_one_label_are_told_and_are_no_finding() -> None:
    a, b = halves()
    x = np.concatenate([X[a], np.stack([again(X[i], k) for k, i in enumerate(a[:90])])])
    d = run(data_of(x, np.concatenate([Y[a], Y[a[:90]]]), X[b], Y[b]), "S4", "S5")
    assert d.findings == []
    assert "30 of 1,490 images exactly repeat" in d.checks[0].result.says
    assert d.checks[1].result.evidence["repeated_within_train"] == pytest.approx(60, abs=3)
    assert d.notes == []


def test_validation_that_repeats_itself_counts_as_fewer_samples() -> None:
    a, b = halves()
    twice = np.stack([again(X[i], k) for k, i in enumerate(b)])
    d = run(data_of(X[a], Y[a], np.concatenate([X[b], twice]), np.concatenate([Y[b], Y[b]])), "S4", "S5")
    assert d.findings == []
    assert d.checks[1].result.evidence["effective_val_n"] == pytest.approx(len(b), rel=0.02)
    assert "count as about" in d.notes[0]
    # what that number claims: the mean over copies scatters as that of so many independent ones
    rng = np.random.default_rng(0)
    means = [np.concatenate([r, r]).mean() for r in rng.random((4000, len(b))) < 0.8]
    assert np.var(means) == pytest.approx(0.8 * 0.2 / len(b), rel=0.1)


@pytest.mark.parametrize(
    "images", [lambda: X, lambda: smooth(900, 2), lambda: fashion(3000)], ids=["digits", "colour", "fashion"]
)
def test_different_pictures_of_one_split_are_no_copies(images: Callable[[], np.ndarray]) -> None:
    x = images()
    data = gl.data.arrays(x, np.arange(len(x)) % 2, classes=["a", "b"], val_data=(x[:2], [0, 1]))
    case = Case(budget=Budget(120), data=data)
    pairs, n = duplicates.within(case, "train")
    assert n == len({data.digests[i] for i in data.indices("train")})
    assert len(pairs) <= 0.005 * n
    assert all(p.first < p.second for p in pairs)


def test_correlation_of_resized_pictures() -> None:
    x = smooth(4, 0)
    big = np.stack([np.asarray(PIL.Image.fromarray(v).resize((48, 48))) for v in x])
    assert (duplicates.correlation(x, big) > 0.995).all()
    assert (duplicates.correlation(x, big[::-1]) < 0.9).all()


# -- groups, shortcuts, files -------------------------------------------------------------------


def saved(folder: Path, names: list[str], images: np.ndarray, **options: Any) -> None:
    for name, image in zip(names, images, strict=True):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        picture.save(file, **options)


def test_stems() -> None:
    assert stem("val/a/clip3-12.png") == stem("train/a/clip3-7.png") == "a/clip3-"
    assert stem("a/IMG_0012.jpg", "a") == ""
    assert stem("class3/0012.jpg", "class3") == ""


def test_group_leakage_by_file_names_needs_alike_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = smooth(40, 3, 16)
    frames, names = [], []
    for g in range(40):
        for t in range(6):
            frames.append(np.clip(base[g] + rng.normal(0, 25, base[g].shape), 0, 255).astype(np.uint8))
            names.append(f"{'ab'[g % 2]}/clip{g}_{t:02d}.png")
    saved(tmp_path / "x", names, np.stack(frames))
    data = gl.data.folder(tmp_path / "x", progress=False)
    f = run(data, "S6").findings[0]
    assert f.points < -0.9
    assert f.evidence["by"] == "file names"
    whole = gl.data.folder(tmp_path / "x", group_by=r"clip\d+", progress=False)
    assert only(whole, "S6").outcome == "clear"
    # the same names on pictures that have nothing in common are no groups
    saved(tmp_path / "y", names, smooth(240, 5, 16))
    assert only(gl.data.folder(tmp_path / "y", progress=False), "S6").outcome == "clear"


def test_group_leakage_by_a_column(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = smooth(30, 4, 16)
    rows = ["path,label,patient"]
    for i in range(180):
        g = i % 30
        image = np.clip(base[g] + rng.normal(0, 20, base[g].shape), 0, 255).astype(np.uint8)
        saved(tmp_path, [f"im/{i}.png"], image[None])
        rows.append(f"im/{i}.png,{'ab'[g % 2]},p{g}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    f = run(gl.data.list_file(tmp_path / "list.csv", progress=False), "S6").findings[0]
    assert f.evidence["by"] == "column patient"


@pytest.mark.parametrize("tag", ["original", "changed"])
def test_group_leakage_by_exif_time_and_device(tmp_path: Path, tag: str) -> None:
    """Bursts: pictures of one second of one camera, under names that tell nothing."""
    rng = np.random.default_rng(2)
    base, names = smooth(40, 6, 16), rng.permutation(240)

    def written(folder: Path, bursts: int) -> Data:
        for i in range(240):
            g = i % 40
            image = np.clip(base[g] + rng.normal(0, 20, base[g].shape), 0, 255).astype(np.uint8)
            exif = PIL.Image.Exif()
            exif[0x010F], exif[0x0110] = "Maker", f"Model {g % 2}"
            second = f"2024:05:01 10:{(i % bursts) // 60:02d}:{(i % bursts) % 60:02d}"
            if tag == "original":
                exif.get_ifd(0x8769)[0x9003] = second
            else:
                exif[0x0132] = second
            # no number at its end: the name is no group
            name = f"{'ab'[g % 2]}/{chr(97 + names[i] // 26)}{chr(97 + names[i] % 26)}.jpg"
            saved(folder, [name], image[None], exif=exif, quality=90)
        return gl.data.folder(folder, progress=False)

    f = run(written(tmp_path / "x", 40), "S6").findings[0]
    assert f.evidence["by"] == "EXIF time and device"
    assert f.points < -0.9
    assert "Model" in f.says
    # every picture in a second of its own: no groups
    alone = only(written(tmp_path / "y", 240), "S6")
    assert alone.outcome == "clear"
    assert "EXIF time and device" not in alone.evidence["groupings"]


@pytest.mark.parametrize("kind", ["border", "brightness"])
def test_shortcut_in_the_pixels(kind: str) -> None:
    a, b = halves()
    x = np.repeat(X, 2, axis=1).repeat(2, axis=2) // 2 + 20
    told = np.where(np.random.default_rng(0).random(len(Y)) < 0.9, Y, 0)
    if kind == "border":
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        for s in (x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]):
            s[...] = (20 * told)[:, None, None]
    else:
        x = np.clip(x // 4 + 18 * told[:, None, None, None], 0, 255)
    x = x.astype(np.uint8)
    data = data_of(x[a], Y[a], x[b], Y[b])
    d = run(data, "S7", "S3")
    assert [f.id for f in d.findings] == ["S7"]
    assert d.findings[0].points > 0.5


def test_shortcut_of_the_file_format_and_odd_files(tmp_path: Path) -> None:
    x = smooth(200, 7, 16)
    saved(tmp_path, [f"a/{i}.png" for i in range(100)], x[:100])
    saved(tmp_path, [f"b/{i}.bmp" for i in range(100)], x[100:])
    data = gl.data.folder(tmp_path, progress=False)
    f = run(data, "S7").findings[0]
    assert f.evidence["property"] == "file format"
    assert f.low <= 0.5 <= f.high
    assert only(data, "S8").outcome == "clear"
    for i in range(20):
        PIL.Image.fromarray(x[i]).convert("CMYK").save(tmp_path / f"a/c{i}.jpg")
        picture = PIL.Image.fromarray(x[i])
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        picture.save(tmp_path / f"b/r{i}.jpg", exif=exif)
    (tmp_path / "a/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    r = only(gl.data.folder(tmp_path, progress=False, on_unreadable=0.1), "S8")
    assert r.outcome == "found"
    assert r.evidence["unreadable_count"] == 1
    assert {k: v["count"] for k, v in r.evidence["kinds"].items()} == {"CMYK": 20, "EXIF orientation": 20}
    assert r.estimate is not None
    assert r.estimate.points == pytest.approx(41 / 241)


# -- labels -------------------------------------------------------------------------------------


def noisy(y: np.ndarray, share: float, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    at = rng.random(len(y)) < share
    off = rng.integers(1, 10, len(y)) if kind == "symmetric" else 1
    return np.where(at, (y + off) % 10, y), at


@pytest.mark.parametrize("share", [0.05, 0.10, 0.20])
@pytest.mark.parametrize("kind", ["symmetric", "pairs"])
def test_noise_interval_covers_the_truth(share: float, kind: str) -> None:
    x, _ = features.standard(Case(budget=Budget(60), data=clean()))
    y = Y[halves()[0]]
    held = 0
    for seed in range(6):
        labels, at = noisy(y, share, kind, seed)
        e = noise.noise_share(classifier.out_of_fold(x, labels, 10, seed), labels)
        held += e.low <= at.mean() <= e.high
    assert held >= 5


def test_label_noise_is_found_listed_and_sized() -> None:
    a, b = halves()
    labels, at = noisy(Y[a], 0.15, "symmetric", 1)
    data = data_of(X[a], labels, X[b], Y[b])
    d = run(data, "L1", "L2", "S2", "S3")
    (f,) = d.findings
    assert f.id == "L1"
    assert f.low <= at.mean() <= f.high
    wrong = {data.ids[i] for i in np.flatnonzero(at)}
    listed = [s["id"] for s in f.evidence["train"]["suspects"]]
    assert len(listed) == 50
    assert np.mean([i in wrong for i in listed]) >= 0.95
    assert f.pictures


@pytest.mark.parametrize(
    ("train", "val", "of"),
    [
        ((0.01, 0.0, 0.03, 0.4), (0.11, 0.02, 0.2, 5e-4), "validation"),  # though the intervals meet
        ((0.10, 0.05, 0.15, 1e-6), (0.11, 0.02, 0.2, 5e-4), "training"),
        ((0.04, 0.02, 0.06, 1e-4), (0.20, 0.1, 0.3, 1e-6), "validation"),
        ((0.10, 0.05, 0.15, 1e-6), (0.01, 0.0, 0.03, 0.4), "training"),
    ],
)
def test_wrong_labels_are_told_of_the_split_that_has_them(
    train: tuple[float, ...], val: tuple[float, ...], of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates = iter((Estimate(*train), Estimate(*val)))
    monkeypatch.setattr(noise, "noise_share", lambda p, labels: next(estimates))
    a, b = halves()
    (f,) = run(data_of(X[a], Y[a], X[b], Y[b]), "L1").findings
    assert f"of {of}'s labels are wrong" in f.says
    assert f.points == (train if of == "training" else val)[0]


def test_validation_is_held_against_training_by_one_classifier() -> None:
    a, b = halves()
    for seed in range(3):
        labels, _ = noisy(Y[b], 0.1, "symmetric", seed)
        p = [
            label_noise._more_than_in_training(
                Case(budget=Budget(60), data=data_of(X[a], Y[a], X[b], y), seed=seed)
            )
            for y in (labels, Y[b])
        ]
        assert p[0] < 1e-6
        assert p[1] > 0.01


@pytest.mark.parametrize(
    ("net", "features", "of"),
    [
        ((0.06, 0.0, 0.17, 0.04), (0.165, 0.09, 0.23, 6e-4), 0.165),  # the network cannot tell, features can
        ((0.02, 0.0, 0.05, 0.20), (0.165, 0.09, 0.23, 6e-4), None),  # the better judge says: not so many
        ((0.10, 0.05, 0.15, 1e-6), (0.165, 0.09, 0.23, 6e-4), 0.10),  # the better judge decides
        ((0.06, 0.0, 0.17, 0.04), (0.165, 0.00, 0.30, 0.20), None),  # neither can
    ],
)
def test_features_judge_validation_where_the_network_cannot(
    net: tuple[float, ...], features: tuple[float, ...], of: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network whose average lags errs where it is sure: its curve reaches down to 0."""
    a, b = halves()
    data = data_of(X[a], Y[a], X[b], Y[b])
    val = data.indices("val")
    scores = 9.0 * np.eye(10)[data.labels[val]]  # right on every image: the better judge
    out = doctor.Outputs.of_logits([data.ids[i] for i in val], data.labels[val], scores, data.classes, "net")
    asked = iter((Estimate(0.0, 0.0, 0.01, 1.0), Estimate(*net), Estimate(*features)))
    monkeypatch.setattr(noise, "noise_share", lambda p, labels: next(asked))
    monkeypatch.setattr(label_noise, "_more_than_in_training", lambda case: 1e-9)
    case = Case(budget=Budget(60), data=data, outputs={"val": out})
    result = running.examine(case, [table.named("L1")], verbose=0, with_waterfall=False).checks[0].result
    assert result.estimate is not None
    if of is not None:
        assert (result.outcome, result.estimate.points) == ("found", of)
        assert "of validation's labels are wrong" in result.says
    else:
        wide = net[2] >= 0.06 and net[0] >= 0.03
        assert result.outcome == ("undecided" if wide else "clear"), result.says


def test_the_best_of_a_runs_weights_judges_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = halves()
    data = data_of(X[a], Y[a], X[b], Y[b])
    val = data.indices("val")

    def of(right: float, name: str) -> doctor.Outputs:
        told = np.where(np.arange(len(val)) < right * len(val), data.labels[val], (data.labels[val] + 1) % 10)
        scores = 9.0 * np.eye(10)[told]
        return doctor.Outputs.of_logits(
            [data.ids[i] for i in val], data.labels[val], scores, data.classes, name
        )

    case = Case(
        budget=Budget(60), data=data, outputs={"val": of(0.5, "averaged")}, saved=SimpleNamespace(tensors={})
    )  # type: ignore[arg-type]
    monkeypatch.setattr(label_noise, "siblings", lambda case: {"raw": None, "last": None})
    rates = {"raw": 0.995, "last": 0.9}
    monkeypatch.setattr(label_noise, "outputs_of_sibling", lambda c, name, at: of(rates[name], name))
    at, p = label_noise.probabilities(case, "val")
    assert np.mean(p.argmax(axis=1) == data.labels[at]) == pytest.approx(0.995, abs=2 / len(val))


def test_shifted_labels_are_misaligned() -> None:
    a, b = halves()
    for shift in (1, -2):
        data = data_of(X[a], np.roll(Y[a], shift), X[b], Y[b])
        d = run(data, "L1", "L2", "S3", "S7")
        assert [f.id for f in d.findings] == ["L2"]
        f = d.findings[0]
        assert f.evidence["shift"] == -shift
        assert f.low <= np.mean(np.roll(Y[a], shift) != Y[a]) <= f.high


@pytest.mark.parametrize("where", ["val", "both"])
def test_shuffled_labels_are_misaligned(where: str) -> None:
    a, b = halves()
    rng = np.random.default_rng(3)
    y = Y[a] if where == "val" else rng.permutation(Y[a])
    z = rng.permutation(Y[b])
    d = run(data_of(X[a], y, X[b], z), "L1", "L2")
    assert [f.id for f in d.findings] == ["L2"]
    assert d.findings[0].low <= np.mean(z != Y[b]) <= d.findings[0].high


# -- features -----------------------------------------------------------------------------------


def test_features_are_of_one_length_and_say_much() -> None:
    assert (
        features.described(np.zeros((2, 5, 9, 1), np.uint8)).shape
        == features.described(np.zeros((2, 224, 100, 3), np.uint8)).shape
    )
    case = Case(budget=Budget(60), data=clean())
    x, other = features.standard(case)
    a, b = halves()
    p = classifier.out_of_fold(x, Y[a], 10)
    assert np.mean(p.argmax(axis=1) == Y[a]) > 0.96
    q = classifier.predicted(x, Y[a], other, 10)
    assert np.mean(q.argmax(axis=1) == Y[b]) > 0.96
    assert np.allclose(p.sum(axis=1), 1)
    again = features.standard(Case(budget=Budget(60), data=clean()))[0]
    assert np.array_equal(x, again)


def test_net_features_feed_the_last_layer(tmp_path: Path) -> None:
    trained = gl.train(gl.Recipe(data="digits", model="lenet", epochs=1), out=tmp_path / "r", verbose=0)
    from gapless.doctor.opening import open_run

    case = open_run(trained, None, budget=Budget(60))
    got = features.net_features(case, "val")
    assert got is not None
    indices, x = got
    assert len(indices) == len(x)
    state = case.subject.net.state_dict()  # type: ignore[union-attr]
    weight = [v for k, v in state.items() if k.endswith("weight")][-1]
    bias = [v for k, v in state.items() if k.endswith("bias")][-1]
    own = case.outputs("val").scores
    assert own is not None
    if len(indices) == len(own):
        assert np.allclose(x @ weight.T + bias, own, atol=1e-3)
