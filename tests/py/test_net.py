"""Nets: documents, digests, freezing, summaries, evaluation, pretrained weights."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file
from small import Tiny

import gapless as gl
from gapless import checkpoint, nn
from gapless.errors import CheckpointError, ShapeError
from gapless.nn.net import Net

X = np.random.default_rng(1).standard_normal((70, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def net():
    return Tiny().net((1, 8, 8), seed=3)


# ---- documents ----


def test_document_alone_makes_the_same_net(net):
    again = Net(json.loads(json.dumps(net.document)), seed=3)
    assert again.digest() == net.digest()
    np.testing.assert_array_equal(again(X), net(X))
    empty = Net(net.document, seed=None)
    assert not any(np.any(v) for v in empty.state_dict().values())
    empty.load_state_dict(net.state_dict())
    assert empty.digest() == net.digest()


def test_initial_rules_are_part_of_the_document():
    module = gl.models.resnet8(image_size=8, zero_init_residual=True)
    net = module.net((3, 8, 8), seed=5)
    assert Net(json.loads(json.dumps(net.document)), seed=5).digest() == net.digest()
    assert not np.any(net.state_dict()["layer1.0.bn2.weight"])


def test_damaged_documents_are_refused(net):
    with pytest.raises(CheckpointError, match="format must be 1, got 2"):
        Net({**net.document, "format": 2})
    with pytest.raises(CheckpointError, match="'nowhere' is listed among the layers"):
        Net({**net.document, "order": [*net.document["order"], "nowhere"]})
    nodes = [dict(n) for n in net.document["nodes"]]
    nodes[0]["layer"] = "Conv2D"
    with pytest.raises(ValueError, match="unknown layer 'Conv2D'; did you mean 'Conv2d'"):
        Net({**net.document, "nodes": nodes})
    nodes[0]["layer"] = "Conv2d"
    nodes[0]["in"] = [5]
    with pytest.raises(ValueError, match="there is no value 5"):
        Net({**net.document, "nodes": nodes})


def test_a_document_that_does_not_fit_takes_no_memory_for_weights(net, monkeypatch):
    def no_store(net):
        raise AssertionError("a store was made")

    monkeypatch.setattr(Net, "_new_store", no_store)
    nodes = [{**n, "config": dict(n["config"])} for n in net.document["nodes"]]
    first = next(n for n in nodes if n["layer"] == "Conv2d")
    first["config"]["kernel_size"] = 205
    with pytest.raises(ShapeError, match=f"in {first['name']}: .*205 pixels"):
        Net({**net.document, "nodes": nodes})


def test_what_a_net_is(net):
    assert net.input_shape == (1, 8, 8)
    assert net.num_classes == 10
    assert net.output_shapes == [(10,)]
    assert net.graph() is net.graph((1, 8, 8))
    assert net.graph((1, 12, 12)).shape(1) == (8, 12, 12)
    assert repr(net) == "Net(1×8×8 -> 10, 9 layers, 1,442 parameters, 1,442 trainable)"
    maps = nn.Sequential(nn.Conv2d(1, 2, 3)).net((1, 8, 8))
    with pytest.raises(ShapeError, match=r"gives \(2, 6, 6\), not a vector"):
        maps.num_classes  # noqa: B018


def test_summary_counts_parameters_and_macs(net):
    summary = net.summary()
    rows = {r.name: r for r in summary.rows}
    assert rows["conv1"].params == 72
    assert rows["conv1"].macs == 8 * 9 * 64
    assert rows["conv2"].shape == (16, 4, 4)
    assert rows["fc"].macs == 160
    assert summary.params == summary.trainable == 1442
    assert summary.macs == 8 * 9 * 64 + 16 * 8 * 9 * 16 + 160
    text = repr(summary)
    assert "conv1" in text
    assert text.endswith(
        f"input 1×8×8, 1,442 parameters (1,442 trainable), {summary.macs:,} multiply-accumulates per sample"
    )
    assert net.summary((1, 16, 16)).rows[0].shape == (8, 16, 16)
    assert net._repr_html_().count("<tr>") == len(summary.rows) + 1


def test_names_in_html_are_escaped():
    class Odd(nn.Module):
        def __init__(self):
            self.add_module("<b>", nn.Linear(2, 2))

        def forward(self, x):
            return self.children().__next__()(x)

    html = Odd().net((2,))._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


# ---- weights ----


def test_digest_follows_every_weight(net):
    seen = {net.digest()}
    for name, value in net.state_dict().items():
        changed = value.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(np.inf))
        net.store.set(name, changed)
        seen.add(net.digest())
    assert len(seen) == len(net.state_dict()) + 1


def test_seeds_give_different_and_names_different_weights():
    a, b = (Tiny().net((1, 8, 8), seed=s).state_dict() for s in (0, 1))
    assert not np.array_equal(a["conv1.weight"], b["conv1.weight"])
    pair = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).net((4,), seed=0).state_dict()
    assert not np.array_equal(pair["0.weight"], pair["1.weight"])


def test_store_shares_memory_read_only(net):
    flat = net.store.flat("master")
    assert flat.dtype == np.float32
    assert not flat.flags.writeable
    entry = net.entries()[0]
    net.store.set(entry["name"], np.full(entry["shape"], 7.0, np.float32))
    assert np.all(flat[entry["offset"] : entry["offset"] + entry["count"]] == 7)
    store = net.store
    del net
    del store
    assert flat.sum() > 0  # the array keeps the memory


def test_store_refuses_what_does_not_fit(net):
    store = net.store
    with pytest.raises(KeyError, match=r"no weight 'conv1.wieght'; did you mean 'conv1.weight'"):
        store.get("conv1.wieght")
    with pytest.raises(ShapeError, match=r"fc.bias: shape must be \(10,\), got \(3,\)"):
        store.set("fc.bias", np.zeros(3, np.float32))
    with pytest.raises(TypeError, match=r"fc.bias: dtype must be float32, got float64"):
        store.set("fc.bias", np.zeros(10))
    with pytest.raises(ValueError, match="there is no plane 'ema' yet"):
        store.get("fc.bias", "ema")
    with pytest.raises(ValueError, match="plane must be"):
        store.flat("masters")
    with pytest.raises(ValueError, match="sealed"):
        store.add("late", "Linear", {"in_features": 1, "out_features": 1})
    with pytest.raises(ValueError, match="running_mean is a buffer"):
        store.set_trainable("bn1.running_mean", False)
    with pytest.raises(ValueError, match="group must be >= 0"):
        store.set_group("fc.bias", -1)
    with pytest.raises(ValueError, match="kind must be one of"):
        store.set_init("fc.bias", "kaiming")
    before = store.version
    store.set("fc.bias", np.zeros(10, np.float32))
    assert store.version > before
    assert store.planes() == ["master"]


def test_running_average_is_loaded_and_read_by_kind(net):
    with pytest.raises(ValueError, match="kind must be 'raw' or 'ema'"):
        net.state_dict("EMA")
    average = {k: v + 1 for k, v in net.state_dict().items()}
    net.load_state_dict(average, kind="ema")
    np.testing.assert_array_equal(net.state_dict("ema")["fc.weight"], average["fc.weight"])
    assert net.digest("ema") != net.digest()


def test_freeze_takes_whole_names():
    net = gl.models.create("resnet18", num_classes=5, input_shape=(3, 16, 16)).net((3, 16, 16), seed=None)
    frozen = net.freeze(["layer1", "conv1"])
    assert "layer1.0.bn1.weight" in frozen
    assert "conv1.weight" in frozen
    assert not any(name.startswith("layer2") or "running" in name for name in frozen)
    trainable, total = net.parameters_count()
    assert total - trainable == sum(e["count"] for e in net.entries() if e["name"] in frozen)
    with pytest.raises(ValueError, match="freeze: nothing is called 'layer'; did you mean 'layer"):
        net.freeze(["layer"])
    with pytest.raises(ValueError, match="nothing is called 'backbone'; there are bn1, conv1"):
        net.freeze("backbone")


def test_pickle_keeps_planes_and_settings(net):
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}, kind="ema")
    net.freeze(["conv1"])
    net.store.set_updates("fc.weight", 12)
    again = pickle.loads(pickle.dumps(net))
    assert again.digest() == net.digest()
    assert again.digest("ema") == net.digest("ema")
    assert again.entries() == net.entries()


# ---- evaluation ----


def test_outputs_do_not_depend_on_the_batch_or_the_threads(net):
    expected = net(X)
    before = gl.get_num_threads()
    try:
        for threads in (1, 2, 3):
            gl.set_num_threads(threads)
            for batch in (1, 7, 64):
                parts = [Net.__call__(net, X[k : k + batch]) for k in range(0, len(X), batch)]
                np.testing.assert_array_equal(np.concatenate(parts), expected)
    finally:
        gl.set_num_threads(before)
    for kernels in gl.show_config()["kernel_sets"]:
        if kernels != "blas":
            np.testing.assert_array_equal(net(X, kernels=kernels), expected)


def test_evaluation_changes_nothing(net):
    before = net.digest(), net.store.version
    net(X)
    assert (net.digest(), net.store.version) == before


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((1, 1, 8, 8), np.uint8), TypeError, "must be float32"),
        (np.zeros((1, 1, 8, 8), np.int64), TypeError, r"gl\.load"),
        (np.zeros((1, 8, 8), np.float32), ShapeError, r"net\(x\[None\]\)"),
        (np.zeros((1, 3, 8, 8), np.float32), ShapeError, "in_channels is 1"),
        (np.zeros((1, 1, 1, 8, 8), np.float32), ShapeError, r"\(N, C, H, W\)"),
    ],
)
def test_wrong_inputs_are_refused(net, x, error, message):
    with pytest.raises(error, match=message):
        net(x)


# ---- pretrained ----


def _weights(path, net, rename=lambda n: n, **change):
    state = {rename(k): np.ascontiguousarray(v) for k, v in net.state_dict().items()}
    save_file({**state, **change}, str(path))
    return path


def test_pretrained_with_the_same_classes_takes_all(tmp_path, net):
    file = _weights(tmp_path / "w.safetensors", net)
    other = Tiny().net((1, 8, 8), seed=9)
    report = nn.load_pretrained(other, file)
    assert len(report.matched) == len(net.state_dict())
    assert not report.reshaped
    assert other.digest() == net.digest()


def test_pretrained_with_other_classes_gets_a_new_head(tmp_path, net):
    file = _weights(tmp_path / "w.safetensors", net, **{"bn1.num_batches_tracked": np.array(3)})
    other = Tiny(num_classes=4).net((1, 8, 8), seed=9)
    head = other.state_dict()["fc.weight"]
    report = nn.load_pretrained(other, file, 4)
    assert report.reshaped == ["fc.weight", "fc.bias"]
    np.testing.assert_array_equal(other.state_dict()["fc.weight"], head)
    np.testing.assert_array_equal(other.state_dict()["conv2.weight"], net.state_dict()["conv2.weight"])
    with pytest.raises(ValueError, match="num_classes is 5, but the network has 4"):
        nn.load_pretrained(other, file, 5)


def test_pretrained_accounts_for_everything(tmp_path, net):
    cases = {
        "missing: conv2.weight": {k: v for k, v in net.state_dict().items() if k != "conv2.weight"},
        "unexpected: other.weight": {**net.state_dict(), "other.weight": np.zeros(3, np.float32)},
        r"conv1.weight has shape \(8, 3, 3, 3\)": {
            **net.state_dict(),
            "conv1.weight": np.zeros((8, 3, 3, 3), np.float32),
        },
        "they begin with 'model.'": {f"model.{k}": v for k, v in net.state_dict().items()},
    }
    other = Tiny(num_classes=4).net((1, 8, 8), seed=9)
    before = other.digest()
    for k, (message, state) in enumerate(cases.items()):
        file = tmp_path / f"{k}.safetensors"
        save_file({n: np.ascontiguousarray(v) for n, v in state.items()}, str(file))
        with pytest.raises(CheckpointError, match=message):
            nn.load_pretrained(other, file)
    assert other.digest() == before


def test_pretrained_takes_the_scored_weights_of_a_checkpoint(tmp_path, net):
    state = net.state_dict()
    tensors = {
        **state,
        **{f"raw/{k}": v + 1 for k, v in state.items()},
        "optim/momentum_buffer/fc.weight": state["fc.weight"],
    }
    documents = {"recipe": {}, "graph": net.document, "manifest": {}, "history": [], "records": {}}
    path = tmp_path / "best.safetensors"
    checkpoint.write(path, tensors, {**documents, "state": {"weights_kind": "ema"}})
    other = Tiny(num_classes=4).net((1, 8, 8), seed=9)
    assert nn.load_pretrained(other, path, 4).reshaped == ["fc.weight", "fc.bias"]
    np.testing.assert_array_equal(other.state_dict()["conv1.weight"], state["conv1.weight"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError):
        nn.load_pretrained(other, path, 4)


def test_pretrained_refuses_files_that_are_not_weights(tmp_path, net):
    with pytest.raises(CheckpointError, match="there is no file"):
        nn.load_pretrained(net, tmp_path / "none.safetensors")
    (tmp_path / "w.pth").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match="pickled weights can run code"):
        nn.load_pretrained(net, tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"not at all")
    with pytest.raises(CheckpointError, match=r"not a .safetensors file"):
        nn.load_pretrained(net, tmp_path / "w.safetensors")
