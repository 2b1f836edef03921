"""The catalogue against torchvision: names and shapes (frozen), logits (a mirror in torch)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gapless as gl

DATA = Path(__file__).parent / "data"
# Of gapless and of the frozen files; a width stands behind "_x".
NAMES = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v2_x0.25",
    "mobilenet_v2_x0.5",
    "mobilenet_v2_x1.4",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
)
MOBILENETS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")


def model_and_arguments(name):
    model, _, width = name.partition("_x")
    return model, {"width": float(width)} if width else {}


def frozen(name):
    return {k: tuple(v) for k, v in json.loads((DATA / f"{name}.json").read_text()).items()}


@pytest.mark.parametrize("name", NAMES)
def test_names_order_and_shapes_are_torchvisions(name):
    model, arguments = model_and_arguments(name)
    ours = {k: v.shape for k, v in gl.models.create(model, **arguments).state_dict().items()}
    assert list(ours.items()) == list(frozen(name).items())


@pytest.mark.parametrize("name", MOBILENETS)
def test_channels_are_torchvisions_at_any_width(name):
    widths = json.loads((DATA / "mobilenet_widths.json").read_text())[name]
    assert len(widths) == 17
    for width, channels in widths.items():
        net = gl.models.create(name, width=float(width))
        assert [m.weight.shape[0] for m in net.modules() if isinstance(m, gl.nn.Conv2d)] == channels, width


@pytest.mark.parametrize("name", NAMES)
def test_frozen_names_are_the_originals(name):
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    model, arguments = model_and_arguments(name)
    theirs = getattr(torchvision.models, model)(**{f"{k}_mult": v for k, v in arguments.items()}).state_dict()
    shapes = {k: tuple(v.shape) for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    assert list(shapes.items()) == list(frozen(name).items())


@pytest.mark.parametrize("name", MOBILENETS)
def test_frozen_channels_are_the_originals(name):
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    import torch

    v3 = torchvision.models.mobilenetv3
    for width, channels in json.loads((DATA / "mobilenet_widths.json").read_text())[name].items():
        with torch.device("meta"):
            if name == "mobilenet_v2":
                net = torchvision.models.mobilenet_v2(width_mult=float(width))
            else:
                net = v3.MobileNetV3(*v3._mobilenet_v3_conf(name, width_mult=float(width)))
        assert [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)] == channels, width


@pytest.mark.parametrize("name", NAMES)
def test_norms_and_dropout_are_the_originals(name):
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    from torch import nn

    model, arguments = model_and_arguments(name)
    theirs = getattr(torchvision.models, model)(**{f"{k}_mult": v for k, v in arguments.items()})
    nodes = gl.models.create(model, **arguments).trace((3, 224, 224))["nodes"]
    ours = [(n["config"]["eps"], n["config"]["momentum"]) for n in nodes if n["layer"] == "BatchNorm2d"]
    norms = [(m.eps, m.momentum) for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    np.testing.assert_allclose(ours, norms, rtol=1e-6)
    drops = [n["config"]["p"] for n in nodes if n["layer"] == "Dropout"]
    assert drops == pytest.approx([m.p for m in theirs.modules() if isinstance(m, nn.Dropout)])


@pytest.mark.parametrize("name", NAMES)
def test_logits_with_the_same_weights_are_torchs(name):
    torch = pytest.importorskip("torch")
    import freeze_models

    torch.manual_seed(0)
    peer = freeze_models.MODELS[name]()
    for module in peer.modules():  # as if it had been trained: statistics that are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    model, arguments = model_and_arguments(name)
    net = gl.models.create(model, **arguments)
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
