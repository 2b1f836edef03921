"""Each layer alone against PyTorch: output, gradients of input and weights, running statistics.

The input itself is a weight here: a 1x1 convolution without bias over one-hot channels (one per sample and
pixel) puts any picture before the layer exactly, and its weight gradient is the layer's input gradient.
"""

# ruff: noqa: E402  (what needs torch is imported after the skip)

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import gapless as gl
from gapless import nn
from gapless._registry import rows
from gapless.nn.net import Net

TOLERANCE = 1e-5  # of the largest element
N, H, W = 3, 7, 6

# layer -> [(arguments, keyword arguments, channels of the input)]; the torch twin has the same name and arguments  # noqa: E501
IMAGES: dict[str, list[tuple[tuple, dict, int]]] = {
    "Conv2d": [
        ((3, 5, 3), {}, 3),
        ((3, 5, 3), {"padding": 1, "bias": False}, 3),
        ((16, 32, 3), {"padding": 1}, 16),
        ((20, 17, 3), {"padding": 1, "stride": 2}, 20),
        ((6, 4, 1), {}, 6),
        ((33, 40, 1), {"stride": 2}, 33),
        ((4, 6, (3, 5)), {"padding": (2, 1), "stride": (1, 2), "dilation": (2, 1)}, 4),
        ((3, 8, 7), {"padding": 3, "stride": 2}, 3),
        ((8, 8, 3), {"groups": 8, "padding": 1}, 8),
        ((20, 20, 5), {"groups": 20, "padding": 2, "stride": 2}, 20),
        ((20, 40, 3), {"groups": 20, "padding": 1}, 20),
        ((8, 12, 3), {"groups": 4, "padding": 1}, 8),
        ((32, 32, 3), {"groups": 2, "padding": 1, "dilation": 2}, 32),
        ((5, 3, 2), {"padding": 1}, 5),
        ((4, 4, (7, 6)), {}, 4),
    ],
    "BatchNorm2d": [((5,), {}, 5), ((20,), {"eps": 1e-3, "momentum": 0.3}, 20)],
    "GroupNorm": [((2, 6), {}, 6), ((1, 20), {"eps": 1e-3}, 20), ((20, 20), {}, 20)],
    "MaxPool2d": [
        ((2,), {}, 5), ((3,), {"stride": 2, "padding": 1}, 20), ((3,), {"stride": 1, "dilation": 2}, 4),
        (((2, 3),), {"stride": (1, 2), "padding": (1, 1)}, 3), ((2,), {"ceil_mode": True}, 5), ((3,), {"stride": 2, "ceil_mode": True}, 5),  # noqa: E501
    ],
    "AvgPool2d": [
        ((2,), {}, 5), ((3,), {"stride": 2, "padding": 1}, 20), ((3,), {"stride": 2, "padding": 1, "count_include_pad": False}, 4),  # noqa: E501
        (((2, 3),), {"stride": (1, 2)}, 3), ((2,), {"ceil_mode": True}, 5),
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True}, 5),
    ],
    "AdaptiveAvgPool2d": [((1,), {}, 5), ((1,), {}, 33)],
    "Flatten": [((), {}, 5)],
    "Identity": [((), {}, 5)],
    "ReLU": [((), {}, 5)],
    "ReLU6": [((), {}, 5)],
    "LeakyReLU": [((), {}, 5), ((0.2,), {}, 17)],
    "Tanh": [((), {}, 5)],
    "Sigmoid": [((), {}, 5)],
    "SiLU": [((), {}, 5)],
    "Hardswish": [((), {}, 5)],
    "Hardsigmoid": [((), {}, 5)],
}  # fmt: skip
VECTORS: dict[str, list[tuple[tuple, dict, int]]] = {
    "Linear": [((7, 5), {}, 7), ((40, 33), {"bias": False}, 40), ((300, 10), {}, 300), ((1, 2), {}, 1)],
    "Flatten": [((), {}, 9)],
    **{
        name: IMAGES[name]
        for name in ("ReLU", "ReLU6", "LeakyReLU", "Tanh", "Sigmoid", "SiLU", "Hardswish", "Hardsigmoid")
    },
}
# Two inputs: our layer, and what torch does.
BINARY = {
    "Add": [(lambda a, b: a + b, 5, 5, True), (lambda a, b: a + b, 20, 20, True)],
    "Mul": [(lambda a, b: a * b, 5, 5, True), (lambda a, b: a * b, 20, 20, False)],
    "Concat": [
        (lambda a, b: torch.cat([a, b], 1), 5, 20, True),
        (lambda a, b: torch.cat([a, b], 1), 16, 3, True),
    ],
}
# Dropout draws other numbers than torch's; test_dropout_* below hold it to its own promise.
ALONE = {"Dropout"}

CASES = [
    (name, kind, *case)
    for kind, table in (("image", IMAGES), ("vector", VECTORS))
    for name, cases in table.items()
    for case in cases
]


def test_every_layer_has_a_twin():
    assert {c[0] for c in CASES} | set(BINARY) | ALONE == set(rows("layers"))


def one_hot(n, h, w):
    """(n, n*h*w, h, w): every pixel of every sample has a channel of its own."""
    return np.eye(n * h * w, dtype=np.float32).reshape(n, h, w, n * h * w).transpose(0, 3, 1, 2).copy()


class Subject:
    """x -> layer -> flat logits, where the x are weights."""

    def __init__(self, layer, config, shapes, kernels=None):
        self.shapes = shapes
        image = len(shapes[0]) == 3
        size = shapes[0][1:] if image else ()
        channels = N * int(np.prod(size))
        nodes, order = [], []
        for k, shape in enumerate(shapes):
            # A gate (C, 1, 1) is the average of a picture that is the same everywhere.
            name, config_x = f"x{k}", {"bias": False}
            if image:
                config_x.update(in_channels=channels, out_channels=shape[0], kernel_size=1)
            else:
                config_x.update(in_features=channels, out_features=shape[0])
            nodes.append(
                {
                    "layer": "Conv2d" if image else "Linear",
                    "name": name,
                    "id": k,
                    "config": config_x,
                    "in": [0],
                }
            )
            order.append(name)
        values = [k + 1 for k in range(len(shapes))]
        if image and shapes[-1][1:] == (1, 1) and len(shapes) > 1:
            nodes.append(
                {
                    "layer": "AdaptiveAvgPool2d",
                    "name": "gate",
                    "id": 50,
                    "config": {"output_size": 1},
                    "in": [values[-1]],
                }
            )
            values[-1] = len(nodes)
        nodes.append({"layer": layer, "name": "layer", "id": 100, "config": config, "in": values})
        if rows("layers")[layer].facts["weights"]:
            order.append("layer")
        nodes.append({"layer": "Flatten", "name": "flat", "id": 101, "config": {}, "in": [len(nodes)]})
        self.image, self.size = image, size
        self.input = one_hot(N, *size) if image else np.eye(N, dtype=np.float32)
        document = {
            "format": 1,
            "input": list(self.input.shape[1:]),
            "nodes": nodes,
            "outputs": [len(nodes)],
            "order": order,
        }
        self.net = Net(document, seed=1)
        self.kernels = kernels

    def set_input(self, k, x):
        """x (N, C, H, W) or (N, C) becomes the weight (C, N*H*W, 1, 1) or (C, N)."""
        w = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1, 1, 1) if self.image else x.T
        self.net.store.set(f"x{k}.weight", np.ascontiguousarray(w))

    def input_gradient(self, k, gradients):
        g = gradients[f"x{k}.weight"]
        if not self.image:
            return g.T
        return g.reshape(g.shape[0], N, *self.size).transpose(1, 0, 2, 3)

    def run(self, targets):
        plan = gl.compile(
            self.net,
            gl.losses.CrossEntropy(),
            gl.optim.SGD(lr=0.0),
            self.input.shape,
            precision="precise",
            kernels=self.kernels,
        )
        y = self.net(self.input, precision="precise", kernels=self.kernels)
        plan.step(self.input, targets)
        return y, plan.gradients()


def close(ours, theirs, what):
    theirs = theirs.detach().numpy().astype(np.float64)
    assert ours.shape == theirs.shape, what
    largest = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= TOLERANCE * largest, (
        f"{what}: {np.abs(ours - theirs).max() / largest:.1e}"
    )


def values(shape, seed):
    """Normal values that keep away from the kinks of the activations, and from ties."""
    x = np.random.default_rng(seed).standard_normal(shape) * 2
    for kink in (-3.0, 0.0, 3.0, 6.0):
        x = np.where(np.abs(x - kink) < 1e-2, x + 5e-2, x)
    return x.astype(np.float32)


def soft_targets(n, k):
    t = np.random.default_rng(7).random((n, k)) ** 3
    return (t / t.sum(1, keepdims=True)).astype(np.float32)


def torch_run(function, inputs, targets, parameters=()):
    y = function(*inputs).flatten(1)
    loss = torch.nn.functional.cross_entropy(y, torch.from_numpy(targets).to(y.dtype))
    loss.backward()
    return y


@pytest.mark.parametrize(
    "kernels", [k for k in gl.show_config()["kernel_sets"] if k in ("avx512", "avx2", "ref", "blas", "neon")]
)
@pytest.mark.parametrize(
    ("name", "kind", "args", "kwargs", "channels"), CASES, ids=lambda v: str(v).replace(" ", "")
)
def test_layer_agrees_with_torch(name, kind, args, kwargs, channels, kernels):
    torch.manual_seed(0)
    shape = (channels, H, W) if kind == "image" else (channels,)
    ours = getattr(nn, name)(*args, **kwargs)
    twin = getattr(torch.nn, name)(*args, **kwargs).double()
    subject = Subject(name, ours.config(), [shape], kernels)
    x = values((N, *shape), 3)
    subject.set_input(0, x)
    state = {k: torch.randn_like(v) for k, v in twin.state_dict().items() if v.dtype.is_floating_point}
    # Logits near 1: large ones would measure the conditioning of exp instead.
    state = {k: v / v[0].numel() ** 0.5 if v.ndim > 1 else v for k, v in state.items()}
    if "running_var" in state:
        state["running_var"] = state["running_var"].abs() + 0.5
    twin.load_state_dict(state, strict=False)
    for key, value in state.items():
        subject.net.store.set(f"layer.{key}", value.float().numpy())
        twin.get_parameter(key).data.copy_(value.float()) if key in dict(
            twin.named_parameters()
        ) else twin.get_buffer(key).copy_(value.float())
    with torch.no_grad():
        evaluated = twin.eval()(torch.from_numpy(x).double()).flatten(1)
    targets = soft_targets(N, evaluated.shape[1])
    y, gradients = subject.run(targets)
    close(y, evaluated, "output")
    leaf = torch.from_numpy(x).double().requires_grad_()
    torch_run(twin.train(), [leaf], targets)
    close(subject.input_gradient(0, gradients), leaf.grad, "gradient of the input")
    for key, parameter in twin.named_parameters():
        close(gradients[f"layer.{key}"], parameter.grad, f"gradient of {key}")
    for key, buffer in twin.named_buffers():
        if buffer.dtype.is_floating_point:
            close(subject.net.store.get(f"layer.{key}"), buffer, key)


@pytest.mark.parametrize(
    ("name", "k"), [(name, k) for name, cases in BINARY.items() for k in range(len(cases))]
)
def test_layer_of_two_inputs_agrees_with_torch(name, k):
    function, ca, cb, same = BINARY[name][k]
    shapes = [(ca, H, W), (cb, H, W) if same else (cb, 1, 1)]
    subject = Subject(name, {}, shapes)
    inputs = [values((N, c, H, W), 5 + j) for j, c in enumerate((ca, cb))]
    if not same:
        inputs[1] = np.repeat(np.repeat(inputs[1][:, :, :1, :1], H, 2), W, 3)
    for j, x in enumerate(inputs):
        subject.set_input(j, x)
    leaves = [
        torch.from_numpy(x if same or j == 0 else x[:, :, :1, :1]).double().requires_grad_()
        for j, x in enumerate(inputs)
    ]
    targets = soft_targets(N, function(*leaves).flatten(1).shape[1])
    y, gradients = subject.run(targets)
    close(y, torch_run(function, leaves, targets), "output")
    close(subject.input_gradient(0, gradients), leaves[0].grad, "gradient of a")
    got = subject.input_gradient(1, gradients)
    close(got if same else got.sum((2, 3), keepdims=True), leaves[1].grad, "gradient of b")


@pytest.mark.parametrize("name", ["Add", "Concat"])
def test_vectors_of_two_inputs_agree_with_torch(name):
    subject = Subject(name, {}, [(9,), (9,)])
    inputs = [values((N, 9), 8), values((N, 9), 9)]
    for j, x in enumerate(inputs):
        subject.set_input(j, x)
    leaves = [torch.from_numpy(x).double().requires_grad_() for x in inputs]
    function = BINARY[name][0][0]
    targets = soft_targets(N, function(*leaves).shape[1])
    y, gradients = subject.run(targets)
    close(y, torch_run(function, leaves, targets), "output")
    for j, leaf in enumerate(leaves):
        close(subject.input_gradient(j, gradients), leaf.grad, f"gradient of input {j}")


def test_frozen_batch_norm_uses_evaluation_statistics():
    subject = Subject("BatchNorm2d", {"num_features": 5}, [(5, H, W)])
    x = values((N, 5, H, W), 3)
    subject.set_input(0, x)
    rng = np.random.default_rng(1)
    mean, var = rng.standard_normal(5).astype(np.float32), rng.random(5).astype(np.float32) + 0.5
    subject.net.store.set("layer.running_mean", mean)
    subject.net.store.set("layer.running_var", var)
    subject.net.freeze(["layer"])
    targets = soft_targets(N, 5 * H * W)
    _, gradients = subject.run(targets)
    leaf = torch.from_numpy(x).double().requires_grad_()
    bn = torch.nn.BatchNorm2d(5).double().eval()
    bn.running_mean.copy_(torch.from_numpy(mean))
    bn.running_var.copy_(torch.from_numpy(var))
    torch_run(bn, [leaf], targets)
    close(subject.input_gradient(0, gradients), leaf.grad, "gradient of the input")
    np.testing.assert_array_equal(subject.net.store.get("layer.running_mean"), mean)


def test_dropout_keeps_its_share_and_scales():
    p = 0.3
    subject = Subject("Dropout", {"p": p}, [(20, H, W)])
    x = values((N, 20, H, W), 3)
    subject.set_input(0, x)
    targets = np.full((N, 20 * H * W), 1 / (20 * H * W), np.float32)
    y, gradients = subject.run(targets)
    np.testing.assert_array_equal(y, x.reshape(N, -1))  # evaluation passes on
    g = subject.input_gradient(0, gradients)
    dropped = g == 0
    assert dropped.mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / g.size))
    mask = torch.from_numpy(~dropped).double() / (1 - p)
    leaf = torch.from_numpy(x).double().requires_grad_()
    torch_run(lambda a: a * mask, [leaf], targets)
    close(g, leaf.grad, "gradient of the input")


@pytest.mark.parametrize(
    ("smoothing", "weighted", "soft"), list(itertools.product((0.0, 0.1), (False, True), (False, True)))
)
def test_cross_entropy_agrees_with_torch(smoothing, weighted, soft):
    k = 6
    weight = np.random.default_rng(2).random(k) + 0.5 if weighted else None
    loss = gl.losses.CrossEntropy(
        weight=None if weight is None else [float(w) for w in weight], label_smoothing=smoothing
    )
    net = nn.Sequential(nn.Linear(N, k, bias=False)).net((N,), seed=0)
    x = values((N, k), 4)
    net.store.set("0.weight", np.ascontiguousarray(x.T))
    targets = soft_targets(N, k) if soft else np.array([1, 4, 0])
    plan = gl.compile(net, loss, None, (N, N))
    step = plan.step(np.eye(N, dtype=np.float32), targets)
    leaf = torch.from_numpy(x).double().requires_grad_()
    t = torch.from_numpy(targets)
    t = t.double() if soft else t
    twin = torch.nn.CrossEntropyLoss(
        None if weight is None else torch.from_numpy(weight), label_smoothing=smoothing
    )
    value = twin(leaf, t)
    value.backward()
    assert step.loss == pytest.approx(value.item(), rel=1e-6)
    close(plan.gradients()["0.weight"].T, leaf.grad, "gradient of the logits")
    losses, pred, _ = plan.evaluate(np.eye(N, dtype=np.float32), targets)
    plain = torch.nn.functional.cross_entropy(leaf, t, reduction="none")
    np.testing.assert_allclose(losses, plain.detach().numpy(), rtol=1e-5)
    np.testing.assert_array_equal(pred, x.argmax(1))
