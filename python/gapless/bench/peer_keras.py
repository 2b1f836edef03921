"""Keras' side of a benchmark, on TensorFlow: the same net out of Keras' layers, weights, batch and update.

Built from the graph that our side wrote. Channels last, the only layout whose gradients TensorFlow has on
CPUs; the step is one tf.function, plain or compiled by XLA. Imports nothing of gapless.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import cases
import keras
import numpy as np
import tensorflow as tf
import worker
from keras import layers


def pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def padded(x: Any, padding: Any) -> Any:
    """Torch pads both sides alike; Keras' "same" does not where the stride is 2."""
    return layers.ZeroPadding2D(pair(padding))(x) if any(pair(padding)) else x


def convolution(node: dict[str, Any], x: Any, weights: dict[str, Any], later: list[Any]) -> Any:
    config, name = node["config"], node["name"]
    kernel = weights[f"{name}.weight"].transpose(2, 3, 1, 0)  # h, w, in / groups, out
    bias = [weights[f"{name}.bias"]] if config["bias"] else []
    common = {"strides": pair(config["stride"]), "use_bias": bool(bias)}
    if config["groups"] == config["in_channels"] == config["out_channels"] > 1:
        layer = layers.DepthwiseConv2D(pair(config["kernel_size"]), **common)
        kernel = kernel.transpose(0, 1, 3, 2)
    else:
        layer = layers.Conv2D(
            config["out_channels"], pair(config["kernel_size"]), groups=config["groups"], **common
        )
    later.append((layer, [kernel, *bias]))
    return layer(padded(x, config["padding"]))


def norm(node: dict[str, Any], x: Any, weights: dict[str, Any], later: list[Any]) -> Any:
    config = node["config"]
    layer = layers.BatchNormalization(momentum=1 - config["momentum"], epsilon=config["eps"])
    parts = ("weight", "bias", "running_mean", "running_var")
    later.append((layer, [weights[f"{node['name']}.{part}"] for part in parts]))
    return layer(x)


def linear(node: dict[str, Any], x: Any, weights: dict[str, Any], later: list[Any]) -> Any:
    bias = [weights[f"{node['name']}.bias"]] if node["config"]["bias"] else []
    layer = layers.Dense(node["config"]["out_features"], use_bias=bool(bias))
    later.append((layer, [weights[f"{node['name']}.weight"].T, *bias]))
    return layer(x)


def max_pool(config: dict[str, Any], x: Any) -> Any:
    """Behind a ReLU a zero pads as well as minus infinity."""
    stride = config.get("stride")
    window = pair(config["kernel_size"])
    return layers.MaxPooling2D(window, window if stride is None else pair(stride))(
        padded(x, config["padding"])
    )


def flatten(x: Any) -> Any:
    """In torch's order: channels first."""
    return layers.Flatten()(layers.Permute((3, 1, 2))(x) if len(x.shape) == 4 else x)


def plain(layer: str, config: dict[str, Any], x: list[Any]) -> Any:
    """Layers without weights."""
    if layer == "Add":
        return layers.Add()(x)
    if layer == "Mul":
        return layers.Multiply()(x)
    if layer == "MaxPool2d":
        return max_pool(config, x[0])
    if layer == "AdaptiveAvgPool2d":
        return layers.GlobalAveragePooling2D(keepdims=True)(x[0])
    if layer == "Flatten":
        return flatten(x[0])
    if layer in ("Identity", "Dropout"):
        return x[0]
    names = {"ReLU": "relu", "ReLU6": "relu6", "Hardswish": "hard_swish", "Hardsigmoid": "hard_sigmoid"}
    return layers.Activation(names[layer])(x[0])


def build(document: dict[str, Any], weights: dict[str, Any]) -> keras.Model:
    channels, height, width = document["input"]
    values = [keras.Input((height, width, channels))]
    own = {"Conv2d": convolution, "BatchNorm2d": norm, "Linear": linear}
    later: list[Any] = []
    for node in document["nodes"]:
        x = [values[v] for v in node["in"]]
        make = own.get(node["layer"])
        values.append(make(node, x[0], weights, later) if make else plain(node["layer"], node["config"], x))
    model = keras.Model(values[0], values[document["outputs"][0]])
    for layer, arrays in later:
        layer.set_weights(arrays)
    return model


def training(model: keras.Model, x: Any, y: Any, xla: bool) -> Callable[[], float]:
    optimizer = keras.optimizers.SGD(cases.LR, momentum=cases.MOMENTUM)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=xla)
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = criterion(y, model(x, training=True))
        weights = model.trainable_variables
        found = tape.gradient(loss, weights)
        # the optimizer's own weight decay is another one: not in the gradient
        optimizer.apply_gradients(
            [(g + cases.WEIGHT_DECAY * w, w) for g, w in zip(found, weights, strict=True)]
        )
        return loss

    return lambda: float(step())


def prepare(command: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    tf.config.threading.set_intra_op_parallelism_threads(command["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    xla = "xla" in command["configuration"]
    with open(command["graph"], encoding="utf-8") as file:
        document = json.load(file)
    with np.load(command["weights"]) as file:
        model = build(document, dict(file))
    with np.load(command["batch"]) as file:
        x, y = tf.constant(file["x"].transpose(0, 2, 3, 1)), tf.constant(file["y"])
    facts = {"version": f"keras {keras.__version__}, tensorflow {tf.__version__}"}
    if command["work"] == "train":
        return training(model, x, y, xla), facts
    call = tf.function(lambda: model(x, training=False), jit_compile=xla)
    return lambda: call().numpy(), facts


if __name__ == "__main__":
    worker.serve(prepare)
