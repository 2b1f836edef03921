"""A bed to plant in: an image set of some seed, its healthy recipe, and models that are trained once.

A `Setup` says everything about one diagnosis: images, recipe, and how the model is fed and asked. A fault is
a function from one setup to another; counterfactuals are further setups. What is trained is kept in a folder
under the digest of what decides it, so faults in data that no model has seen, in evaluation, and most
counterfactuals share trained models.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import gapless as gl
from gapless import checkpoint
from gapless.nn import Net
from gapless.training import outputs as run_outputs

from . import elsewhere, nets, sets
from .sets import ImageSet, Part

__all__ = ["Bed", "Feed", "Setup", "quiet"]

Floats = NDArray[np.float32]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Feed:
    """What a user's `preprocess` does to a picture; the defaults are what the model was trained with.

    Attributes
    ----------
    order : {"rgb", "bgr"}
    scale : float
        Pixels are divided by it.
    mean, std : tuple of float or None
        In units of pixels / 255; None: the recipe's.
    size : int or None
        Pictures are resized to it, whatever they are.
    kernel : str
        Of that: a name of `Image.Resampling`.
    crop : bool
        Cut the middle square before resizing; else the picture is squeezed into a square.
    """

    order: str = "rgb"
    scale: float = 255.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    kernel: str = "BILINEAR"
    crop: bool = True


def _same(scores: Scores) -> Scores:
    return scores


@dataclass(frozen=True)
class Setup:
    """One diagnosis.

    Attributes
    ----------
    images : ImageSet
    net : str
    options : dict
        Of the net.
    recipe : dict
        Keys of the recipe beside data and model.
    form : {"run", "model", "outputs", "data"}
        A run of gapless, a model trained elsewhere, its outputs, or the data before training.
    feed : Feed
    weights : {"trained", "fresh", "raw", "last", "recalibrated"}
        Which weights are evaluated; the last one has BatchNorm's statistics taken anew.
    mode : {"evaluation", "training", "batches"}
        Of a model trained elsewhere; the last one takes each batch's own statistics, without dropout.
    said : callable
        What becomes of the scores before they are handed over.
    table : callable or None
        What becomes of a table of outputs before it is handed over.
    logged : float or None
        Instead of what training logged.
    files : callable or None
        What is done to the files after they were written: folder → None.
    more : dict
        Further arguments of `gapless.diagnose`.
    """

    images: ImageSet
    net: str = "small"
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    form: Literal["run", "model", "outputs", "data"] = "run"
    feed: Feed = field(default_factory=Feed)
    weights: str = "trained"
    mode: str = "evaluation"
    said: Callable[[Scores], Scores] = _same
    table: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    logged: float | None = None
    files: Callable[[Path, ImageSet], None] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def with_recipe(self, **keys: Any) -> Setup:
        """With other keys of the recipe."""
        return replace(self, recipe={**self.recipe, **keys})

    def with_parts(self, *, train: Part | None = None, val: Part | None = None) -> Setup:
        """With other samples."""
        return replace(self, images=self.images.with_parts(train=train, val=val))


#: The healthy recipe of each set: net, epochs, learning rate.
HEALTHY: Mapping[str, tuple[str, int, float]] = {
    "digits": ("small", 20, 0.1),
    "patches": ("small", 16, 0.1),
    "shapes": ("small", 20, 0.1),
    "fashion": ("small", 12, 0.1),
}
_BATCH = 32


class Bed:
    """An image set of a seed, with a folder for what is trained on it.

    Parameters
    ----------
    folder : Path
    name : str
        Of the image set.
    seed : int
        Of the images, the split, and training.
    """

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        self.folder, self.name, self.seed = folder, name, seed
        self.images = sets.draw(name, seed)
        self._logits: dict[tuple[str, str], Scores] = {}

    def rng(self, *stream: int) -> np.random.Generator:
        """Random numbers for planting: the same for the same bed."""
        return np.random.default_rng([self.seed, len(self.name), *stream])

    def healthy(self, net: str | None = None, **recipe: Any) -> Setup:
        """A setup without a fault."""
        usual, epochs, lr = HEALTHY[self.name]
        keys: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": _BATCH,
            "optimizer": {"name": "SGD", "lr": lr, "momentum": 0.9, "weight_decay": 5e-4},
            "seed": self.seed,
            **recipe,
        }
        return Setup(self.images, net or usual, recipe=keys)

    # -- files and models -------------------------------------------------------------------------

    def listed(self, setup: Setup) -> Path:
        """The list file of the setup's samples, written when it is first asked for."""
        key = _digest(_bytes_of(setup.images), repr(setup.files))
        folder = self.folder / f"data-{key}"
        if not (folder / "list.csv").exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            images = setup.images
            sets.write(partial, {"train": images.train, "val": images.val}, images.classes)
            if setup.files is not None:
                setup.files(partial, images)
            partial.rename(folder)
        return folder / "list.csv"

    def run(self, setup: Setup) -> gl.Run:
        """The setup's recipe trained on the setup's samples."""
        keys = {"net": setup.net, "options": dict(setup.options), "recipe": dict(setup.recipe)}
        listed = self.listed(setup)
        out = self.folder / f"run-{_digest(listed.parent.name, json.dumps(keys, sort_keys=True))}"
        if not (out / "whole").exists():
            shutil.rmtree(out, ignore_errors=True)
            images = setup.images
            with quiet():
                data = gl.data.list_file(listed)
            recipe = gl.Recipe(
                data=data,
                model=nets.net(setup.net, len(images.classes), images.channels, **setup.options),
                **setup.recipe,
            )
            with mock.patch.object(run_outputs.Folder, "picture", return_value=None), quiet():
                gl.train(recipe, out=out, verbose=0)
            (out / "whole").touch()
        return gl.Run.open(out)

    def logged(self, setup: Setup) -> float:
        """What training showed in its last epoch."""
        return float(self.run(setup).history[-1]["train/running/top1"])

    def model(self, setup: Setup) -> Callable[[Floats], Floats]:
        """The network as a function of what it is fed."""
        run = self.run(setup)
        saved = checkpoint.read(run.last if setup.weights == "last" else run.best)
        weights = saved.weights("raw") if setup.weights == "raw" else saved.scored()
        if setup.weights == "recalibrated":
            x = self.prepared(setup, setup.images.train)
            return elsewhere.evaluation_mode(elsewhere.with_statistics_of(weights, x))
        if setup.mode == "batches":
            return elsewhere.in_batches(weights, setup.recipe["batch_size"])
        if setup.mode == "training":
            return elsewhere.trained_mode(weights, seed=self.seed)
        fresh = setup.weights == "fresh"
        net = Net(saved.graph, seed=self.seed + 1 if fresh else None)
        if not fresh:
            net.load_state_dict(weights, strict=True)
        return lambda x: np.asarray(net(np.ascontiguousarray(x, np.float32)), np.float32)

    def preprocess(self, setup: Setup) -> Callable[[Any], Floats]:
        """Path or pixels → what the network is fed, as the setup's `feed` says."""
        saved = checkpoint.read(self.run(setup).best)
        normalize = saved.recipe["eval"][-1]
        channels, size = setup.images.channels, setup.feed.size
        mean = setup.feed.mean or tuple(np.atleast_1d(normalize["mean"]))
        std = setup.feed.std or tuple(np.atleast_1d(normalize["std"]))
        feed = setup.feed

        def prepared(source: Any) -> Floats:
            image = source if isinstance(source, np.ndarray) else _pixels(source, channels)
            image = _resized(image, feed, size)
            x = image.astype(np.float32) / np.float32(feed.scale)
            x = x[..., ::-1] if feed.order == "bgr" else x
            x = (x - np.float32(mean)) / np.float32(std)
            return np.ascontiguousarray(x.transpose(2, 0, 1), np.float32)

        return prepared

    # -- evaluating -------------------------------------------------------------------------------

    def scores(self, setup: Setup, part: Part) -> Scores:
        """Scores of any samples as the setup evaluates them."""
        return setup.said(self._raw(setup, part))

    def _raw(self, setup: Setup, part: Part) -> Scores:
        f, x = self.model(setup), self.prepared(setup, part)
        parts = [f(x[at : at + 64]) for at in range(0, len(x), 64)]
        return np.concatenate(parts).astype(np.float64)

    def prepared(self, setup: Setup, part: Part) -> Floats:
        """Samples as the network is fed."""
        g = self.preprocess(setup)
        return np.stack([g(image) for image in part.images])

    def right(self, setup: Setup, part: Part | None = None) -> NDArray[np.bool_]:
        """Which samples (default: validation) come out right against the part's own labels."""
        part = part or setup.images.val
        return np.asarray(self.scores(setup, part).argmax(axis=1) == part.labels)

    def accuracy(self, setup: Setup, part: Part | None = None) -> float:
        """Share that is right."""
        return float(self.right(setup, part).mean())

    # -- diagnosing -------------------------------------------------------------------------------

    def examiner(self, setup: Setup, budget: float) -> Callable[[], Any]:
        """What examines the setup when it is called; training and scoring are done before."""
        if setup.form == "data":
            listed = self.listed(setup)
            return lambda: gl.check(listed, budget=budget, verbose=0)
        given = {"run": self._run, "model": self._model, "outputs": self._outputs}[setup.form](setup)
        return lambda: gl.diagnose(**given, budget=budget, verbose=0)

    def _run(self, setup: Setup) -> dict[str, Any]:
        run = self.run(setup)
        deployed = run.last if setup.weights == "last" else run.out
        given: dict[str, Any] = {"run_or_checkpoint": deployed, **setup.more}
        return given if setup.logged is None else {**given, "logged": setup.logged}

    def _model(self, setup: Setup) -> dict[str, Any]:
        root, images = self.listed(setup).parent, setup.images

        def named(part: Part) -> list[tuple[str, str]]:
            pairs = zip(part.names, part.labels, strict=True)
            return [(str(root / f"{name}.png"), images.classes[int(k)]) for name, k in pairs]

        f = self.model(setup)
        return {
            "model": lambda x: setup.said(np.asarray(f(x), np.float64)).astype(np.float32),
            "preprocess": self.preprocess(setup),
            "train": named(images.train),
            "val": named(images.val),
            "classes": images.classes,
            "logged": self.logged(setup) if setup.logged is None else setup.logged,
            **setup.more,
        }

    def _outputs(self, setup: Setup) -> dict[str, Any]:
        images = setup.images
        tables = [
            {"id": list(p.names), "target": p.labels, "logits": self.scores(setup, p)}
            for p in (images.val, images.train)
        ]
        if setup.table is not None:
            tables = [setup.table(t) for t in tables]
        return {
            "outputs": tables[0],
            "train_outputs": tables[1],
            "classes": images.classes,
            "logged": self.logged(setup) if setup.logged is None else setup.logged,
            **setup.more,
        }


@contextmanager
def quiet() -> Iterator[None]:
    """Without what data and training warn of by themselves: it is the planted fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pixels(path: Any, channels: int) -> NDArray[np.uint8]:
    image = np.asarray(Image.open(path).convert("L" if channels == 1 else "RGB"))
    return image[..., None] if channels == 1 else image


def _resized(image: NDArray[np.uint8], feed: Feed, size: int | None) -> NDArray[np.uint8]:
    h, w, channels = image.shape
    if feed.crop and h != w:
        side = min(h, w)
        top, left = (h - side) // 2, (w - side) // 2
        image = image[top : top + side, left : left + side]
    if size is None or image.shape[:2] == (size, size):
        return image
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    out = np.asarray(picture.resize((size, size), Image.Resampling[feed.kernel]))
    return out[..., None] if channels == 1 else out


def _digest(*parts: str | bytes) -> str:
    h = hashlib.sha256()
    for p in parts:
        h.update(p.encode() if isinstance(p, str) else p)
        h.update(b"\0")
    return h.hexdigest()[:16]


def _bytes_of(images: ImageSet) -> bytes:
    h = hashlib.sha256()
    for part in (images.train, images.val):
        h.update(
            repr((part.images.shape, part.names)).encode() + part.images.tobytes() + part.labels.tobytes()
        )
    return h.digest()
