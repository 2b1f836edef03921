"""Whole networks against PyTorch: same initial weights, same batches.

Through ReLU kinks whole-network gradients are chaotic: PyTorch in float32 leaves its own float64 by 2e-3 in
the median tensor. So the measure is the distance to PyTorch in float64, which must be at most 1.5 times
PyTorch float32's own.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import gapless as gl  # noqa: E402
from gapless.bench import cases, peer_torch_model  # noqa: E402

BATCH, LR, STEPS = 32, 0.01, 3
SEEDS = range(5)


def set_up(seed):
    """resnet18 with the CIFAR stem, in gapless and in torch, with equal weights; and STEPS batches."""
    net = gl.models.resnet18(num_classes=10, stem="cifar").net((3, 32, 32), seed=seed)
    peer = peer_torch_model(cases.Case("resnet18", 32, BATCH), classes=10)
    state = {k: torch.from_numpy(v.copy()) for k, v in net.state_dict().items()}
    missing = peer.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(k.endswith("num_batches_tracked") for k in missing.missing_keys)
    rng = np.random.default_rng(seed)
    batches = [
        (rng.standard_normal((BATCH, 3, 32, 32), dtype=np.float32), rng.integers(0, 10, BATCH))
        for _ in range(STEPS)
    ]
    return net, peer, batches


def torch_losses_and_gradients(model, batches, dtype):
    model = copy.deepcopy(model).to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    losses, first = [], {}
    for x, y in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x).to(dtype)), torch.from_numpy(y))
        loss.backward()
        if not first:
            first = {name: p.grad.double().numpy().copy() for name, p in model.named_parameters()}
        optimizer.step()
        losses.append(float(loss.detach()))
    return np.array(losses), first


def our_losses_and_gradients(net, batches):
    plan = gl.compile(
        net,
        gl.losses.CrossEntropy(),
        gl.optim.SGD(lr=LR, momentum=0.9),
        (BATCH, 3, 32, 32),
        precision="precise",
    )
    losses, first = [], {}
    for x, y in batches:
        losses.append(float(plan.step(x, y).loss))
        if not first:
            first = {name: g.astype(np.float64) for name, g in plan.gradients().items()}
    return np.array(losses), first


def relative(got, truth):
    """Distance of each gradient tensor, relative to its largest element."""
    return np.array([np.abs(got[name] - truth[name]).max() / np.abs(truth[name]).max() for name in truth])


@pytest.fixture(scope="module")
def distances():
    """Medians over the seeds of the distance to float64: ours and torch's float32."""
    ours, theirs, our_drift, their_drift = [], [], [], []
    for seed in SEEDS:
        net, peer, batches = set_up(seed)
        truth_losses, truth = torch_losses_and_gradients(peer, batches, torch.float64)
        torch_losses, torch_first = torch_losses_and_gradients(peer, batches, torch.float32)
        our_losses, our_first = our_losses_and_gradients(net, batches)
        assert our_losses[0] == pytest.approx(truth_losses[0], rel=1e-5), f"seed {seed}: first loss"
        ours.append(np.median(relative(our_first, truth)))
        theirs.append(np.median(relative(torch_first, truth)))
        our_drift.append(np.abs(our_losses / truth_losses - 1).max())
        their_drift.append(np.abs(torch_losses / truth_losses - 1).max())
    table = {
        "gradients, ours": np.median(ours),
        "gradients, torch": np.median(theirs),
        "loss within 3 steps, ours": np.median(our_drift),
        "loss within 3 steps, torch": np.median(their_drift),
    }
    print("\n".join(f"{name:28} {value:.2e}" for name, value in table.items()))
    return table


@pytest.mark.slow
@pytest.mark.timeout(1800)  # float64 convolutions of torch are not optimised
def test_resnet18_gradients_are_as_close_to_float64_as_torchs(distances):
    assert distances["gradients, ours"] <= 1.5 * distances["gradients, torch"], distances


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.xfail(
    reason="not reached: measured 3.4e-5 within 3 steps, torch float32 1.7e-5 (2.0 times, aim 1.5)"
)
def test_resnet18_losses_stay_as_close_to_float64_as_torchs(distances):
    assert distances["loss within 3 steps, ours"] <= 1.5 * distances["loss within 3 steps, torch"], distances
