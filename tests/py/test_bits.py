"""The promise: the same bits at any thread count, batch size and kernel set, in any process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gapless as gl

SETS = [name for name in ("ref", "avx2", "avx512", "neon") if name in gl.show_config()["kernel_sets"]]
TRAIN = [
    "train",
    "digits",
    "--epochs",
    "3",
    "--model",
    "lenet",
    "--batch-size",
    "64",
    "-o",
    "optimizer.lr=0.05",
]


def gapless(*arguments, cwd, threads="2", **environment):
    """Run the command line in a fresh process and give its JSON."""
    env = {**os.environ, "GAPLESS_NUM_THREADS": threads, **environment}
    done = subprocess.run(
        [sys.executable, "-m", "gapless", *arguments, "--json"],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bits")
    return gapless(*TRAIN, "--out", "run", cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "3"])
def test_same_recipe_same_weights_at_any_thread_count(trained, tmp_path, threads):
    again = gapless(*TRAIN, "--out", "run", cwd=tmp_path, threads=threads)
    assert again["digests"]["weights"] == trained["digests"]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("kernels", SETS)
def test_same_recipe_same_weights_under_every_kernel_set(trained, tmp_path, kernels):
    again = gapless(*TRAIN, "--out", "run", cwd=tmp_path, GAPLESS_KERNELS=kernels)
    assert again["digests"]["weights"] == trained["digests"]["weights"]


@pytest.mark.slow
def test_openblas_decides_no_bit(trained, tmp_path):
    again = gapless(
        *TRAIN, "--out", "run", cwd=tmp_path, OPENBLAS_CORETYPE="Haswell", OPENBLAS_NUM_THREADS="1"
    )
    assert again["digests"]["weights"] == trained["digests"]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "batch", "environment"),
    [
        ("1", "1", {"PYTHONHASHSEED": "1"}),
        ("2", "7", {"GAPLESS_KERNELS": "ref"}),
        ("3", "64", {"GAPLESS_KERNELS": "avx2" if "avx2" in SETS else "ref"}),
        ("7", "64", {"PYTHONHASHSEED": "12345", "OPENBLAS_CORETYPE": "Haswell"}),
    ],
)
def test_the_recorded_number_is_the_number(trained, tmp_path, threads, batch, environment):
    record = gapless(
        "eval", trained["best"], "--batch-size", batch, cwd=tmp_path, threads=threads, **environment
    )
    assert record["reproduced"] == "exact"
    for key in ("loss", "top1", "n_scored", "n_listed", "per_class"):
        assert record[key] == trained[key], key


@pytest.fixture(scope="module")
def nets():
    return {
        "lenet": (gl.models.lenet(num_classes=10, in_channels=1).net((1, 28, 28), seed=0), (1, 28, 28)),
        "resnet8": (gl.models.resnet8(num_classes=10).net((3, 32, 32), seed=0), (3, 32, 32)),
        "resnet18": (gl.models.resnet18(num_classes=10).net((3, 32, 32), seed=0), (3, 32, 32)),
        "resnet50": (gl.models.resnet50(num_classes=10).net((3, 64, 64), seed=0), (3, 64, 64)),
        **{name: (mobilenet(name), MOBILENETS[name][1]) for name in MOBILENETS},
    }


# Width and input: odd sizes, both stems, channels that fill no block of 16.
MOBILENETS = {
    "mobilenet_v2": (0.25, (3, 37, 29)),
    "mobilenet_v3_small": (0.75, (3, 66, 50)),
    "mobilenet_v3_large": (0.35, (3, 24, 24)),
}


def mobilenet(name):
    """With a head and biases that tell the pictures apart; the first ones hardly do."""
    width, shape = MOBILENETS[name]
    net = gl.models.create(name, width=width, num_classes=10).net(shape, seed=0)
    rng = np.random.default_rng(0)
    head = {k: 20 * v for k, v in net.state_dict().items() if k.startswith("classifier")}
    biases = {
        k: rng.normal(0, 0.2, v.shape).astype(np.float32)
        for k, v in net.state_dict().items()
        if k.startswith("features") and k.endswith("bias")
    }
    net.load_state_dict({**net.state_dict(), **head, **biases})
    return net


def logits(net, x, batch, kernels=None):
    plan = gl.compile(net, None, None, (batch, *x.shape[1:]), kernels=kernels)
    return np.concatenate([plan.forward(x[k : k + batch]) for k in range(0, len(x), batch)])


@pytest.mark.parametrize("name", ["lenet", "resnet8", "resnet18", "resnet50", *MOBILENETS])
def test_same_image_same_logits(nets, name):
    net, shape = nets[name]
    x = np.random.default_rng(0).standard_normal((7, *shape), dtype=np.float32)
    before = gl.get_num_threads()
    try:
        reference = logits(net, x, 7)
        assert np.isfinite(reference).all()
        assert np.ptp(reference) > 0
        for threads in (1, 2, 3, 7):
            gl.set_num_threads(threads)
            for batch in (1, 2, 32):
                assert np.array_equal(logits(net, x, batch), reference), (threads, batch)
        gl.set_num_threads(before)
        for kernels in SETS:
            if kernels == "ref" and name == "resnet50":
                continue  # the scalar reference takes minutes there
            assert np.array_equal(logits(net, x[:2], 2, kernels), reference[:2]), kernels
        shuffled = np.random.default_rng(1).permutation(7)
        assert np.array_equal(logits(net, x[shuffled], 7), reference[shuffled])
    finally:
        gl.set_num_threads(before)


@pytest.mark.parametrize("name", ["lenet", "resnet8", *MOBILENETS])
def test_an_image_of_a_large_batch_is_the_one_alone(nets, name):
    """Full batches to 256: what a plan cuts otherwise, passes, chunks and pieces, adds in the same order."""
    net, shape = nets[name]
    x = np.random.default_rng(2).standard_normal((256, *shape), dtype=np.float32)
    reference = logits(net, x, 256)
    assert len({row.tobytes() for row in reference}) == 256
    for batch in (128, 100, 33):
        assert np.array_equal(logits(net, x, batch), reference), batch
    alone = np.r_[:8, 120:136, 248:256]
    assert np.array_equal(logits(net, x[alone], 1), reference[alone])


@pytest.mark.parametrize("name", MOBILENETS)
def test_same_steps_same_weights(name):
    """Depthwise convolutions, gates and dropout too: at any thread count and under every kernel set."""
    shape = MOBILENETS[name][1]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, *shape), dtype=np.float32)
    y = rng.integers(0, 10, 9)

    def digest(kernels=None):
        net = mobilenet(name)
        optimizer = gl.optim.SGD(lr=0.05, momentum=0.9, weight_decay=1e-4)
        plan = gl.compile(net, gl.losses.CrossEntropy(), optimizer, (5, *shape), kernels=kernels)
        plan.step(x[:5], y[:5], step=0)
        plan.step(x[5:], y[5:], step=1)  # a short batch, on the same plan
        return net.digest()

    before = gl.get_num_threads()
    try:
        reference = digest()
        assert reference != mobilenet(name).digest()
        for threads in (1, 2, 3, 7):
            gl.set_num_threads(threads)
            assert digest() == reference, threads
        gl.set_num_threads(before)
        for kernels in SETS:
            assert digest(kernels) == reference, kernels
    finally:
        gl.set_num_threads(before)
