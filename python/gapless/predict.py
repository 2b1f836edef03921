"""Predicting with a checkpoint: the stored pipeline, network and class names; nothing has to be said
twice."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core, metrics
from . import checkpoint as checkpoint_file
from .errors import CheckpointError, DataError, NonFiniteError, ShapeError
from .evaluation import find_checkpoint

if TYPE_CHECKING:
    from .nn import Net

__all__ = ["Model", "Predictions", "load"]

Image = NDArray[np.uint8]


@dataclass(frozen=True, repr=False)
class Predictions:
    """What a model says of some images.

    Attributes
    ----------
    ids : list of str
        Paths, or the positions of images that came without a name.
    classes : tuple of str
        All class names, by column of `probabilities`.
    probabilities : (n, classes) float32
    logits : (n, classes) float32
        What the network gave; the same bits at any batch size and thread count.
    """

    ids: list[str]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]

    @property
    def labels(self) -> list[str]:
        """The most probable class of each image (ties: the lower index)."""
        return [self.classes[k] for k in self.logits.argmax(axis=1)]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of that class."""
        best: NDArray[np.float32] = self.probabilities.max(axis=1, initial=0)
        return best

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """For each image the k most probable classes with their probabilities."""
        metrics.check_topk([k], len(self.classes))
        order = np.argsort(-self.logits, axis=1, kind="stable")[:, :k]
        rows = zip(order, self.probabilities, strict=True)
        return [[(self.classes[j], float(p[j])) for j in row] for row, p in rows]

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain data for JSON: a row per image."""
        return list(self)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for name, label, p in zip(self.ids, self.labels, self.probabilities, strict=True):
            shares = {c: float(x) for c, x in zip(self.classes, p, strict=True)}
            yield {"id": name, "class": label, "probability": float(p.max()), "probabilities": shares}

    def __repr__(self) -> str:
        rows = zip(self.ids, self.labels, self.confidence, strict=True)
        lines = [f"{name}: {label} ({p:.3f})" for name, label, p in rows]
        shown = lines if len(lines) <= 20 else [*lines[:20], f"… {len(lines) - 20} more"]
        return "\n".join(shown) or "Predictions: none"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td><b>{html.escape(label)}</b></td><td>{p:.3f}</td></tr>"
            for name, label, p in list(zip(self.ids, self.labels, self.confidence, strict=True))[:100]
        )
        return f"<table><tr><th>image</th><th>class</th><th>probability</th></tr>{rows}</table>"


class Model:
    """A network with the pipeline and the class names that it was trained with.

    Attributes
    ----------
    net : Net
        For ``net(x)`` on floats of your own.
    classes : tuple of str
    weights_kind : {"raw", "ema"}
        Those that the checkpoint's record scored.
    """

    def __init__(self, saved: checkpoint_file.Checkpoint) -> None:
        from .data import manifest
        from .data.pipeline import Pipeline
        from .nn import Net

        self.path = saved.path
        with checkpoint_file.fitting(saved):
            facts = manifest.check(saved.manifest)
            self.classes: tuple[str, ...] = tuple(facts["classes"])
            self.weights_kind = saved.weights_kind
            self.net: Net = Net(saved.graph, seed=None)
            self.net.load_state_dict(saved.scored(), strict=True)
            self.pipeline = Pipeline(saved.recipe["eval"], evaluation=True)
            self._channels = int(facts["channels"])
            self._precision = str(saved.recipe["precision"])
            if self.net.num_classes != len(self.classes):
                raise CheckpointError(
                    f"{saved.path}: {len(self.classes)} class names for {self.net.num_classes} outputs"
                )
        self._plan: Any = None

    def predict(self, images: Any, *, batch_size: int = 64) -> Predictions:
        """Classify images.

        Parameters
        ----------
        images : path, bytes, array, or a sequence of them
            Files of pictures, their content, uint8 arrays (H, W), (H, W, 1) or (H, W, 3), or Pillow images;
            an array (N, H, W, C) is N images. The stored evaluation pipeline is applied.
        batch_size : int, default 64
            For speed and memory only.

        Returns
        -------
        Predictions

        Raises
        ------
        DataError
            An image that cannot be read; names it. No image is skipped.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {batch_size}")
        named = list(_images(images))
        logits = np.empty((len(named), len(self.classes)), np.float32)
        size = min(batch_size, max(len(named), 1))
        for at in range(0, len(named), size):
            part = [_decode(name, value, self._channels) for name, value in named[at : at + size]]
            x = self.pipeline.run(part, np.arange(at, at + len(part), dtype=np.int64))
            self._check(x, named[at][0])
            if self._plan is None or self._plan.batch < size:  # now that an image has the size it takes
                self._plan = self._compile(size)
            logits[at : at + len(part)] = self._plan.forward(x)[0]
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise NonFiniteError(f"predict: the network's output for {named[bad[0]][0]!r} is not finite")
        return Predictions([name for name, _ in named], self.classes, metrics.softmax(logits), logits)

    def _compile(self, batch: int) -> Any:
        with checkpoint_file.fitting(self):
            return _core.Plan(
                self.net.graph(),
                self.net.store,
                batch=batch,
                precision=self._precision,
                mean=self.pipeline.mean,
                std=self.pipeline.std,
                input_dtype="uint8",
            )

    def _check(self, x: Image, name: str) -> None:
        got = (x.shape[3], x.shape[1], x.shape[2])
        if got != self.net.input_shape:
            raise ShapeError(
                f"predict: {name!r} is (C, H, W) = {got} after the stored pipeline, the network takes "
                f"{self.net.input_shape}; its pipeline has no operation of fixed size, so images "
                f"must have that size"
            )

    def __repr__(self) -> str:
        known = ", ".join(self.classes[:5]) + (", …" if len(self.classes) > 5 else "")
        kind = f"{self.weights_kind} weights"
        return f"Model({self.path}: {len(self.classes)} classes ({known}), {kind}, {self.net!r})"


def load(checkpoint: str | os.PathLike[str] | Any) -> Model:
    """Load a checkpoint for predicting.

    Parameters
    ----------
    checkpoint : path or Run
        A checkpoint file, a run's folder (its ``best.safetensors``), or what `gapless.train` returned.

    Raises
    ------
    CheckpointError
        Damaged, foreign, or not fitting; names the place.

    Examples
    --------
    >>> import tempfile
    >>> import gapless as gl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = gl.train(gl.Recipe(data="digits", model="lenet", epochs=2), out=f"{folder}/r", verbose=0)
    ...     model = gl.load(run.best)
    >>> found = model.predict([gl.data.digits().load(i) for i in range(2)])
    >>> found.ids, found.labels, found.probabilities.shape
    (['0', '1'], ['0', '1'], (2, 10))
    """
    return Model(checkpoint_file.read(find_checkpoint(checkpoint)))


def _images(images: Any) -> Iterator[tuple[str, Any]]:
    """Each image with its name."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    single = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray)
    if single or not isinstance(images, Sequence | Iterator):
        images = [images]
    for i, value in enumerate(images):
        yield (os.fspath(value) if isinstance(value, str | os.PathLike) else str(i)), value


def _decode(name: str, value: Any, channels: int) -> Image:
    from .data import decode

    if isinstance(value, str | os.PathLike):
        if Path(value).is_dir():
            raise DataError(f"predict: {name} is a folder; give its files")
        return decode.as_channels(decode.read(value), channels)
    if isinstance(value, bytes | bytearray | memoryview):
        return decode.as_channels(decode.decode(bytes(value), name=f"image {name}"), channels)
    if hasattr(value, "getexif"):  # a Pillow image
        return decode.as_channels(decode.from_pillow(value), channels)
    image = np.asarray(value)
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] not in (1, 3))
    ):
        raise DataError(
            f"predict: image {name} is {image.dtype} {image.shape}; expected uint8 (H, W), (H, W, 1) "
            f"or (H, W, 3), "
            "a path, or a file's bytes; net(x) takes floats"
        )
    return decode.as_channels(image[:, :, None] if image.ndim == 2 else image, channels)
