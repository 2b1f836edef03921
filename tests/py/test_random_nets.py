"""Random networks keep their bits at any thread count, kernel set, batch size and with rules of fusion off.

`tests/c/test_fuse.c` does the same on planes of 4x4, where every convolution is small.
"""

from __future__ import annotations

import numpy as np
import pytest
from random_nets import Grown

import gapless as gl

SETS = [name for name in ("ref", "avx2", "neon") if name in gl.show_config()["kernel_sets"]]
KEEP_BITS = ["join_back", "bytes", "slices", "inplace", "share"]  # of gradients too
ROUND = ["dead", "join", "act", "bn_sums", "bn_apply", "gate", "bn_fixed", "pool_act", "pixels", "all"]
FAST = [*range(1, 7), 136]  # 136: a 1x1 convolution in groups, made in its place in a concatenation
SLOW = range(100, 160)
BATCH = 5


def grow(seed: int):
    module = Grown(seed)
    if seed % 3 == 0:  # some of it frozen
        for k, (_, parameter) in enumerate(module.named_parameters()):
            parameter.requires_grad = (k * 7 + seed) % 4 != 0
    return module.net(module.shapes[0], seed=seed), module.shapes[0]


def learn(seed: int, threads=(2, 2), u8=False, **options):
    """Two steps, the second with a short batch, planned at the first number of threads, run at the other."""
    net, shape = grow(seed)
    gl.set_num_threads(threads[0])
    dtype = "uint8" if u8 else "float32"
    optimizer = gl.optim.SGD(lr=0.01, momentum=0.9)
    plan = gl.compile(net, gl.losses.CrossEntropy(), optimizer, (BATCH, *shape), input_dtype=dtype, **options)
    gl.set_num_threads(threads[1])
    rng, seen = np.random.default_rng(seed), {}
    for n in (BATCH, BATCH - 2):
        x = rng.standard_normal((n, *shape), dtype=np.float32)
        if u8:
            x = rng.integers(0, 256, (n, *shape[1:], shape[0]), dtype=np.uint8)
        seen[f"losses of {n}"] = plan.step(x, rng.integers(0, 5, n)).losses
        seen |= {f"gradient of {n}, {k}": g for k, g in plan.gradients().items()}
    return seen | net.state_dict()


def assert_same(got, want, what):
    different = [k for k in want if got[k].tobytes() != want[k].tobytes()]
    assert not different, (what, different[:5])


def assert_close(got, want, what):
    """The first forward to the bit; the first gradients but for the rounding of what was not stored."""
    first = f"losses of {BATCH}"
    assert got[first].tobytes() == want[first].tobytes(), what
    gradients = [k for k in want if k.startswith(f"gradient of {BATCH}")]
    largest = max([float(np.abs(want[k]).max()) for k in gradients], default=0.0)
    for k in gradients:
        apart = float(np.abs(got[k] - want[k]).max())
        assert apart <= 2e-4 * max(float(np.abs(want[k]).max()), 0.01 * largest), (what, k, apart)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.delenv("GAPLESS_FUSE", raising=False)
    before = gl.get_num_threads()
    yield
    gl.set_num_threads(before)


def check_training(seed: int, monkeypatch) -> None:
    want = learn(seed)
    for threads in ((1, 1), (3, 3), (1, 7), (7, 1)):
        assert_same(learn(seed, threads), want, f"threads {threads}")
    for kernels in SETS:
        assert_same(learn(seed, kernels=kernels), want, kernels)
    net, _ = grow(seed)
    names = sorted({e["name"].partition(".")[0] for e in net.entries()})
    for some in (names, names[::2]):
        assert_same(learn(seed, recompute=some), want, f"recompute {some}")
    bytes_ = learn(seed, u8=True)
    for rule in KEEP_BITS:
        monkeypatch.setenv("GAPLESS_FUSE", f"-{rule}")
        assert_same(learn(seed), want, f"-{rule}")
        assert_same(learn(seed, u8=True), bytes_, f"-{rule}, bytes")
    for rule in ROUND:
        monkeypatch.setenv("GAPLESS_FUSE", f"-{rule}")
        assert_close(learn(seed), want, f"-{rule}")


def check_evaluation(seed: int, monkeypatch) -> None:
    net, shape = grow(seed)
    rng = np.random.default_rng(seed)
    for entry in net.entries():  # statistics of a net that has been trained
        if entry["kind"] == "buffer":
            value = rng.uniform(0.5, 1.5, entry["shape"]).astype(np.float32)
            net.store.set(entry["name"], value)
    x = rng.standard_normal((9, *shape), dtype=np.float32)

    def logits(batch=9, **options):
        plan = gl.compile(net, None, None, (batch, *shape), **options)
        return np.concatenate([plan.forward(x[k : k + batch]) for k in range(0, 9, batch)])

    want = logits()
    assert np.isfinite(want).all()
    for threads in (1, 2, 3, 7):
        gl.set_num_threads(threads)
        for batch in (*range(1, 10), 32):
            assert logits(batch).tobytes() == want.tobytes(), (threads, batch)
    for kernels in SETS:
        assert logits(kernels=kernels).tobytes() == want.tobytes(), kernels
    for rule in KEEP_BITS + ROUND:
        monkeypatch.setenv("GAPLESS_FUSE", f"-{rule}")
        assert logits().tobytes() == want.tobytes(), rule
    monkeypatch.delenv("GAPLESS_FUSE")
    x[3], x[5] = np.nan, np.inf
    others = [k for k in range(9) if k not in (3, 5)]
    spoilt = logits()
    assert spoilt[others].tobytes() == want[others].tobytes()  # an image keeps to itself
    assert not np.isfinite(spoilt[3]).any()


@pytest.mark.parametrize("seed", FAST)
def test_steps_keep_their_bits(seed, monkeypatch):
    check_training(seed, monkeypatch)


@pytest.mark.parametrize("seed", FAST)
def test_evaluation_keeps_its_bits(seed, monkeypatch):
    check_evaluation(seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW)
def test_many_more(seed, monkeypatch):
    check_training(seed, monkeypatch)
    check_evaluation(seed, monkeypatch)
