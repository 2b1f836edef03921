"""What a benchmark case is: net, input size, batch. Imports nothing of gapless: a peer reads it too.

A case is written ``NET[xWIDTH]@SIZE[:BATCH]``: ``resnet18@32``, ``mobilenet_v2x0.25@224``, ``lenet@28:8``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

CHANNELS = {"lenet": 1}
NETS = (
    "lenet",
    "resnet8",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
)
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
CLASSES = 1000

# the cases that speed is judged by, at their batch sizes
ALL = (
    "lenet@28:128",
    "resnet18@32:128",
    "mobilenet_v2@224:16",
    "mobilenet_v2x0.25@224:32",
    "mobilenet_v3_small@224:32",
    "resnet50@224:16",
    "resnet18@224:16",
)
# other batch sizes and sizes of the same nets, and the nets beside them
OTHERS = (
    "lenet@28:8",
    "resnet8@32:128",
    "resnet18@32:8",
    "resnet18@32:96",
    "resnet18@64:96",
    "resnet50@96:8",
    "mobilenet_v2@96:32",
    "mobilenet_v2@160:8",
    "mobilenet_v3_small@96:96",
    "mobilenet_v3_large@160:16",
)
GROUPS = {"all": ALL, "others": OTHERS}

_FORM = re.compile(
    r"(?P<net>[a-z][a-z0-9_]*?)(?:x(?P<width>\d+(?:\.\d+)?))?@(?P<size>\d{1,5})(?::(?P<batch>\d{1,9}))?"
)


class Case(NamedTuple):
    """`NET@SIZE` at a batch size: `resnet18@32`, batch 128."""

    net: str
    size: int
    batch: int
    width: float = 1.0

    @property
    def name(self) -> str:
        """The spelling, without the batch."""
        return f"{self.net}{'' if self.width == 1 else f'x{self.width:g}'}@{self.size}"

    @property
    def channels(self) -> int:
        return CHANNELS.get(self.net, 3)

    @property
    def stem(self) -> str:
        return "cifar" if self.size <= 64 else "imagenet"


def default_batch(net: str, size: int, width: float = 1.0) -> int:
    """Images per step where none are said: those of the judged cases, by net and size.

    >>> default_batch("mobilenet_v2", 224, 0.25), default_batch("mobilenet_v2", 224)
    (32, 16)
    """
    if size <= 64:
        return 128
    return 32 if net == "mobilenet_v3_small" or width < 1 else 16


def parse(text: str, batch: int | None = None) -> Case:
    """Read a case; `batch` takes the place of the one that is written.

    >>> parse("resnet18@32")
    Case(net='resnet18', size=32, batch=128, width=1.0)
    >>> parse("mobilenet_v2x0.25@224:8").name
    'mobilenet_v2x0.25@224'
    """
    match = _FORM.fullmatch(text)
    if match is None or int(match["size"]) < 8:
        raise ValueError(
            "case: must read NET@SIZE with SIZE >= 8 (resnet18@32, mobilenet_v2x0.25@224, lenet@28:8), "
            f"got {text!r}"
        )
    net, size, width = match["net"], int(match["size"]), float(match["width"] or 1)
    if net not in NETS:
        raise ValueError(f"case: no net {net!r} in bench; there are: {', '.join(NETS)}")
    if match["width"] and (not net.startswith("mobilenet") or not 0 < width <= 4):
        raise ValueError(f"case: a width is for mobilenets, in (0, 4]; got {text!r}")
    written = batch if batch is not None else int(match["batch"]) if match["batch"] else None
    if written is not None and written < 1:
        raise ValueError(f"case: batch must be >= 1, got {written}")
    return Case(net, size, written or default_batch(net, size, width), width)


def expand(texts: Iterable[str], batch: int | None = None) -> list[Case]:
    """All cases of a command line, each once: `all` and `others` stand for their lists.

    >>> [case.name for case in expand(["lenet@28", "all"])][:2]
    ['lenet@28', 'resnet18@32']
    """
    found: list[Case] = []
    for text in texts:
        for one in GROUPS.get(text, (text,)):
            case = parse(one, batch)
            if case not in found:
                found.append(case)
    return found
