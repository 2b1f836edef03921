"""Blocks that fusion takes apart, against PyTorch in float64: convolution, BatchNorm, activation, shortcut.

The input is a weight, as in test_layers.py: a 1x1 convolution over one-hot pixels puts any picture before the
block exactly, and its weight gradient is the block's input gradient.
"""

# ruff: noqa: E402  (what needs torch is imported after the skip)

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import gapless as gl
from gapless import nn
from gapless.nn.net import Net

TOLERANCE = 1e-5  # of the largest element
N, C, H, W = 4, 20, 9, 8
ACTS = ["Identity", "ReLU", "ReLU6", "LeakyReLU", "Tanh", "Sigmoid", "SiLU", "Hardswish", "Hardsigmoid"]


class Block:
    """x -> [(conv, norm, act) …, shortcut] -> flat logits, in gapless and in torch.

    parts: layer, arguments, and the numbers of the values it reads: 0 is x, k what part k made.
    """

    def __init__(self, parts, shape=(N, C, H, W)):
        self.parts, self.shape = parts, shape
        n, c, h, w = shape
        stem = {"in_channels": n * h * w, "out_channels": c, "kernel_size": 1, "bias": False}
        nodes = [{"layer": "Conv2d", "name": "x", "id": 0, "config": stem, "in": [0]}]
        order, self.twins = ["x"], {}
        for k, (layer, arguments, inputs) in enumerate(parts, 1):
            name = f"p{k}"
            config = {}
            if layer != "Add":
                config = getattr(nn, layer)(**arguments).config()
                self.twins[name] = getattr(torch.nn, layer)(**arguments).double()
            if arguments and layer in ("Conv2d", "BatchNorm2d"):
                order.append(name)
            nodes.append(
                {"layer": layer, "name": name, "id": k, "config": config, "in": [v + 1 for v in inputs]}
            )
        nodes.append({"layer": "Flatten", "name": "flat", "id": 99, "config": {}, "in": [len(nodes)]})
        self.one_hot = np.eye(n * h * w, dtype=np.float32).reshape(n, h, w, -1).transpose(0, 3, 1, 2).copy()
        document = {
            "format": 1,
            "input": list(self.one_hot.shape[1:]),
            "nodes": nodes,
            "outputs": [len(nodes)],
            "order": order,
        }
        self.net = Net(document, seed=1)
        rng = np.random.default_rng(2)
        for name, twin in self.twins.items():
            for key, value in twin.state_dict().items():
                if value.dtype.is_floating_point:
                    self.set(
                        f"{name}.{key}", rng.standard_normal(value.shape) * (0.3 if value.ndim > 1 else 1)
                    )
                    if key == "running_var" or (key == "weight" and value.ndim == 1):
                        self.set(f"{name}.{key}", rng.random(value.shape) + 0.5)

    def set(self, name, value):
        value = np.asarray(value, dtype=np.float32)
        self.net.store.set(name, value)
        layer, key = name.split(".")
        with torch.no_grad():
            self.twins[layer].state_dict()[key].copy_(torch.from_numpy(value.copy()))

    def torch_values(self, x, dtype):
        values = [x]
        for k, (layer, _, inputs) in enumerate(self.parts, 1):
            if layer == "Add":
                values.append(values[inputs[0]] + values[inputs[1]])
            else:
                values.append(self.twins[f"p{k}"].to(dtype)(values[inputs[0]]))
        return values

    def torch_run(self, x, targets, dtype=torch.float64):
        """Evaluation logits, and gradients by name; running statistics move."""
        for twin in self.twins.values():
            twin.eval()
        leaf = torch.from_numpy(x).to(dtype).requires_grad_()
        with torch.no_grad():
            evaluated = self.torch_values(leaf, dtype)[-1].flatten(1)
        for twin in self.twins.values():
            twin.train()
        y = self.torch_values(leaf, dtype)[-1].flatten(1)
        loss = torch.nn.functional.cross_entropy(y, torch.from_numpy(targets).to(dtype))
        for twin in self.twins.values():
            twin.zero_grad()
        loss.backward()
        found = {
            f"{k}.{key}": p.grad.double().numpy()
            for k, m in self.twins.items()
            for key, p in m.named_parameters()
        }
        return {
            "evaluation": evaluated.double().numpy(),
            "loss": loss.item(),
            "x": leaf.grad.double().numpy(),
            **found,
        }

    def run(self, x, targets):
        n, c, h, w = self.shape
        self.net.store.set("x.weight", x.transpose(1, 0, 2, 3).reshape(c, -1, 1, 1).copy())
        shape, sgd = self.one_hot.shape, gl.optim.SGD(lr=0.0)
        evaluated = gl.compile(self.net, None, None, shape, precision="precise").forward(self.one_hot)
        plan = gl.compile(self.net, gl.losses.CrossEntropy(), sgd, shape, precision="precise")
        step = plan.step(self.one_hot, targets)
        found = plan.gradients()
        found["x"] = found.pop("x.weight").reshape(c, n, h, w).transpose(1, 0, 2, 3)
        self.choices = " ".join(f"{r['op']} {r['choice']}" for r in plan.describe())
        return {"evaluation": evaluated, "loss": step.loss, **found}


def targets_of(block, x):
    for twin in block.twins.values():
        twin.eval()  # no statistics move
    with torch.no_grad():
        k = block.torch_values(torch.from_numpy(x).double(), torch.float64)[-1][0].numel()
    t = np.random.default_rng(7).random((len(x), k)) ** 3
    return (t / t.sum(1, keepdims=True)).astype(np.float32)


def distance(ours, theirs):
    return np.abs(np.asarray(ours, dtype=np.float64) - theirs).max() / max(np.abs(theirs).max(), 1e-30)


def all_runs(block, x):
    """PyTorch in float64 and in float32, and ours, from the same state."""
    targets = targets_of(block, x)
    state = {name: copy.deepcopy(twin.state_dict()) for name, twin in block.twins.items()}
    single = block.torch_run(x, targets, torch.float32)
    for name, twin in block.twins.items():
        twin.double().load_state_dict(state[name])
    return block.torch_run(x, targets), single, block.run(x, targets)


def compare(block, x, beyond=()):
    """Within TOLERANCE, or within twice the distance of PyTorch's float32, where that is more.

    beyond: gradients that are zero but for rounding, such as that of a bias before BatchNorm.
    """
    theirs, single, ours = all_runs(block, x)
    assert set(ours) == set(theirs)
    largest = max(np.abs(v).max() for k, v in theirs.items() if k not in ("evaluation", "loss"))
    for name, value in theirs.items():
        if name in beyond:
            assert np.abs(ours[name]).max() <= TOLERANCE * largest, name
        else:
            far, allowed = distance(ours[name], value), max(TOLERANCE, 2 * distance(single[name], value))
            assert far <= allowed, f"{name}: {far:.1e}, allowed {allowed:.1e}"
    for layer, twin in block.twins.items():
        for key, buffer in twin.named_buffers():
            if buffer.dtype.is_floating_point:
                assert distance(block.net.store.get(f"{layer}.{key}"), buffer.numpy()) <= TOLERANCE, (
                    layer,
                    key,
                )


def conv(i, o, k=3, **options):
    return ("Conv2d", {"in_channels": i, "out_channels": o, "kernel_size": k, "bias": False, **options})


def norm(c):
    return ("BatchNorm2d", {"num_features": c})


def chain(*layers):
    return [(layer, arguments, [k]) for k, (layer, arguments) in enumerate(layers)]


def picture(shape=(N, C, H, W), seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("channels", [16, 37])
def test_conv_norm_act_conv_norm_act(act, channels):
    layers = chain(
        conv(C, channels, padding=1), norm(channels), (act, {}), conv(channels, 18, 1), norm(18), (act, {})
    )
    block = Block(layers)
    compare(block, picture(), beyond=("p2.bias",) if act == "Identity" else ())
    assert block.choices.count("sums on store") == 2
    # sigmoids would make 0.5 of the channels that pad the last block
    assert ("act on load" in block.choices) == (channels == 16 or act not in ("Sigmoid", "Hardsigmoid"))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("own", [False, True])
def test_block_with_a_shortcut(act, own):
    layers = chain(conv(C, 24, padding=1), norm(24), ("ReLU", {}), conv(24, C, padding=1), norm(C))
    shortcut = [("Conv2d", conv(C, C, 1)[1], [0]), ("BatchNorm2d", norm(C)[1], [6])] if own else []
    layers += [*shortcut, ("Add", {}, [5, 7 if own else 0])]
    layers.append((act, {}, [len(layers)]))
    block = Block(layers)
    compare(block, picture())
    assert ("residual with its own" in block.choices) == own


@pytest.mark.parametrize(
    ("options", "out"),
    [
        ({"stride": 2, "padding": 1}, 37),
        ({"groups": 4}, 24),
        ({"groups": C, "padding": 1}, C),
        ({"dilation": 2, "padding": 2}, 18),
        ({"kernel_size": 1, "stride": 2}, 33),
        ({"kernel_size": 5, "stride": 3, "padding": 2}, 17),
        ({"bias": True, "padding": 1}, 18),
    ],
    ids=str,
)
def test_kinds_of_convolutions_before_and_behind(options, out):
    first = conv(C, C, padding=1)
    layer = ("Conv2d", {"in_channels": C, "out_channels": out, "kernel_size": 3, "bias": False, **options})
    block = Block(chain(first, norm(C), ("Hardswish", {}), layer, norm(out), ("ReLU6", {})))
    compare(block, picture(), beyond=("p4.bias",))


def test_two_joins_hand_their_gradient_through():
    layers = chain(conv(C, C, padding=1), norm(C), ("ReLU", {}))
    for _ in range(3):
        at = len(layers)
        layers += [
            ("Conv2d", conv(C, C, padding=1)[1], [at]),
            ("BatchNorm2d", norm(C)[1], [at + 1]),
            ("ReLU", {}, [at + 2]),
            ("Conv2d", conv(C, C, padding=1)[1], [at + 3]),
            ("BatchNorm2d", norm(C)[1], [at + 4]),
            ("Add", {}, [at + 5, at]),
            ("ReLU", {}, [at + 6]),
        ]
    compare(Block(layers), picture())


def test_a_norm_and_its_own_input_summed():
    layers = chain(conv(C, C, padding=1), ("Tanh", {}), norm(C))
    compare(Block([*layers, ("Add", {}, [3, 2]), ("ReLU", {}, [4])]), picture())
    layers = chain(conv(C, C, padding=1), ("Tanh", {}), norm(C))
    compare(Block([*layers, ("BatchNorm2d", norm(C)[1], [2]), ("Add", {}, [3, 4])]), picture())


def test_constant_channels_stay_finite_and_close():
    """Channels 3 and 17 of the convolution are the same everywhere: variance 0, scale 1/sqrt(eps)."""
    block = Block(chain(conv(C, 18, padding=0, bias=True), norm(18), ("ReLU", {}), conv(18, 16, 1), norm(16)))
    weight = block.net.store.get("p1.weight").copy()
    weight[[3, 17]] = 0
    block.set("p1.weight", weight)
    block.set("p2.bias", np.full(18, 0.25))
    theirs, _, ours = all_runs(block, picture())
    for name, value in theirs.items():
        assert np.isfinite(ours[name]).all()
        # 1/sqrt(eps) is 316 times the rounding of what is zero but for rounding
        floor = 1e-2 if name == "p1.bias" else 0
        largest = max(np.abs(value).max(), floor)
        assert np.abs(np.asarray(ours[name]) - value).max() <= 316 * TOLERANCE * largest, name
    assert distance(ours["loss"], theirs["loss"]) <= TOLERANCE


@pytest.mark.parametrize("known", [True, False])
def test_mean_far_above_the_deviation(known):
    """Mean 100, deviation 0.1, where a float32 is off by 4e-5 deviations already.

    So the measure is PyTorch's own float32. known: the running mean is near, as after some epochs.
    """
    block = Block(chain(conv(C, 18, 1, bias=True), norm(18), ("SiLU", {})), (8, C, 24, 24))
    block.set("p1.weight", block.net.store.get("p1.weight") * 0.1)
    block.set("p1.bias", np.full(18, 100.0))
    block.set("p2.running_mean", np.full(18, 100.0 if known else 0.0))
    x = picture((8, C, 24, 24))
    exact, single, ours = all_runs(block, x)
    for name, value in exact.items():
        if name != "p1.bias":
            # PyTorch's own error depends on its threads: not below a few roundings of the input
            allowed = max(TOLERANCE, 4 * 4e-5, 2 * distance(single[name], value))
            far = distance(ours[name], value)
            assert far <= allowed, f"{name}: {far:.1e}, allowed {allowed:.1e}"
