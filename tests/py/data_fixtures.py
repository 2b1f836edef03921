"""Small pictures and folders for the tests of gapless.data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, h: int = 12, w: int = 16, c: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth random pixels, different for each seed."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(h, w, c)).cumsum(0).cumsum(1) * 6 + rng.uniform(60, 200)
    return np.clip(a, 0, 255).astype(np.uint8)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    """An array or a Pillow image as the bytes of a file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def image_folder(
    root: Path,
    counts: dict[str, int],
    *,
    kind: str = "PNG",
    first: int = 0,
    h: int = 12,
    w: int = 16,
    c: int = 3,
) -> Path:
    """root/class/class_0003.png …, all pictures different."""
    seed = first
    for name, n in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            file = root / name / f"{Path(name).name}_{i:04d}.{'jpg' if kind == 'JPEG' else kind.lower()}"
            file.write_bytes(encoded(picture(seed, h, w, c), kind))
            seed += 1
    return root


class Plain:
    """A pipeline that crops from the top left, and writes what depends on id, epoch and seed into pixel 0."""

    def __init__(self, size: int = 8) -> None:
        self.size = size

    def run(self, images: Any, ids: Any, epoch: int, seed: int) -> Any:
        x = np.stack([i[: self.size, : self.size] for i in images])
        x[:, 0, 0, 0] = (np.asarray(ids) * 7 + epoch * 3 + seed) % 256
        return x
