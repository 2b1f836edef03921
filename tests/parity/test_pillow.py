"""Resize, crops, flip and padding against Pillow, NumPy and torchvision's published algorithms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gapless.data.pipeline import Pipeline

Image = pytest.importorskip("PIL.Image")
PIL = pytest.importorskip("PIL")

FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3, "box": 4, "lanczos": 1}
PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])


def run(ops: list[Any], image: np.ndarray, sample: int = 0, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return Pipeline(ops).run([image], [sample], epoch, seed)[0]


def drawn(op: Any, image: np.ndarray, sample: int, epoch: int = 0, seed: int = 0) -> dict[str, float]:
    return Pipeline([op]).drawn([image], [sample], epoch, seed)[0][0]


def resized(image: np.ndarray, h: int, w: int, interpolation: str) -> np.ndarray:
    flat = image[..., 0] if image.shape[2] == 1 else image
    return np.asarray(Image.fromarray(flat).resize((w, h), FILTERS[interpolation])).reshape(
        h, w, image.shape[2]
    )


def check_resize(image: np.ndarray, h: int, w: int, interpolation: str) -> None:
    ours = run([{"name": "Resize", "size": (h, w), "interpolation": interpolation}], image)
    theirs = resized(image, h, w, interpolation)
    columns_first = image.shape[0] - h > max(0, 2 * (image.shape[1] - w))
    if PILLOW < (13, 0) and columns_first and interpolation != "nearest":
        assert np.mean(np.abs(ours.astype(int) - theirs) <= 1) > 0.99  # the passes in the other order
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    data = pytest.importorskip("skimage.data")
    datasets = pytest.importorskip("sklearn.datasets")
    china, flower = datasets.load_sample_images().images
    return [
        data.astronaut(),
        data.camera()[..., None],
        np.ascontiguousarray(china),
        np.ascontiguousarray(flower),
    ]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    "size", [(224, 224), (256, 341), (97, 33), (1, 1), (600, 700), (427, 100), (100, 640), (13, 1201)]
)
def test_resize_photographs(photographs: list[np.ndarray], interpolation: str, size: tuple[int, int]) -> None:
    for image in photographs:
        check_resize(image, *size, interpolation)


@pytest.mark.parametrize("interpolation", FILTERS)
def test_resize_random_sizes(interpolation: str) -> None:
    rng = np.random.default_rng(3)
    for turn in range(120):
        h, w, oh, ow = np.exp(rng.uniform(0, math.log(220), 4)).astype(int)
        check_resize(rng.integers(0, 256, (h, w, (1, 3)[turn % 2]), dtype=np.uint8), oh, ow, interpolation)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (3, 1000)])
def test_resize_one_pixel_edges(interpolation: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for size in [(1, 1), (1, 7), (7, 1), (16, 16), (5, 300)]:
        check_resize(image, *size, interpolation)


@pytest.mark.parametrize(("h", "w"), [(375, 500), (500, 375), (100, 100), (33, 900), (640, 427), (7, 5)])
@pytest.mark.parametrize(("size", "max_size"), [(256, None), (31, None), (256, 300), (224, 225)])
def test_resize_shorter_side_as_torchvision(h: int, w: int, size: int, max_size: int | None) -> None:
    short, long = min(h, w), max(h, w)
    new_short, new_long = size, int(size * long / short)
    if max_size is not None and new_long > max_size:
        new_short, new_long = int(max_size * new_short / new_long), max_size
    expected = (new_short, new_long) if h <= w else (new_long, new_short)
    pipe = Pipeline([{"name": "Resize", "size": size, "max_size": max_size}])
    assert pipe.output_shape(h, w, 3) == (*expected, 3, False)


def test_resize_without_antialias_is_torch_interpolate(photographs: list[np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    image = photographs[0]
    ours = run([{"name": "Resize", "size": (100, 77), "antialias": False}], image)
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32).copy())
    y = (
        torch.nn.functional.interpolate(x, (100, 77), mode="bilinear", align_corners=False)[0]
        .numpy()
        .transpose(1, 2, 0)
    )
    assert np.abs(ours - y).max() <= 1.01  # two passes, each rounded


def torchvision_center_crop(image: np.ndarray, ch: int, cw: int) -> np.ndarray:
    h, w = image.shape[:2]
    if cw > w or ch > h:
        left, top = (cw - w) // 2 if cw > w else 0, (ch - h) // 2 if ch > h else 0
        right, bottom = (cw - w + 1) // 2 if cw > w else 0, (ch - h + 1) // 2 if ch > h else 0
        image = np.pad(image, ((top, bottom), (left, right), (0, 0)))
        h, w = image.shape[:2]
    top, left = round((h - ch) / 2.0), round((w - cw) / 2.0)
    return image[top : top + ch, left : left + cw]


@pytest.mark.parametrize("crop", [(224, 224), (7, 8), (1, 1), (40, 3), (41, 500), (37, 53)])
def test_center_crop(crop: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for h, w in [(37, 53), (36, 53), (300, 301), (1, 1), (2, 999), (225, 227)]:
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        np.testing.assert_array_equal(
            run([{"name": "CenterCrop", "size": crop}], image), torchvision_center_crop(image, *crop)
        )


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("padding", [3, (2, 5), (1, 2, 3, 4), 0, (30, 0, 41, 7)])
def test_pad(mode: str, padding: Any) -> None:
    left, top, right, bottom = (
        (padding,) * 4 if isinstance(padding, int) else padding * 2 if len(padding) == 2 else padding
    )
    for shape in [(6, 9, 3), (1, 1, 1), (1, 8, 3), (5, 2, 1)]:
        image = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
        fill = (9, 8, 7)[: shape[2]]
        options = {"fill": fill if shape[2] == 3 else fill[0]} if mode == "constant" else {}
        ours = run([{"name": "Pad", "padding": padding, "padding_mode": mode, **options}], image)
        sides = ((top, bottom), (left, right))
        if mode == "constant":
            theirs = np.stack(
                [np.pad(image[..., c], sides, constant_values=fill[c]) for c in range(shape[2])], -1
            )
        else:
            theirs = np.pad(image, (*sides, (0, 0)), mode=mode)
        np.testing.assert_array_equal(ours, theirs)


def padded_for_crop(image: np.ndarray, size: int, padding: int, if_needed: bool, mode: str) -> np.ndarray:
    out = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=mode)
    if if_needed and out.shape[1] < size:
        out = np.pad(out, ((0, 0), (size - out.shape[1],) * 2, (0, 0)), mode=mode)
    if if_needed and out.shape[0] < size:
        out = np.pad(out, ((size - out.shape[0],) * 2, (0, 0), (0, 0)), mode=mode)
    return out


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize(
    ("shape", "padding", "if_needed"),
    [((32, 32, 3), 4, False), ((32, 40, 1), 0, False), ((5, 50, 3), 2, True), ((9, 7, 3), 0, True)],
)
def test_random_crop(mode: str, shape: tuple[int, ...], padding: int, if_needed: bool) -> None:
    size = 32
    image = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    whole = padded_for_crop(image, size, padding, if_needed, mode)
    op = {
        "name": "RandomCrop",
        "size": size,
        "padding": padding,
        "pad_if_needed": if_needed,
        "padding_mode": mode,
    }
    places = set()
    for sample in range(60):
        at = drawn(op, image, sample)
        top, left = int(at["top"]), int(at["left"])
        places.add((top, left))
        np.testing.assert_array_equal(run([op], image, sample), whole[top : top + size, left : left + size])
    assert len(places) > 5
    assert all(0 <= t <= whole.shape[0] - size and 0 <= x <= whole.shape[1] - size for t, x in places)


def test_random_crop_places_are_uniform() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    n = 8100
    pipe = Pipeline([{"name": "RandomCrop", "size": 32, "padding": 4}])
    counts = np.zeros((9, 9))
    for ops in pipe.drawn([image] * n, np.arange(n), 0, 5):
        counts[int(ops[0]["top"]), int(ops[0]["left"])] += 1
    chi2 = ((counts - n / 81) ** 2 / (n / 81)).sum()
    assert chi2 < 80 + 4 * math.sqrt(160)  # 80 degrees of freedom, 4 sigma


def test_flip_is_pillows() -> None:
    rng = np.random.default_rng(5)
    for w in range(1, 40):
        image = rng.integers(0, 256, (3, w, 3), dtype=np.uint8)
        flipped = np.asarray(Image.fromarray(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        np.testing.assert_array_equal(run([{"name": "RandomHorizontalFlip", "p": 1.0}], image), flipped)
        np.testing.assert_array_equal(run([{"name": "RandomHorizontalFlip", "p": 0.0}], image), image)
        gray = np.ascontiguousarray(image[..., :1])
        np.testing.assert_array_equal(run([{"name": "RandomHorizontalFlip", "p": 1.0}], gray), gray[:, ::-1])


@pytest.mark.parametrize("interpolation", FILTERS)
def test_random_resized_crop_pixels(photographs: list[np.ndarray], interpolation: str) -> None:
    op = {"name": "RandomResizedCrop", "size": (64, 80), "interpolation": interpolation}
    for image in photographs:
        for sample in range(12):
            at = {k: int(v) for k, v in drawn(op, image, sample).items() if k != "name"}
            crop = image[at["top"] : at["top"] + at["height"], at["left"] : at["left"] + at["width"]]
            ours, theirs = run([op], image, sample), resized(crop, 64, 80, interpolation)
            if PILLOW >= (13, 0) or at["height"] - 64 <= max(0, 2 * (at["width"] - 80)):
                np.testing.assert_array_equal(ours, theirs)


def torchvision_random_resized_crop(
    rng: np.random.Generator, h: int, w: int, scale: Any, ratio: Any
) -> tuple[int, int, int, int]:
    """torchvision.transforms.RandomResizedCrop.get_params, with NumPy's generator."""
    for _ in range(10):
        target = h * w * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        cw, ch = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < cw <= w and 0 < ch <= h:
            return int(rng.integers(0, h - ch + 1)), int(rng.integers(0, w - cw + 1)), ch, cw
    have = w / h
    if have < min(ratio):
        cw, ch = w, round(w / min(ratio))
    elif have > max(ratio):
        cw, ch = round(h * max(ratio)), h
    else:
        cw, ch = w, h
    return (h - ch) // 2, (w - cw) // 2, ch, cw


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples of one size."""
    points = np.concatenate([a, b])
    a, b = np.sort(a), np.sort(b)
    return float(
        np.abs(np.searchsorted(a, points, "right") - np.searchsorted(b, points, "right")).max() / len(a)
    )


@pytest.mark.parametrize(
    ("h", "w", "scale", "ratio"),
    [
        (375, 500, (0.08, 1.0), (3 / 4, 4 / 3)),
        (300, 200, (0.5, 0.9), (0.9, 2.0)),
        (20, 300, (0.08, 1.0), (3 / 4, 4 / 3)),  # mostly the fallback
        (900, 8, (0.3, 1.0), (3 / 4, 4 / 3)),
        (1, 1, (0.08, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_random_resized_crop_distribution(h: int, w: int, scale: Any, ratio: Any) -> None:
    n = 6000
    pipe = Pipeline([{"name": "RandomResizedCrop", "size": 8, "scale": scale, "ratio": ratio}])
    image = np.zeros((h, w, 1), np.uint8)
    got = [ops[0] for ops in pipe.drawn([image] * n, np.arange(n), 0, 1)]
    ours = np.array([[g["top"], g["left"], g["height"], g["width"]] for g in got])
    rng = np.random.default_rng(6)
    theirs = np.array(
        [torchvision_random_resized_crop(rng, h, w, scale, ratio) for _ in range(n)], dtype=float
    )
    limit = 1.95 * math.sqrt(2 / n)  # a chance of 0.1 % each, and the draws are fixed
    for k in range(4):
        assert distance(ours[:, k], theirs[:, k]) < limit
    assert distance(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]) < limit
    assert distance(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]) < limit
    assert (ours[:, 0] + ours[:, 2] <= h).all()
    assert (ours[:, 1] + ours[:, 3] <= w).all()
    assert (ours[:, 2:] >= 1).all()
