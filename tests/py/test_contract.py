"""One battery over every row of the tables: a new layer, loss or optimizer is tested by being there."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

import gapless as gl
from gapless import _core, losses, nn, optim
from gapless._registry import rows
from gapless.nn.net import Net

N, C, H, W = 3, 8, 6, 5
INPUTS = {"image": (C, H, W), "vector": (C,)}
CLASSES = 4


class Case:
    """A layer on an input that it takes, between a layer with weights and a linear head."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        row = rows("layers")[name]
        self.inputs = row.facts["min_in"]
        self.config = getattr(nn, name)(*row.example_args()).config()
        self.shape = INPUTS[kind]

    def __repr__(self) -> str:
        return f"{self.name}-{self.kind}"

    def document(self) -> dict:
        nodes = []

        def add(layer, name, config, inputs):
            nodes.append({"layer": layer, "name": name, "id": len(nodes), "config": config, "in": inputs})
            return len(nodes)

        if self.kind == "image":
            pre = [("Conv2d", {"in_channels": C, "out_channels": C, "kernel_size": 1})] * self.inputs
        else:
            pre = [("Linear", {"in_features": C, "out_features": C})] * self.inputs
        values = [add(layer, f"pre{k}", config, [0]) for k, (layer, config) in enumerate(pre)]
        y = add(self.name, "layer", self.config, values)
        flat = add("Flatten", "flat", {}, [y])
        graph = _core.Graph(self.shape)
        for node in nodes:
            graph.add(node["layer"], node["name"], node["id"], node["config"], node["in"])
        features = graph.shape(flat)[0]
        out = add("Linear", "head", {"in_features": features, "out_features": CLASSES}, [flat])
        order = [n["name"] for n in nodes if rows("layers")[n["layer"]].facts["weights"]]
        return {
            "format": 1,
            "input": list(self.shape),
            "nodes": nodes,
            "outputs": [out, flat],
            "order": order,
        }

    def net(self, seed: int = 0) -> Net:
        return Net(self.document(), seed=seed)

    def batch(self, n: int = N) -> np.ndarray:
        return np.random.default_rng(3).standard_normal((n, *self.shape)).astype(np.float32)


def fits(name: str, kind: str) -> bool:
    try:
        Case(name, kind).net(0)
    except gl.errors.ShapeError:
        return False
    return True


CASES = [Case(name, kind) for name in rows("layers") for kind in INPUTS if fits(name, kind)]
Y = np.arange(N) % CLASSES


def one_output(document):
    return {**document, "outputs": document["outputs"][:1]}


def plan_of(case, seed=0, batch=N, optimizer=None, **kwargs):
    net = Net(one_output(case.document()), seed=seed)
    return gl.compile(
        net, losses.CrossEntropy(), optimizer, (batch, *case.shape), precision="precise", **kwargs
    )


def test_every_layer_is_in_the_battery():
    assert {case.name for case in CASES} == set(rows("layers"))


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_shapes_are_those_that_come_out(case):
    net = case.net()
    logits, flat = net(case.batch())
    assert [(N, *s) for s in net.output_shapes] == [logits.shape, flat.shape]
    assert np.all(np.isfinite(flat))
    assert net(case.batch()[:0])[1].shape == (0, flat.shape[1])


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_gradient_is_the_slope_of_the_loss(case):
    """Along the gradient the loss must rise by its norm: central differences, whole weights at a time."""
    plan = plan_of(case)
    kwargs = {"ids": np.arange(N), "epoch": 1, "seed": 2}  # Dropout draws the same each time
    x = case.batch()
    plan.step(x, Y, **kwargs)
    gradients = plan.gradients()
    checked = 0
    for name, g in gradients.items():
        norm = float(np.linalg.norm(g))
        if norm < 1e-3:
            continue
        w = plan.store.get(name)
        values, eps = [], 5e-3
        for sign in (1, -1):
            plan.store.set(name, (w + sign * eps * g / norm).astype(np.float32))
            values.append(plan.step(x, Y, **kwargs).loss)
        plan.store.set(name, w)
        # Kinks (ReLU, max) bend the line by a few per cent.
        assert (values[0] - values[1]) / (2 * eps) == pytest.approx(norm, rel=0.03, abs=1e-3), name
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_bits_do_not_depend_on_threads_kernels_or_strides(case):
    x = case.batch(7)
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), np.float32)
    wide[..., ::2] = x
    y = np.arange(7) % CLASSES
    seen = set()
    before = gl.get_num_threads()
    try:
        for threads in (1, 2, 3):
            gl.set_num_threads(threads)
            for kernels in (k for k in gl.show_config()["kernel_sets"] if k != "blas"):
                plan = plan_of(case, batch=7, optimizer=optim.SGD(lr=0.1), kernels=kernels)
                step = plan.step(wide[..., ::2] if threads == 2 else x, y, seed=4)
                logits = plan.forward(x)
                seen.add((step.losses.tobytes(), plan.net.digest(), logits.tobytes()))
                assert plan.forward(x[2:3]).tobytes() == logits[2:3].tobytes()
    finally:
        gl.set_num_threads(before)
    assert len(seen) == 1


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_state_travels_by_name(case):
    a, b = case.net(1), case.net(2)
    x = case.batch()
    report = b.load_state_dict(a.state_dict())
    assert report.matched == list(a.state_dict())
    for u, v in zip(a(x), b(x), strict=True):
        np.testing.assert_array_equal(u, v)
    again = Net(a.document, seed=1)
    assert again.digest() == a.digest()


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_layer_object_and_node_are_the_same(case):
    layer = getattr(nn, case.name).from_config(case.config)
    if case.inputs != 1:
        with pytest.raises((TypeError, ValueError), match=r"input|tensors"):
            layer.trace(case.shape)
        return
    document = layer.trace(case.shape)
    assert document["nodes"][0]["layer"] == case.name
    assert document["nodes"][0]["config"] == case.config
    assert set(layer.state_dict()) == {
        n.split(".", 1)[1] for n in case.net().state_dict() if n.startswith("layer.")
    }


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_wrong_numbers_of_inputs_are_refused(case):
    row = rows("layers")[case.name]
    graph = _core.Graph(case.shape)
    for n in (0, row.facts["max_in"] + 1):
        if n <= 16:
            with pytest.raises(ValueError, match=r"in layer: .*takes .* input"):
                graph.add(case.name, "layer", 0, case.config, [0] * n)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_failed_allocations_are_clean(case):
    """Each allocation in turn fails: an error, no leak, and the next try works."""
    x = case.batch()

    def scenario():
        plan = plan_of(case, optimizer=optim.SGD(lr=0.1))
        plan.step(x, Y, ema_decay=0.5)

    scenario()
    gc.collect()
    live = _core.memory_counters()[0]
    before = _core.memory_counters()[1]
    scenario()
    count = _core.memory_counters()[1] - before
    for k in range(1, count + 1, max(1, count // 25)):  # a slice; test_plan.py sweeps all of one network
        _core.memory_fail_after(k)
        try:
            with pytest.raises(MemoryError):
                scenario()
        finally:
            _core.memory_fail_after(0)
    gc.collect()
    assert _core.memory_counters()[0] == live
    scenario()


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_nothing_is_allocated_after_the_first_step(case):
    plan = plan_of(case, optimizer=optim.Adam())
    x = case.batch()
    plan.step(x, Y)
    total = _core.memory_counters()[1]
    plan.step(x, Y)
    plan.step(x[:2], Y[:2])
    assert _core.memory_counters()[1] == total


# ---- losses ----


@pytest.mark.parametrize("name", list(rows("losses")))
def test_losses_have_the_slope_that_they_say(name):
    loss = getattr(losses, name)(*rows("losses")[name].example_args())
    net = nn.Sequential(nn.Linear(5, CLASSES)).net((5,), seed=0)
    plan = gl.compile(net, loss, None, (N, 5))
    x = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)
    step = plan.step(x, Y)
    assert step.losses.shape == (N,)
    assert math.isfinite(step.loss)
    g = plan.gradients()["0.weight"]
    w, norm, eps = plan.store.get("0.weight"), np.linalg.norm(g), 1e-2
    values = []
    for sign in (1, -1):
        plan.store.set("0.weight", (w + sign * eps * g / norm).astype(np.float32))
        values.append(plan.step(x, Y).loss)
    assert (values[0] - values[1]) / (2 * eps) == pytest.approx(norm, rel=1e-2)


# ---- optimizers ----


@pytest.mark.parametrize("name", list(rows("optimizers")))
def test_optimizers_lower_the_loss_and_follow_their_state(name):
    optimizer = getattr(optim, name)(lr=0.01)
    plan = plan_of(CASES[0], optimizer=optimizer)
    x = CASES[0].batch()
    values = [plan.step(x, Y).loss for _ in range(30)]
    assert values[-1] < values[0]
    assert all(e["updates"] == 30 for e in plan.net.entries() if e["kind"] == "param")
    copy = plan_of(CASES[0], seed=9, optimizer=optimizer)
    for plane in plan.store.planes():
        for e in plan.net.entries():
            copy.store.set(e["name"], plan.store.get(e["name"], plane), plane)
    for e in plan.net.entries():
        copy.store.set_updates(e["name"], e["updates"])
    plan.step(x, Y)
    copy.step(x, Y, step=30)
    assert copy.net.digest() == plan.net.digest()


@pytest.mark.parametrize("name", list(rows("optimizers")))
def test_optimizers_do_nothing_without_a_rate(name):
    plan = plan_of(CASES[0], optimizer=getattr(optim, name)(lr=0.0, weight_decay=0.1))
    before = {e["name"]: plan.store.get(e["name"]) for e in plan.net.entries() if e["kind"] == "param"}
    plan.step(CASES[0].batch(), Y)
    for key, value in before.items():
        np.testing.assert_array_equal(plan.store.get(key), value)
