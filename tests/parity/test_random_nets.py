"""Whole random networks: losses and every gradient of a training step agree with PyTorch in float64."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import gapless as gl

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parents[1] / "py"))
from random_nets import Grown  # noqa: E402

BATCH = 5
FAST, SLOW = [*range(1, 25), 136], range(200, 260)


class Still(Grown):
    """Without dropout, whose draws differ."""

    def drop(self):
        return []


def twin(ours: Still):
    """The same network of torch's modules."""

    class Twin(torch.nn.Module):
        parts = ours.parts
        forward, run, joined = Grown.forward, Grown.run, staticmethod(lambda parts: torch.cat(parts, 1))

    made = Twin()
    for name in [*(f"m{k}" for k in range(1, ours.count + 1)), "pool", "flat", "head"]:
        setattr(made, name, _layer(getattr(ours, name)))
    return made


def _layer(ours):
    return eval(repr(ours), {n: getattr(torch.nn, n) for n in dir(torch.nn)})


def step(module: Still, net, x, y, dtype):
    """Losses and gradients of torch in that type."""
    made = twin(module).to(dtype)
    state = {k: torch.from_numpy(v.copy()).to(dtype) for k, v in net.state_dict().items()}
    made.load_state_dict(state, strict=False)
    losses = torch.nn.functional.cross_entropy(
        made(torch.from_numpy(x).to(dtype)), torch.from_numpy(y), reduction="none"
    )
    losses.mean().backward()
    gradients = {k: p.grad.numpy() for k, p in made.named_parameters() if p.grad is not None}
    return {"losses": losses.detach().numpy()} | gradients


def check(seed: int) -> None:
    """Within 1e-4 (fast: 1e-3) of the largest element of what float64 gives, or no further from it than eight
    times torch in float32: some networks have BatchNorm over values that are nearly the same."""
    module = Still(seed)
    net = module.net(module.shapes[0], seed=seed)
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((BATCH, *module.shapes[0]), dtype=np.float32), rng.integers(0, 5, BATCH)
    want, single = step(module, net, x, y, torch.float64), step(module, net, x, y, torch.float32)
    largest = max(float(np.abs(g).max()) for k, g in want.items() if k != "losses")
    for precision, bound in (("precise", 1e-4), ("fast", 1e-3)):
        plan = gl.compile(
            module.net(module.shapes[0], seed=seed), gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.1), x.shape,
            precision=precision,
        )  # fmt: skip
        got = {"losses": plan.step(x, y).losses} | plan.gradients()
        assert want.keys() <= got.keys()
        for name, g in want.items():
            apart, theirs = (float(np.abs(h[name] - g).max()) for h in (got, single))
            # a bias in front of BatchNorm has the gradient 0: what rounding leaves is small beside the others
            size = max(float(np.abs(g).max()), 0.1 * largest)
            assert apart <= max(bound * size, 8 * theirs), (precision, name, apart / size, theirs / size)


@pytest.mark.parametrize("seed", FAST)
def test_a_step_of_a_random_network(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW)
def test_a_step_of_many_more(seed):
    check(seed)
