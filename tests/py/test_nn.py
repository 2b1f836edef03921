"""Modules: names, tracing, weights, initial values."""

from __future__ import annotations

import copy
import inspect
import json
import pickle

import numpy as np
import pytest

import gapless as gl
from gapless import nn
from gapless.errors import CheckpointError, ShapeError


class Block(nn.Module):
    def __init__(self, channels):
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)) + x)


class Small(nn.Module):
    def __init__(self, classes=3):
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


X = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)


def line_of(function, text):
    """Number of the source line of `function` that contains `text`."""
    lines, first = inspect.getsourcelines(function)
    return first + next(k for k, line in enumerate(lines) if text in line)


# ---- names ----


def test_names_and_order_are_torchs():
    assert list(Small().state_dict()) == [
        "stem.weight", "stem.bias",
        "blocks.0.conv.weight", "blocks.0.bn.weight", "blocks.0.bn.bias", "blocks.0.bn.running_mean", "blocks.0.bn.running_var",  # noqa: E501
        "blocks.1.conv.weight", "blocks.1.bn.weight", "blocks.1.bn.bias", "blocks.1.bn.running_mean", "blocks.1.bn.running_var",  # noqa: E501
        "head.weight", "head.bias",
    ]  # fmt: skip
    assert [name for name, _ in Small().named_parameters()][-3:] == [
        "blocks.1.bn.bias",
        "head.weight",
        "head.bias",
    ]
    assert [name for name, _ in Small().named_children()] == ["stem", "blocks", "head"]
    assert "blocks.1.bn" in dict(Small().named_modules())


def test_graph_document_is_plain_data():
    document = Small().trace((2, 6, 6))
    assert json.loads(json.dumps(document)) == document
    assert document["format"] == 1
    assert document["input"] == [2, 6, 6]
    assert document["order"] == [
        "stem",
        "blocks.0.conv",
        "blocks.0.bn",
        "blocks.1.conv",
        "blocks.1.bn",
        "head",
    ]
    add = next(n for n in document["nodes"] if n["layer"] == "Add")
    assert add["name"] == "blocks.0.add"
    assert add["in"] == [3, 1]
    assert [n["id"] for n in document["nodes"]] == list(range(len(document["nodes"])))
    assert document["nodes"][0]["config"]["kernel_size"] == 3


def test_order_is_that_of_definition_not_of_use():
    class Late(nn.Module):
        def __init__(self):
            self.second = nn.Linear(4, 2)
            self.first = nn.Linear(3, 4)

        def forward(self, x):
            return self.second(self.first(x))

    assert Late().trace((3,))["order"] == ["second", "first"]
    assert list(Late().net((3,)).state_dict()) == [
        "second.weight",
        "second.bias",
        "first.weight",
        "first.bias",
    ]


def test_shared_layer_has_its_weights_once():
    class Shared(nn.Module):
        def __init__(self):
            self.a = nn.Linear(4, 4)
            self.b = self.a
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(self.b(self.drop(self.a(x))))

    net = Shared()
    assert list(net.state_dict()) == ["a.weight", "a.bias"]
    document = net.trace((4,))
    assert [n["name"] for n in document["nodes"]] == ["a", "drop", "a", "drop"]
    assert [n["id"] for n in document["nodes"]] == [0, 1, 2, 3]  # two Dropouts draw apart
    w, b = net.state_dict().values()
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(net(x), (x @ w.T + b) @ w.T + b, rtol=1e-5)


def test_functions_and_operators_make_layers():
    class Functions(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(2 * 3 * 3, 2)

        def forward(self, x):
            x = nn.max_pool2d(x, 2)
            gate = nn.sigmoid(nn.AdaptiveAvgPool2d(1)(x))
            x = nn.relu(x) * gate + nn.leaky_relu(x, 0.2)
            y = nn.cat([x, x.tanh()])
            assert y.shape[1:] == (4, 3, 3)
            return self.fc(nn.relu6(x).view(x.size(0), -1)), nn.flatten(y)

    document = Functions().trace((2, 6, 6))
    layers = [n["layer"] for n in document["nodes"]]
    assert layers == ["MaxPool2d", "AdaptiveAvgPool2d", "Sigmoid", "ReLU", "Mul", "LeakyReLU", "Add", "Tanh", "Concat",  # noqa: E501
                      "ReLU6", "Flatten", "Linear", "Flatten"]  # fmt: skip
    assert len({n["name"] for n in document["nodes"]}) == len(layers)
    a, b = Functions()(X)
    assert a.shape == (5, 2)
    assert b.shape == (5, 36)


# ---- what tracing refuses ----


def test_control_flow_on_values_names_the_line():
    class Branch(Small):
        def forward(self, x):
            if x.mean((2, 3)):
                return super().forward(x)
            return None

    with pytest.raises(TypeError, match="decision was taken on a tensor's values") as e:
        Branch().trace((2, 6, 6))
    assert f"{__file__}:{line_of(Branch.forward, 'if x.mean')}:" in str(e.value)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda x: float(x), "turned into a number"),
        (lambda x: int(x), "turned into a number"),
        (lambda x: np.tanh(x), r"NumPy \(tanh\)"),
        (lambda x: np.asarray(x), "NumPy was applied"),
        (lambda x: x > 0, "compared"),
        (lambda x: x == 0, "compared"),
        (lambda x: len(x), "len"),
        (lambda x: list(x), "iterated"),
        (lambda x: x[0], "part of a tensor"),
        (lambda x: x - x, "not a layer"),
        (lambda x: x / 2, "not a layer"),
        (lambda x: -x, "not a layer"),
        (lambda x: x + 1, r"tensor \+ int is not a layer"),
        (lambda x: 2.0 * x, r"tensor \* float is not a layer"),
        (lambda x: np.ones(3) + x, r"NumPy \(add\)"),
        (lambda x: x * np.ones(3), r"tensor \* ndarray is not a layer"),
        (lambda x: range(x.shape[0]), "batch size was used as a number"),
        (lambda x: bool(x.shape[0]), "batch size"),
    ],
)
def test_values_of_tensors_are_refused(use, message):
    class Uses(nn.Module):
        def forward(self, x):
            return use(x)

    with pytest.raises(TypeError, match=message) as e:
        Uses().trace((2, 6, 6))
    assert f"{__file__}:" in str(e.value)


def test_shape_errors_name_layer_and_line():
    class Wrong(nn.Module):
        def __init__(self):
            self.a = nn.Conv2d(2, 4, 3)
            self.b = nn.Conv2d(5, 4, 3)

        def forward(self, x):
            return self.b(self.a(x))

    with pytest.raises(ShapeError, match="in b: Conv2d: in_channels is 5, but its input") as e:
        Wrong().trace((2, 6, 6))
    assert f"{__file__}:{line_of(Wrong.forward, 'return self.b')}" in str(e.value)
    with pytest.raises(ShapeError, match=r"flatten must keep the batch"):
        nn.Module.trace(_of(lambda x: x.flatten()), (2, 6, 6))
    with pytest.raises(ShapeError, match=r"only reshape\(N, -1\)"):
        nn.Module.trace(_of(lambda x: x.reshape(2, 36)), (2, 6, 6))
    with pytest.raises(ShapeError, match="only the mean over the image"):
        nn.Module.trace(_of(lambda x: x.mean(1)) if False else _of(lambda x: x.mean((1, 2))), (2, 6, 6))
    with pytest.raises(ShapeError, match="input_shape must be"):
        Small().trace((6, 6))


def _of(function):
    class Of(nn.Module):
        def forward(self, x):
            return function(x)

    return Of()


def test_attributes_of_tensors_that_are_not_there():
    with pytest.raises(AttributeError, match="a tensor has no 'permute'"):
        _of(lambda x: x.permute(0, 2, 3, 1)).trace((2, 6, 6))


def test_layers_that_would_be_lost_are_refused():
    class Loose(nn.Module):
        def forward(self, x):
            return nn.Conv2d(2, 4, 3)(x)

    with pytest.raises(TypeError, match="has weights but is not an attribute"):
        Loose().trace((2, 6, 6))
    with pytest.raises(TypeError, match=r"layers in a plain list are not seen; use nn.ModuleList"):
        Small().extra = [nn.ReLU()]
    net = Small()
    net.unused = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="forward never uses unused"):
        net.trace((2, 6, 6))
    del net.unused
    assert net.trace((2, 6, 6))["order"][-1] == "head"


def test_forward_must_return_tensors():
    with pytest.raises(TypeError, match="must return tensors, got int"):
        _of(lambda x: 3).trace((2, 6, 6))
    with pytest.raises(NotImplementedError, match="has no forward"):
        nn.Module().trace((2, 6, 6))


def test_tensor_of_another_trace_is_refused():
    kept = []
    with pytest.raises(TypeError):
        _of(lambda x: kept.append(x)).trace((2, 6, 6))
    with pytest.raises(TypeError, match="another trace"):
        _of(lambda x: x + kept[0]).trace((2, 6, 6))


def test_habits_of_torch_get_an_answer():
    net = Small()
    for name in ("eval", "train", "to", "cuda", "backward"):
        with pytest.raises(AttributeError, match=f"has no '{name}': "):
            getattr(net, name)
    with pytest.raises(AttributeError, match="'nothing'"):
        net.nothing  # noqa: B018


def test_names_of_torch_nn_that_are_elsewhere():
    with pytest.raises(AttributeError, match=r"here it is gapless\.losses\.CrossEntropy"):
        nn.CrossEntropyLoss  # noqa: B018
    with pytest.raises(AttributeError, match=r"gapless\.nn has no 'Conv2D'; did you mean 'Conv2d'"):
        nn.Conv2D  # noqa: B018
    assert not hasattr(nn, "__wrapped__")


# ---- containers ----


def test_module_list_and_sequential():
    class Listed(nn.Module):
        def __init__(self):
            self.parts = nn.ModuleList(nn.Linear(3, 3) for _ in range(2)).append(nn.Linear(3, 2))

        def forward(self, x):
            for part in self.parts:
                x = nn.relu(part(x))
            return x

    net = Listed()
    assert len(net.parts) == 3
    assert list(net.state_dict())[-2:] == ["parts.2.weight", "parts.2.bias"]
    assert net(np.ones((1, 3), np.float32)).shape == (1, 2)
    named = nn.Sequential({"a": nn.Linear(3, 3), "b": nn.ReLU()})
    assert list(named.state_dict()) == ["a.weight", "a.bias"]
    assert isinstance(named[1], nn.ReLU)
    assert len(named) == 2
    with pytest.raises(TypeError, match="Sequential: 1 must be a module"):
        nn.Sequential(nn.ReLU(), 3)
    with pytest.raises(TypeError, match="ModuleList: must hold modules"):
        nn.ModuleList([3])


def test_apply_reaches_all_modules():
    seen = []
    Small().apply(lambda m: seen.append(type(m).__name__))
    assert seen.count("BatchNorm2d") == 2
    assert seen[-1] == "Small"


def test_repr_shows_the_tree():
    text = repr(Small())
    assert text.startswith(
        "Small(\n  (stem): Conv2d(2, 4, 3, padding=1)\n  (blocks): Sequential(\n    (0): Block("
    )
    assert "&lt;" not in Small()._repr_html_()
    assert Small()._repr_html_().startswith("<pre>Small(")


# ---- weights ----


def test_forward_outside_a_trace_evaluates():
    net = Small()
    y = net(X)
    assert y.shape == (5, 3)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(net(X[2:3]), y[2:3])
    np.testing.assert_array_equal(net(X.astype(np.float64)), y)
    np.testing.assert_array_equal(net(X[:, :, ::-1][:, :, ::-1]), y)
    assert net(X[:0]).shape == (0, 3)
    assert net(np.zeros((1, 2, 9, 7), np.float32)).shape == (1, 3)


def test_forward_that_depends_on_attributes_is_traced_again():
    class Switch(nn.Module):
        on = True

        def forward(self, x):
            return nn.relu(x) if self.on else nn.tanh(x)

    net = Switch()
    x = np.array([[-1.0, 2.0]], np.float32)
    assert net(x).tolist() == [[0.0, 2.0]]
    net.on = False
    assert net(x)[0, 0] < 0


def test_weights_belong_to_the_module():
    net = Small()
    before = net.state_dict()
    plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.1), (5, 2, 6, 6))
    plan.step(X, [0, 1, 2, 0, 1])
    after = net.state_dict()
    assert all(
        not np.array_equal(before[k], after[k])
        for k in ("stem.weight", "blocks.0.bn.running_mean", "head.bias")
    )
    np.testing.assert_array_equal(net.head.weight.numpy(), after["head.weight"])
    np.testing.assert_array_equal(net(X), plan.forward(X))


def test_state_of_a_part_is_the_state_of_the_whole():
    net = Small()
    whole = net.state_dict()
    part = net.blocks.state_dict()
    np.testing.assert_array_equal(part["1.conv.weight"], whole["blocks.1.conv.weight"])
    net.blocks.load_state_dict({k: v + 1 for k, v in part.items()})
    np.testing.assert_array_equal(net.state_dict()["blocks.1.conv.weight"], part["1.conv.weight"] + 1)


def test_a_part_evaluates_with_the_weights_of_the_whole():
    net = Small()
    net(X)
    stem = net.stem(X)
    w, b = net.stem.weight.numpy(), net.stem.bias.numpy()
    expected = (X[0, :, 0:3, 0:3] * w[1]).sum() + b[1]
    np.testing.assert_allclose(stem[0, 1, 1, 1], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="part of a larger one"):
        gl.compile(net.blocks, gl.losses.CrossEntropy(), gl.optim.SGD(), (5, 4, 6, 6))


def test_a_trained_part_takes_its_weights_along():
    part = Block(4)
    part.load_state_dict({k: np.full_like(v, 0.5) for k, v in part.state_dict().items()})
    net = Small()
    net.blocks = nn.Sequential(part, Block(4))
    assert np.all(net.state_dict()["blocks.0.conv.weight"] == 0.5)
    assert np.all(part.state_dict()["conv.weight"] == 0.5)
    with pytest.raises(ValueError, match="loaded or trained"):
        net.net((2, 6, 6), seed=1)


def test_net_with_a_seed_has_weights_of_its_own():
    module = Small()
    a, b, c = module.net((2, 6, 6), seed=1), module.net((2, 6, 6), seed=1), module.net((2, 6, 6), seed=2)
    assert a.digest() == b.digest() != c.digest()
    a.load_state_dict({k: v * 0 for k, v in a.state_dict().items()})
    assert module.net((2, 6, 6), seed=1).digest() == b.digest()
    module.load_state_dict(b.state_dict())
    assert module.net((2, 6, 6)).digest() == b.digest()
    with pytest.raises(ValueError, match=r"they would be lost|would start from others"):
        module.net((2, 6, 6), seed=1)


def test_copies_and_pickles_keep_the_weights():
    net = Small()
    net.load_state_dict({k: v + 0.25 for k, v in net.state_dict().items()})
    for again in (copy.deepcopy(net.stem), pickle.loads(pickle.dumps(net.stem))):
        np.testing.assert_array_equal(again.weight.numpy(), net.stem.weight.numpy())
        again.load_state_dict({"weight": again.weight.numpy() * 0, "bias": again.bias.numpy()})
        assert np.any(net.stem.weight.numpy())
    again = copy.deepcopy(net)
    np.testing.assert_array_equal(again(X), net(X))
    assert not np.shares_memory(again.state_dict()["head.weight"], net.state_dict()["head.weight"])


def test_load_state_dict_is_strict_and_all_or_nothing():
    net = Small()
    state = net.state_dict()
    missing = {k: v * 0 for k, v in state.items() if k != "head.bias"}
    with pytest.raises(CheckpointError, match=r"nothing was loaded: missing: head\.bias"):
        net.load_state_dict(missing)
    with pytest.raises(CheckpointError, match=r"unexpected: extra\.weight"):
        net.load_state_dict({**state, "extra.weight": np.zeros(3)})
    with pytest.raises(CheckpointError, match=r"head\.weight has shape \(7, 4\), expected \(3, 4\)"):
        net.load_state_dict({**state, "head.weight": np.zeros((7, 4))})
    with pytest.raises(CheckpointError, match=r"they begin with 'module\.': take it off"):
        net.load_state_dict({f"module.{k}": v for k, v in state.items()}, strict=False)
    with pytest.raises(CheckpointError, match="numbers"):
        net.load_state_dict({**state, "head.bias": np.array(["a", "b", "c"])})
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, state[key])
    report = net.load_state_dict({**missing, "head.extra": np.zeros(1)}, strict=False)
    assert report.missing == ["head.bias"]
    assert report.unexpected == ["head.extra"]
    assert len(report.matched) == len(missing)
    assert "1 missing (head.bias)" in str(report)
    assert not np.any(net.state_dict()["stem.weight"])


def test_num_batches_tracked_is_accepted_and_ignored():
    net = Small()
    state = {
        **net.state_dict(),
        "blocks.0.bn.num_batches_tracked": np.array(17),
        "blocks.1.bn.num_batches_tracked": np.array(17),
    }
    report = net.load_state_dict(state)
    assert not report.unexpected
    assert not any("num_batches" in k for k in net.state_dict())


# ---- parameters and initial values ----


def test_parameters_as_attributes():
    conv = nn.Conv2d(2, 4, 3, bias=False)
    assert conv.weight.shape == (4, 2, 3, 3)
    assert conv.weight.numel() == 72
    assert conv.bias is None
    assert conv.config()["bias"] is False
    assert nn.BatchNorm2d(4).running_var.shape == (4,)
    assert np.asarray(conv.weight).shape == (4, 2, 3, 3)
    assert repr(conv.weight) == "Parameter(Conv2d.weight, shape=(4, 2, 3, 3))"


def test_initial_values_follow_torchs_rules():
    conv = nn.Conv2d(16, 32, 3)
    bound = 1 / np.sqrt(16 * 9)
    w = conv.weight.numpy()
    assert np.abs(w).max() <= bound
    assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    assert conv.weight.numpy().std() == pytest.approx(np.sqrt(2 / (32 * 9)), rel=0.05)
    nn.init.xavier_uniform_(conv.weight)
    assert np.abs(conv.weight.numpy()).max() == pytest.approx(np.sqrt(6 / (48 * 9)), rel=0.01)
    nn.init.kaiming_uniform_(conv.weight, a=5**0.5)
    assert np.abs(conv.weight.numpy()).max() == pytest.approx(bound, rel=0.01)
    nn.init.xavier_normal_(conv.weight)
    assert conv.weight.numpy().std() == pytest.approx(np.sqrt(2 / (48 * 9)), rel=0.05)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.weight.numpy().std() == pytest.approx(0.01, rel=0.05)
    nn.init.uniform_(conv.weight, -0.5, 0.5)
    assert np.abs(conv.weight.numpy()).max() == pytest.approx(0.5, rel=0.01)
    nn.init.ones_(conv.bias)
    assert np.all(conv.bias.numpy() == 1)
    nn.init.constant_(conv.bias, 0)
    assert not np.any(conv.bias.numpy())


def test_rules_are_in_the_document_and_before_or_after_the_weights_exist_they_give_the_same():
    early, late = Small(), Small()
    nn.init.kaiming_normal_(early.stem.weight)
    late.state_dict()
    nn.init.kaiming_normal_(late.stem.weight)
    np.testing.assert_array_equal(early.state_dict()["stem.weight"], late.state_dict()["stem.weight"])
    assert early.trace((2, 6, 6))["init"] == {"stem.weight": ["normal", pytest.approx(np.sqrt(2 / 18))]}
    assert (
        early.net((2, 6, 6), seed=0).digest()
        == late.net((2, 6, 6), seed=0).digest()
        == late.net((2, 6, 6)).digest()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: nn.init.constant_(p, 0.5), "val must be 0 or 1"),
        (lambda p: nn.init.normal_(p, mean=1.0), "mean must be 0"),
        (lambda p: nn.init.uniform_(p, 0.0, 1.0), "must be symmetric"),
        (lambda p: nn.init.normal_(p, std=-1.0), "must be >= 0"),
        (lambda p: nn.init.kaiming_normal_(p, mode="fan"), "mode must be"),
        (lambda p: nn.init.kaiming_normal_(p, nonlinearity="swish"), "nonlinearity must be one of"),
    ],
)
def test_rules_that_cannot_be_stored_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(nn.Linear(3, 3).weight)
    with pytest.raises(ValueError, match="need at least 2 dimensions"):
        nn.init.kaiming_normal_(nn.Linear(3, 3).bias)
    with pytest.raises(TypeError, match=r"conv\.weight"):
        nn.init.zeros_(np.zeros(3))


def test_requires_grad_freezes():
    net = Small()
    for p in net.stem.parameters():
        p.requires_grad = False
    assert not net.stem.weight.requires_grad
    for made in (net.net((2, 6, 6)), net.net((2, 6, 6), seed=3)):
        frozen = [e["name"] for e in made.entries() if e["kind"] == "param" and not e["trainable"]]
        assert frozen == ["stem.weight", "stem.bias"]
    net.stem.weight.requires_grad = True
    net.blocks.requires_grad_(False).requires_grad_()
    assert [name for name, _ in net.named_buffers()][:2] == [
        "blocks.0.bn.running_mean",
        "blocks.0.bn.running_var",
    ]
    assert net.net((2, 6, 6)).parameters_count() == (391, 395)
