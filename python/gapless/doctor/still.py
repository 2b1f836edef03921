"""The training pipeline without its draws: every picture in the middle of what training could have shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.pipeline import Pipeline

__all__ = ["Still"]

Image = NDArray[np.uint8]


class Still:
    """A training pipeline whose random operations stand still.

    Geometry stays: a random crop becomes the crop of the middle, a random resized crop the middle window of
    mean area and mean shape, resized to the same size, so that things keep the size that they have in
    training on the average. What changes no geometry (a flip, and any operation that is not known here) is
    left out.

    Parameters
    ----------
    pipeline : Pipeline

    Attributes
    ----------
    left_out : list of str
        Random operations that are not known here, and that were left out.

    Examples
    --------
    >>> from gapless import augment
    >>> still = Still(Pipeline([augment.RandomCrop(4, padding=1), augment.RandomHorizontalFlip()]))
    >>> x = [np.arange(48, dtype=np.uint8).reshape(4, 4, 3)]
    >>> bool((still.run(x, np.array([0]), 5, 7)[0] == x[0]).all())
    True
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.left_out: list[str] = []
        self._parts: list[Pipeline | tuple[float, float]] = []
        ops: list[Any] = []
        for op in pipeline.ops:
            c = op.config()
            if not op.random:
                ops.append(op)
            elif op.name == "RandomCrop":
                if c["padding"] is not None:
                    ops.append(_pad(c))
                ops.append({"name": "CenterCrop", "size": c["size"]})
            elif op.name == "RandomResizedCrop":
                self._close(ops)
                self._parts.append((sum(c["scale"]) / 2, math.sqrt(c["ratio"][0] * c["ratio"][1])))
                resize = {k: c[k] for k in ("size", "interpolation", "antialias")}
                ops = [{"name": "Resize", **resize}]
            elif op.name != "RandomHorizontalFlip":
                self.left_out.append(op.name)
        self._close(ops)

    def _close(self, ops: list[Any]) -> None:
        if ops:
            self._parts.append(Pipeline(ops))

    def run(self, images: Sequence[Image], ids: NDArray[np.int64], epoch: int = 0, seed: int = 0) -> Image:
        """As `Pipeline.run`; epoch and seed decide nothing."""
        if len(self._parts) == 1 and isinstance(self._parts[0], Pipeline):
            return self._parts[0].run(list(images), ids, epoch, seed)
        return np.stack([self._one(image, ids[k : k + 1]) for k, image in enumerate(images)])

    def _one(self, image: Image, ident: NDArray[np.int64]) -> Image:
        for part in self._parts:
            image = part.run([image], ident, 0, 0)[0] if isinstance(part, Pipeline) else _middle(image, *part)
        return image


def _pad(config: dict[str, Any]) -> dict[str, Any]:
    return {"name": "Pad", **{k: config[k] for k in ("padding", "fill", "padding_mode")}}


def _middle(image: Image, share: float, ratio: float) -> Image:
    """The middle window with that share of the area and that width / height, as far as it fits."""
    h, w = image.shape[:2]
    width = min(w, max(1, round(math.sqrt(share * h * w * ratio))))
    height = min(h, max(1, round(math.sqrt(share * h * w / ratio))))
    top, left = (h - height) // 2, (w - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])
