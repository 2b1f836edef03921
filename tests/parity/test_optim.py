"""Optimizers against torch.optim: 50 steps of a small smooth network, weights within 1e-5 relative."""

# ruff: noqa: E402  (what needs torch is imported after the skip)

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import gapless as gl
from gapless import nn, optim
from gapless._registry import rows

STEPS, N, F, K = 50, 8, 6, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((STEPS, N, F)).astype(np.float32)
Y = RNG.integers(0, K, (STEPS, N))

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 1e-2}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.9, "weight_decay": 1e-2}),
    ("RMSprop", {"lr": 0.01, "centered": True}),
]


def peer_of(net):
    model = torch.nn.Sequential(torch.nn.Linear(F, 7), torch.nn.Tanh(), torch.nn.Linear(7, K)).double()
    model.load_state_dict({k: torch.from_numpy(v).double() for k, v in net.state_dict().items()})
    return model


def ours():
    return nn.Sequential(nn.Linear(F, 7), nn.Tanh(), nn.Linear(7, K)).net((F,), seed=3)


def test_every_optimizer_has_a_twin():
    assert {name for name, _ in CASES} == set(rows("optimizers"))


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=lambda v: str(v).replace(" ", ""))
def test_fifty_steps_agree_with_torch(name, arguments):
    net = ours()
    peer = peer_of(net)
    theirs = getattr(torch.optim, name)(peer.parameters(), **arguments)
    plan = gl.compile(
        net, gl.losses.CrossEntropy(), getattr(optim, name)(**arguments), (N, F), precision="precise"
    )
    for k in range(STEPS):
        plan.step(X[k], Y[k])
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(
            peer(torch.from_numpy(X[k]).double()), torch.from_numpy(Y[k])
        ).backward()
        theirs.step()
    for key, value in peer.state_dict().items():
        truth = value.numpy()
        assert np.abs(net.state_dict()[key] - truth).max() <= 1e-5 * np.abs(truth).max(), key


def test_groups_and_schedules_agree_with_torch():
    net = ours()
    peer = peer_of(net)
    theirs = torch.optim.SGD(
        [{"params": peer[0].parameters()}, {"params": [peer[2].weight], "lr": 0.4}, {"params": [peer[2].bias], "weight_decay": 0}],  # noqa: E501
        lr=0.1, momentum=0.9, weight_decay=1e-2,
    )  # fmt: skip
    optimizer = optim.SGD(lr=0.1, momentum=0.9, weight_decay=1e-2)
    groups = [{"params": "2.weight", "lr": 0.4}, {"params": "2.bias", "weight_decay": 0.0}]
    plan = gl.compile(net, gl.losses.CrossEntropy(), optimizer, (N, F), groups=groups, precision="precise")
    schedule = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.95)
    for k in range(STEPS):
        plan.step(X[k], Y[k], lr=0.1 * 0.95**k)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(
            peer(torch.from_numpy(X[k]).double()), torch.from_numpy(Y[k])
        ).backward()
        theirs.step()
        schedule.step()
    for key, value in peer.state_dict().items():
        truth = value.numpy()
        assert np.abs(net.state_dict()[key] - truth).max() <= 1e-5 * np.abs(truth).max(), key


def test_clipping_agrees_with_torch():
    net = ours()
    peer = peer_of(net)
    theirs = torch.optim.SGD(peer.parameters(), lr=0.5)
    plan = gl.compile(net, gl.losses.CrossEntropy(), optim.SGD(lr=0.5), (N, F), precision="precise")
    for k in range(10):
        plan.step(X[k], Y[k], clip_norm=0.2)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(
            peer(torch.from_numpy(X[k]).double()), torch.from_numpy(Y[k])
        ).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.2)
        theirs.step()
    for key, value in peer.state_dict().items():
        truth = value.numpy()
        assert np.abs(net.state_dict()[key] - truth).max() <= 1e-5 * np.abs(truth).max(), key


def test_initial_values_have_torchs_spread():
    """Same rules as torch.nn.init and the layers' own defaults: compared by their moments."""
    torch.manual_seed(0)
    for layer, args in (("Conv2d", (32, 48, 3)), ("Linear", (300, 200))):
        a, b = getattr(nn, layer)(*args), getattr(torch.nn, layer)(*args)
        for rule in (None, "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"):
            if rule is not None:
                getattr(nn.init, rule)(a.weight)
                getattr(torch.nn.init, rule)(b.weight)
            mine, its = a.weight.numpy(), b.weight.detach().numpy()
            assert mine.std() == pytest.approx(its.std(), rel=0.02), (layer, rule)
            assert np.abs(mine).max() == pytest.approx(
                np.abs(its).max(), rel=0.25 if "normal" in (rule or "") else 0.01
            )
        assert a.bias.numpy().std() == pytest.approx(b.bias.detach().numpy().std(), rel=0.25)
