"""Writes a network and its weights as an ONNX file, for onnxruntime; needs neither torch nor onnx.

An ONNX file is one protocol-buffers message. The few fields that a network of convolutions uses are written
here by number, as onnx.proto gives them. Runs under any Python with NumPy; imports nothing of gapless.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["model"]

_OPSET, _IR = 17, 8
_FLOAT = 1


# ---- protocol buffers ----


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _real(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, *values: bytes | str) -> bytes:
    parts = [value.encode() if isinstance(value, str) else value for value in values]
    return b"".join(_varint(field << 3 | 2) + _varint(len(part)) + part for part in parts)


# ---- ONNX ----


def _attribute(name: str, value: float | Sequence[int]) -> bytes:
    if isinstance(value, float):
        return _bytes(1, name) + _real(2, value) + _number(20, 1)
    if isinstance(value, int):
        return _bytes(1, name) + _number(3, value) + _number(20, 2)
    assert not isinstance(value, (int, float))
    return _bytes(1, name) + b"".join(_number(8, v) for v in value) + _number(20, 7)


def _node(op: str, inputs: Sequence[str], output: str, **attributes: float | Sequence[int]) -> bytes:
    said = [_attribute(name, value) for name, value in attributes.items()]
    return _bytes(1, *inputs) + _bytes(2, output) + _bytes(4, op) + _bytes(5, *said)


def _tensor(name: str, value: np.ndarray[Any, Any]) -> bytes:
    raw = np.ascontiguousarray(value, dtype="<f4")
    dims = b"".join(_number(1, n) for n in raw.shape)
    return dims + _number(2, _FLOAT) + _bytes(8, name) + _bytes(9, raw.tobytes())


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = [_bytes(2, n) if isinstance(n, str) else _number(1, n) for n in shape]
    tensor = _number(1, _FLOAT) + _bytes(2, _bytes(1, *dims))
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


# ---- layers ----


def _pair(value: int | Sequence[int]) -> list[int]:
    return [int(value)] * 2 if isinstance(value, (int, float)) else [int(v) for v in value]


def _window(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Attributes that convolutions and pools share."""
    kernel = _pair(config["kernel_size"])
    stride = config.get("stride")
    said = {"kernel_shape": kernel, "strides": kernel if stride is None else _pair(stride)}
    return {**said, "pads": _pair(config.get("padding", 0)) * 2}


def _conv(node: Mapping[str, Any], x: list[str], y: str) -> list[bytes]:
    config, name = node["config"], node["name"]
    inputs = [*x, f"{name}.weight", *([f"{name}.bias"] if config["bias"] else [])]
    dilations, groups = _pair(config["dilation"]), int(config["groups"])
    return [_node("Conv", inputs, y, **_window(config), dilations=dilations, group=groups)]


def _norm(node: Mapping[str, Any], x: list[str], y: str) -> list[bytes]:
    names = [f"{node['name']}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    return [_node("BatchNormalization", [*x, *names], y, epsilon=float(node["config"]["eps"]))]


def _linear(node: Mapping[str, Any], x: list[str], y: str) -> list[bytes]:
    names = [f"{node['name']}.{part}" for part in ("weight", "bias")[: 1 + bool(node["config"]["bias"])]]
    return [_node("Gemm", [*x, *names], y, transB=1)]


def _max_pool(node: Mapping[str, Any], x: list[str], y: str) -> list[bytes]:
    return [_node("MaxPool", x, y, **_window(node["config"]))]


def _flatten(node: Mapping[str, Any], x: list[str], y: str) -> list[bytes]:
    return [_node("Flatten", x, y, axis=1)]


_CLIP = ("clip.low", "clip.high")
_PLAIN: dict[str, tuple[str, dict[str, float]]] = {
    "ReLU": ("Relu", {}),
    "Hardswish": ("HardSwish", {}),
    "Hardsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "Sigmoid": ("Sigmoid", {}),
    "AdaptiveAvgPool2d": ("GlobalAveragePool", {}),
    "Add": ("Add", {}),
    "Mul": ("Mul", {}),
    "Identity": ("Identity", {}),
    "Dropout": ("Identity", {}),
}
_OWN = {
    "Conv2d": _conv,
    "BatchNorm2d": _norm,
    "Linear": _linear,
    "MaxPool2d": _max_pool,
    "Flatten": _flatten,
}


def _nodes(node: Mapping[str, Any], x: list[str], y: str) -> list[bytes]:
    layer = node["layer"]
    if layer in _OWN:
        return _OWN[layer](node, x, y)
    if layer == "ReLU6":
        return [_node("Clip", [*x, *_CLIP], y)]
    if layer not in _PLAIN:
        raise ValueError(f"onnx: no way to write {layer} ({node['name']})")
    op, attributes = _PLAIN[layer]
    return [_node(op, x, y, **attributes)]


def model(document: Mapping[str, Any], weights: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The file: input ``x`` (batch, …), output ``y``; BatchNorm with its running statistics.

    Parameters
    ----------
    document : dict
        A graph as `Net.document` gives it.
    weights : dict
        As `Net.state_dict` gives them.
    """
    names = ["x"] + [f"v{k}" for k in range(1, len(document["nodes"]) + 1)]
    names[document["outputs"][0]] = "y"
    nodes = [
        _bytes(1, part)
        for k, node in enumerate(document["nodes"], 1)
        for part in _nodes(node, [names[v] for v in node["in"]], names[k])
    ]
    held = [_tensor(name, value) for name, value in weights.items()]
    if any(node["layer"] == "ReLU6" for node in document["nodes"]):
        held += [_tensor(name, np.array(v, np.float32)) for name, v in zip(_CLIP, (0.0, 6.0), strict=True)]
    graph = b"".join(nodes) + _bytes(2, "net") + _bytes(5, *held)
    graph += _bytes(11, _value("x", ["batch", *document["input"]])) + _bytes(
        12, _value("y", ["batch", "classes"])
    )
    return (
        _number(1, _IR)
        + _bytes(2, "gapless")
        + _bytes(7, graph)
        + _bytes(8, _bytes(1, "") + _number(2, _OPSET))
    )
