"""Paddle's side of a benchmark: the same net out of Paddle's layers, weights, batch and update.

Built from the graph that our side wrote; eager, or a static graph made of it by paddle.jit. Imports nothing
of gapless.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import paddle
import worker
from paddle import nn


def made(node: dict[str, Any]) -> Any:
    """The layer of a node, or None for those that only join or pass on."""
    config, layer = node["config"], node["layer"]
    if layer == "Conv2d":
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        return nn.Conv2D(
            **{name: config[name] for name in names}, bias_attr=None if config["bias"] else False
        )
    if layer == "BatchNorm2d":
        return nn.BatchNorm2D(config["num_features"], momentum=1 - config["momentum"], epsilon=config["eps"])
    if layer == "Linear":
        return nn.Linear(config["in_features"], config["out_features"])
    if layer == "MaxPool2d":
        return nn.MaxPool2D(config["kernel_size"], config["stride"], config["padding"])
    plain = {
        "ReLU": nn.ReLU,
        "ReLU6": nn.ReLU6,
        "Hardswish": nn.Hardswish,
        "Hardsigmoid": nn.Hardsigmoid,
        "Flatten": nn.Flatten,
    }
    if layer == "AdaptiveAvgPool2d":
        return nn.AdaptiveAvgPool2D(1)
    return plain[layer]() if layer in plain else None


class Net(nn.Layer):
    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__()
        self.order = [(node["layer"], node["in"], f"n{k}") for k, node in enumerate(document["nodes"])]
        for (_, _, name), node in zip(self.order, document["nodes"], strict=True):
            layer = made(node)
            if layer is not None:
                self.add_sublayer(name, layer)
        self.result = document["outputs"][0]

    def forward(self, x: Any) -> Any:
        values = [x]
        for layer, inputs, name in self.order:
            if layer == "Add":
                values.append(values[inputs[0]] + values[inputs[1]])
            elif layer == "Mul":
                values.append(values[inputs[0]] * values[inputs[1]])
            elif layer in ("Identity", "Dropout"):
                values.append(values[inputs[0]])
            else:
                values.append(getattr(self, name)(values[inputs[0]]))
        return values[self.result]


def load(net: Net, document: dict[str, Any], weights: dict[str, Any]) -> None:
    """Puts our weights in place; every one must be used."""
    theirs = {"running_mean": "_mean", "running_var": "_variance"}
    state: dict[str, Any] = {}
    used = set()
    for k, node in enumerate(document["nodes"]):
        for name in [n for n in weights if n.rpartition(".")[0] == node["name"]]:
            part = name.rpartition(".")[2]
            value = weights[name].T if node["layer"] == "Linear" else weights[name]
            if node["layer"] not in ("Conv2d", "BatchNorm2d", "Linear"):
                continue
            state[f"n{k}.{theirs.get(part, part)}"] = paddle.to_tensor(np.ascontiguousarray(value))
            used.add(name)
    missing, unexpected = net.set_state_dict(state)
    if missing or unexpected or used != set(weights):
        raise SystemExit(f"peer: weights do not fit: {missing[:5]} {unexpected[:5]}")


def training(net: Net, x: Any, y: Any, static: bool) -> Callable[[], float]:
    optimizer = paddle.optimizer.Momentum(
        cases.LR, cases.MOMENTUM, parameters=net.parameters(), weight_decay=cases.WEIGHT_DECAY
    )
    criterion = nn.CrossEntropyLoss()
    call = paddle.jit.to_static(net, full_graph=True) if static else net

    def step() -> float:
        loss = criterion(call(x), y)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)

    return step


def prepare(command: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    paddle.set_device("cpu")
    with open(command["graph"], encoding="utf-8") as file:
        document = json.load(file)
    net = Net(document)
    with np.load(command["weights"]) as file:
        load(net, document, dict(file))
    with np.load(command["batch"]) as file:
        x, y = paddle.to_tensor(file["x"]), paddle.to_tensor(file["y"])
    static = "static" in command["configuration"]
    facts = {"version": f"paddle {paddle.__version__}"}
    if command["work"] == "train":
        net.train()
        return training(net, x, y, static), facts
    net.eval()
    call = paddle.jit.to_static(net, full_graph=True) if static else net

    def forward() -> Any:
        with paddle.no_grad():
            return call(x).numpy()

    return forward, facts


if __name__ == "__main__":
    worker.serve(prepare)
