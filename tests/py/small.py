"""A small net and a small recipe on digits, for tests that train: an epoch takes a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gapless as gl
from gapless import nn


class Tiny(nn.Module):
    """Two convolutions with BatchNorm; 8×8 grey in, 10 classes out."""

    def __init__(self, num_classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.relu, self.pool, self.flat = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.fc(self.flat(self.pool(x)))


def recipe(**change: Any) -> gl.Recipe:
    """Two epochs on digits."""
    given: dict[str, Any] = {
        "data": "digits",
        "model": Tiny(),
        "epochs": 2,
        "batch_size": 64,
        "clean_samples": 100,
    }
    return gl.Recipe(**{**given, **change})


def no_pictures() -> Any:
    """Pictures take longer than the training; tests of them draw them."""
    from unittest import mock

    from gapless.training import outputs

    return mock.patch.object(outputs.Folder, "picture", return_value=None)


def train(out: Path | None = None, callbacks: Any = (), resume: Any = None, **change: Any) -> gl.Run:
    """A quiet run without pictures."""
    with no_pictures():
        if resume is not None:
            return gl.train(resume=resume, callbacks=callbacks, verbose=0)
        return gl.train(recipe(**change), out=out, callbacks=callbacks, verbose=0)


SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def trained(folder: Path, **change: Any) -> gl.Run:
    """A healthy run of lenet on digits without pictures, or one with something wrong in its recipe."""
    values = {"data": "digits", "model": "lenet", "optimizer": SGD, **change}
    with no_pictures():
        return gl.train(gl.Recipe(**values), out=folder / "run", verbose=0, checks=False)


def digest(path: Path | None) -> str:
    """Of everything in a checkpoint that decides what follows: weights, average, slots, position, samples'
    losses."""
    import hashlib

    from gapless import checkpoint

    assert path is not None
    saved = checkpoint.read(path)
    h = hashlib.sha256()
    for name in sorted(saved.tensors):
        h.update(name.encode() + saved.tensors[name].tobytes())
    state = {k: v for k, v in saved.state.items() if k not in ("seconds", "training_seconds", "versions")}
    h.update(repr(sorted(state.items())).encode())
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in saved.history
    ]
    h.update(repr(rows).encode())
    return h.hexdigest()
