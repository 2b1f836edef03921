"""MobileNets (Sandler et al. 2018, Howard et al. 2019), with torchvision's names, shapes and first values."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gapless import nn
from gapless.models._stem import check_stem, choose_stem
from gapless.nn.module import Module

__all__ = [
    "Block",
    "GatedResidual",
    "InvertedResidual",
    "MobileNetV2",
    "MobileNetV3",
    "SqueezeExcitation",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
]

_MOST_WIDTH = 16.0  # far beyond any use; a slip of the keyboard would ask for more memory than there is


def _channels(wanted: float) -> int:
    """A multiple of 8 near `wanted`, at least 8, and never more than a tenth below it."""
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * wanted else nearest


def _strides(written: Iterable[int], stem: str) -> Iterator[int]:
    """The strides as written; the stem of small pictures leaves the first two halvings out."""
    left_out = 2 if stem == "cifar" else 0
    for stride in written:
        if stride == 2 and left_out > 0:
            left_out -= 1
            stride = 1
        yield stride


def _check_width(width: float) -> float:
    if isinstance(width, bool) or not isinstance(width, numbers.Real):
        raise TypeError(f"width must be a number, got {width!r}")
    if not 0 < width <= _MOST_WIDTH:
        raise ValueError(f"width must be > 0 and <= {_MOST_WIDTH:g}, got {width}")
    return float(width)


# ---- blocks ----


def _norm(channels: int) -> Module:
    return nn.BatchNorm2d(channels)


def _norm_v3(channels: int) -> Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    norm: Callable[[int], Module],
    act: Callable[[], Module] | None,
    stride: int = 1,
    groups: int = 1,
) -> Module:
    """Convolution that keeps the size (but for its stride), BatchNorm and, where given, an activation."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    after = [norm(out_channels)] if act is None else [norm(out_channels), act()]
    return nn.Sequential(conv, *after)


class SqueezeExcitation(Module):
    """Scales each channel by a gate that the averages of all channels decide (Hu et al. 2017).

    Parameters
    ----------
    channels : int
        Of the image.
    squeezed : int
        Between the two 1x1 convolutions.
    gate : callable, optional
        Makes the layer that gives the gate; Hardsigmoid, as in MobileNetV3.

    Examples
    --------
    >>> list(SqueezeExcitation(16, 8).state_dict())
    ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    """

    def __init__(self, channels: int, squeezed: int, gate: Callable[[], Module] = nn.Hardsigmoid) -> None:
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.scale_activation = gate()

    def forward(self, x: Any) -> Any:
        gate = self.activation(self.fc1(self.avgpool(x)))
        return x * self.scale_activation(self.fc2(gate))


class InvertedResidual(Module):
    """MobileNetV2's block: 1x1 to more channels, depthwise 3x3, 1x1 to few without activation.

    The input is added where it has the output's shape.

    Parameters
    ----------
    in_channels, out_channels, stride : int
    expansion : int
        Channels between, per input channel; 1 leaves the first 1x1 out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        hidden = in_channels * expansion
        layers = []
        if expansion != 1:
            layers.append(_conv(in_channels, hidden, 1, norm=_norm, act=nn.ReLU6))
        layers.append(_conv(hidden, hidden, 3, stride=stride, groups=hidden, norm=_norm, act=nn.ReLU6))
        self.conv = nn.Sequential(
            *layers, nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        return x + y if self.residual else y


class GatedResidual(Module):
    """MobileNetV3's block: as V2's, with any depthwise kernel, a choice of activation and a gate.

    Parameters
    ----------
    in_channels, hidden, out_channels : int
        Outside, between and behind; no first 1x1 where `hidden` equals `in_channels`.
    kernel : int
        Of the depthwise convolution.
    stride : int
    gated : bool
        Squeeze-excitation, a quarter as wide, behind the depthwise convolution.
    act : callable
        Makes the activation.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        gated: bool,
        act: Callable[[], Module],
    ) -> None:
        layers = []
        if hidden != in_channels:
            layers.append(_conv(in_channels, hidden, 1, norm=_norm_v3, act=act))
        layers.append(_conv(hidden, hidden, kernel, stride=stride, groups=hidden, norm=_norm_v3, act=act))
        if gated:
            layers.append(SqueezeExcitation(hidden, _channels(hidden // 4)))
        layers.append(_conv(hidden, out_channels, 1, norm=_norm_v3, act=None))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Any) -> Any:
        y = self.block(x)
        return x + y if self.residual else y


# ---- networks ----


class _MobileNet(Module):
    """What both versions share: features, average, classifier, and the rule for initial values."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.2,
        stem: str = "auto",
        image_size: tuple[int, int] | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.width = _check_width(width)
        self.dropout = dropout
        self.stem = check_stem(stem)
        self.image_size = image_size

    def _scaled(self, channels: int) -> int:
        return _channels(channels * self.width)

    def build(self, input_shape: tuple[int, ...] | None) -> None:
        features, channels = self._features(choose_stem(self.stem, self.image_size, input_shape))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(*self._classifier(channels))
        self._init_weights()

    def _features(self, stem: str) -> tuple[list[Module], int]:
        """The convolutions, and how many channels they give."""
        raise NotImplementedError

    def _classifier(self, channels: int) -> list[Module]:
        return [nn.Dropout(self.dropout), nn.Linear(channels, self.num_classes)]

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Any) -> Any:
        return self.classifier(nn.flatten(self.avgpool(self.features(x))))


class MobileNetV2(_MobileNet):
    """Stem, 17 inverted residual blocks, 1x1, average, dropout, linear. Parameters as in `mobilenet_v2`."""

    #: expansion, channels, blocks, stride of the first of them
    stages = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def _features(self, stem: str) -> tuple[list[Module], int]:
        first, *strides = _strides([2, *(stride for *_, stride in self.stages)], stem)
        channels = self._scaled(32)
        layers = [_conv(self.in_channels, channels, 3, stride=first, norm=_norm, act=nn.ReLU6)]
        for (expansion, plain, count, _), stride in zip(self.stages, strides, strict=True):
            out_channels = self._scaled(plain)
            for k in range(count):
                layers.append(InvertedResidual(channels, out_channels, stride if k == 0 else 1, expansion))
                channels = out_channels
        last = _channels(1280 * max(1.0, self.width))  # narrow nets keep their full head
        layers.append(_conv(channels, last, 1, norm=_norm, act=nn.ReLU6))
        return layers, last


class Block(NamedTuple):
    """A block of MobileNetV3 as a row of the paper's tables 1 and 2; channels before `width`."""

    kernel: int
    hidden: int
    out_channels: int
    gated: bool
    act: Callable[[], Module]
    stride: int


_RE, _HS = nn.ReLU, nn.Hardswish

_LARGE = (
    Block(3, 16, 16, False, _RE, 1),
    Block(3, 64, 24, False, _RE, 2),
    Block(3, 72, 24, False, _RE, 1),
    Block(5, 72, 40, True, _RE, 2),
    Block(5, 120, 40, True, _RE, 1),
    Block(5, 120, 40, True, _RE, 1),
    Block(3, 240, 80, False, _HS, 2),
    Block(3, 200, 80, False, _HS, 1),
    Block(3, 184, 80, False, _HS, 1),
    Block(3, 184, 80, False, _HS, 1),
    Block(3, 480, 112, True, _HS, 1),
    Block(3, 672, 112, True, _HS, 1),
    Block(5, 672, 160, True, _HS, 2),
    Block(5, 960, 160, True, _HS, 1),
    Block(5, 960, 160, True, _HS, 1),
)
_SMALL = (
    Block(3, 16, 16, True, _RE, 2),
    Block(3, 72, 24, False, _RE, 2),
    Block(3, 88, 24, False, _RE, 1),
    Block(5, 96, 40, True, _HS, 2),
    Block(5, 240, 40, True, _HS, 1),
    Block(5, 240, 40, True, _HS, 1),
    Block(5, 120, 48, True, _HS, 1),
    Block(5, 144, 48, True, _HS, 1),
    Block(5, 288, 96, True, _HS, 2),
    Block(5, 576, 96, True, _HS, 1),
    Block(5, 576, 96, True, _HS, 1),
)


class MobileNetV3(_MobileNet):
    """Stem, gated residual blocks, 1x1, average, linear, dropout, linear.

    Parameters
    ----------
    rows : sequence of Block
    penultimate : int
        Features before the last linear layer, before `width`.
    num_classes, in_channels, width, dropout, stem, image_size
        As in `mobilenet_v2`.
    """

    def __init__(self, rows: Sequence[Block], penultimate: int, num_classes: int, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.rows = tuple(rows)
        self.penultimate = penultimate

    def _features(self, stem: str) -> tuple[list[Module], int]:
        first, *strides = _strides([2, *(row.stride for row in self.rows)], stem)
        channels = self._scaled(16)
        layers = [_conv(self.in_channels, channels, 3, stride=first, norm=_norm_v3, act=nn.Hardswish)]
        for row, stride in zip(self.rows, strides, strict=True):
            hidden, out_channels = self._scaled(row.hidden), self._scaled(row.out_channels)
            layers.append(
                GatedResidual(
                    channels,
                    hidden,
                    out_channels,
                    kernel=row.kernel,
                    stride=stride,
                    gated=row.gated,
                    act=row.act,
                )
            )
            channels = out_channels
        last = 6 * channels
        layers.append(_conv(channels, last, 1, norm=_norm_v3, act=nn.Hardswish))
        return layers, last

    def _classifier(self, channels: int) -> list[Module]:
        features = self._scaled(self.penultimate)
        return [
            nn.Linear(channels, features),
            nn.Hardswish(),
            nn.Dropout(self.dropout),
            nn.Linear(features, self.num_classes),
        ]


# ---- by name ----


def _named(name: str, make: Callable[..., _MobileNet], arguments: dict[str, Any]) -> Any:
    """The network, with its place in the catalogue."""
    size = arguments.pop("image_size")
    size = (size, size) if isinstance(size, int) else size
    net = make(image_size=None if size is None else (size[0], size[1]), **arguments)
    said = {**arguments, "width": net.width, "image_size": None if size is None else list(size)}
    net.catalogue = {"name": name, **said}
    return net


def mobilenet_v2(
    num_classes: int = 1000,
    in_channels: int = 3,
    width: float = 1.0,
    dropout: float = 0.2,
    stem: str = "auto",
    image_size: int | tuple[int, int] | None = None,
) -> MobileNetV2:
    """MobileNetV2 of any width, as torchvision's.

    For `freeze`: ``features`` (all but the head), or its parts from ``features.0``, the first convolution.

    Parameters
    ----------
    num_classes : int, default 1000
        Outputs.
    in_channels : int, default 3
        Channels of the images.
    width : float, default 1.0
        Factor on the channels of every layer, rounded to multiples of 8 as torchvision rounds them
        (its ``width_mult``); in (0, 16]. Widths below 1 keep the 1280 features before the head.
    dropout : float, default 0.2
        Share of features dropped before the head, in training; in [0, 1).
    stem : {'auto', 'cifar', 'imagenet'}, default 'auto'
        ``"imagenet"``: halves five times, to 1/32 of the resolution, as torchvision's. ``"cifar"``: the
        first two halvings (the first convolution's and the first block's that has one) are left out, so
        that 1/8 remains, as with the ResNets here: 4 x 4 of 32 x 32 pixels. The weights are the same.
        ``"auto"``: by the size of the images, ``"cifar"`` up to 64 pixels.
    image_size : int or (int, int), optional
        Height and width, pixels; otherwise taken from the first input.

    Examples
    --------
    >>> summary = mobilenet_v2().summary((3, 224, 224))
    >>> summary.params, summary.macs  # as torchvision's
    (3504872, 300774272)
    >>> mobilenet_v2(num_classes=10, width=0.25).net((3, 32, 32), seed=0).parameters_count()
    (250922, 250922)
    """
    return _named("mobilenet_v2", MobileNetV2, dict(locals()))  # type: ignore[no-any-return]


def mobilenet_v3_small(
    num_classes: int = 1000,
    in_channels: int = 3,
    width: float = 1.0,
    dropout: float = 0.2,
    stem: str = "auto",
    image_size: int | tuple[int, int] | None = None,
) -> MobileNetV3:
    """MobileNetV3-Small of any width, as torchvision's.

    Its running statistics follow a batch by 0.01, as torchvision's: a run of less than a few hundred steps
    is evaluated with statistics that have not arrived yet.

    Parameters
    ----------
    num_classes, in_channels, dropout, stem, image_size
        As in `mobilenet_v2`.
    width : float, default 1.0
        As in `mobilenet_v2`, but the head's features narrow too.

    Examples
    --------
    >>> summary = mobilenet_v3_small().summary((3, 224, 224))
    >>> summary.params, round(summary.macs / 1e6, 1)
    (2542856, 56.5)
    """
    arguments = dict(locals())
    return _named(  # type: ignore[no-any-return]
        "mobilenet_v3_small", lambda **a: MobileNetV3(_SMALL, 1024, **a), arguments
    )


def mobilenet_v3_large(
    num_classes: int = 1000,
    in_channels: int = 3,
    width: float = 1.0,
    dropout: float = 0.2,
    stem: str = "auto",
    image_size: int | tuple[int, int] | None = None,
) -> MobileNetV3:
    """MobileNetV3-Large of any width, as torchvision's.

    Parameters
    ----------
    num_classes, in_channels, width, dropout, stem, image_size
        As in `mobilenet_v3_small`.

    Examples
    --------
    >>> summary = mobilenet_v3_large().summary((3, 224, 224))
    >>> summary.params, round(summary.macs / 1e6, 1)
    (5483032, 216.6)
    """
    arguments = dict(locals())
    return _named(  # type: ignore[no-any-return]
        "mobilenet_v3_large", lambda **a: MobileNetV3(_LARGE, 1280, **a), arguments
    )
