"""The catalogue against torchvision: names and shapes (frozen), logits (a mirror in torch)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gapless as gl

DATA = Path(__file__).parent / "data"
NAMES = ("resnet18", "resnet50")


def frozen(name):
    return {k: tuple(v) for k, v in json.loads((DATA / f"{name}.json").read_text()).items()}


@pytest.mark.parametrize("name", NAMES)
def test_names_order_and_shapes_are_torchvisions(name):
    ours = {k: v.shape for k, v in gl.models.create(name).state_dict().items()}
    assert list(ours.items()) == list(frozen(name).items())


@pytest.mark.parametrize("name", NAMES)
def test_frozen_names_are_the_originals(name):
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    theirs = getattr(torchvision.models, name)().state_dict()
    shapes = {k: tuple(v.shape) for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    assert list(shapes.items()) == list(frozen(name).items())


@pytest.mark.parametrize("name", NAMES)
def test_logits_with_the_same_weights_are_torchs(name):
    torch = pytest.importorskip("torch")
    import freeze_models

    torch.manual_seed(0)
    peer = getattr(freeze_models, name)()
    for module in peer.modules():  # as if it had been trained: statistics that are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    net = gl.models.create(name)
    report = net.load_state_dict(peer.state_dict())
    assert not report.unexpected
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        truth = peer.double().eval()(x.double()).numpy()
        theirs = peer.float()(x).numpy()
    own = np.abs(theirs - truth).max() / np.abs(truth).max()
    scale = np.abs(truth).max()
    for precision in ("precise", "fast"):
        y = net(x.numpy(), precision=precision)
        assert np.abs(y - truth).max() / scale <= max(1e-5, 3 * own), precision
