"""A folder of pictures to learn from: textures with noise, as cameras and people leave them.

Classes differ in their texture only: colours, contrast, direction and size are drawn for each picture. Files
are JPEG, PNG and WebP of 120 to 200 px; some are grey, some have alpha, some lie on their side with an EXIF
orientation that puts them upright, as phones write them.

    python tests/py/picture_set.py DIR --per-class 60
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float64]

# What Image.transpose undoes the EXIF orientation with the same number: stored so, shown upright.
_STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def _stripes(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    return np.sin(u * rng.uniform(0.25, 0.45) + rng.uniform(0, 6))


def _checks(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    k = rng.uniform(0.18, 0.3)
    return np.sign(np.sin(u * k) * np.sin(v * k))


def _dots(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    k = rng.uniform(0.25, 0.4)
    return np.where(np.cos(u * k) + np.cos(v * k) > 1.0, 1.0, -1.0)


def _clouds(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    total = np.zeros_like(u)
    for _ in range(6):
        a, k = rng.uniform(0, np.pi), rng.uniform(0.02, 0.07)
        total += np.sin((u * np.cos(a) + v * np.sin(a)) * k + rng.uniform(0, 6))
    return total / 2


def _rings(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    return np.sin(np.hypot(u - rng.uniform(-30, 30), v - rng.uniform(-30, 30)) * rng.uniform(0.25, 0.4))


TEXTURES: dict[str, Callable[[Plane, Plane, np.random.Generator], Plane]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "clouds": _clouds,
    "rings": _rings,
}


def texture(name: str, seed: int) -> NDArray[np.uint8]:
    """One picture (H, W, 3) of a texture."""
    rng = np.random.default_rng([sorted(TEXTURES).index(name), seed])
    h, w = rng.integers(120, 201, 2)
    y, x = np.mgrid[:h, :w] - np.array([h / 2, w / 2]).reshape(2, 1, 1)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    pattern = np.clip(TEXTURES[name](u, v, rng), -1, 1)[:, :, None] * rng.uniform(30, 60)
    picture = rng.uniform(90, 165, 3) + pattern * rng.uniform(0.6, 1.0, 3) + rng.normal(0, 12, (h, w, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def save(pixels: NDArray[np.uint8], stem: Path, kind: int) -> Path:
    """Write one picture in the kind's format: 0–3 JPEG (with each orientation), 4 grey JPEG, 5 PNG with
    alpha, 6 WebP, 7 grey PNG."""
    image = Image.fromarray(pixels)
    options: dict[str, Any] = {}
    if kind in (1, 2, 3):
        orientation = (3, 6, 8)[kind - 1]
        image = image.transpose(_STORED[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif}
    elif kind in (4, 7):
        image = image.convert("L")
    elif kind == 5:
        image.putalpha(255)
    ending = ".png" if kind in (5, 7) else ".webp" if kind == 6 else ".jpg"
    path = stem.with_name(stem.name + ending)
    image.save(path, **(options if ending != ".jpg" else {"quality": 90, **options}))
    return path


def picture_set(
    root: Path,
    textures: Sequence[str] = ("stripes", "checks", "dots", "clouds"),
    per_class: int = 40,
    *,
    names: Sequence[str] | None = None,
    first: int = 0,
) -> Path:
    """Make ``root/class/0003.jpg`` …; the same arguments give the same pixels.

    Parameters
    ----------
    root : Path
    textures : sequence of str
        Of `TEXTURES`.
    per_class : int
    names : sequence of str, optional
        What the classes are called, where that is not the texture's name.
    first : int
        Number of the first picture: ranges that do not overlap have no picture in common.
    """
    for name, texture_name in zip(names or textures, textures, strict=True):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + per_class):
            save(texture(texture_name, i), root / name / f"{i:04d}", i % 8)
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--per-class", type=int, default=60)
    parser.add_argument("--textures", nargs="+", default=["stripes", "checks", "dots", "clouds"])
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    print(picture_set(given.dir, given.textures, given.per_class, first=given.first))
