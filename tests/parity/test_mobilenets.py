"""A training step of the MobileNets against PyTorch in float64: loss, gradients, moved statistics.

Dropout is off: its draws are not torch's. As in test_networks.py the kinks make whole-network gradients
chaotic, so the measure is the distance to float64, beside that of PyTorch's float32 to it.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_mobilenets  # noqa: E402
from test_networks import distances as relative  # noqa: E402
from test_networks import torch_losses_and_gradients  # noqa: E402

import gapless as gl  # noqa: E402
from gapless.models.mobilenet import Block  # noqa: E402

CLASSES = 5
SEEDS = range(2)
CASES = [
    ("mobilenet_v2", 0.25, "cifar", 32),
    ("mobilenet_v2", 0.5, "imagenet", 33),  # odd: the last row and column of a halving stand alone
    ("mobilenet_v3_small", 1.0, "imagenet", 64),
    ("mobilenet_v3_large", 0.35, "cifar", 24),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_torchs():
    """Its threads spin between the many small layers: on a busy machine that takes twenty times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_if_trained(name, value, rng):
    """The first weights with norms and biases that are not 1 and 0, and a head that the loss can feel."""
    if name.startswith("classifier") and name.endswith("weight"):
        return 20 * value
    if "running" in name or value.ndim != 1:
        return value
    return value + rng.normal(0, 0.2, value.shape).astype(np.float32)


def share(module, peer, size, seed, batch=16):
    """Ours and torch's with equal weights, and a batch."""
    net = module.net((3, size, size), seed=seed)
    rng = np.random.default_rng(seed)
    net.load_state_dict({k: as_if_trained(k, v, rng) for k, v in net.state_dict().items()})
    report = peer.load_state_dict({k: torch.from_numpy(v) for k, v in net.state_dict().items()}, strict=False)
    assert not report.unexpected_keys
    assert all(k.endswith("num_batches_tracked") for k in report.missing_keys)
    x = rng.standard_normal((batch, 3, size, size), dtype=np.float32)
    return net, peer, (x, rng.integers(0, CLASSES, batch))


def of_catalogue(name, width, stem, size, seed):
    arguments = {"num_classes": CLASSES, "width": width, "stem": stem, "dropout": 0.0}
    return share(
        gl.models.create(name, **arguments), getattr(torch_mobilenets, name)(**arguments), size, seed
    )


def distances(net, peer, batch):
    """Of each gradient to float64's, relative to its largest element: ours, torch's float32."""
    truth_loss, truth = torch_losses_and_gradients(peer, [batch], torch.float64)
    _, torch_first = torch_losses_and_gradients(peer, [batch], torch.float32)
    plan = gl.compile(net, gl.losses.CrossEntropy(), None, batch[0].shape, precision="precise")
    loss = float(plan.step(*batch).loss)
    assert loss == pytest.approx(float(truth_loss[0]), rel=1e-5)
    gradients = {name: g.astype(np.float64) for name, g in plan.gradients().items()}
    assert list(gradients) == list(truth)
    # A shift that the next BatchNorm takes out again has gradient 0: there is nothing to be relative to.
    least = 1e-9 * max(np.abs(g).max() for g in truth.values())
    truth = {name: g for name, g in truth.items() if np.abs(g).max() > least}
    return relative(gradients, truth), relative(torch_first, truth)


class ShortV2(gl.models.MobileNetV2):
    stages = ((1, 16, 1, 1), (6, 16, 2, 1), (6, 24, 1, 2))


def short(version, seed):
    """The first convolution, a block of each kind, the last convolution and the head."""
    common = {"num_classes": CLASSES, "stem": "imagenet", "dropout": 0.0}
    if version == "v2":
        ours, peer = ShortV2(**common), torch_mobilenets.mobilenet_v2(stages=ShortV2.stages, **common)
        return share(ours, peer, 12, seed, batch=8)
    kinds = [(3, 16, 16, 1, 0, 1), (5, 40, 24, 0, 0, 2), (5, 56, 24, 1, 1, 1), (3, 48, 24, 0, 1, 2)]
    acts = (gl.nn.ReLU, gl.nn.Hardswish)
    rows = [Block(k, hidden, o, bool(gated), acts[hs], stride) for k, hidden, o, gated, hs, stride in kinds]
    ours = gl.models.MobileNetV3(rows, 32, **common)
    return share(ours, torch_mobilenets.mobilenet_v3(kinds, 32, **common), 20, seed, batch=8)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_short_networks_give_torchs_gradients(version):
    """The worst tensor, in the median of seeds: now and then one value is on the other side of a kink."""
    ours, theirs = zip(*(distances(*short(version, seed)) for seed in range(5)), strict=True)
    print("worst tensor: ours", np.max(ours, axis=1), "torch", np.max(theirs, axis=1))
    assert np.median(np.max(ours, axis=1)) <= 1e-5


@pytest.mark.slow
@pytest.mark.timeout(600)  # float64 convolutions of torch are not optimised
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-x{case[1]}-{case[2]}@{case[3]}")
def test_whole_networks_give_torchs_gradients(case):
    """One value on the other side of a kink moves most tensors by up to 1e-2, torch's as ours; a wrong
    gradient is off by its own size. The strict measure is the short networks'."""
    ours, theirs = zip(*(distances(*of_catalogue(*case, seed)) for seed in SEEDS), strict=True)
    print("median tensor: ours", np.median(ours, axis=1), "torch", np.median(theirs, axis=1))
    assert np.median(ours) <= max(3e-2, 1.5 * np.median(theirs))


@pytest.mark.parametrize("case", CASES[:1] + CASES[2:3], ids=lambda case: case[0])
def test_statistics_move_as_torchs(case):
    """By 0.1 in V2, by 0.01 in V3, towards the unbiased variance."""
    net, peer, (x, y) = of_catalogue(*case, 0)
    plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.0), x.shape, precision="precise")
    before = net.state_dict()
    plan.step(x, y)
    twin = copy.deepcopy(peer).double().train()
    twin(torch.from_numpy(x).double())
    buffers = {k: v.numpy() for k, v in twin.state_dict().items() if "running" in k}
    assert buffers
    for name, value in net.state_dict().items():
        if name in buffers:
            assert np.abs(value - buffers[name]).max() <= 1e-5 * np.abs(buffers[name]).max(), name
        else:
            assert np.array_equal(value, before[name]), name
