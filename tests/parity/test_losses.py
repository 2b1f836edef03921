"""CrossEntropy against PyTorch: classes and soft targets, class weights, smoothing."""

# ruff: noqa: E402  (what needs torch is imported after the skip)

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import gapless as gl
from gapless import nn

N, F, K = 16, 20, 10


def linear_pair(seed):
    net = nn.Sequential(nn.Linear(F, 24), nn.Tanh(), nn.Linear(24, K)).net((F,), seed=seed)
    peer = torch.nn.Sequential(torch.nn.Linear(F, 24), torch.nn.Tanh(), torch.nn.Linear(24, K))
    peer.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in net.state_dict().items()})
    return net, peer


@pytest.mark.parametrize(
    ("soft", "weighted", "smoothing"), list(itertools.product((False, True), (False, True), (0.0, 0.1)))
)
def test_cross_entropy(soft, weighted, smoothing):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((N, F)).astype(np.float32)
    net, peer = linear_pair(3)
    weight = rng.uniform(0.2, 3.0, K) if weighted else None
    if soft:
        y = rng.random((N, K)).astype(np.float32)
        y /= y.sum(1, keepdims=True)
    else:
        y = rng.integers(0, K, N)
    listed = None if weight is None else weight.tolist()
    ours = gl.losses.CrossEntropy(weight=listed, label_smoothing=smoothing)
    plan = gl.compile(net, ours, gl.optim.SGD(lr=0.0), (N, F))
    step = plan.step(x, y)
    args = {
        "weight": None if weight is None else torch.tensor(weight, dtype=torch.float32),
        "label_smoothing": smoothing,
    }
    logits = peer(torch.from_numpy(x))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), **args)
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="none", **args)
    loss.backward()
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    np.testing.assert_allclose(step.losses, each.detach().numpy(), rtol=2e-6, atol=1e-6)
    assert (step.pred == logits.detach().numpy().argmax(1)).all()
    for key, p in peer.named_parameters():
        expected = p.grad.numpy()
        assert np.abs(plan.gradients()[key] - expected).max() <= 1e-5 * np.abs(expected).max(), key


def test_class_weights_for_many_classes():
    """More weights than a parameter holds itself."""
    k = 300
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.1, 2.0, k)
    net = nn.Sequential(nn.Linear(F, k)).net((F,), seed=0)
    peer = torch.nn.Sequential(torch.nn.Linear(F, k))
    peer.load_state_dict({key: torch.from_numpy(v.copy()) for key, v in net.state_dict().items()})
    x, y = rng.standard_normal((N, F)).astype(np.float32), rng.integers(0, k, N)
    plan = gl.compile(net, gl.losses.CrossEntropy(weight=weight.tolist()), gl.optim.SGD(lr=0.0), (N, F))
    expected = torch.nn.functional.cross_entropy(
        peer(torch.from_numpy(x)), torch.from_numpy(y), weight=torch.tensor(weight, dtype=torch.float32)
    )
    assert plan.step(x, y).loss == pytest.approx(float(expected.detach()), rel=1e-6)
