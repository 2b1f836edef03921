"""Random networks keep their bits at any thread count, kernel set, batch size and with rules of fusion off.

Shapes as real networks have them and as they don't: planes of one pixel, one row, odd sides; channels that
fill no block; values that are read twice, modules that are used twice, frozen weights, dropout, gates.
`tests/c/test_fuse.c` does the same on planes of 4x4, where every convolution is small.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import gapless as gl
from gapless import nn

CHANNELS = [1, 3, 8, 16, 17, 24, 40, 64, 128, 130, 256]
HEIGHTS, WIDTHS = [1, 2, 3, 5, 7, 8, 13, 16, 20], [1, 2, 4, 5, 8, 9, 14, 16, 21]
ACTS = [
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid),
]
MOST = 20_000  # floats of a value, so that a network takes milliseconds
SETS = [name for name in ("ref", "avx2", "neon") if name in gl.show_config()["kernel_sets"]]
KEEP_BITS = ["join_back", "bytes", "slices", "inplace", "share"]  # of gradients too
ROUND = ["dead", "join", "act", "bn_sums", "bn_apply", "gate", "bn_fixed", "pool_act", "pixels", "all"]
FAST = [*range(1, 7), 136]  # 136: a 1x1 convolution in groups, made in its place in a concatenation
SLOW = range(100, 160)


class Grown(nn.Module):
    """Some parts, each on a value made before; the last one is classified."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.shapes = [(self.dice.choice([1, 3, 3, 17]), self.dice.choice(HEIGHTS), self.dice.choice(WIDTHS))]
        self.parts: list[tuple[str, list[list[str]], list[int]]] = []
        self.count = 0
        wanted = self.dice.randint(3, 6)
        while len(self.parts) < wanted:
            getattr(
                self, self.dice.choice(["conv", "conv", "residual", "gate", "cat", "twice", "one", "fork"])
            )()
        channels = self.shapes[-1][0]
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)

    def layer(self, module: nn.Module) -> str:
        self.count += 1
        setattr(self, f"m{self.count}", module)
        return f"m{self.count}"

    def act(self) -> list[str]:
        return [self.layer(self.dice.choice(ACTS)())] if self.dice.random() < 0.85 else []

    def drop(self) -> list[str]:
        return [self.layer(nn.Dropout(0.3))]

    def norm(self, channels: int) -> list[str]:
        return [self.layer(nn.BatchNorm2d(channels))]

    def put(self, kind: str, chains: list[list[str]], at: list[int], shape: tuple[int, int, int]) -> None:
        self.parts.append((kind, chains, at))
        self.shapes.append(shape)

    def pick(self) -> tuple[int, tuple[int, int, int]]:
        at = len(self.shapes) - 1 if self.dice.random() < 0.75 else self.dice.randrange(len(self.shapes))
        return at, self.shapes[at]

    def fitting(self, pixels: int) -> int:
        return self.dice.choice([c for c in CHANNELS if c * pixels <= MOST])

    def conv_of(self, shape: tuple[int, int, int], to: int, same: bool) -> tuple[str, tuple[int, int, int]]:
        dice, (c, h, w) = self.dice, shape
        kernel = dice.choice([1, 1, 3, 3, 3, 5, 7, 1 if same else 2])
        groups = dice.choice([1, 1, 1, *([g for g in (2, 4, 8, c) if c % g == 0 and to % g == 0])])
        stride, dilation = 1 if same else dice.choice([1, 1, 1, 2, 3]), dice.choice([1] * 8 + [2])
        padding = dilation * (kernel - 1) // 2 if same or dice.random() < 0.8 else dice.randrange(kernel)
        sides = [(side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in (h, w)]
        if min(sides) < 1 or to * sides[0] * sides[1] > MOST:
            return self.conv_of(shape, to, same) if min(sides) < 1 else self.conv_of(shape, 1, same)
        made = nn.Conv2d(
            c,
            to,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=dice.random() < 0.4,
        )
        return self.layer(made), (to, sides[0], sides[1])

    def conv(self) -> None:
        at, shape = self.pick()
        name, made = self.conv_of(shape, self.fitting(shape[1] * shape[2]), same=False)
        self.put("chain", [[name, *self.norm(made[0]), *self.act()]], [at], made)

    def residual(self) -> None:
        at, shape = self.pick()
        pixels, drop = shape[1] * shape[2], self.dice.random() < 0.2
        to = shape[0] if self.dice.random() < 0.6 else self.fitting(pixels)
        first, middle = self.conv_of(shape, self.fitting(pixels), same=True)
        second, made = self.conv_of(middle, to, same=True)
        chain = [first, *self.norm(middle[0]), *self.act(), *(self.drop() if drop else [])]
        chain += [second, *self.norm(made[0])]
        shortcut: list[str] = []
        if made[0] != shape[0]:
            name, _ = self.conv_of(shape, made[0], same=True)
            shortcut = [name, *self.norm(made[0])]
        both = [chain, shortcut] if self.dice.random() < 0.5 else [shortcut, chain]
        self.put("add", [*both, self.act()], [at, at], made)

    def gate(self) -> None:
        at, (c, h, w) = self.pick()
        narrow, to = self.dice.choice([1, 8, 17]), self.fitting(h * w)
        squeeze = [self.layer(nn.AdaptiveAvgPool2d(1)), self.layer(nn.Conv2d(c, narrow, 1)), *self.act()]
        squeeze += [self.layer(nn.Conv2d(narrow, c, 1)), self.layer(nn.Hardsigmoid())]
        after = [self.layer(nn.Conv2d(c, to, 1)), *self.norm(to)] if self.dice.random() < 0.8 else []
        self.put("mul", [[], squeeze, after], [at, at], (to if after else c, h, w))

    def cat(self) -> None:
        at, shape = self.pick()
        to = self.dice.choice([8, 16, 17, 32])
        if (to + 2 * shape[0]) * shape[1] * shape[2] > MOST:
            return
        name, made = self.conv_of(shape, to, same=True)
        alone = self.dice.random() < 0.5  # what the concatenation alone reads may be made in its place
        self.put(
            "cat",
            [[name, *self.norm(to), *self.act()] if alone else [name], []],
            [at, at],
            (made[0] + shape[0], *shape[1:]),
        )

    def twice(self) -> None:
        at, shape = self.pick()
        name, _ = self.conv_of(shape, shape[0], same=True)
        norm, act = self.norm(shape[0]), self.act()
        self.put(
            "chain",
            [[name, *norm, *act, name, *(norm if self.dice.random() < 0.5 else self.norm(shape[0]))]],
            [at],
            shape,
        )

    def one(self) -> None:
        at, (c, h, w) = self.pick()
        pool = h > 1 and w > 1 and self.dice.random() < 0.6
        if pool:
            self.put(
                "chain",
                [[self.layer(self.dice.choice([nn.MaxPool2d, nn.AvgPool2d])(2))]],
                [at],
                (c, h // 2, w // 2),
            )
        else:
            self.put(
                "chain",
                [self.dice.choice([self.act, lambda: self.norm(c), self.drop])()],
                [at],
                (c, h, w),
            )

    def fork(self) -> None:
        """What stands between a convolution, its norm and its activation is read again."""
        at, shape = self.pick()
        name, made = self.conv_of(shape, self.fitting(shape[1] * shape[2]), same=False)
        self.put("chain", [[name]], [at], made)
        self.put("chain", [self.norm(made[0])], [len(self.shapes) - 1], made)
        k = len(self.shapes) - 1
        self.put("add", [self.act(), [], []], [k, self.dice.choice([k, k - 1])], made)

    def forward(self, x):
        values = [x]
        for kind, chains, at in self.parts:
            a, *others = [self.run(chain, values[k]) for chain, k in zip(chains, at, strict=False)]
            if kind == "add":
                a = self.run(chains[2], a + others[0])
            elif kind == "mul":
                a = self.run(chains[2], a * others[0])
            elif kind == "cat":
                a = nn.cat([a, *others])
            values.append(a)
        return self.head(self.flat(self.pool(values[-1])))

    def run(self, names: list[str], x):
        for name in names:
            x = getattr(self, name)(x)
        return x


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
