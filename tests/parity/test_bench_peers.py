"""The benchmark's peers compute what our nets compute: PyTorch's twins, and the ONNX file in onnxruntime."""

from __future__ import annotations

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import gapless as gl  # noqa: E402
from gapless.bench import bench, cases, onnx_file, peer_torch_model, worker  # noqa: E402

NETS = [net for net in cases.NETS if net in gl.models.list_models()]
SPELLINGS = [f"{net}@{size}:2" for net in NETS for size in ((28,) if net == "lenet" else (32, 96))]
SPELLINGS += [f"{net}x{width}@64:2" for net in NETS if "mobilenet" in net for width in (0.25, 1.4)]


def made(spelling):
    case = cases.parse(spelling)
    x = np.random.default_rng(0).standard_normal((2, case.channels, case.size, case.size), dtype=np.float32)
    return case, worker.make_net(case), x


def apart(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_twin_has_our_names_and_shapes_and_computes_the_same(spelling):
    case, net, x = made(spelling)
    twin = peer_torch_model(case).eval()
    theirs = {
        k: tuple(v.shape) for k, v in twin.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    ours = net.state_dict()
    assert {k: v.shape for k, v in ours.items()} == theirs
    assert list(ours) == list(theirs)
    twin.load_state_dict({k: torch.from_numpy(v) for k, v in ours.items()}, strict=False)
    with torch.inference_mode():
        assert apart(net(x, precision="precise"), twin(torch.from_numpy(x)).numpy()) < 1e-5


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_onnx_file_computes_the_same(spelling):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, net, x = made(spelling)
    written = onnx_file.model(net.document, net.state_dict())
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": x})
    assert apart(net(x, precision="precise"), found) < 1e-5


def test_training_is_compared_with_torch():
    found = bench(
        "train",
        "resnet8@32:4",
        peer="torch",
        peer_python=sys.executable,
        peer_configuration="eager",
        rounds=1,
        seconds=0.05,
    )
    assert found["peer"]["agreement"] < 1e-4
    assert found["peer"]["version"] == f"torch {torch.__version__}"
    assert found["ratio"] > 0


@pytest.mark.parametrize(("peer", "words"), [("torch", "contiguous,frozen"), ("onnxruntime", None)])
def test_evaluation_is_compared(peer, words):
    pytest.importorskip(peer)
    found = bench(
        "eval",
        "resnet8@32:4",
        peer=peer,
        peer_python=sys.executable,
        peer_configuration=words,
        rounds=1,
        seconds=0.05,
    )
    assert found["peer"]["agreement"] < 1e-4
    assert found["peer"]["left_out"] == []
