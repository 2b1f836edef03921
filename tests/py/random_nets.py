"""Random networks for tests that hold whole networks to something: likely and unlikely shapes.

Planes of one pixel, one row, odd sides; channels that fill no block; values that are read twice, modules that
are used twice, frozen weights, dropout, gates, concatenations.
"""

from __future__ import annotations

import random

from gapless import nn

CHANNELS = [1, 3, 8, 16, 17, 24, 40, 64, 128, 130, 256]
HEIGHTS, WIDTHS = [1, 2, 3, 5, 7, 8, 13, 16, 20], [1, 2, 4, 5, 8, 9, 14, 16, 21]
ACTS = [
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid),
]
MOST = 20_000  # floats of a value, so that a network takes milliseconds


class Grown(nn.Module):
    """Some parts, each on a value made before; the last one is classified."""

    joined = staticmethod(nn.cat)

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
                a = self.joined([a, *others])
            values.append(a)
        return self.head(self.flat(self.pool(values[-1])))

    def run(self, names: list[str], x):
        for name in names:
            x = getattr(self, name)(x)
        return x
